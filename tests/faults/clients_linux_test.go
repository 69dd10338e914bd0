package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// entry is the n-th value of a key, of a length of its own, with its sum.
func entry(key string, n int64) string {
	text := fmt.Sprintf("%s %d %s", key, n, strings.Repeat("x", int(n*37%400)))
	return fmt.Sprintf("%s %08x", text, crc32.ChecksumIEEE([]byte(text)))
}

// number gives n of an entry, and an error where it is not whole.
func number(key, v string) (int64, error) {
	at := strings.LastIndexByte(v, ' ')
	if at < 0 || fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(v[:at]))) != v[at+1:] || !strings.HasPrefix(v, key+" ") {
		return 0, fmt.Errorf("%s is torn: %.80q", key, v)
	}
	n, _, _ := strings.Cut(v[len(key)+1:], " ")
	return strconv.ParseInt(n, 10, 64)
}

// client writes one key, with rising numbers, one after the other.
type client struct {
	part, key           string
	issued, acked, safe atomic.Int64
}

func (c *client) path() string { return "/" + c.part + "/" + c.key }

// write does the next write; false: it was not acknowledged.
func (c *client) write(h *house) (answer, error) {
	n := c.issued.Add(1)
	a, err := h.ask(http.MethodPut, c.path(), entry(c.key, n))
	if err == nil && a.status == http.StatusOK {
		c.acked.Store(n)
	}
	return a, err
}

func newClients(k kind, n int) []*client {
	all := make([]*client, n)
	for i := range all {
		all[i] = &client{part: k[i%len(k)], key: fmt.Sprintf("client-%03d", i)}
	}
	return all
}

// seed begins a random source that the log names, so that what it found can be looked for again.
func seed(t *testing.T) *rand.Rand {
	n := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("FAULTS_SEED"), 10, 64); err == nil {
		n = s
	}
	t.Logf("FAULTS_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// TestClients: 100 clients write while saves run every second, and one calls the barrier now and then; everything
// is killed at any moment. What was acknowledged before a barrier that succeeded began is there in the next life,
// and nothing is torn.
func TestClients(t *testing.T) {
	t.Parallel()
	atomically := func(_ *world, service tree) {
		service["flush_interval"] = "1s"
		service.under("parts", "store", "source", "http")["atomic"] = true
	}
	often := func(_ *world, service tree) { service["flush_interval"] = "1s" }
	// What is newer than the last save stays as the service left it (README), so the service must leave it whole.
	carefully := func(_ *world, service tree) {
		service["flush_interval"] = "1s"
		service.under("run", "env")[serviceCareful] = "1"
	}
	for _, c := range []struct {
		name   string
		kind   kind
		change func(*world, tree)
	}{{"http", kind{inMemory}, often}, {"http, atomic", kind{inMemory}, atomically}, {"files", kind{inFiles}, carefully}, {"both", kind{inMemory, inFiles}, often}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rounds := 3
			if testing.Short() {
				rounds = 1
			}
			many(t, newWorld(t, c.kind, c.change), rounds)
		})
	}
}

func many(t *testing.T, w *world, rounds int) {
	random, clients := seed(t), newClients(w.kind, 100)
	acked, safe, barriers := int64(0), int64(0), 0
	for range rounds {
		h := w.start()
		life, end := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		for _, c := range clients {
			busy.Go(func() {
				for life.Err() == nil {
					if a, err := c.write(h); life.Err() == nil && (err != nil || a.status != http.StatusOK) {
						t.Errorf("PUT %s: %d %s, %v", c.path(), a.status, a.body, err)
						return
					}
				}
			})
		}
		first := make(chan struct{})
		var once sync.Once
		busy.Go(func() {
			defer once.Do(func() { close(first) })
			for life.Err() == nil {
				before := make([]int64, len(clients))
				for i, c := range clients {
					before[i] = c.acked.Load()
				}
				a, err := h.ask(http.MethodPost, "/_torpor/services/"+w.service+"/sync", "")
				if err != nil || a.status != http.StatusOK {
					if life.Err() == nil {
						t.Errorf("sync: %d %s, %v", a.status, a.body, err)
					}
					return
				}
				for i, c := range clients {
					c.safe.Store(before[i])
				}
				barriers++
				if barriers%2 == 0 {
					once.Do(func() { close(first) })
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
		<-first
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		end()
		if random.IntN(2) == 0 {
			w.killService()
		}
		h.kill()
		busy.Wait()
		w.gone()
		w.sound()

		h = w.start()
		for _, part := range w.kind {
			all := h.all(part)
			for _, c := range clients {
				if c.part != part {
					continue
				}
				n := int64(0)
				if v, ok := all[c.key]; ok {
					var err error
					if n, err = number(c.key, v); err != nil {
						t.Error(err)
					}
				}
				if n < c.safe.Load() || n > c.issued.Load() {
					t.Errorf("%s is at %d; %d was acknowledged before a barrier began that succeeded (%d at the kill, %d were sent)", c.path(), n, c.safe.Load(), c.acked.Load(), c.issued.Load())
				}
				acked += c.acked.Load() - n
				safe += c.safe.Load()
				c.acked.Store(n)
				c.safe.Store(n) // loaded from a generation, which stays
			}
		}
		h.stop()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d rounds, %d barriers: %d writes were known to be saved, %d that were acknowledged and not known to be saved are gone", rounds, barriers, safe, acked)
	if safe == 0 {
		t.Error("nothing was known to be saved: the test shows nothing")
	}
}

// TestRequestsWhileItSleeps: 50 clients go on while the service is put to sleep again and again. None is refused,
// and each sees all that was acknowledged before it asked.
func TestRequestsWhileItSleeps(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			h := newWorld(t, k, nil).start()
			clients := newClients(k, 50)
			life, end := context.WithCancel(t.Context())
			var busy sync.WaitGroup
			for i, c := range clients {
				random := rand.New(rand.NewPCG(uint64(i), 1))
				busy.Go(func() {
					for life.Err() == nil {
						if a, err := c.write(h); err != nil || a.status != http.StatusOK {
							t.Errorf("PUT %s: %d %s, %v", c.path(), a.status, a.body, err)
							return
						}
						for _, other := range []*client{c, clients[random.IntN(len(clients))]} {
							least := other.acked.Load()
							a, err := h.ask(http.MethodGet, other.path(), "")
							if least == 0 && a.status == http.StatusNotFound {
								continue
							}
							n, wrong := number(other.key, a.body)
							if err != nil || a.status != http.StatusOK || wrong != nil || n < least {
								t.Errorf("GET %s: %d %.80q, %v, %v; at least %d was acknowledged", other.path(), a.status, a.body, err, wrong, least)
								return
							}
						}
						// Some pause, so that it is also woken by one request after a while.
						time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
					}
				})
			}
			slept := 0
			rounds := 10
			if testing.Short() {
				rounds = 3
			}
			for range rounds {
				if a := h.order("sleep"); a.status != http.StatusOK {
					t.Errorf("sleep: %d %s", a.status, a.body)
				} else {
					slept++
				}
				time.Sleep(50 * time.Millisecond)
			}
			end()
			busy.Wait()
			var wakes int
			eventually(t, "the log tells of the wakes", func() bool { wakes = strings.Count(h.Log.String(), "service is awake"); return wakes > 0 })
			t.Logf("put to sleep %d times, woken %d times", slept, wakes)
			if wakes < rounds/2 {
				t.Errorf("%d wakes: the test shows nothing", wakes)
			}
			for _, part := range k {
				text, err := json.Marshal(h.all(part))
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range clients {
					if c.part == part && !strings.Contains(string(text), entry(c.key, c.acked.Load())) {
						t.Errorf("%s does not have write %d", c.path(), c.acked.Load())
					}
				}
			}
			h.stop()
			h.gone()
			h.sound()
		})
	}
}
