package host

import (
	"context"
	"log/slog"
	"strings"
	"unicode"

	"github.com/torpor-run/torpor/host/abi"
)

// write logs one line of the guest, if it has not used up its lines.
func (r *running) write(level int32, line []byte) {
	if r.logged++; r.logged > r.module.limits.LogLines {
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
	r.module.host.logger.Log(context.Background(), at, "serializer: "+printable(strings.TrimRight(string(line), "\r\n")),
		"module", r.module.name, "op", r.op)
}

// clip cuts what a guest chose the length of.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// printable makes one line of what a guest said: it can neither begin a line of its own in a log nor
// steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
