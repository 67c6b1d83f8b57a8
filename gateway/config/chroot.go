package config

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// view is how a process will see the files: as the gateway does, or with a
// folder for /.
type view struct {
	c    *checker
	root string // "" is the gateway's own
}

// inside returns the view of a process whose root folder is root; "" means
// that of the gateway.
func (c *checker) inside(root string) view { return view{c, root} }

// abs makes a path absolute: relative ones are relative to the configuration,
// or to the root folder when that is another. "" stays empty.
func (v view) abs(path string) string {
	if path == "" || v.root == "" {
		return v.c.abs(path)
	}
	return filepath.Join("/", path)
}

// stat finds a file; links are followed as the process will.
func (v view) stat(path string) (fs.FileInfo, error) {
	if v.root == "" {
		return os.Stat(path)
	}
	root, err := unix.Open(v.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: v.root, Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == unix.ENOSYS { // before Linux 5.6
		return os.Stat(filepath.Join(v.root, path))
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.Stat()
}

// hint says where a path is looked for that wasn't found.
func (v view) hint(path string) string {
	if v.root == "" {
		return v.c.relativeHint(path)
	}
	return v.andChroot("")
}

// andChroot adds to a hint where programs are looked for when that is no matter
// of course.
func (v view) andChroot(hint string) string {
	if v.root == "" {
		return hint
	}
	if hint != "" {
		hint += "; "
	}
	return hint + "with chroot it is looked for inside of " + v.root
}

// folder reports a path that is not a folder.
func (v view) folder(at, dir string) bool {
	info, err := v.stat(dir)
	switch {
	case os.IsNotExist(err):
		v.c.fault(at, "there is no folder "+dir, v.hint(dir))
	case err != nil:
		v.c.fault(at, "the folder can't be read: "+err.Error(), v.andChroot(""))
	case !info.IsDir():
		v.c.fault(at, dir+" is not a folder", v.andChroot(""))
	default:
		return true
	}
	return false
}

// executable reports whether a path is a file that can be executed.
func (v view) executable(path string) bool {
	info, err := v.stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// lookPath finds a program by its absolute path, or by its name in $PATH.
func (v view) lookPath(name string) (string, error) {
	if v.root == "" {
		return exec.LookPath(name)
	}
	if strings.Contains(name, "/") {
		if v.executable(name) {
			return name, nil
		}
		return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join("/", dir, name); v.executable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// program finds an executable as a process sees it, and reports one that isn't
// there.
func (v view) program(at, name string) (string, bool) {
	if strings.Contains(name, "/") {
		name = v.abs(name)
	}
	found, err := v.lookPath(name)
	if err != nil {
		v.c.fault(at, "there is no program "+name, v.andChroot("write the path of a program, or a name that is in $PATH"))
		return "", false
	}
	return found, true
}
