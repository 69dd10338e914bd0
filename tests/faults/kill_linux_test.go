package faults

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRuntimeKilled kills the runtime in each phase of sleep and wake. Nothing that a barrier said is saved is
// lost, and nothing of the service is left running.
func TestRuntimeKilled(t *testing.T) {
	asleep := func(h *house) {
		h.t.Helper()
		h.wants("sleep", h.order("sleep"), http.StatusOK)
		h.saved()
	}
	// stalled kills the runtime while the service stalls at a moment that a request has brought it to.
	stalled := func(h *house, moment, method, path string) {
		h.t.Helper()
		h.set(moment, "stall")
		done := h.doing(method, path, "")
		h.reached(moment)
		h.kill()
		<-done
	}
	command := func(h *house, action string) string { return "/_torpor/services/" + h.service + "/" + action }
	each(t, []fault{
		{name: "waking, the process starts", happens: func(h *house) {
			asleep(h)
			stalled(h, atStart, http.MethodGet, h.any())
		}},
		{name: "waking, the process is not ready", happens: func(h *house) {
			asleep(h)
			h.set(atHealth, "fail")
			h.doing(http.MethodPost, command(h, "wake"), "")
			h.reached(atHealth)
			h.kill()
		}},
		{name: "waking, it is restored", only: kind.memory, happens: func(h *house) {
			asleep(h)
			stalled(h, atRestore, http.MethodGet, h.any())
		}},
		{name: "waking, it has been restored", only: kind.memory, happens: func(h *house) {
			asleep(h)
			stalled(h, atRestored, http.MethodGet, h.any())
		}},
		{name: "just awake", happens: func(h *house) {
			asleep(h)
			h.put("woken by", "this")
			h.kill()
		}},
		{name: "first wake", happens: func(h *house) {
			h.stop()
			h.allSaved()
			n := h.start()
			stalled(n, atStart, http.MethodGet, h.any())
		}},
		{name: "first wake, it is restored", only: kind.memory, happens: func(h *house) {
			h.stop()
			h.allSaved()
			n := h.start()
			stalled(n, atRestore, http.MethodGet, h.any())
		}},
		{name: "going to sleep, it is saved", only: kind.memory, happens: func(h *house) {
			stalled(h, atDump, http.MethodPost, command(h, "sleep"))
		}},
		{name: "going to sleep, it stops", happens: func(h *house) {
			stalled(h, atTerm, http.MethodPost, command(h, "sleep"))
		}},
		{name: "just asleep", happens: func(h *house) {
			asleep(h)
			h.kill()
		}},
		{name: "saving by barrier", only: kind.memory, happens: func(h *house) {
			stalled(h, atDump, http.MethodPost, command(h, "sync"))
		}},
		{name: "resetting", only: kind.memory, happens: func(h *house) {
			stalled(h, atReset, http.MethodPost, "/_localstack/state/"+h.service+"/reset")
		}},
		{name: "loading", only: kind.memory, happens: func(h *house) {
			stalled(h, atRestore, http.MethodPost, "/_localstack/state/"+h.service+"/load")
		}},
		{name: "starting the process again", happens: func(h *house) {
			h.set(atStart, "stall")
			h.killService()
			h.reached(atStart)
			h.kill()
		}},
		{name: "stopping, it saves", only: kind.memory, happens: func(h *house) {
			h.set(atDump, "stall")
			h.terminate()
			h.reached(atDump)
			h.kill()
		}},
		{name: "stopping, the process stops", happens: func(h *house) {
			h.set(atTerm, "stall")
			h.terminate()
			h.reached(atTerm)
			h.kill()
		}},
	}, (*world).settled, func(h *house) {
		n := h.next()
		n.recovers()
	})
}

// TestRuntimeKilledSavingFiles kills the runtime at moments of no choice between the end of the service's process,
// which is being put to sleep, and the end of the save of the files that follows it.
func TestRuntimeKilledSavingFiles(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{{inFiles}, {inMemory, inFiles}} {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k, nil)
			random, halves, done := rand.New(rand.NewPCG(1, 2)), 0, 0
			h := w.start()
			h.put("kept", "is saved")
			var took time.Duration // from the end of the process to the answer, when left alone
			rounds := 5
			if testing.Short() {
				rounds = 2
			}
			for round := range rounds {
				large := strings.Repeat(fmt.Sprintf("round %d ", round), 1<<17)
				h.sync()
				for i := range 3 {
					h.put(fmt.Sprint("large-", i), large)
				}
				asked := h.doing(http.MethodPost, "/_torpor/services/"+h.service+"/sleep", "")
				h.gone()
				since := time.Now()
				if round > 0 {
					time.Sleep(time.Duration(random.Int64N(int64(took) + 1)))
					h.kill()
				}
				switch a := <-asked; {
				case round == 0:
					h.wants("sleep", a, http.StatusOK)
					h.saved()
					took = time.Since(since)
					h.kill()
				case a.status == http.StatusOK:
					h.allSaved()
					done++
				}
				temporary, err := filepath.Glob(filepath.Join(w.data, "state", "api_states", w.service, "*.tmp-*"))
				if err != nil {
					t.Fatal(err)
				}
				halves += len(temporary)
				h = w.next()
			}
			t.Logf("%d rounds: in %d it was asleep already, %d states were half written; a save took %v", rounds, done, halves, took)
			h.recovers()
		})
	}
}

// TestEverythingKilled kills runtime, service and guard at once.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			h := newWorld(t, k, nil).settled()
			h.killService()
			h.kill()
			if _, err := os.Stat(filepath.Join(h.data, "state")); err != nil {
				t.Fatal(err)
			}
			n := h.next()
			n.recovers()
		})
	}
}
