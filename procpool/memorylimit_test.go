package procpool

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestGroupMemoryLimit(t *testing.T) {
	write := func(dir string, files map[string]string) {
		t.Helper()
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	v2, v1 := t.TempDir(), t.TempDir()
	write(v2, map[string]string{
		"cgroup.controllers":       "memory\n",
		"pod/cgroup.controllers":   "memory\n",
		"pod/memory.max":           "536870912\n",
		"pod/a/cgroup.controllers": "memory\n",
		"pod/a/memory.max":         "max\n",
		"b/cgroup.controllers":     "memory\n",
		"b/memory.max":             "1073741824\n",
	})
	write(v1, map[string]string{
		"docker/c/memory.stat": "cache 1\nhierarchical_memory_limit 268435456\n",
		"memory.stat":          "hierarchical_memory_limit 9223372036854771712\n",
	})
	two := fmt.Sprintf("30 24 0:26 / %s rw - cgroup2 cgroup2 rw\n", v2)
	one := fmt.Sprintf("36 24 0:31 / %s rw - cgroup cgroup rw,memory\n", v1)
	own := fmt.Sprintf("36 24 0:31 /docker/c %s/docker/c rw - cgroup cgroup rw,memory\n", v1)
	for _, c := range []struct {
		name, cgroup, mounts string
		want                 int64
	}{
		{"of a group", "0::/b\n", two, 1 << 30},
		{"of the group above", "0::/pod/a\n", two, 512 << 20},
		{"none", "0::/\n", two, 0},
		{"version 1", "4:memory:/docker/c\n", one, 256 << 20},
		{"version 1, only its own part is mounted", "4:cpu,memory:/docker/c\n", own, 256 << 20},
		{"version 1, seen as the root", "4:memory:/\n", own, 256 << 20},
		{"version 1, none", "4:memory:/\n", one, 0},
		{"both", "4:memory:/docker/c\n0::/b\n", one + two, 256 << 20},
		{"nothing mounted", "0::/b\n", "", 0},
	} {
		if got := groupMemoryLimit(c.cgroup, c.mounts); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if limit, _ := MemoryLimit(); limit < 64<<20 {
		t.Errorf("this machine: %d bytes", limit)
	}
}
