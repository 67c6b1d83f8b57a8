package config

import "strconv"

// isolation checks what processes may not do.
func (c *checker) isolation(at string, i *Isolation) {
	if i.Umask != "" {
		if n, err := strconv.ParseUint(i.Umask, 8, 16); err != nil || n > 0o777 {
			c.fault(at+".umask", "it is not a number in octal", "write it as in 027")
		}
	}
	if i.Chroot != "" {
		i.Chroot = c.abs(i.Chroot)
		c.folder(at+".chroot", i.Chroot)
	}
	if i.Landlock != nil {
		for j, path := range i.Landlock.ReadOnly {
			i.Landlock.ReadOnly[j] = c.abs(path)
		}
		for j, path := range i.Landlock.Writable {
			i.Landlock.Writable[j] = c.abs(path)
		}
	}
}
