package listen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// asServer names the address on which a copy of the test binary listens until
// it is killed.
const asServer = "LISTEN_TEST_ADDR"

func TestMain(m *testing.M) {
	if addr := os.Getenv(asServer); addr != "" {
		l, err := Listen(addr)
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("ready", URL(l, false))
		err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other process") }))
		fmt.Println("error:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// start runs another process that listens on addr and returns its first line.
func start(t *testing.T, addr string, files ...*os.File) (cmd *exec.Cmd, line string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asServer+"="+addr)
	cmd.ExtraFiles = files
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the other process said %q: %v", line, err)
	}
	return cmd, strings.TrimSpace(line)
}

// kill is kill -9; it may come twice.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func mustListen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// answers checks that a connection made to l's address is one l accepts.
func answers(t *testing.T, l net.Listener) {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(s, "hello")
	_ = s.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, error %v", got, err)
	}
}

// fails checks that Listen fails and says each of the words.
func fails(t *testing.T, addr string, words ...string) {
	t.Helper()
	l, err := Listen(addr)
	if err == nil {
		_ = l.Close()
		t.Errorf("Listen(%q) worked", addr)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Listen(%q): %q does not say %q", addr, err, w)
		}
	}
}

func TestTCP(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", ":0", "[::1]:0"} {
		l := mustListen(t, addr)
		answers(t, l)
	}
}

func TestTCPFaults(t *testing.T) {
	l := mustListen(t, "127.0.0.1:0")
	fails(t, l.Addr().String(), l.Addr().String(), "in use", "another process listens there", "--bind")
	fails(t, "192.0.2.1:0", "not an address of this machine")
	fails(t, "no-such-host.invalid:0", "can't be resolved")
	fails(t, "127.0.0.1:99999", "127.0.0.1:99999")
	for _, addr := range []string{"", "8000", "localhost", "1:2:3", "/run/x.sock"} {
		fails(t, addr, "HOST:PORT", "unix:PATH")
	}
}

func TestURL(t *testing.T) {
	for _, c := range []struct {
		addr net.Addr
		tls  bool
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8000}, false, "http://127.0.0.1:8000/"},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, true, "https://192.0.2.1:443/"},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 80}, false, "http://[::1]:80/"},
		{&net.TCPAddr{IP: net.IPv6zero, Port: 80}, false, "http://127.0.0.1:80/"},
		{&net.TCPAddr{IP: net.IPv4zero, Port: 80}, false, "http://127.0.0.1:80/"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 80}, false, "http://[fe80::1%25eth0]:80/"},
		{&net.UnixAddr{Net: "unix", Name: "/run/app.sock"}, true, "unix:/run/app.sock"},
	} {
		if got := URL(at{addr: c.addr}, c.tls); got != c.want {
			t.Errorf("%v: %s, want %s", c.addr, got, c.want)
		}
	}
	l := mustListen(t, ":0")
	go func() {
		_ = http.Serve(l, http.NotFoundHandler())
	}()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(URL(l, false))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// at is a listener that has an address and nothing else.
type at struct {
	net.Listener
	addr net.Addr
}

func (l at) Addr() net.Addr { return l.addr }

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "listen") // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestUnix(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, "unix:"+path)
	answers(t, l)
	if got := URL(l, false); got != "unix:"+path {
		t.Errorf("URL: %s", got)
	}
	for range 2 {
		_ = l.Close()
	}
	if exists(path) {
		t.Error("Close left the socket")
	}
}

func TestUnixModeUnderEveryUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		path := socketPath(t)
		old := unix.Umask(mask)
		l, err := Listen("unix:" + path)
		unix.Umask(old)
		if err != nil {
			t.Fatalf("umask %#o: %v", mask, err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm() != socketMode {
			t.Errorf("umask %#o: mode %v, error %v", mask, info.Mode(), err)
		}
		_ = l.Close()
	}
}

// The mode is narrow from the first moment on: bind itself makes the file with
// it, although the umask would allow everybody.
func TestUnixModeIsSetBeforeBind(t *testing.T) {
	path := socketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := narrow(uintptr(fd)); err != nil {
		t.Fatal(err)
	}
	old := unix.Umask(0)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestUnixInUse(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, "unix:"+path)
	fails(t, "unix:"+path, path, "in use by a running server", "--bind")
	if _, line := start(t, "unix:"+path); !strings.Contains(line, "in use by a running server") {
		t.Errorf("another process: %s", line)
	}
	// The attempts did no harm. What they connected is in the backlog.
	for range 2 {
		if c, err := l.Accept(); err == nil {
			_ = c.Close()
		}
	}
	answers(t, l)
}

func TestUnixFullBacklogIsInUse(t *testing.T) {
	path := socketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // takes the only place
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fails(t, "unix:"+path, "in use by a running server")
	if !exists(path) {
		t.Error("the socket of a busy server was removed")
	}
}

func TestUnixStaleAfterKill(t *testing.T) {
	path := socketPath(t)
	cmd, line := start(t, "unix:"+path)
	if line != "ready unix:"+path {
		t.Fatalf("the other process said %q", line)
	}
	fails(t, "unix:"+path, "in use by a running server")
	kill(cmd)
	if !exists(path) {
		t.Fatal("the killed process left no socket: this test shows nothing")
	}
	answers(t, mustListen(t, "unix:"+path))
}

// Whatever starts at once on a stale socket, exactly one listens, and its
// socket is the one that has the name.
func TestUnixManyStartOnAStaleSocket(t *testing.T) {
	for range 50 {
		path := socketPath(t)
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		_ = stale.Close()
		var mu sync.Mutex
		var won []net.Listener
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				l, err := Listen("unix:" + path)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, l)
				} else if !strings.Contains(err.Error(), "in use by a running server") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listen on one path", len(won))
		}
		now, err := os.Lstat(path)
		if err != nil || !os.SameFile(now, won[0].(*unixListener).inode) {
			t.Fatalf("the name is another's: %v", err)
		}
		_ = won[0].Close()
	}
}

func TestUnixNeverRemovesWhatIsNoSocket(t *testing.T) {
	path := socketPath(t)
	target := path + ".target"
	for name, make := range map[string]func() error{
		"file":      func() error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
		"fifo":      func() error { return unix.Mkfifo(path, 0o600) },
		"link":      func() error { return os.Symlink(target, path) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		fails(t, "unix:"+path, path, "not a socket")
		after, err := os.Lstat(path)
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: removed or replaced: %v", name, err)
		}
		_ = os.Remove(path)
	}
}

func TestUnixCloseLeavesAnothersSocket(t *testing.T) {
	path := socketPath(t)
	first := mustListen(t, "unix:"+path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := mustListen(t, "unix:"+path)
	_ = first.Close()
	answers(t, second)
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
	if !exists(path) {
		t.Error("Close removed a file that is not its socket")
	}
}

func TestUnixFaults(t *testing.T) {
	fails(t, "unix:", "path")
	fails(t, "unix:@abstract", "path")
	fails(t, "unix:/"+strings.Repeat("x", 200), "shorter")
	missing := filepath.Join(t.TempDir(), "missing", "s")
	fails(t, "unix:"+missing, missing, "directory")
	if _, err := Listen("unix:" + missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestClaimIsGivenBackAndBounded(t *testing.T) {
	path := socketPath(t)
	release, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		l, err := Listen("unix:" + path)
		if err == nil {
			_ = l.Close()
		}
		done <- err
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "another process is starting there") {
		t.Errorf("while another holds the claim: %v", err)
	}
	release()
	mustListen(t, "unix:"+path)
}

func TestInherited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	url := URL(l, false)
	_ = l.Close()
	_, line := start(t, "fd://3", f)
	_ = f.Close()
	if line != "ready "+url {
		t.Fatalf("the other process said %q, want %q", line, "ready "+url)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || string(got) != "other process" {
		t.Errorf("got %q, error %v", got, err)
	}
}

func TestInheritedFaults(t *testing.T) {
	for _, addr := range []string{"fd://", "fd://x", "fd://-1", "fd://2"} {
		fails(t, addr, "3 or higher")
	}
	fails(t, "fd://999999", "no such descriptor")

	// What this process opened itself is left alone, also when it listens.
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = own.Close() }()
	raw, err := own.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { fails(t, "fd://"+strconv.Itoa(int(fd)), "not inherited") })
	answers(t, own)

	// What is no listening socket is not closed.
	for name, open := range map[string]func() (int, error){
		"file":   func() (int, error) { return unix.Open("/dev/null", unix.O_RDONLY, 0) },
		"socket": func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
	} {
		fd, err := open()
		if err != nil {
			t.Fatal(err)
		}
		fails(t, "fd://"+strconv.Itoa(fd), "not a listening socket")
		if err := unix.Close(fd); err != nil {
			t.Errorf("%s: the descriptor was closed: %v", name, err)
		}
	}
}
