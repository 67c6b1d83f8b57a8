package procpool

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestWarmPackets(t *testing.T) {
	got := strings.Split(string(appendRun(nil, 7, []string{"script", "", "b=c"}, []string{"A=1", "EMPTY=", "B=x=y"})), "\x00")
	if want := []string{"run", "7", "3", "script", "", "b=c", "A", "1", "EMPTY", "", "B", "x=y"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	start := strings.Split(string(appendStart(nil, 4, "stdlib", true, []string{"a.b", "c"})), "\x00")
	if !slices.Contains(start, "spares=4") || !slices.Contains(start, "module=a.b") || !slices.Contains(start, "layer=1") || start[0] != "start" {
		t.Errorf("%q", start)
	}
	for packet, want := range map[string]warmPacket{
		"started\x005\x00123": {kind: "started", id: 5, pid: 123}, "failed\x005\x00a reason": {kind: "failed", id: 5, text: "a reason"},
		"refuse\x00why": {kind: "refuse", text: "why"}, "other\x00x": {kind: "other"}, "": {},
	} {
		if p, err := parseWarm([]byte(packet)); err != nil || p.kind != want.kind || p.id != want.id || p.pid != want.pid || p.text != want.text {
			t.Errorf("%q: %+v, %v", packet, p, err)
		}
	}
	for _, packet := range []string{"started", "started\x00", "started\x005", "started\x005\x00", "started\x005\x001", "started\x00-5\x007", "failed\x00x\x00y", "started\x005\x007\x008"} {
		if p, err := parseWarm([]byte(packet)); err == nil {
			t.Errorf("%q: %+v", packet, p)
		}
	}
	if p, err := parseWarm([]byte("ready\x00watch=/a b\x00name=x")); err != nil || !slices.Equal(p.fields, []string{"watch=/a b", "name=x"}) {
		t.Errorf("%+v, %v", p, err)
	}
}

// Whatever a zygote sends is understood or refused, and what is understood as
// an answer names a request and a process.
func FuzzWarmPackets(f *testing.F) {
	for _, packet := range []string{"started\x005\x00123", "failed\x005\x00x", "ready\x00watch=/x", "learned\x00a\x00b", "refuse\x00x", "\x00\x00"} {
		f.Add([]byte(packet))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseWarm(b)
		if err != nil {
			return
		}
		if p.kind == "started" {
			if p.pid <= 1 {
				t.Fatalf("%q: process %d", b, p.pid)
			}
			if again, err := parseWarm([]byte("started\x00" + strconv.FormatUint(p.id, 10) + "\x00" + strconv.Itoa(p.pid))); err != nil || again.id != p.id || again.pid != p.pid {
				t.Fatalf("%q: %+v, then %+v, %v", b, p, again, err)
			}
		}
	})
}
