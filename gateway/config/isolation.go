package config

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"gatecrew/procpool/confine"
)

// Confinement returns what is to be taken from a process before it starts, nil
// when that is nothing. What it reads of the system, users and their groups,
// was there when the configuration was checked.
func (i *Isolation) Confinement() (*confine.Confinement, error) {
	account, _, err := i.account()
	if err != nil {
		return nil, err
	}
	c := &confine.Confinement{Account: account, Nice: i.Nice, CPUs: slices.Clone(i.CPUs), Chroot: i.Chroot, NoNewPrivileges: i.NoNewPrivileges}
	if i.Umask != "" {
		mask, err := parseUmask(i.Umask)
		if err != nil {
			return nil, err
		}
		c.Umask = &mask
	}
	for name, text := range i.Rlimits {
		value, err := parseRlimit(name, text)
		if err != nil {
			return nil, err
		}
		if c.Rlimits == nil {
			c.Rlimits = map[string]uint64{}
		}
		c.Rlimits[name] = value
	}
	if l := i.Landlock; l != nil {
		c.Landlock = &confine.Landlock{ReadOnly: slices.Clone(l.ReadOnly), Writable: slices.Clone(l.Writable)}
	}
	if account == nil && c.Umask == nil && c.Nice == 0 && len(c.CPUs) == 0 && c.Rlimits == nil && c.Chroot == "" && !c.NoNewPrivileges && c.Landlock == nil {
		return nil, nil
	}
	return c, nil
}

// Ambient returns the environment that the gateway's own, as NAME=VALUE, is for
// the user that the processes run as: with that user's HOME, USER and LOGNAME.
func (i *Isolation) Ambient(own []string) []string {
	account, home, err := i.account()
	if err != nil || account == nil || i.User == "" {
		return own
	}
	ambient := make([]string, 0, len(own)+3)
	for _, pair := range own {
		if !nameIn([]string{"HOME=*", "USER=*", "LOGNAME=*"}, pair) {
			ambient = append(ambient, pair)
		}
	}
	return append(ambient, "HOME="+home, "USER="+account.Name, "LOGNAME="+account.Name)
}

// account finds the user and the group, and the user's home folder. It is nil
// when they are those of the gateway, which then needs no right to change them.
func (i *Isolation) account() (account *confine.Account, home string, err error) {
	if i.User == "" && i.Group == "" {
		return nil, "", nil
	}
	account = &confine.Account{Name: "with group " + i.Group, UID: uint32(os.Geteuid())}
	if i.User != "" {
		if account, home, err = lookupUser(i.User); err != nil {
			return nil, "", err
		}
	}
	if i.Group != "" {
		if account.GID, err = lookupGroup(i.Group); err != nil {
			return nil, "", err
		}
		if account.Groups == nil {
			account.Groups = []uint32{account.GID}
		}
	} else if account.Groups == nil {
		return nil, "", fmt.Errorf("the user %s is in no list, and so has no group", i.User)
	}
	if os.Geteuid() != 0 && account.UID == uint32(os.Geteuid()) && account.GID == uint32(os.Getegid()) {
		return nil, home, nil
	}
	return account, home, nil
}

// lookupUser finds a user by name or number. One that is in no list has a
// number alone: no groups (nil) and no home but /.
func lookupUser(name string) (account *confine.Account, home string, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		id, badNumber := strconv.ParseUint(name, 10, 32)
		if badNumber != nil {
			return nil, "", fmt.Errorf("there is no user %s", name)
		}
		if u, err = user.LookupId(name); err != nil {
			return &confine.Account{Name: name, UID: uint32(id)}, "/", nil
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, "", fmt.Errorf("the user %s has the number %q", name, u.Uid)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, "", fmt.Errorf("the user %s has a group with the number %q", name, u.Gid)
	}
	account = &confine.Account{Name: u.Username, UID: uint32(uid), GID: uint32(gid), Groups: []uint32{uint32(gid)}}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, "", fmt.Errorf("the groups of the user %s can't be found: %w", name, err)
	}
	for _, text := range ids {
		if id, err := strconv.ParseUint(text, 10, 32); err == nil && !slices.Contains(account.Groups, uint32(id)) {
			account.Groups = append(account.Groups, uint32(id))
		}
	}
	return account, u.HomeDir, nil
}

// lookupGroup finds a group by name or number.
func lookupGroup(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	id, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("there is no group %s", name)
	}
	return uint32(id), nil
}

func parseUmask(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		return 0, badValue("a umask", text, "write it in octal, as in 027")
	}
	return uint32(n), nil
}

// parseRlimit reads the value of a limit: of memory and files a size, of the
// others a number.
func parseRlimit(name, text string) (uint64, error) {
	if text == "unlimited" {
		return confine.Unlimited, nil
	}
	switch name {
	case "cpu", "nofile", "nproc":
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			hint := "write a number or unlimited"
			if name == "cpu" {
				hint = "write a number of seconds or unlimited"
			}
			return 0, badValue("a number", text, hint)
		}
		return n, nil
	}
	var size Size
	if err := size.UnmarshalText([]byte(text)); err != nil {
		return 0, badValue("a size", text, "write a number of bytes, 64k, 10m, 1g or unlimited")
	}
	return uint64(size), nil
}
