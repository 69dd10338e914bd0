package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
)

func TestWordsOfStatus(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 59 * time.Minute: "59 min", time.Hour: "1 h", 47 * time.Hour: "47 h", 48 * time.Hour: "2 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB", 1<<20 - 1: "1.0 MiB", 1536 << 20: "1.5 GiB", 1 << 62: "4.0 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got, want := string(redrawn([]byte("a\nb\n"), true)), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"; got != want {
		t.Errorf("redrawn %q, want %q", got, want)
	}
	if got := string(redrawn([]byte("a\n"), false)); got != "a\n" {
		t.Errorf("not in place: %q", got)
	}
}

// TestWatchStatus: it prints until it is ended, and sees a torpor come up and go away.
func TestWatchStatus(t *testing.T) {
	url, stop := serving(t, nil, "--data", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out, errs lockedBuffer
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, sources(), Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, []string{"TORPOR_DATA=" + t.TempDir()},
			[]string{"status", "--watch", "--json", "--interval", "100ms", "--url", url})
	}()
	until := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), what); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s: %s\nin %s", what, errs.String(), out.String())
			}
		}
	}
	until("\n{\"running\":true") // the second time
	if errs, code := stop(); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	until("{\"running\":false")
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

// TestSavedGenerations: what is saved is found by how many saves ago it was, in files with deltas and in older ones; a
// damaged newest file is an error and not passed over.
func TestSavedGenerations(t *testing.T) {
	data := t.TempDir()
	url, stop := serving(t, nil, "--data", data, "--save-strategy", "MANUAL", "--generations", "3")
	call(t, "PUT", url+"/bucket", "")
	for i := range 5 {
		call(t, "PUT", url+"/bucket/"+strings.Repeat("k", i+1), "content")
		if status, body := call(t, "POST", url+"/_torpor/services/s3/save", ""); status != 200 {
			t.Fatal(body)
		}
	}
	if errs, code := stop(); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	ctx := context.Background()
	for back := range 6 {
		s, err := savedSnapshot(ctx, data, back)
		if back == 5 {
			if !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), "5 are kept") {
				t.Errorf("%d back: %v", back, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d back: %v", back, err)
		}
		if n := s.Parts[0].File.Info().Records; n != uint64(6-back) {
			t.Errorf("%d back: %d records, want %d", back, n, 6-back)
		}
		if _, err := s.Module(ctx, s.Modules()[0]); err != nil {
			t.Errorf("its serializer: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	newest := filepath.Join(data, "state", "api_states", "s3", "store.state")
	sound := content(t, newest)
	rewrite(t, newest, append(sound, "a save that did not come to its end"...))
	s, err := savedSnapshot(ctx, data, 0, "s3")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Parts[0].File.Info().Records; n != 6 {
		t.Errorf("%d records, want 6", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	rewrite(t, newest, []byte("no state"))
	if _, err := savedSnapshot(ctx, data, 0); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestSavedFiles: older files come after the newest, in the order of their generations; what is none of them is passed over.
func TestSavedFiles(t *testing.T) {
	data := t.TempDir()
	folder := filepath.Join(data, "state", "api_states", "s3")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	var entries []entry
	for _, name := range []string{"store.state.g000000000002", "store.state.g000000000010", "store.state", "store.state.corrupt-20261122T174203Z-g000000000011",
		"store.state.tmp-1", "Store.state", "notes.txt", "backend.state"} {
		entries = append(entries, entry{"", name, []byte{1}})
		writeStateBy(t, filepath.Join(folder, name), statefile.Serializer{Name: "records", Version: "1", Schema: 1}, entries...)
	}
	found, err := savedParts(data)
	if err != nil || len(found) != 2 || found[0].Part != "backend" || found[1].Part != "store" {
		t.Fatalf("%v, %v", found, err)
	}
	for back, want := range []uint64{3, 2, 1} {
		o, err := found[1].open(context.Background(), back)
		if err != nil {
			t.Fatal(err)
		}
		if n := o.Info().Records; n != want {
			t.Errorf("%d back: %d records, want %d", back, n, want)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := found[1].open(context.Background(), 3); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("3 back: %v", err)
	}
}
