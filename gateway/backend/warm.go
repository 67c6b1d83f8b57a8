package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gatecrew/procpool"
)

// zygoteParts are, by the interpreter's name, what stands before the script
// when the interpreter is to be a zygote. DIR is Scripts.Zygotes.
var zygoteParts = []struct {
	name  *regexp.Regexp
	parts []string
	// options are those that the interpreter may have got before.
	options *regexp.Regexp
}{
	{regexp.MustCompile(`^python(3(\.[0-9]+)?)?$`), []string{"DIR/zygote.py"}, regexp.MustCompile(`^-([bBdEIOPqRsSuv]+|[bBEIOPqsSu]*[WX].*)$`)},
	{regexp.MustCompile(`^perl(5[.0-9]*)?$`), []string{"-IDIR", "-MGatecrewWarm"}, regexp.MustCompile(`^-[^eEnpaFcxVvhd?]*$`)},
}

// Zygote is procpool.WarmConfig's: the command that would run the script, with
// a part put in before the script. The environment is what all requests of the
// script have in common.
func (s *Scripts) Zygote(c procpool.Command) (procpool.Command, error) {
	words, err := s.interpreter(c)
	if err != nil {
		return procpool.Command{}, err
	}
	name, options, err := language(words)
	if err != nil {
		return procpool.Command{}, err
	}
	for _, z := range zygoteParts {
		if !z.name.MatchString(name) {
			continue
		}
		for _, option := range options {
			if !z.options.MatchString(option) {
				return procpool.Command{}, fmt.Errorf("an option of its interpreter can't be kept: %s", option)
			}
		}
		if info, err := os.Stat(filepath.Join(s.root(), words[0])); err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			return procpool.Command{}, errors.New("its interpreter changes the user")
		}
		argv := slices.Clone(words)
		for _, part := range z.parts {
			argv = append(argv, strings.Replace(part, "DIR", s.Zygotes, 1))
		}
		return procpool.Command{
			Path: words[0], Argv: append(argv, c.Argv[c.Script.Arg]),
			// Symbols that are bound in the zygote need not be in each child.
			Env: append(append([]string{"LD_BIND_NOW=1"}, common(c.Env)...), s.Inherited...),
			Dir: c.Dir, Confinement: c.Confinement, Cgroup: c.Cgroup,
		}, nil
	}
	return procpool.Command{}, fmt.Errorf("%s is neither Python nor Perl", name)
}

// common returns those of a request's variables that are the same in all
// requests of a script: modules look at them while they are loaded.
func common(env []string) []string {
	var same []string
	for _, variable := range env {
		switch name, _, _ := strings.Cut(variable, "="); name {
		case "GATEWAY_INTERFACE", "SERVER_SOFTWARE", "DOCUMENT_ROOT", "SCRIPT_FILENAME", "SCRIPT_NAME":
			same = append(same, variable)
		}
	}
	return same
}

// root is the folder that scripts take for /.
func (s *Scripts) root() string {
	if s.Confinement == nil {
		return ""
	}
	return s.Confinement.Chroot
}

// interpreter returns the words that the kernel, or the route, puts before the
// script.
func (s *Scripts) interpreter(c procpool.Command) ([]string, error) {
	if c.Script.Arg > 0 {
		return c.Argv[:c.Script.Arg], nil
	}
	f, err := os.Open(c.Script.File)
	if err != nil {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	defer f.Close()
	// A script that can't be executed must not run because it can be read.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	other := s.Confinement != nil && s.Confinement.Account != nil
	if unix.Access(c.Script.File, unix.X_OK) != nil || other && info.Mode()&0o001 == 0 {
		return nil, errors.New("it is not executable, or not for everybody")
	}
	// BINPRM_BUF_SIZE of the kernel; a longer line is cut, and so not a case for this.
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	return interpreterLine(head[:n])
}

// interpreterLine reads a #! line as the kernel does: the program, and all that
// follows as one argument.
func interpreterLine(head []byte) ([]string, error) {
	line, _, ended := bytes.Cut(head, []byte("\n"))
	rest, ok := bytes.CutPrefix(line, []byte("#!"))
	if !ok || !ended {
		return nil, errors.New("it has no #! line")
	}
	program, argument, _ := strings.Cut(strings.Trim(strings.ReplaceAll(string(rest), "\t", " "), " "), " ")
	if !filepath.IsAbs(program) || strings.IndexByte(string(rest), 0) >= 0 {
		return nil, errors.New("its interpreter is not named by a whole path")
	}
	words := []string{program}
	if argument = strings.TrimLeft(argument, " "); argument != "" {
		words = append(words, argument)
	}
	return words, nil
}

// language returns the name of the interpreter and its options. With env it is
// the program that env will find.
func language(words []string) (name string, options []string, err error) {
	name, options = filepath.Base(words[0]), words[1:]
	if name != "env" || len(options) != 1 {
		return name, options, nil
	}
	split, many := strings.CutPrefix(options[0], "-S")
	if !many {
		return filepath.Base(options[0]), nil, nil
	}
	if strings.ContainsAny(split, `'"\$#`) {
		return "", nil, fmt.Errorf("what env is to make of its options is not certain: %s", options[0])
	}
	options = strings.Fields(split)
	if len(options) == 0 || strings.HasPrefix(options[0], "-") || strings.Contains(options[0], "=") {
		return "", nil, fmt.Errorf("env has options or variables of its own: %s", options[0])
	}
	// One that has a value of its own, as -W error, is one for the pattern.
	var joined []string
	for _, option := range options[1:] {
		if n := len(joined); n > 0 && (joined[n-1] == "-W" || joined[n-1] == "-X" || joined[n-1] == "-I") {
			joined[n-1] += " " + option
			continue
		}
		joined = append(joined, option)
	}
	return filepath.Base(options[0]), joined, nil
}
