package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/runtime/supervisor"
)

// TestUnsupported: a system that can run no scripts is told of once.
func TestUnsupported(t *testing.T) {
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "boot.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.sh", "b.sh"} {
		if err := os.WriteFile(filepath.Join(folder, "boot.d", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := New(Config{Folder: folder, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	h.program = func(context.Context, supervisor.Program) error {
		calls++
		return fmt.Errorf("no process groups: %w", errors.ErrUnsupported)
	}
	if err := h.Run(t.Context(), Boot); !errors.Is(err, errors.ErrUnsupported) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	s := h.State()[Boot]
	if !s.Completed || len(s.Scripts) != 2 || s.Scripts[0].State != Failed || s.Scripts[1].State != Failed {
		t.Errorf("%+v", s)
	}
}
