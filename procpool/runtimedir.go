package procpool

import (
	"fmt"
	"os"
)

// RuntimeDir makes a directory of mode 0700 for what the program needs while
// it runs (sockets, unpacked scripts, spool files), in the folder parent; ""
// means $TMPDIR. remove deletes it with everything in it; the guard does when
// the program ends without calling it.
func RuntimeDir(parent, prefix string) (path string, remove func() error, err error) {
	// MkdirTemp creates with mode 0700 and a name that didn't exist.
	path, err = os.MkdirTemp(parent, prefix+"-*")
	if err != nil {
		return "", nil, fmt.Errorf("procpool: run-time directory: %w", err)
	}
	if err := guards.ensure(); err != nil {
		_ = os.Remove(path)
		return "", nil, err
	}
	guards.add(dirName(path))
	return path, func() error {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("procpool: run-time directory: %w", err)
		}
		guards.remove(dirName(path))
		return nil
	}, nil
}
