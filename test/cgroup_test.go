package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatecrew/procpool"
	"gatecrew/test/harness"
)

// Each pool and route has its own control group where it asks for one. They go
// with the gateway, however it ends; a limit that can't be had is said, and the
// pool is served.
func TestControlGroups(t *testing.T) {
	probe, err := procpool.NewCgroup("probe", procpool.CgroupLimits{})
	if err != nil {
		t.Skip("it needs a control group that this process may divide, which only who runs the tests can give it: ", err)
	}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script(t, dir, "group.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; cat /proc/self/cgroup\n")
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 1, cgroup: {memory_max: 1g}}
sites:
  - routes:
      - {path: /pool, pool: probe}
      - {path: /cgi, cgi: {dir: %q, cgroup: {}}}
`, harness.App(t), harness.Python(t), dir)))
	groups := func() (found []string) {
		for _, p := range harness.Descendants(g.PID) {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
			if _, path, ok := strings.Cut(string(text), "0::"); ok && strings.Contains(path, "gatecrew.pool.probe.") {
				found = append(found, strings.TrimSpace(strings.SplitN(path, "\n", 2)[0]))
			}
		}
		return found
	}
	g.Start()
	inside := groups()
	if len(inside) != 1 {
		t.Fatalf("the groups of the workers: %v", inside)
	}
	if r := g.Get("/pool/token?x=1"); r.Body != "1" {
		t.Errorf("got %+v", r)
	}
	if r := g.Get("/cgi/group.sh"); !strings.Contains(r.Body, "/gatecrew.route.") {
		t.Errorf("a script is in %s", r.Body)
	}
	mounted, _ := filepath.Glob("/sys/fs/cgroup*/unified" + inside[0])
	plain, _ := filepath.Glob("/sys/fs/cgroup" + inside[0])
	mounted = append(mounted, plain...)
	if len(mounted) != 1 {
		t.Fatalf("the group's folder: %v", mounted)
	}
	limit, err := os.ReadFile(filepath.Join(mounted[0], "memory.max"))
	if err != nil {
		g.LogLine("can't limit memory")
	} else if string(limit) != "1073741824\n" {
		t.Errorf("memory.max is %s", limit)
	}
	g.Kill9()
	harness.Eventually(t, 2*time.Second, "the group is gone with its gateway", func() bool {
		_, err := os.Stat(mounted[0])
		return os.IsNotExist(err)
	})
}
