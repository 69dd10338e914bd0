//go:build unix

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// What these tests hold against the program: a killed program's next life has, of each writer, the state
// after some first part of what the writer did. That part ends nowhere before the last thing known to
// be saved, and nothing of what came behind it shows. So nothing saved is lost, nothing deleted and
// saved comes back, and nothing is torn.

const (
	killBucket  = "killed"
	killWriters = 3
	killKeys    = 10 // of each writer
)

// op is one thing a writer did: a put, whose content follows from its number, or a delete.
type op struct {
	key    string
	number int // of the put, counted over all lives; 0: a delete
}

// writer is what one writer did in one life, after what the life began with.
type writer struct {
	id    int
	state map[string]int // of its keys at the life's beginning: the number of the put
	next  int            // number of the next put

	mu     sync.Mutex
	issued []op
	acked  atomic.Int64 // how many of issued were answered
	saved  atomic.Int64 // how many of issued are known to be saved
}

// content is what put number n of a writer stores.
func (w *writer) content(n int) []byte {
	size := 100 * (n % 40)
	if n%23 == 0 {
		size = 150_000 // some that take more than one chunk of a state file
	}
	return noise(uint64(w.id)<<24|uint64(n), size)
}

// work puts and deletes, one after the other, until the program or ctx ends.
func (w *writer) work(ctx context.Context, client *s3.Client, r *rand.Rand) {
	for ctx.Err() == nil {
		o := op{key: fmt.Sprintf("%d/key %02d", w.id, r.IntN(killKeys))}
		if r.IntN(4) > 0 {
			o.number = w.next
			w.next++
		}
		w.mu.Lock()
		w.issued = append(w.issued, o)
		w.mu.Unlock()
		var err error
		if o.number == 0 {
			_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(killBucket), Key: &o.key})
		} else {
			_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(killBucket), Key: &o.key, Body: bytes.NewReader(w.content(o.number)),
				ContentType: aws.String("application/x-" + strconv.Itoa(o.number)), Metadata: map[string]string{"number": strconv.Itoa(o.number)}})
		}
		if err != nil {
			return // killed under way: this one may have happened or not
		}
		w.acked.Add(1)
	}
}

// found compares the state of a writer's keys in the next life with what it did, and begins the next
// life with it.
func (w *writer) found(t *testing.T, got map[string]int) {
	t.Helper()
	state := maps.Clone(w.state)
	saved, matches := int(w.saved.Load()), -1
	for done := 0; ; done++ {
		if done >= saved && maps.Equal(state, got) {
			matches = done
			break
		}
		if done == len(w.issued) {
			break
		}
		if o := w.issued[done]; o.number == 0 {
			delete(state, o.key)
		} else {
			state[o.key] = o.number
		}
	}
	if matches < 0 {
		t.Errorf("writer %d: of %d things done, %d answered and %d saved, no first part gives what was found.\nfound %v\nbegan with %v\ndid %v",
			w.id, len(w.issued), w.acked.Load(), saved, got, w.state, w.issued)
	}
	w.state, w.issued = got, nil
	w.acked.Store(0)
	w.saved.Store(0)
}

// read gets all of the writers' keys from a program and checks each object by itself.
func read(t *testing.T, c *child, writers []*writer) []map[string]int {
	t.Helper()
	client := c.client()
	states := make([]map[string]int, len(writers))
	for i, w := range writers {
		states[i] = map[string]int{}
		listed, err := client.ListObjectsV2(bg(), &s3.ListObjectsV2Input{Bucket: aws.String(killBucket), Prefix: aws.String(fmt.Sprintf("%d/", w.id))})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range listed.Contents {
			got, err := client.GetObject(bg(), &s3.GetObjectInput{Bucket: aws.String(killBucket), Key: o.Key})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(got.Body)
			got.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.Atoi(got.Metadata["number"])
			if err != nil {
				t.Fatalf("%s has metadata %v", *o.Key, got.Metadata)
			}
			if !bytes.Equal(body, w.content(n)) || *got.ContentType != "application/x-"+strconv.Itoa(n) {
				t.Errorf("%s is torn: put %d with %d bytes and type %s", *o.Key, n, len(body), *got.ContentType)
			}
			states[i][*o.Key] = n
		}
	}
	return states
}

// seed gives the randomness of a test: E2E_SEED, to see a failure again, or a new one.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("E2E_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("E2E_SEED: %v", err)
		}
	}
	t.Logf("E2E_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// lives kills a program again and again, in the middle of its work and of its start. save is called
// beside the writers and says what is known to be saved; without it, that is whatever was answered.
func lives(t *testing.T, rounds int, o options, data string, save func(ctx context.Context, c *child, r *rand.Rand, writers []*writer)) {
	r := seed(t)
	writers := make([]*writer, killWriters)
	for i := range writers {
		writers[i] = &writer{id: i, state: map[string]int{}, next: 1}
	}
	c := start(t, o)
	if _, err := c.client().CreateBucket(bg(), &s3.CreateBucketInput{Bucket: aws.String(killBucket)}); err != nil {
		t.Fatal(err)
	}
	c.save()
	answered, saved, interrupted := 0, 0, 0
	for round := range rounds {
		ctx, cancel := context.WithCancel(bg())
		var busy sync.WaitGroup
		client := c.client()
		for _, w := range writers {
			mine := rand.New(rand.NewPCG(r.Uint64(), 0))
			busy.Go(func() { w.work(ctx, client, mine) })
		}
		if save != nil {
			mine := rand.New(rand.NewPCG(r.Uint64(), 0))
			busy.Go(func() { save(ctx, c, mine, writers) })
		}
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		c.kill()
		cancel()
		busy.Wait()
		for _, w := range writers {
			if save == nil {
				w.saved.Store(w.acked.Load())
			}
			answered += int(w.acked.Load())
			saved += int(w.saved.Load())
		}

		if r.IntN(4) == 0 { // and once more, while it starts
			again, _ := spawn(t, o)
			time.Sleep(time.Duration(r.IntN(120)) * time.Millisecond)
			again.kill()
		}
		for name := range tree(t, data) {
			if strings.Contains(name, ".state.tmp-") {
				interrupted++
			}
		}
		c = start(t, o)
		noLeftovers(t, data)
		states := read(t, c, writers)
		for i, w := range writers {
			w.found(t, states[i])
		}
		c.healthy()
		if t.Failed() {
			t.Fatalf("in round %d of %d", round+1, rounds)
		}
	}
	t.Logf("%d rounds: %d writes were answered, %d of them known to be saved at the kill; %d kills left a save half written; generation %d",
		rounds, answered, saved, interrupted, c.part().Generation)
	c.stop()
	if saved == 0 {
		t.Error("nothing was known to be saved in any round: the test shows nothing")
	}
}

// rounds is how often a test of lives kills.
func rounds(n int) int {
	if testing.Short() {
		return max(2, n/5)
	}
	return n
}

// TestKillWhileSaving: the program saves by schedule and on demand while it is killed.
func TestKillWhileSaving(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	lives(t, rounds(20), on(data).with("SNAPSHOT_FLUSH_INTERVAL=0.1"), data, func(ctx context.Context, c *child, r *rand.Rand, writers []*writer) {
		for ctx.Err() == nil {
			// What was answered before the save began is in it.
			answered := make([]int64, len(writers))
			for i, w := range writers {
				answered[i] = w.acked.Load()
			}
			a, err := c.try(http.MethodPost, "/_localstack/state/save", "")
			if err != nil {
				return
			}
			if a.status != http.StatusOK || !strings.Contains(a.body, `"status":"ok"`) {
				t.Errorf("save: %d %s", a.status, a.body)
				return
			}
			for i, w := range writers {
				w.saved.Store(answered[i])
			}
			time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
		}
	})
}

// TestKillWithSavesOnRequest: what a writer has had an answer for is saved.
func TestKillWithSavesOnRequest(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	lives(t, rounds(10), on(data).with("SNAPSHOT_SAVE_STRATEGY=ON_REQUEST"), data, nil)
}
