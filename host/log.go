package host

import (
	"context"
	"log/slog"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
)

// write logs one line of the guest, if it has not used up its lines.
func (r *running) write(level int32, line []byte) {
	if r.logged++; r.logged > r.module.host.limits.LogLines {
		return
	}
	at := slog.LevelDebug
	switch level {
	case abi.LogInfo:
		at = slog.LevelInfo
	case abi.LogWarn:
		at = slog.LevelWarn
	case abi.LogError:
		at = slog.LevelError
	}
	r.module.host.logger.Log(context.Background(), at, "serializer: "+strings.ToValidUTF8(strings.TrimRight(string(line), "\n"), "\uFFFD"),
		"module", r.module.name, "op", r.op)
}

// logWriter turns what a guest writes to standard output or error into log lines.
type logWriter struct {
	r     *running
	level int32
}

func (w logWriter) Write(p []byte) (int, error) {
	w.r.write(w.level, p[:min(len(p), abi.MaxLogBytes)])
	return len(p), nil
}
