package confine

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
)

// Failure is why a process could not be confined or could not become the
// program. errors.Is finds the system's reason in it.
type Failure struct {
	// Step is what was attempted, as "set umask" or "exec".
	Step string
	// Path is the file it was about, or "".
	Path string
	// User is whom the process ran as by then, "" if the gateway's own.
	User string
	// Landlock reports whether its rules were in force by then.
	Landlock bool
	// Err is a syscall.Errno, or a text when there was none.
	Err error
}

func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString(f.Step)
	if f.Path != "" {
		b.WriteString(" " + f.Path)
	}
	if f.User != "" {
		b.WriteString(" as user " + f.User)
	}
	if f.Landlock {
		b.WriteString(" within the landlock rules")
	}
	return b.String() + ": " + f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// report is a Failure on its way over the pipe. Of errno and text one is set.
type report struct {
	step, path, user string
	landlock         bool
	errno            syscall.Errno
	text             string
}

// append writes the fields, each ended by NUL, which no path and no text of
// the system has. It allocates nothing when b has room: there may be no memory
// to be had any more.
func (r *report) append(b []byte) []byte {
	b = append(append(b, r.step...), 0)
	b = append(append(b, r.path...), 0)
	b = append(append(b, r.user...), 0)
	b = append(strconv.AppendBool(b, r.landlock), 0)
	b = append(strconv.AppendInt(b, int64(r.errno), 10), 0)
	return append(append(b, r.text...), 0)
}

// ParseReport reads what came over the status pipe until its end. It returns
// nil when nothing came: the process has become the program.
func ParseReport(b []byte) *Failure {
	if len(b) == 0 {
		return nil
	}
	fields := strings.Split(string(b), "\x00")
	if len(fields) != 7 {
		return &Failure{Step: "launch", Err: errors.New("the report was cut: " + strconv.Quote(string(b)))}
	}
	f := &Failure{Step: fields[0], Path: fields[1], User: fields[2], Landlock: fields[3] == "true", Err: errors.New(fields[5])}
	if n, err := strconv.Atoi(fields[4]); err == nil && n != 0 {
		f.Err = syscall.Errno(n)
	}
	return f
}
