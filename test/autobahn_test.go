package test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// The Autobahn test suite plays a client that knows RFC 6455 and RFC 7692 by
// heart. Nothing it tries may fail. Non-strict may be a few cases in which a
// message is followed at once by a frame that breaks the rules, when the
// application needs longer than usual for the echo: the suite would like to have it first.
func TestAutobahn(t *testing.T) {
	t.Parallel()
	g := harness.New(t, "run", "asgi_echo:app", "--chdir", harness.App(t), "--python", harness.Python(t), "--workers", "2", "--access-log", "off")
	cases, whole := []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "7.1.*", "10.*"}, 74
	if soak { // limits and compression count the bytes and the time
		g.Binary = harness.BuildPlain(t)
		cases, whole = []string{"*"}, 517
	}
	g.Start()
	report := autobahn(t, "ws://"+g.Addr+"/", cases, scaled(2*time.Minute, time.Hour))
	if len(report) != whole {
		t.Errorf("%d cases ran, want %d", len(report), whole)
	}
	count := map[string]int{}
	for _, id := range slices.Sorted(maps.Keys(report)) {
		c := report[id]
		// Of an ending without a closing handshake, and the like.
		behavior := c.Behavior
		if behavior == "OK" && c.BehaviorClose != "OK" && c.BehaviorClose != "INFORMATIONAL" {
			behavior = "FAILED"
		}
		count[behavior]++
		switch behavior {
		case "OK", "INFORMATIONAL":
		case "NON-STRICT":
			t.Logf("case %s is non-strict: %s", id, c.Result)
		default:
			t.Errorf("case %s: %s, at the close %s, with code %v: %s", id, c.Behavior, c.BehaviorClose, c.Code, c.Result)
		}
	}
	t.Logf("%d cases: %v", len(report), count)
	if n := count["NON-STRICT"]; n > maxNonStrict {
		t.Errorf("%d cases are non-strict, at most %d may be", n, maxNonStrict)
	}
}

// maxNonStrict is how many cases uvicorn has of the whole suite.
const maxNonStrict = 9

// autobahnCase is what the suite found in one case.
type autobahnCase struct {
	Behavior      string // OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, WRONG CODE, UNCLEAN, FAILED
	BehaviorClose string // the same, of the closing handshake
	Code          any    `json:"remoteCloseCode"` // that the server sent; nil when there was none
	Report        string `json:"reportfile"`
	Result        string // in words; of cases that are not OK only
}

// autobahn runs cases of the suite ("1.*", "6.4.2", "*") against a server that
// echoes, and returns what it found by the number of the case.
func autobahn(t *testing.T, url string, cases []string, within time.Duration) map[string]autobahnCase {
	t.Helper()
	wstest := filepath.Join(harness.Root(t), ".build", "autobahn", "bin", "wstest")
	if _, err := os.Stat(wstest); err != nil {
		t.Fatalf("%v; make it with test/setup.sh", err)
	}
	dir := t.TempDir()
	spec, err := json.Marshal(map[string]any{
		"outdir": dir, "cases": cases, "exclude-cases": []string{}, "exclude-agent-cases": map[string]any{},
		"servers": []any{map[string]any{"agent": "server", "url": url}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, wstest, "-m", "fuzzingclient", "-s", harness.WriteFile(t, "spec.json", string(spec)))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil { // it exits 0 whatever it finds
		t.Fatalf("wstest: %v; at the end it said %s", err, out[max(0, len(out)-4000):])
	}
	var index struct {
		Server map[string]autobahnCase
	}
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	for id, c := range index.Server {
		if c.Behavior != "OK" || c.BehaviorClose != "OK" {
			readJSON(t, filepath.Join(dir, c.Report), &c)
			index.Server[id] = c
		}
	}
	return index.Server
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
