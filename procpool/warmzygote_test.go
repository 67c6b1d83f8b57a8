package procpool

import (
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// A zygote dies when one of its children has begun with a request and another
// request has been taken by nobody. The first must not be taken for one that has
// not run, else it would be run twice.
func TestWarmStartedBeforeTheEnd(t *testing.T) {
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	z := &warmZygote{conn: conn, pending: make(map[uint64]chan warmPacket)}
	_, begun := z.enter()
	_, untaken := z.enter()
	if _, err := conn.Write([]byte("run")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(theirs, []byte("started\x001\x00123")); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(theirs)
	z.listen(warmEvents{}, zap.NewNop())
	if p := <-begun; p.kind != "started" || p.pid != 123 {
		t.Errorf("%+v of the request that has begun", p)
	}
	if p := <-untaken; p.kind != "failed" {
		t.Errorf("%+v of the one that nobody has taken", p)
	}
	if _, answer := z.enter(); answer != nil {
		t.Error("takes another request")
	}
}
