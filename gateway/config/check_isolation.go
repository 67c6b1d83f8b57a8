package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gatecrew/procpool/confine"
)

// isolation checks what processes may not do, and that it can be had. To be
// called before the paths are checked, which a chroot gives another meaning.
func (c *checker) isolation(at string, i *Isolation) {
	c.account(at, i)
	if i.Umask != "" {
		if _, err := parseUmask(i.Umask); err != nil {
			c.invalid(at+".umask", err)
		}
	}
	if i.Nice > 19 {
		c.fault(at+".nice", fmt.Sprintf("%d is no niceness", i.Nice), "write 0 to 19")
	}
	c.cpus(at+".cpus", i.CPUs)
	c.rlimits(at+".rlimits", i.Rlimits)
	if i.Chroot != "" {
		i.Chroot = c.abs(i.Chroot)
		if c.folder(at+".chroot", i.Chroot) {
			// What is told to processes is cut from real paths.
			if real, err := filepath.EvalSymlinks(i.Chroot); err == nil {
				i.Chroot = real
			}
		}
		if !confine.Capable(unix.CAP_SYS_CHROOT) {
			c.fault(at+".chroot", "only root can change the root folder of a process", rootHint("chroot"))
		}
	}
	if i.Landlock != nil {
		if err := confine.LandlockError(); err != nil {
			c.fault(at+".landlock", err.Error(), "start a kernel that has it, or leave landlock out and restrict files by user")
		}
		c.landlock(at+".landlock.read_only", i.Landlock.ReadOnly, i.Chroot)
		c.landlock(at+".landlock.writable", i.Landlock.Writable, i.Chroot)
	}
}

// surroundings checks what processes may not do and the folder they run in, and
// returns how they see the files.
func (c *checker) surroundings(at string, i *Isolation, chdir *string) view {
	c.isolation(at, i)
	in := c.inside(i.Chroot)
	if *chdir == "" {
		*chdir = "."
	}
	*chdir = in.abs(*chdir)
	in.folder(at+".chdir", *chdir)
	return in
}

// rootHint is what to do about a key that needs a right which isn't there.
func rootHint(key string) string {
	if os.Geteuid() == 0 {
		return "this root lacks the right, as in a container: give it the capability, or leave " + key + " out"
	}
	return "start gatecrew as root, or leave " + key + " out"
}

func (c *checker) account(at string, i *Isolation) {
	key := "user"
	if i.User == "" {
		key = "group"
	}
	if i.User != "" {
		account, _, err := lookupUser(i.User)
		switch {
		case err != nil:
			c.fault(at+".user", err.Error(), "create it, or write the name or number of one that there is")
			return
		case account.Groups == nil && i.Group == "":
			c.fault(at+".user", "the user "+i.User+" is in no list, and so has no group", "write group too")
			return
		}
	}
	if i.Group != "" {
		if _, err := lookupGroup(i.Group); err != nil {
			c.fault(at+".group", err.Error(), "create it, or write the name or number of one that there is")
			return
		}
	}
	if account, _, err := i.account(); err != nil || account == nil {
		return
	}
	if os.Geteuid() != 0 || !confine.Capable(unix.CAP_SETUID) || !confine.Capable(unix.CAP_SETGID) {
		c.fault(at+"."+key, "only root can start processes as another "+key, rootHint(key))
	}
}

func (c *checker) cpus(at string, numbers []int) {
	if len(numbers) == 0 {
		return
	}
	have, err := confine.CPUs()
	if err != nil {
		c.fault(at, err.Error(), "")
		return
	}
	for i, n := range numbers {
		if !slices.Contains(have, n) {
			c.fault(fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("there is no processor %d for the gateway", n), fmt.Sprintf("it may run on %s", ranges(have)))
		}
	}
}

// ranges writes ascending numbers as in 0-3, 6.
func ranges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		first := i
		for i++; i < len(numbers) && numbers[i] == numbers[i-1]+1; i++ {
		}
		part := strconv.Itoa(numbers[first])
		if last := numbers[i-1]; last > numbers[first] {
			part += "-" + strconv.Itoa(last)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func (c *checker) rlimits(at string, limits map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		where := join(at, name)
		most, err := confine.HardLimit(name)
		if err != nil {
			c.fault(where, fmt.Sprintf("there is no limit %q", name), suggest(name, confine.RlimitNames()))
			continue
		}
		value, err := parseRlimit(name, limits[name])
		if err != nil {
			c.invalid(where, err)
			continue
		}
		if value > most && !confine.Capable(unix.CAP_SYS_RESOURCE) {
			c.fault(where, fmt.Sprintf("only root can raise it above %d, the limit of the gateway itself", most), "write less, or raise the limit where gatecrew is started")
		}
	}
}

// landlock makes the paths of a list absolute, and reports what isn't there:
// the kernel's rules are about files, not names.
func (c *checker) landlock(at string, paths []string, chroot string) {
	in := c.inside(chroot)
	for i, path := range paths {
		where := fmt.Sprintf("%s[%d]", at, i)
		paths[i] = in.abs(path)
		switch _, err := in.stat(paths[i]); {
		case path == "":
			c.fault(where, "the path is empty", "")
		case errors.Is(err, fs.ErrNotExist):
			c.fault(where, "there is no file or folder "+paths[i], strings.TrimSpace("make it first: the rules are about files, not names. "+in.hint(paths[i])))
		case err != nil:
			c.fault(where, "it can't be opened: "+err.Error(), "")
		}
	}
}
