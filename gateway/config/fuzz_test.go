package config

import (
	"errors"
	"path/filepath"
	"testing"
)

func FuzzLoad(f *testing.F) {
	dir := fixture(f)
	for _, seed := range []string{
		"", serving, "a: &a [*a]\nb: *a", "pools: &p\n  <<: *p", "sites: [&s {routes: [*s]}, *s]", "? [a]\n: b",
		"listen: !!str x\n", "limits:\n  max_body: 0x10\n  body_timeout: .inf\n", "log: {level: \"\\0\"}", "--- |\n text", "<<: {a: b}",
		"pools: {a: &x {app: app.py}, b: {<<: [*x, {threads: 2}]}}\n" + serving, "%YAML 1.2\n---\n- a", "- ? : -", "a:\n\t- b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := load("gatecrew.yaml", filepath.Join(dir, "gatecrew.yaml"), data, nil)
		var faults Faults
		switch {
		case err == nil && cfg == nil:
			t.Fatal("neither a configuration nor a fault")
		case err != nil && (!errors.As(err, &faults) || len(faults) == 0 || cfg != nil):
			t.Fatalf("got %v, %v", cfg, err)
		case err == nil && len(cfg.Sites) == 0:
			t.Fatal("a configuration that serves nothing")
		case err == nil:
			text, err := cfg.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := load("gatecrew.yaml", filepath.Join(dir, "gatecrew.yaml"), text, nil); err != nil {
				t.Fatalf("what was printed is not read back: %v\n%s", err, text)
			}
		}
	})
}
