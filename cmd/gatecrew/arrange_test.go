package main

import (
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"run app:app", "run -- app:app"},
		{"run app:app --workers 4", "run --workers 4 -- app:app"},
		{"run app:app --workers=4 -b :1", "run --workers=4 --bind :1 -- app:app"},
		{"run -w4 app:app", "run --workers=4 -- app:app"},
		{"run -e A=--bind app:app", "run --env A=--bind -- app:app"},
		{"run -eA=1 --env=B=2 app:app", "run --env=A=1 --env=B=2 -- app:app"},
		{"run --env --bind app:app", "run --env --bind -- app:app"},
		{"run app:app --no-replay x", "run --no-replay -- app:app x"},
		{"run -- --odd-name", "run -- --odd-name"},
		{"run app:app --workers", "run --workers"},
		{"run app:app -", "run -- app:app -"},
		{"run app:app -workers 4 -w=5", "run --workers 4 --workers=5 -- app:app"},
		{"run app:app --unknown 3", "run --unknown -- app:app 3"},
		{"serve y -c x", "serve --config x -- y"},
		{"help run", "help run"},
		{"run -h", "run -h --"},
		{"", ""},
	} {
		in := append([]string{"gatecrew"}, strings.Fields(c.in)...)
		before := slices.Clone(in)
		if got := strings.Join(arrange(in, newApp())[1:], " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.in, got, c.want)
		}
		if !slices.Equal(in, before) {
			t.Errorf("%s: the arguments were changed to %q", c.in, in)
		}
	}
}
