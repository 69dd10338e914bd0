package main

import (
	"bytes"
	"context"
	"crypto/md5"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server/embedded/s3"
)

//go:embed pickle_peer.py
var picklePeer string

// object is what both contenders keep.
type object struct {
	Bucket   string            `json:"bucket"`
	Key      string            `json:"key"`
	ETag     string            `json:"etag"`
	Modified int64             `json:"modified"` // Unix seconds
	Metadata map[string]string `json:"metadata"`
	Body     string            `json:"body"` // base64
	body     []byte
}

func makeObjects(n, size int) []object {
	r := rand.New(rand.NewSource(1))
	out := make([]object, n)
	for i := range out {
		body := make([]byte, size)
		r.Read(body)
		sum := md5.Sum(body)
		out[i] = object{Bucket: "bench", Key: fmt.Sprintf("dir-%02d/object-%06d", i%100, i), ETag: hex.EncodeToString(sum[:]),
			Modified: 1_790_000_000 + int64(i), Metadata: map[string]string{"Content-Type": "text/plain"},
			Body: base64.StdEncoding.EncodeToString(body), body: body}
	}
	return out
}

// torpor is one life of the runtime with the embedded S3 service.
type torpor struct {
	*life
	s3    *s3.Service
	whole *whole
}

// whole is the S3 service with the choice to keep from the runtime what has changed, so that it saves
// everything, as the peer does.
type whole struct {
	*s3.Service
	deltas bool
}

func (w *whole) Capture(ctx context.Context) (runtime.Capture, error) {
	c, err := w.Service.Capture(ctx)
	if err != nil || w.deltas {
		return c, err
	}
	return struct{ runtime.Capture }{c}, nil
}

func startTorpor(ctx context.Context, folder string) (*torpor, error) {
	dirty := new(runtime.Dirty)
	store := s3.New(s3.Options{OnChange: func(bucket, key string) { dirty.Mark(bucket + "/" + key) }})
	source := &whole{Service: store}
	l, err := startLife(ctx, folder, "s3", source, dirty)
	return &torpor{life: l, s3: store, whole: source}, err
}

func (t *torpor) put(o object) error {
	r := httptest.NewRequest(http.MethodPut, "/"+o.Bucket+"/"+o.Key, bytes.NewReader(o.body))
	r.Header.Set("Content-Length", strconv.Itoa(len(o.body))) // where gofakes3 looks for it
	for k, v := range o.Metadata {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	t.s3.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("put %s: %d %s", o.Key, w.Code, w.Body)
	}
	return nil
}

// benchS3 saves and restores small S3 objects, beside CPython's pickle of the same objects as instances
// of a class.
func benchS3(ctx context.Context, out *strings.Builder, rounds, n, size int) error {
	folder, err := os.MkdirTemp("", "torpor-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	objects := makeObjects(n, size)
	peer, err := startPicklePeer(ctx, folder, objects)
	if err != nil {
		return err
	}
	t, err := startTorpor(ctx, folder)
	if err != nil {
		return err
	}
	w := httptest.NewRecorder()
	t.s3.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/bench", nil))
	for _, o := range objects {
		if err := t.put(o); err != nil {
			return err
		}
	}
	var saves, holds, serialize, prove, commit, restores, read, decode, deliver, deltas, dumps, loads times
	var fileBytes, deltaBytes int64
	var pickleBytes int
	for round := range rounds {
		if err := t.put(objects[round%len(objects)]); err != nil { // something to save
			return err
		}
		goruntime.GC()
		if err := t.Save(ctx); err != nil {
			return err
		}
		e := t.seen.save
		if e.Delta {
			return errors.New("a part was saved where all was to be")
		}
		saves, holds, serialize, prove, commit = append(saves, e.Total), append(holds, t.seen.held), append(serialize, e.Serialize), append(prove, e.Prove), append(commit, e.Commit)
		fileBytes = e.FileBytes

		// A process that starts anew: the file is in the page cache, the service empty.
		if err := t.close(); err != nil {
			return err
		}
		if t, err = startTorpor(ctx, folder); err != nil {
			return err
		}
		goruntime.GC()
		if found, err := t.Load(ctx); err != nil || !found {
			return fmt.Errorf("restore: found %v, %w", found, err)
		}
		r := t.seen.restore
		restores, read, decode, deliver = append(restores, r.Total), append(read, r.Read), append(decode, r.Decode), append(deliver, r.Deliver)
		if r.Records < uint64(n) {
			return fmt.Errorf("restored %d records of %d objects", r.Records, n)
		}

		if err := t.put(objects[(round+1)%len(objects)]); err != nil {
			return err
		}
		t.whole.deltas = true
		goruntime.GC()
		if err := t.Save(ctx); err != nil {
			return err
		}
		t.whole.deltas = false
		e = t.seen.save
		if !e.Delta {
			return errors.New("all was saved where one object has changed")
		}
		deltas, deltaBytes = append(deltas, e.Total), max(deltaBytes, e.Written)

		p, err := peer.round()
		if err != nil {
			return err
		}
		dumps, loads, pickleBytes = append(dumps, p.dumps()), append(loads, p.loads()), p.Bytes
	}
	if err := errors.Join(t.close(), peer.close()); err != nil {
		return err
	}
	fmt.Fprintf(out, "## %d S3 objects of %d bytes\n\n", n, size)
	fmt.Fprintf(out, "| | Torpor, median (best) | CPython pickle, protocol 5, median (best) | ratio of medians | goal |\n|---|---|---|---|---|\n")
	fmt.Fprintf(out, "| save, proved and on disk | %s (%s) | %s (%s) in memory | %s | ≥ 5 × |\n", ms(saves.median()), ms(saves.best()), ms(dumps.median()), ms(dumps.best()), ratio(dumps.median(), saves.median()))
	fmt.Fprintf(out, "| requests held in that save | %s (worst %s) | all of it | | ≤ 5 ms |\n", micro(holds.median()), micro(holds.worst()))
	fmt.Fprintf(out, "| restore | %s (%s) | %s (%s) from memory | %s | ≥ 5 × |\n", ms(restores.median()), ms(restores.best()), ms(loads.median()), ms(loads.best()), ratio(loads.median(), restores.median()))
	fmt.Fprintf(out, "| save after one object has changed | %s (%s), %.1f kB | saves all | | |\n", ms(deltas.median()), ms(deltas.best()), float64(deltaBytes)/1e3)
	fmt.Fprintf(out, "| size | %.1f MB | %.1f MB | | |\n\n", float64(fileBytes)/1e6, float64(pickleBytes)/1e6)
	fmt.Fprintf(out, "Save by phase: serialize %s (the proof's own work in it, alongside: %s), commit with fsync %s. Restore by phase, overlapping: read %s, decode %s, deliver %s.\n",
		ms(serialize.median()), ms(prove.median()), ms(commit.median()), ms(read.median()), ms(decode.median()), ms(deliver.median()))
	return nil
}

func (t times) worst() time.Duration {
	w := t[0]
	for _, d := range t {
		w = max(w, d)
	}
	return w
}

func micro(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d.Nanoseconds())/1e6) }

// peer is a CPython process that does one round whenever it is told to.
type peer struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func() error
}

type pickleRound struct {
	Dumps float64 `json:"dumps"` // seconds
	Loads float64 `json:"loads"`
	Bytes int     `json:"bytes"`
}

func (r pickleRound) dumps() time.Duration { return time.Duration(r.Dumps * float64(time.Second)) }
func (r pickleRound) loads() time.Duration { return time.Duration(r.Loads * float64(time.Second)) }

func startPicklePeer(ctx context.Context, folder string, objects []object) (*peer, error) {
	data := filepath.Join(folder, "objects.json")
	b, err := json.Marshal(objects)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(data, b, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "python3", "-c", picklePeer, data)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the peer needs python3: %w", err)
	}
	return &peer{cmd: cmd, in: json.NewEncoder(stdin), out: json.NewDecoder(stdout), end: stdin.Close}, nil
}

func (p *peer) round() (pickleRound, error) {
	var r pickleRound
	if err := p.in.Encode("round"); err != nil {
		return r, err
	}
	return r, p.out.Decode(&r)
}

func (p *peer) close() error { return errors.Join(p.end(), p.cmd.Wait()) }
