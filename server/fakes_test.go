package server_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
)

// records is a serializer for services that speak records themselves, in Go.
type records struct{}

func (records) Descriptor() abi.Descriptor {
	return abi.Descriptor{Name: "records", Version: "1", Schema: 1, Reads: []uint64{1}, Media: "application/cbor-seq",
		Operations: []string{abi.OpSave, abi.OpLoad}, Canonical: true}
}

func (records) Digest() [sha256.Size]byte { return sha256.Sum256([]byte("records 1")) }

func (records) Save(_ context.Context, _ abi.Call, native io.Reader, sink record.Sink) error {
	return eachBatch(record.NewReader(native, 0), sink.WriteBatch)
}

func (records) Load(_ context.Context, _ abi.Call, from record.Source, native io.Writer) error {
	return eachBatch(from, func(b *record.Batch) error {
		_, err := native.Write(b.Data)
		return err
	})
}

func (records) Migrate(context.Context, abi.Call, record.Source, record.Sink) error {
	return abi.ErrVersion
}

func eachBatch(from record.Source, do func(*record.Batch) error) error {
	for {
		b, err := from.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = do(b)
		}
		if err != nil {
			return err
		}
	}
}

// notes is a service that keeps texts: PUT and GET of any path, which is the text's name as it came.
type notes struct {
	dirty runtime.Dirty

	mu         sync.Mutex
	texts      map[string]string
	captureErr error
	restoreErr error
	serve      http.HandlerFunc // instead of its own, if not nil
}

func newNotes() *notes { return &notes{texts: map[string]string{}} }

// fail makes captures and restores fail from now on; nil makes them work again.
func (n *notes) fail(capture, restore error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.captureErr, n.restoreErr = capture, restore
}

func (n *notes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.serve != nil {
		n.serve(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	name := r.URL.EscapedPath()
	if r.Method == http.MethodPut {
		n.texts[name] = string(body)
		n.dirty.Mark(name)
		return
	}
	text, ok := n.texts[name]
	if !ok {
		http.Error(w, "no note "+name, http.StatusNotFound)
		return
	}
	io.WriteString(w, text)
}

func (n *notes) AtomicCapture() bool { return true }

func (n *notes) Capture(context.Context) (runtime.Capture, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return notesCapture(maps.Clone(n.texts)), n.captureErr
}

type notesCapture map[string]string

func (c notesCapture) WriteNative(_ context.Context, w io.Writer) error {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(c)) {
		b = record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(b), ""), name), c[name])
	}
	_, err := w.Write(b)
	return err
}

func (notesCapture) Close() error { return nil }

func (n *notes) Restore(_ context.Context, native io.Reader) error {
	texts := map[string]string{}
	err := eachBatch(record.NewReader(native, 0), func(b *record.Batch) error {
		for i := range b.Len() {
			key, _ := b.Key(i)
			texts[string(key)] = string(record.NewPull(b.Value(i)).Text())
		}
		return nil
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if err = errors.Join(err, n.restoreErr); err == nil {
		n.texts = texts
	}
	return err
}

func (n *notes) Reset(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.texts = map[string]string{}
	return nil
}
