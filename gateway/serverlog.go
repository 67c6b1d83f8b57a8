package gateway

import (
	"log"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// serverLog takes the lines of net/http, which have no levels.
type serverLog struct{ log *zap.Logger }

func newServerLog(l *zap.Logger) *log.Logger {
	return log.New(serverLog{l.Named("http").WithOptions(zap.AddCallerSkip(3))}, "", 0)
}

// Write writes one line at the level that it deserves: what any client can cause
// as often as it likes is no more than a detail.
func (s serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSuffix(string(line), "\n")
	level := zapcore.InfoLevel
	switch {
	case strings.HasPrefix(text, "http: panic"):
		level = zapcore.ErrorLevel
	case strings.HasPrefix(text, "http: Accept error"):
		level = zapcore.WarnLevel
	case strings.HasPrefix(text, "http: TLS handshake error"), strings.HasPrefix(text, "http2: "):
		level = zapcore.DebugLevel
	}
	s.log.Log(level, text)
	return len(line), nil
}
