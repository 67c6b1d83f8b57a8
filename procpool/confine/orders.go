package confine

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Name is argv[0] of a process that is about to confine itself.
const Name = "gatecrew-launch"

// orders are a launch as it stands on the command line: words of the form
// key=value, then --, then the program's own.
type orders struct {
	Confinement
	parent int    // process id of the gateway
	status int    // descriptor for a Failure
	dir    string // working directory, "" leaves it
	path   string
	argv   []string

	landlocked bool // the rules are in force
}

// Args returns the arguments of /proc/self/exe that start path with argv in the
// folder dir, confined by c. parent is the caller's process id. The process
// takes the descriptor status for the write end of a pipe, on which it writes
// what went wrong, see Failure, and which it closes when it has become the
// program.
func (c *Confinement) Args(path string, argv []string, dir string, parent, status int) []string {
	words := []string{Name, "parent=" + strconv.Itoa(parent), "status=" + strconv.Itoa(status)}
	add := func(key, value string) { words = append(words, key+"="+value) }
	if a := c.Account; a != nil {
		add("user", a.Name)
		add("uid", strconv.FormatUint(uint64(a.UID), 10))
		add("gid", strconv.FormatUint(uint64(a.GID), 10))
		for _, g := range a.Groups {
			add("group", strconv.FormatUint(uint64(g), 10))
		}
	}
	if c.Umask != nil {
		add("umask", strconv.FormatUint(uint64(*c.Umask), 8))
	}
	if c.Nice != 0 {
		add("nice", strconv.Itoa(c.Nice))
	}
	for _, n := range c.CPUs {
		add("processor", strconv.Itoa(n))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Rlimits)) {
		add(name, strconv.FormatUint(c.Rlimits[name], 10))
	}
	if c.Chroot != "" {
		add("chroot", c.Chroot)
	}
	if c.NoNewPrivileges {
		add("nnp", "1")
	}
	if l := c.Landlock; l != nil {
		add("landlock", "1")
		for _, path := range l.ReadOnly {
			add("ro", path)
		}
		for _, path := range l.Writable {
			add("rw", path)
		}
	}
	if c.Account != nil || c.Landlock != nil {
		for _, path := range c.Readable {
			add("readable", path)
		}
	}
	if dir != "" {
		add("dir", dir)
	}
	words = append(words, "--", path)
	if len(argv) == 0 {
		argv = []string{path}
	}
	return append(words, argv...)
}

// parseOrders reads what Args wrote.
func parseOrders(args []string) (*orders, error) {
	o := &orders{}
	account := &Account{}
	for i, word := range args {
		if word == "--" {
			if len(args) < i+3 {
				break
			}
			o.path, o.argv = args[i+1], args[i+2:]
			return o, nil
		}
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "parent":
			o.parent, err = strconv.Atoi(value)
		case "status":
			o.status, err = strconv.Atoi(value)
		case "user":
			account.Name, o.Account = value, account
		case "uid":
			account.UID, err = id(value)
		case "gid":
			account.GID, err = id(value)
		case "group":
			var g uint32
			g, err = id(value)
			account.Groups = append(account.Groups, g)
		case "umask":
			var mask uint64
			mask, err = strconv.ParseUint(value, 8, 32)
			o.Umask = new(uint32(mask))
		case "nice":
			o.Nice, err = strconv.Atoi(value)
		case "processor":
			var n int
			n, err = strconv.Atoi(value)
			o.CPUs = append(o.CPUs, n)
		case "chroot":
			o.Chroot = value
		case "nnp":
			o.NoNewPrivileges = true
		case "landlock":
			o.Landlock = &Landlock{}
		case "ro":
			o.Landlock.ReadOnly = append(o.Landlock.ReadOnly, value)
		case "rw":
			o.Landlock.Writable = append(o.Landlock.Writable, value)
		case "readable":
			o.Readable = append(o.Readable, value)
		case "dir":
			o.dir = value
		default:
			if _, ok := rlimits[key]; !ok {
				return nil, fmt.Errorf("%q is no order", key)
			}
			if o.Rlimits == nil {
				o.Rlimits = map[string]uint64{}
			}
			o.Rlimits[key], err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the program is missing")
}

func id(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	return uint32(n), err
}
