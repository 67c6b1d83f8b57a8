package cgi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Errors of Resolve beside fs.ErrNotExist, fs.ErrPermission and *RequestError.
var (
	// ErrNotScript means that the path names a file, or a directory, that is
	// not a script. The site may serve it as what it is.
	ErrNotScript = errors.New("not a script")
	// ErrNotExecutable means that the path names a script that can't be
	// run: it has no execute permission and no interpreter. It must not be
	// served as a file either, that would show its source.
	ErrNotExecutable = errors.New("not executable")
	// ErrDirectory means that the path names a directory but lacks the slash
	// at its end, which the client needs to resolve relative references.
	ErrDirectory = errors.New("directory without a slash at its end")
)

// Script is a script on the disk and what the URL says to it.
type Script struct {
	// Filename is the script's absolute path, always below the Resolver's Root.
	Filename string
	// Name is the part of the decoded URL path that led to the script, with
	// the Resolver's Prefix: SCRIPT_NAME. For a directory's index it has the
	// index file's name behind the path, as applications expect.
	Name string
	// PathInfo is the rest of the path, "" or beginning with a slash.
	PathInfo string
}

// Resolver finds the script that a URL path names by walking the disk: as long
// as the path's segments name directories it goes down, and the first regular
// file is the script, the rest being PATH_INFO (RFC 3875, sections 4.1.5 and
// 4.1.13). The path is never searched for something that looks like an
// extension, so "/upload.jpg/x.php" never runs upload.jpg.
//
// A Resolver may be used by many goroutines once it is filled in.
type Resolver struct {
	// Root is the directory of the scripts, opened by an absolute path free
	// of symbolic links. No path leaves it, neither by dot segments nor by a
	// link that points out of it.
	Root *os.Root
	// Prefix is the decoded URL path that Root stands for: "" or "/" for all
	// of the site, else "/cgi-bin".
	Prefix string
	// Index are file names to look for in a directory, the first that
	// exists counts. None: a directory is not a script.
	Index []string
	// Extensions says which files are scripts: from the extension with its
	// dot, compared byte by byte, to the interpreter's absolute path, or to
	// "" for files that are programs themselves. Nil: every regular file is
	// a script and a program.
	Extensions map[string]string
	// Remote means that scripts are not started but named to a FastCGI
	// application, which reads them: they need neither permission to execute
	// nor an interpreter.
	Remote bool
}

// Resolve returns the script for the path of a request, as
// (*url.URL).EscapedPath gives it. Joined, the Name and PathInfo of the result
// are what CleanPath makes of it.
//
// A segment names no file when it is hidden: empty, with a dot at its beginning, or
// with a slash in its decoded form. The errors are a *RequestError where CleanPath gives
// one, fs.ErrNotExist also for a path outside of Prefix, a link out of Root
// and for what is neither file nor directory, fs.ErrPermission, ErrNotScript,
// ErrNotExecutable, ErrDirectory, or a failure of the disk.
func (rv *Resolver) Resolve(escapedPath string) (Script, error) {
	all, err := segments(escapedPath)
	if err != nil {
		return Script{}, err
	}
	segs, ok := cutPrefix(all, rv.Prefix)
	if !ok {
		return Script{}, notExist(escapedPath)
	}
	if file, name, ok := rv.whole(segs, escapedPath); ok {
		if info, err := rv.stat(file); err == nil && !info.IsDir() {
			return rv.script(file, info, name, "")
		}
	}
	return rv.walk(all, segs, escapedPath)
}

// whole returns the file that most requests are for: the one that the path names
// to its end, or the first index of the folder that it names, with SCRIPT_NAME.
// Where it is a file, all before it are folders, so that the walk would come to
// the same and look at each of them. It is false where the walk has but one step,
// or is as likely to be needed after all.
func (rv *Resolver) whole(segs []string, escapedPath string) (file, name string, ok bool) {
	last := len(segs) - 1
	if last < 1 {
		return "", "", false
	}
	name, err := CleanPath(escapedPath)
	if err != nil {
		return "", "", false
	}
	for i, seg := range segs {
		if hidden(seg) && (seg != "" || i < last) {
			return "", "", false
		}
		if _, script := rv.Extensions[path.Ext(seg)]; script && i < last { // the rest is PATH_INFO
			return "", "", false
		}
	}
	file = strings.Join(segs, "/")
	if segs[last] == "" {
		if len(rv.Index) != 1 {
			return "", "", false
		}
		file, name = path.Join(file, rv.Index[0]), name+rv.Index[0]
	}
	return file, name, true
}

// hidden reports whether a segment names no file.
func hidden(seg string) bool {
	return seg == "" || seg[0] == '.' || strings.IndexByte(seg, '/') >= 0
}

// walk looks at each segment of segs, the end of all, in turn.
func (rv *Resolver) walk(all, segs []string, escapedPath string) (Script, error) {
	mounted := len(all) - len(segs) // segments that are the prefix
	dir := ""
	for i, seg := range segs {
		if seg == "" && i == len(segs)-1 {
			return rv.index(dir, joinSegments(all))
		}
		if hidden(seg) {
			return Script{}, notExist(escapedPath)
		}
		file := path.Join(dir, seg)
		info, err := rv.stat(file)
		if err != nil {
			return Script{}, err
		}
		if !info.IsDir() {
			split := mounted + i + 1
			return rv.script(file, info, joinSegments(all[:split]), joinSegments(all[split:]))
		}
		dir = file
	}
	return Script{}, resolveError(escapedPath, ErrDirectory)
}

// index looks for an index file in dir, which url, ending with a slash, names.
func (rv *Resolver) index(dir, url string) (Script, error) {
	for _, name := range rv.Index {
		file := path.Join(dir, name)
		info, err := rv.stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		if err != nil {
			return Script{}, err
		}
		return rv.script(file, info, url+name, "")
	}
	return Script{}, resolveError(dir+"/", ErrNotScript)
}

// script decides whether a regular file is a script.
func (rv *Resolver) script(file string, info fs.FileInfo, name, pathInfo string) (Script, error) {
	s := Script{Filename: filepath.Join(rv.Root.Name(), file), Name: name, PathInfo: pathInfo}
	interpreter, ok := rv.Extensions[path.Ext(file)]
	if rv.Extensions != nil && !ok {
		return Script{}, resolveError(file, rv.notScript(file))
	}
	if !rv.Remote && interpreter == "" && info.Mode().Perm()&0o111 == 0 {
		return Script{}, resolveError(file, ErrNotExecutable)
	}
	return s, nil
}

// notScript tells a file that may be served from one whose extension is a
// script's in other letters: A.PHP is no script, but source code it may be.
func (rv *Resolver) notScript(file string) error {
	for ext := range rv.Extensions {
		if strings.EqualFold(ext, path.Ext(file)) {
			return ErrNotExecutable
		}
	}
	return ErrNotScript
}

// stat looks at a file or directory below Root; anything else does not exist.
func (rv *Resolver) stat(file string) (fs.FileInfo, error) {
	info, err := rv.Root.Stat(file)
	if err == nil {
		if !info.IsDir() && !info.Mode().IsRegular() {
			return nil, notExist(file)
		}
		return info, nil
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrClosed):
		return nil, fmt.Errorf("cgi: script: %w", err)
	case !errors.As(err, &errno), // os.Root's own: the path leaves the root
		errno == syscall.ENOTDIR, errno == syscall.ENAMETOOLONG, errno == syscall.ELOOP:
		return nil, fmt.Errorf("cgi: script: %w: %w", err, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("cgi: script: %w", err)
}

// cutPrefix removes the segments of a prefix from the front of segs.
func cutPrefix(segs []string, prefix string) ([]string, bool) {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return segs, true
	}
	for want := range strings.SplitSeq(prefix, "/") {
		if len(segs) == 0 || segs[0] != want {
			return nil, false
		}
		segs = segs[1:]
	}
	return segs, true
}

func notExist(name string) error { return resolveError(name, fs.ErrNotExist) }

func resolveError(name string, err error) error {
	return fmt.Errorf("cgi: script: %s: %w", quote(name), err)
}
