package cli

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// newLogger logs to w: in colour where w is a terminal and NO_COLOR is not set, otherwise as text or
// JSON lines.
func newLogger(w io.Writer, level, format string, noColor bool) *slog.Logger {
	var at slog.Level
	_ = at.UnmarshalText([]byte(level)) // one of four words, checked with the settings
	f, isFile := w.(*os.File)
	switch {
	case format == "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: at}))
	case format == "auto" && isFile && term.IsTerminal(int(f.Fd())):
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: at, TimeFormat: time.TimeOnly, NoColor: noColor}))
	default:
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: at}))
	}
}
