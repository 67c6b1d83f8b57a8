package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gatecrew/gateway/config"
	"gatecrew/procpool"
	"gatecrew/procpool/confine"
	"gatecrew/scripts"
)

// confinement returns what is taken from processes before they start, nil when
// that is nothing. program is what they execute and own are their own files and
// folders, "" for none: Landlock lets them be read, unless that is everything.
func confinement(i *config.Isolation, program string, own ...string) (*confine.Confinement, error) {
	c, err := i.Confinement()
	if err != nil {
		return nil, fmt.Errorf("gateway: what processes may not do: %w", err)
	}
	if c == nil || c.Landlock == nil {
		return c, nil
	}
	for _, path := range append(own, installation(c.Chroot, program)...) {
		if path != "" && path != "/" {
			c.Landlock.ReadOnly = append(c.Landlock.ReadOnly, path)
		}
	}
	return c, nil
}

// installation returns the folders in which a program's own files are: where
// its name is and where that leads to, and the base of a virtual environment.
// root is the folder that the program will take for /.
func installation(root, program string) []string {
	if program == "" {
		return nil
	}
	folders := []string{prefix(program)}
	outside := filepath.Join(root, program)
	// What an absolute link leads to inside of another root folder has to
	// be named by the administrator, unless it is below /usr.
	if real, err := filepath.EvalSymlinks(outside); err == nil && root == "" {
		folders = append(folders, prefix(real))
	}
	if home := virtualEnvHome(filepath.Join(root, prefix(program), "pyvenv.cfg")); home != "" {
		folders = append(folders, prefix(filepath.Join(home, "python")))
	}
	return folders
}

// prefix is PREFIX of PREFIX/bin/PROGRAM, and the program itself where there is
// no bin.
func prefix(program string) string {
	bin := filepath.Dir(program)
	if above := filepath.Dir(bin); above != "/" && (filepath.Base(bin) == "bin" || filepath.Base(bin) == "sbin") {
		return above
	}
	return program
}

// virtualEnvHome reads the folder of the interpreter that a virtual environment
// was made with.
func virtualEnvHome(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok && strings.TrimSpace(key) == "home" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// workerProgram unpacks the workers' own program for pools whose root folder is
// root, "" for the gateway's own, and returns where they will find it.
func (a *applications) workerProgram(root string) (string, error) {
	return a.unpack(root, scripts.Worker, "gatecrew_worker")
}

// zygotePrograms does the same with those of scripts that are kept warm.
func (a *applications) zygotePrograms(root string) (string, error) {
	return a.unpack(root, scripts.Warm, "gatecrew_warm")
}

// unpack writes a folder of programs below root, once, and returns where
// processes with that root will find it.
//
// Everybody may read it: a pool may have a user of its own, and what is in it
// is published. Its name can't be guessed, so that nobody can have put something
// else there.
func (a *applications) unpack(root string, programs fs.FS, name string) (string, error) {
	place := [2]string{root, name}
	if dir, ok := a.unpacked[place]; ok {
		return dir, nil
	}
	dir, remove, err := procpool.RuntimeDir(root, "gatecrew")
	if err != nil {
		return "", fmt.Errorf("gateway: the folder for programs of its own: %w", err)
	}
	a.removeRuntimeDirs = append(a.removeRuntimeDirs, remove)
	if err := os.CopyFS(dir, programs); err != nil {
		return "", fmt.Errorf("gateway: writing programs of its own: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		mode := fs.FileMode(0o644)
		if err == nil && d.IsDir() {
			mode = 0o755
		}
		return errors.Join(err, os.Chmod(path, mode))
	})
	if err != nil {
		return "", fmt.Errorf("gateway: writing programs of its own: %w", err)
	}
	dir = (&confine.Confinement{Chroot: root}).Inside(filepath.Join(dir, name))
	a.unpacked[place] = dir
	return dir, nil
}

// poolConfinement is the confinement of a pool's workers.
func poolConfinement(p *config.Pool, workerProgram string) (*confine.Confinement, error) {
	file := p.AppFile()
	folder := ""
	if file != "" {
		folder = filepath.Dir(file)
	}
	c, err := confinement(&p.Isolation, p.Python, p.Chdir, folder, filepath.Dir(workerProgram))
	if c != nil {
		c.Readable = []string{workerProgram}
		if p.Chdir != "/" {
			c.Readable = append(c.Readable, p.Chdir)
		}
		if file != "" {
			c.Readable = append(c.Readable, file)
		}
	}
	return c, err
}

// cgiConfinement is the confinement of a route's scripts.
func cgiConfinement(c *config.CGI) (*confine.Confinement, error) {
	scripts := c.Dir
	if scripts == "" {
		scripts = filepath.Dir(c.Script)
	}
	confined, err := confinement(&c.Isolation, "", c.Chdir)
	if err != nil || confined == nil || confined.Landlock == nil {
		return confined, err
	}
	readScripts(confined, scripts, c.Extensions)
	return confined, nil
}

// socketConfinement is the confinement of the programs of a route for
// WebSockets.
func socketConfinement(s *config.Socket) (*confine.Confinement, error) {
	program := ""
	if len(s.Command) > 0 {
		program = s.Command[0]
	}
	confined, err := confinement(&s.Isolation, program, s.Chdir)
	if err != nil || confined == nil || confined.Landlock == nil {
		return confined, err
	}
	if s.Dir != "" {
		readScripts(confined, s.Dir, s.Extensions)
	}
	return confined, nil
}

// readScripts lets Landlock read scripts, given as the gateway sees them, and
// their interpreters.
func readScripts(confined *confine.Confinement, scripts string, interpreters map[string]string) {
	l := confined.Landlock
	if inside := confined.Inside(scripts); inside != "/" {
		l.ReadOnly = append(l.ReadOnly, inside)
	}
	for _, interpreter := range interpreters {
		l.ReadOnly = append(l.ReadOnly, installation(confined.Chroot, interpreter)...)
	}
}
