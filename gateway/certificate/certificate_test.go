package certificate

import (
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, c := range []struct {
		lifetime, left time.Duration
		want           due
	}{
		{90 * day, 31 * day, later}, // certbot renews at 30
		{90 * day, 16 * day, later},
		{90 * day, 14 * day, soon},
		{365 * day, 40 * day, later},
		{365 * day, 29 * day, soon},
		{6 * day, 2 * day, later},
		{6 * day, 20 * time.Hour, soon},
		{90 * day, 0, expired},
		{90 * day, -day, expired},
	} {
		e := Expiry{File: "x", From: now.Add(c.left - c.lifetime), At: now.Add(c.left)}
		if got := e.due(now); got != c.want {
			t.Errorf("%v of %v left: %v, want %v", c.left, c.lifetime, got, c.want)
		}
	}
}
