package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/procpool/confine"
	"gatecrew/test/harness"
)

// needRoot ends a test of what only root can ask for.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run applications as another user; run it as root")
	}
}

// needLandlock ends a test of what only a kernel with Landlock gives.
func needLandlock(t *testing.T) {
	t.Helper()
	if err := confine.LandlockError(); err != nil {
		t.Skip("it needs a kernel with Landlock, without which a gateway that is to use it does not start: ", err)
	}
}

// publicDir is a folder that every user can read, with the application of these
// tests in it: as confined.py, and as a script of the folder cgi.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gatecrew-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	app, err := os.ReadFile(harness.App(t, "confined.py"))
	if err != nil {
		t.Fatal(err)
	}
	script := append([]byte("#!"+systemPython(t)+"\n"), app...)
	if err := errors.Join(
		os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "cgi"), 0o755),
		os.WriteFile(filepath.Join(dir, "confined.py"), app, 0o644),
		os.WriteFile(filepath.Join(dir, "cgi", "confined.py"), script, 0o755),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// systemPython is an interpreter that every user can run.
func systemPython(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("/usr/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	return python
}

// confinedReport is what confined.py tells.
type confinedReport struct {
	UID, GID, Groups []int
	Umask, NNP       string
	Nice             int
	CPUs             []int
	Leader           bool `json:"group leader"`
	Nofile           []int
	Env              map[string]string
	Cwd              string
	Root             []string
	Descriptors      map[string]string
	Read, Write      string
	Take             any
}

func askConfined(t *testing.T, g *harness.Gateway, path string) (r confinedReport) {
	t.Helper()
	answer := g.Get(path)
	if answer.Status != 200 {
		t.Fatalf("%s: %+v\n%s", path, answer, g.Stderr())
	}
	if err := json.Unmarshal([]byte(answer.Body), &r); err != nil {
		t.Fatalf("%s: %v", answer.Body, err)
	}
	return r
}

// A pool, with and without preloading, a program and a CGI script, with everything that
// can be asked for at once.
func TestConfinedApplications(t *testing.T) {
	needRoot(t)
	needLandlock(t)
	dir := publicDir(t)
	outside, writable := filepath.Join(dir, "outside"), filepath.Join(dir, "writable")
	if err := errors.Join(os.WriteFile(outside, []byte("secret\n"), 0o644), os.Mkdir(writable, 0o777), os.Chmod(writable, 0o777), os.Mkdir(filepath.Join(dir, "app"), 0o755),
		os.Rename(filepath.Join(dir, "confined.py"), filepath.Join(dir, "app", "confined.py"))); err != nil {
		t.Fatal(err)
	}
	cpus, err := confine.CPUs()
	if err != nil {
		t.Fatal(err)
	}
	limits := fmt.Sprintf(`user: nobody, umask: "027", nice: 2, cpus: [%d], no_new_privileges: true, rlimits: {nofile: 64, core: 0, as: 1g}, landlock: {writable: [%s]}`, cpus[0], writable)
	pool := fmt.Sprintf("app: 'confined:application', chdir: %s, python: %s, workers: 1, env: {PYTHONDONTWRITEBYTECODE: '1'}, %s", filepath.Join(dir, "app"), systemPython(t), limits)
	g := harness.Serve(t, fmt.Sprintf(`
pools:
  plain: {%s}
  preloaded: {%s, preload: true}
programs:
  beside: {command: [sh, -c, 'id -u >%s; cat %s; exec sleep 300'], chdir: /, %s}
sites:
  - routes:
      - {path: /plain, pool: plain}
      - {path: /preloaded, pool: preloaded}
      - {path: /cgi, cgi: {dir: %s, %s}}
`, pool, pool, filepath.Join(writable, "program"), outside, limits, filepath.Join(dir, "cgi"), limits))
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	niceness, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.LogLine("cat: " + outside + ": Permission denied")
	harness.Eventually(t, 10*time.Second, "the program has told its user", func() bool {
		told, _ := os.ReadFile(filepath.Join(writable, "program"))
		return string(told) == nobody.Uid+"\n"
	})
	for _, path := range []string{"/plain", "/preloaded", "/cgi/confined.py"} {
		r := askConfined(t, g, path+"?read="+outside+"&write="+filepath.Join(writable, "file")+"&take=4000000000")
		if !slices.Equal(r.UID, []int{uid, uid, uid}) || !slices.Equal(r.GID, []int{gid, gid, gid}) || slices.Contains(r.Groups, 0) {
			t.Errorf("%s: user %v, group %v, groups %v", path, r.UID, r.GID, r.Groups)
		}
		if r.Umask != "0027" || r.NNP != "1" || r.Nice != 20-niceness+2 || !slices.Equal(r.CPUs, cpus[:1]) || !slices.Equal(r.Nofile, []int{64, 64}) || !r.Leader {
			t.Errorf("%s: %+v", path, r)
		}
		if r.Read != "PermissionError" || r.Write != "written" || r.Take != "MemoryError" {
			t.Errorf("%s: read %s, write %s, take %v", path, r.Read, r.Write, r.Take)
		}
		if r.Env["HOME"] != nobody.HomeDir || r.Env["USER"] != "nobody" || r.Env["LOGNAME"] != "nobody" {
			t.Errorf("%s: HOME %s, USER %s, LOGNAME %s", path, r.Env["HOME"], r.Env["USER"], r.Env["LOGNAME"])
		}
		ends := map[string]int{}
		for _, what := range r.Descriptors {
			ends[what]++
		}
		dumps := 0 // pipes to the gateway beside standard output and error: a worker has one for its dumps
		for fd, what := range r.Descriptors {
			n, _ := strconv.Atoi(fd)
			pipe := strings.HasPrefix(what, "pipe:")
			if n > 2 && pipe && ends[what] == 1 {
				dumps++
			} else if n > 2 && !pipe && !strings.HasPrefix(what, "socket:") {
				t.Errorf("%s: descriptor %s is %s", path, fd, what)
			}
		}
		if cgi := strings.HasPrefix(path, "/cgi"); dumps > 1 || cgi && dumps > 0 {
			t.Errorf("%s: %d pipes lead out: %v", path, dumps, r.Descriptors)
		}
		if info, err := os.Stat(filepath.Join(writable, "file")); err != nil || info.Mode().Perm() != 0o640 || info.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
			t.Errorf("%s: what it wrote: %v, %v", path, info, err)
		}
		os.Remove(filepath.Join(writable, "file"))
	}
}

// Limits of a script's processor time and memory end the script and nothing
// else.
func TestConfinedCGILimits(t *testing.T) {
	dir := publicDir(t)
	g := harness.Serve(t, fmt.Sprintf(`
sites:
  - routes: [{path: /, cgi: {dir: %s, rlimits: {cpu: 1, as: 256m}}}]
`, filepath.Join(dir, "cgi")))
	begin := time.Now()
	if r := g.Get("/confined.py?spin=1"); r.Status != 502 {
		t.Errorf("endless: %+v", r)
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("ended after %v", took)
	}
	if r := askConfined(t, g, "/confined.py?take=400000000"); r.Take != "MemoryError" {
		t.Errorf("400 MB of 256: %v", r.Take)
	}
	if r := askConfined(t, g, "/confined.py?take=1000000"); r.Take != 1e6 {
		t.Errorf("1 MB of 256: %v", r.Take)
	}
}

// What another user can't read is said with the user and the path.
func TestConfinedUnreadableApplication(t *testing.T) {
	needRoot(t)
	dir := publicDir(t)
	private := filepath.Join(dir, "private")
	if err := errors.Join(os.Mkdir(private, 0o700), os.Rename(filepath.Join(dir, "confined.py"), filepath.Join(private, "confined.py"))); err != nil {
		t.Fatal(err)
	}
	g := harness.New(t, "run", filepath.Join(private, "confined.py"), "--python", systemPython(t), "--user", "nobody", "--chdir", dir).Launch()
	if !g.Wait(20*time.Second) || g.ExitCode() == 0 {
		t.Fatal("it was served")
	}
	if got := g.Stderr(); !strings.Contains(got, "open "+filepath.Join(private, "confined.py")+" as user nobody: permission denied") {
		t.Error(got)
	}
}

// What only root can have is refused to others before anything is started.
func TestConfinementNeedsRoot(t *testing.T) {
	needRoot(t) // to stop being it
	dir := publicDir(t)
	binary, err := os.ReadFile(harness.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "gatecrew")
	file := filepath.Join(dir, "gatecrew.yaml")
	if err := errors.Join(os.WriteFile(program, binary, 0o755), os.WriteFile(file, []byte(`
pools:
  app:
    app: confined:application
    user: root
    nice: 20
    cpus: [0, 1000]
    chroot: /
    rlimits: {nofile: unlimited, nproc: 1x, file: 5}
    umask: "888"
sites: [{routes: [{path: /, pool: app}, {path: /own, cgi: {dir: cgi, user: nobody}}]}]
`), 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "check", "-c", file)
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("no error")
	}
	for _, want := range []string{
		"pools.app.user: only root can start processes as another user (start gatecrew as root, or leave user out)",
		"pools.app.nice: 20 is no niceness",
		"pools.app.cpus[1]: there is no processor 1000 for the gateway (it may run on 0",
		"pools.app.chroot: only root can change the root folder",
		"pools.app.rlimits.nofile: only root can raise it above",
		`pools.app.rlimits.nproc: "1x" is not a number`,
		`pools.app.rlimits.file: there is no limit "file" (did you mean fsize?)`,
		`pools.app.umask: "888" is not a umask (write it in octal`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("nothing says %q", want)
		}
	}
	// It is this user already.
	if strings.Contains(string(out), "cgi.user") {
		t.Error("its own user is refused")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// pythonRoot makes a folder that Python can take for /.
func pythonRoot(t *testing.T) string {
	t.Helper()
	root := publicDir(t)
	python, err := filepath.EvalSymlinks(systemPython(t))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, "-c", "import sysconfig, _json, os; print(sysconfig.get_path('stdlib'))").Output()
	if err != nil {
		t.Fatal(err)
	}
	library := strings.TrimSpace(string(out))
	libraries := map[string]bool{python: true}
	modules, _ := filepath.Glob(filepath.Join(library, "lib-dynload", "*.so"))
	for _, file := range append(modules, python) {
		out, err := exec.Command("ldd", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				libraries[word] = true
			}
		}
	}
	put := func(file string) {
		data, err := os.ReadFile(file)
		if err := errors.Join(err, os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755), os.WriteFile(filepath.Join(root, file), data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for file := range libraries {
		put(file)
	}
	err = filepath.WalkDir(library, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"test", "dist-packages", "site-packages", "idlelib", "lib2to3", "ensurepip", "tkinter", "pydoc_data"}, d.Name()) {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			put(path)
		}
		return nil
	})
	// An absolute link, which means something else inside.
	err = errors.Join(err, os.Symlink(python, filepath.Join(root, "python")), os.Mkdir(filepath.Join(root, "proc"), 0o755), os.Mkdir(filepath.Join(root, "proc", "self"), 0o755),
		os.Mkdir(filepath.Join(root, "proc", "self", "fd"), 0o755), os.WriteFile(filepath.Join(root, "proc", "self", "status"), []byte("Umask:\t?\nNoNewPrivs:\t?\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// A pool and a script in a root folder of their own.
func TestConfinedToChroot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root := pythonRoot(t)
	g := harness.Serve(t, fmt.Sprintf(`
pools:
  app: {app: "confined:application", python: /python, chroot: %[1]q, user: nobody, workers: 1}
sites:
  - routes:
      - {path: /pool, pool: app}
      - {path: /cgi, cgi: {dir: %[2]q, chroot: %[1]q, user: nobody, extensions: {.py: /python}}}
`, root, filepath.Join(root, "cgi")))
	for _, path := range []string{"/pool", "/cgi/confined.py/more"} {
		r := askConfined(t, g, path+"?root=1&read=/confined.py&write=/new")
		var kept []string
		for _, name := range r.Root {
			if !strings.HasPrefix(name, "gatecrew-") {
				kept = append(kept, name)
			}
		}
		if got := strings.Join(kept, " "); !strings.HasPrefix(got, "cgi confined.py lib lib64 proc python usr") || len(kept) > 7 {
			t.Errorf("%s: /: %q", path, got)
		}
		if !strings.Contains(r.Read, "application") || r.Write != "PermissionError" || r.UID[0] == 0 {
			t.Errorf("%s: %+v", path, r)
		}
		if strings.HasPrefix(path, "/cgi") {
			e := r.Env
			if e["SCRIPT_FILENAME"] != "/cgi/confined.py" || e["DOCUMENT_ROOT"] != "/cgi" || e["PATH_TRANSLATED"] != "/cgi/more" || r.Cwd != "/cgi" {
				t.Errorf("%s: folder %s, %v", path, r.Cwd, e)
			}
		} else if r.Cwd != "/" {
			t.Errorf("%s: folder %s", path, r.Cwd)
		}
	}
	g.Stop()
	if left, _ := filepath.Glob(filepath.Join(root, "gatecrew-*")); len(left) > 0 {
		t.Errorf("left inside: %v", left)
	}
}

// A process is confined before what only a gateway needs is set up: else each
// script would wait for that.
func TestConfinementComesFirst(t *testing.T) {
	cmd := exec.Command(harness.BuildPlain(t))
	cmd.Args = []string{confine.Name, "parent=" + strconv.Itoa(os.Getpid()), "status=0", "--", "/usr/bin/env", "env"}
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	var trace strings.Builder
	cmd.Stderr = &trace
	out, err := cmd.Output()
	if err != nil || string(out) != "GODEBUG=inittrace=1\n" { // nothing is added to what it is to inherit
		t.Fatalf("%q, %v\n%s", out, err, trace.String())
	}
	for line := range strings.Lines(trace.String()) {
		for _, dear := range []string{"init gatecrew/", "init net/http ", "init github.com/urfave/", "init github.com/russross/"} {
			// vfork only asks for a limit, before package os raises it.
			cheap := strings.HasPrefix(line, "init gatecrew/procpool/vfork ")
			if strings.HasPrefix(line, dear) && !cheap {
				t.Errorf("done before it: %s", line)
			}
		}
	}
}
