package server_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

// other is a serializer that does not read what records writes.
type other struct{ records }

func (other) Descriptor() abi.Descriptor {
	d := records{}.Descriptor()
	d.Name = "other"
	return d
}

// strict is records that refuses every state but the empty one.
type strict struct{ records }

func (strict) Load(_ context.Context, _ abi.Call, from record.Source, _ io.Writer) error {
	return eachBatch(from, func(*record.Batch) error { return abi.ErrCorrupt })
}

// A snapshot that cannot be loaded here is incompatible, whatever is the reason: it is there, and the server is sound.
func TestStatusOfWhatCannotBeLoaded(t *testing.T) {
	kept := vfs.NewMem()
	live := func(ser runtime.Serializer) *life {
		return begin(t, vfs.NewMem(), func(l *life, cfg *runtime.Config) {
			for i := range cfg.Services {
				cfg.Services[i].Parts[0].Serializer = ser
			}
			cfg.Compile = func(context.Context, string, []byte) (runtime.Serializer, error) { return records{}, nil }
			l.change = func(c *server.Config) {
				c.Scratch, c.Saved = t.TempDir(), l.dir
				var err error
				if c.Snapshots, err = repository.Open(t.Context(), repository.Config{Remote: folder.Open(kept), Logger: slog.New(slog.DiscardHandler)}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	l := live(records{})
	l.put(t, "/a", "1")
	if a := l.do(t, http.MethodPost, "/_torpor/snapshots/base", "{}"); a.status != http.StatusCreated {
		t.Fatal(a)
	}
	l.end(t)
	for what, ser := range map[string]runtime.Serializer{"no module": other{}, "refused": strict{}} {
		t.Run(what, func(t *testing.T) {
			l := live(ser)
			defer l.end(t)
			l.do(t, http.MethodPost, "/_torpor/snapshots/base/load", `{"merge":"overwrite","services":["notes"]}`).fault(t, http.StatusUnprocessableEntity, "incompatible")
			l.do(t, http.MethodPut, "/_localstack/pods/base?merge=overwrite", "{}").fault(t, http.StatusUnprocessableEntity, "incompatible")
		})
	}
}
