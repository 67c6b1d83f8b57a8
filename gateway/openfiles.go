package gateway

import (
	"fmt"
	"syscall"

	"go.uber.org/zap"
)

// ownFiles is how many descriptors the gateway needs beside those of its
// clients, with a margin: listeners, logs, four for each of some dozen workers,
// bodies on their way to a file.
const ownFiles = 256

// warnOfOpenFiles says that the process may not open as many files as there may
// be connections. Package os has raised its limit to the highest by now.
func (g *Gateway) warnOfOpenFiles() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	if need := uint64(g.cfg.Limits.MaxConnections) + ownFiles; limit.Cur < need {
		g.log.Warn("fewer files may be open than limits.max_connections needs: beyond that clients wait, and requests fail",
			zap.Uint64("open_files", limit.Cur), zap.Int("max_connections", g.cfg.Limits.MaxConnections),
			zap.String("next_step", fmt.Sprintf("raise the limit to %d (ulimit -n, LimitNOFILE= of systemd), or lower max_connections", need)))
	}
}
