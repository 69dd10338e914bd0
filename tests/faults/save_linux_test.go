package faults

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// fails checks that a control call could not be done.
func (h *house) fails(what string, a answer, words ...string) {
	h.t.Helper()
	if a.status/100 == 2 {
		h.t.Errorf("%s: %d %s; it must have failed", what, a.status, a.body)
	}
	for _, word := range words {
		if !strings.Contains(a.body, word) {
			h.t.Errorf("%s: %d %s; want %q in it", what, a.status, a.body, word)
		}
	}
}

// goesOn checks that a service has gone on as if nothing had happened: nothing of it is lost.
func (h *house) goesOn() {
	h.t.Helper()
	if is := h.health(); is.Status != "running" {
		h.t.Errorf("health: %+v, want running", is)
	}
	h.has()
}

// quickly has the service be stopped soon where it does not stop by itself.
func quickly(w *world, service tree) {
	service.under("run")["stop_timeout"] = "500ms"
	soon(w, service)
}

// sleepFaults are those of a service that runs, with something unsaved.
func sleepFaults() []fault {
	return []fault{
		{name: "dies in the dump", only: kind.memory, happens: func(h *house) {
			h.set(atDump, "die")
			h.fails("sleep", h.order("sleep"))
			h.clear()
			h.lossTold()
		}},
		{name: "dies as soon as it is dumped", only: kind.memory, happens: func(h *house) {
			h.set(atDumped, "die")
			// It was to end anyway; but it may also be that it was seen to have died.
			if a := h.order("sleep"); a.status == http.StatusOK {
				h.saved()
				h.hasSafe()
				h.has()
			}
		}},
		{name: "hangs in the dump", only: kind.memory, change: soon, happens: func(h *house) {
			h.set(atDump, "stall")
			h.fails("sleep", h.order("sleep"), "1s")
			h.is("running", "degraded", "1s")
			h.goesOn()
		}},
		{name: "dumps slowly", only: kind.memory, happens: func(h *house) {
			h.set(atDump, "slow")
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			h.gone()
			h.hasSafe()
			h.has()
		}},
		{name: "ignores SIGTERM", change: quickly, happens: func(h *house) {
			h.set(atTerm, "ignore")
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			if left := h.processes(); len(left) > 0 {
				h.t.Errorf("asleep, and processes %v are left", left)
			}
			h.is("available", "ok")
			h.hasSafe()
			h.has()
		}},
		{name: "writes at its end", only: kind.files, happens: func(h *house) {
			h.set(atTerm, "write")
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.noted(inFiles, lastWords, lastWords)
			h.saved()
			h.hasSafe()
			h.has()
			h.stop() // and what is saved has it, too
			n := h.next()
			n.has()
			*h = *n
		}},
		{name: "is killed as it is put to sleep", happens: func(h *house) {
			for range 5 {
				h.killService()
				_ = h.order("sleep") // it may still succeed, or find that there is nothing to stop
				h.hasSafe()
			}
		}},
		{name: "is killed while it stops", happens: func(h *house) {
			h.set(atTerm, "stall")
			done := h.doing(http.MethodPost, "/_torpor/services/"+h.service+"/sleep", "")
			h.reached(atTerm)
			h.is("stopping", "ok")
			h.killService()
			h.wants("sleep", <-done, http.StatusOK)
			h.saved()
			h.clear()
			h.hasSafe()
			h.has()
		}},
	}
}

// TestSleep: the fault happens when the service is put to sleep by command.
func TestSleep(t *testing.T) { each(t, sleepFaults(), (*world).settled, (*house).recovers) }

// TestIdle: it happens when the service is put to sleep because nobody uses it.
func TestIdle(t *testing.T) {
	idle := func(_ *world, service tree) { service["idle"] = "200ms" }
	each(t, []fault{
		{name: "dies in the dump", only: kind.memory, change: idle, happens: func(h *house) {
			h.set(atDump, "die once")
			h.reached(atDump)
			h.says("and with it what was not saved")
		}},
		{name: "hangs in the dump", only: kind.memory, change: func(w *world, service tree) { soon(w, service); idle(w, service) }, happens: func(h *house) {
			h.set(atDump, "stall")
			h.says("an idle service could not be put to sleep")
			h.clear()
			h.says("service is asleep") // the next try
			h.saved()
			h.has()
		}},
		{name: "ignores SIGTERM", change: func(w *world, service tree) { quickly(w, service); idle(w, service) }, happens: func(h *house) {
			h.set(atTerm, "ignore")
			h.says("service is asleep")
			h.saved()
			h.has()
		}},
	}, func(w *world) *house {
		h := w.start()
		h.put("kept", "is saved")
		h.sync()
		h.put("new", "is not saved")
		return h
	}, func(h *house) {
		h.clear()
		h.hasSafe()
		h.accept()
		h.put("after", "the fault")
		h.sync()
		h.stop()
		n := h.next()
		n.has()
		n.stop()
	})
}

// TestSchedule: the fault happens at a save by schedule.
func TestSchedule(t *testing.T) {
	often := func(w *world, service tree) {
		service["flush_interval"] = "200ms"
		timeout(service, "1s")
	}
	unsaved := func(h *house, words ...string) {
		h.t.Helper()
		h.put("new", "is not saved")
		h.says("scheduled save failed")
		eventually(h.t, "health tells it", func() bool { return h.health().Parts[0].LastError != "" })
		h.is("running", "degraded", words...)
		if g := h.health().Parts[0].Generation; g != h.generation {
			h.t.Errorf("generation %d, want %d", g, h.generation)
		}
		h.has()
		h.put("newer", "is not saved either")
		h.clear()
		eventually(h.t, "it is saved", func() bool { p := h.health().Parts[0]; return p.Generation > h.generation && p.Status == "saved" })
		h.is("running", "ok")
		h.saved()
	}
	each(t, []fault{
		{name: "dies in the dump", only: kind.memory, change: often, happens: func(h *house) {
			h.set(atDump, "die")
			h.put("new", "is lost")
			h.reached(atDump)
			h.lossTold()
		}},
		{name: "hangs in the dump", only: func(k kind) bool { return len(k) == 1 && k.memory() }, change: often, happens: func(h *house) {
			h.set(atDump, "stall")
			unsaved(h, "1s")
		}},
		{name: "dumps slowly", only: kind.memory, change: often, happens: func(h *house) {
			h.set(atDump, "slow")
			var clients sync.WaitGroup
			for i := range 4 {
				clients.Go(func() {
					for j := range 5 {
						path := fmt.Sprintf("/%s/client-%d", inMemory, i)
						if a, err := h.ask(http.MethodPut, path, fmt.Sprint(j)); err != nil || a.status != http.StatusOK {
							h.t.Errorf("PUT %s while a save takes its time: %d %s, %v", path, a.status, a.body, err)
						}
					}
				})
			}
			clients.Wait()
			h.reached(atDump)
			for i := range 4 {
				h.noted(inMemory, fmt.Sprint("client-", i), "4")
			}
			h.sync()
			h.has()
		}},
		{name: "is killed all the time", change: often, happens: func(h *house) {
			for i := range 3 {
				if a := h.do(http.MethodPut, h.any()+"killed", fmt.Sprint(i)); a.status == http.StatusOK {
					h.noted(h.kind[0], "killed", fmt.Sprint(i))
				}
				h.killService()
				h.hasSafe()
			}
		}},
	}, func(w *world) *house {
		h := w.start()
		h.put("kept", "is saved")
		h.sync()
		return h
	}, (*house).recovers)
}

// TestLoad: the fault happens when the service is given its last generation back while it runs.
func TestLoad(t *testing.T) {
	each(t, []fault{
		{name: "dies in the restore", only: kind.memory, happens: func(h *house) {
			h.set(atRestore, "die once")
			h.fails("load", h.state("load"))
		}},
		{name: "hangs in the restore", only: kind.memory, change: soon, happens: func(h *house) {
			h.set(atRestore, "stall")
			h.fails("load", h.state("load"), "1s")
			if len(h.kind) == 1 {
				h.is("running", "degraded", "1s")
				h.goesOn()
				return
			}
			// Its files are the old ones already, so it must not go on with a mixture.
			h.is("error", "error", "1s")
			h.clear()
			h.wants("load", h.state("load"), http.StatusOK)
			h.forget()
			h.has()
		}},
		{name: "dies before it is ready", only: kind.files, happens: func(h *house) {
			h.set(atStart, "die")
			h.fails("load", h.state("load"), "exit code 3")
			h.is("available", "degraded", "exit code 3")
			h.clear()
			h.forget()
			h.has()
		}},
		{name: "ignores SIGTERM", only: kind.files, change: quickly, happens: func(h *house) {
			h.set(atTerm, "ignore")
			h.wants("load", h.state("load"), http.StatusOK)
			h.forget()
			h.has()
		}},
		{name: "is killed as it is loaded", happens: func(h *house) {
			for range 5 {
				h.killService()
				_ = h.state("load")
				h.hasSafe()
			}
		}},
		{name: "dies as soon as it is restored, asleep", only: kind.memory, happens: func(h *house) {
			for range 5 {
				h.wants("sleep", h.order("sleep"), http.StatusOK)
				h.saved()
				h.set(atRestored, "die once")
				_ = h.state("load")
				h.clear()
				h.hasSafe()
			}
		}},
		{name: "dies in the restore, asleep", only: kind.memory, happens: func(h *house) {
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			h.set(atRestore, "die once")
			h.fails("load", h.state("load"))
			h.is("available", "degraded", "exit code 3")
		}},
	}, (*world).settled, func(h *house) {
		h.clear()
		h.hasSafe()
		h.recovers()
	})
}

// TestReset: the fault happens when the service is emptied. Then all of it is empty, or all is as it was saved.
func TestReset(t *testing.T) {
	each(t, []fault{
		{name: "dies in the reset", only: kind.memory, happens: func(h *house) {
			h.set(atReset, "die once")
			h.fails("reset", h.state("reset"))
		}},
		{name: "hangs in the reset", only: kind.memory, change: soon, happens: func(h *house) {
			h.set(atReset, "stall")
			h.fails("reset", h.state("reset"), "1s")
		}},
		{name: "dies before it is ready", only: kind.files, happens: func(h *house) {
			h.set(atStart, "die")
			h.fails("reset", h.state("reset"), "exit code 3")
		}},
		{name: "dies before it is ready, having slept", only: kind.files, happens: func(h *house) {
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			h.has()
			h.set(atStart, "die")
			h.fails("reset", h.state("reset"), "exit code 3")
		}},
		{name: "dies in the dump", only: kind.memory, happens: func(h *house) {
			h.set(atDump, "die once")
			h.fails("reset", h.state("reset"))
		}},
		{name: "is asleep", happens: func(h *house) {
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.wants("reset", h.state("reset"), http.StatusOK)
		}},
	}, (*world).settled, func(h *house) {
		h.clear()
		check := func(h *house) {
			h.t.Helper()
			var empty, whole int
			for _, part := range h.kind {
				switch got := h.all(part); {
				case len(got) == 0:
					empty++
				case maps.Equal(got, h.safe[part]), maps.Equal(got, h.acked[part]):
					whole++
				default:
					h.t.Errorf("/%s/ has %q", part, got)
				}
			}
			if empty > 0 && whole > 0 {
				h.t.Errorf("%d parts are empty and %d are not", empty, whole)
			}
			for _, part := range h.kind {
				h.acked[part] = h.all(part)
			}
			h.allSaved()
		}
		check(h)
		h.stop()
		h.gone()
		h.sound()
		n := h.start()
		check(n)
		n.put("after", "the reset")
		n.stop()
		h.allSaved()
		n = n.next()
		n.has()
		n.stop()
	})
}

// TestStop: the fault happens when the runtime is told to end.
func TestStop(t *testing.T) {
	unsaved := func(h *house, what string) {
		h.t.Helper()
		h.terminate()
		if code := h.wait(); code != 1 {
			h.t.Errorf("exit code %d where not everything could be saved, want 1", code)
		}
		h.says("not everything could be saved")
		h.says(what)
	}
	each(t, []fault{
		{name: "dies in the dump", only: kind.memory, happens: func(h *house) {
			h.set(atDump, "die")
			unsaved(h, h.service)
		}},
		{name: "hangs in the dump", only: kind.memory, change: quickly, happens: func(h *house) {
			h.set(atDump, "stall")
			unsaved(h, "1s")
		}},
		{name: "dumps slowly", only: kind.memory, happens: func(h *house) {
			h.set(atDump, "slow")
			h.stop()
			h.allSaved()
		}},
		{name: "ignores SIGTERM", change: quickly, happens: func(h *house) {
			h.set(atTerm, "ignore")
			h.stop()
			h.allSaved()
		}},
		{name: "writes at its end", only: kind.files, happens: func(h *house) {
			h.set(atTerm, "write")
			h.stop()
			h.noted(inFiles, lastWords, lastWords)
			h.allSaved()
		}},
		{name: "dies while it stops", happens: func(h *house) {
			h.set(atTerm, "die")
			h.stop()
			h.allSaved()
		}},
		{name: "is being started", happens: func(h *house) {
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			h.set(atStart, "stall")
			h.doing(http.MethodGet, h.any(), "")
			h.reached(atStart)
			h.terminate()
			if code := h.wait(); code != 0 {
				h.t.Errorf("exit code %d", code)
			}
		}},
		{name: "is being restored", only: kind.memory, happens: func(h *house) {
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			h.set(atRestore, "stall")
			h.doing(http.MethodGet, h.any(), "")
			h.reached(atRestore)
			h.terminate()
			if code := h.wait(); code != 0 {
				h.t.Errorf("exit code %d", code)
			}
		}},
		{name: "is being put to sleep", happens: func(h *house) {
			h.set(atTerm, "stall")
			h.doing(http.MethodPost, "/_torpor/services/"+h.service+"/sleep", "")
			h.reached(atTerm)
			h.terminate()
			time.AfterFunc(200*time.Millisecond, func() { h.set(atTerm, "ignore"); h.killService() })
			if code := h.wait(); code != 0 {
				h.t.Errorf("exit code %d", code)
			}
			h.allSaved()
		}},
		{name: "has just died", happens: func(h *house) {
			h.killService()
			h.terminate()
			h.wait() // what it says depends on whether the death was seen before
		}},
	}, (*world).settled, func(h *house) {
		n := h.next()
		n.stop()
	})
}
