package test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"gatecrew/scripts"
	"gatecrew/test/harness"
)

// TestCExtension: the workers of the built binary have the C extension that is
// carried in it, unless it was built without, and the log says which one runs.
func TestCExtension(t *testing.T) {
	_, err := fs.Stat(scripts.Worker, "gatecrew_worker/_speed.abi3.so")
	carried := err == nil
	configured := func(choice string) *harness.Gateway {
		path := harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
pools: {web: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 1, c_extension: %s}}
sites: [{routes: [{path: /, pool: web}]}]
`, harness.App(t), harness.Python(t), choice))
		return harness.New(t, "serve", "-c", path)
	}
	t.Run("off", func(t *testing.T) {
		g := configured("off").Start()
		g.LogLine("pure Python runs: the C extension is off")
		if r := g.Get("/"); r.Status >= 500 {
			t.Errorf("status %d", r.Status)
		}
	})
	t.Run("auto", func(t *testing.T) {
		want := "the C extension runs"
		if !carried {
			want = "pure Python runs, without the C extension: this gatecrew was built without it"
		}
		g := configured("auto").Start()
		g.LogLine(want)
		if r := g.Get("/"); r.Status >= 500 {
			t.Errorf("status %d", r.Status)
		}
	})
	t.Run("require", func(t *testing.T) {
		g := harness.New(t, "run", "wsgi_probe:application", "--chdir", harness.App(t), "--python", harness.Python(t),
			"--workers", "1", "--c-extension", "require")
		if carried {
			g.Start().LogLine("the C extension runs")
			return
		}
		g.Launch()
		if !g.Wait(20*time.Second) || g.ExitCode() != 3 {
			t.Fatal("it did not end with status 3")
		}
		if !strings.Contains(g.Stderr(), "next step: build it where a C compiler and Python.h are") {
			t.Errorf("what to do is not said:\n%s", g.Stderr())
		}
	})
}
