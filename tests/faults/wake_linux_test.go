package faults

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fault is one thing that goes wrong.
type fault struct {
	name   string
	only   func(kind) bool // which kinds it can happen to; nil: all
	change func(w *world, service tree)
	// happens has it go wrong and checks what is said to clients and in health.
	happens func(h *house)
}

// each runs the faults. ready prepares the runtime for what happens.
func each(t *testing.T, faults []fault, ready func(w *world) *house, after func(h *house)) {
	t.Parallel()
	for i, f := range faults {
		for _, k := range some(i, f.only) {
			t.Run(f.name+"/"+k.String(), func(t *testing.T) {
				t.Parallel()
				h := ready(newWorld(t, k, f.change))
				f.happens(h)
				after(h)
			})
		}
	}
}

// soon makes the service's times out short: what is waited for does not come.
func soon(_ *world, service tree) {
	service.under("run")["ready_timeout"] = "1s"
	timeout(service, "1s")
}

// wakeFaults are those of a service that has something saved and does not run.
func wakeFaults() []fault {
	refused := func(h *house, words ...string) {
		h.t.Helper()
		words = append(words, "service_unavailable", h.service)
		h.wants("the request", h.do(http.MethodGet, h.any(), ""), http.StatusServiceUnavailable, words...)
	}
	// broken is a service whose state cannot be given back: it must be told to try again.
	broken := func(h *house, words ...string) {
		h.t.Helper()
		refused(h, words...)
		h.is("error", "error", append(words, "cannot be loaded")...)
		h.wants("a save", h.state("save"), http.StatusInternalServerError, "could not be loaded")
		if left := h.processes(); len(left) > 0 {
			h.t.Errorf("processes %v of a service that is not served", left)
		}
		h.clear()
		h.wants("the load", h.state("load"), http.StatusOK, "ok")
	}
	return []fault{
		{name: "dies before it is ready", happens: func(h *house) {
			h.set(atStart, "die")
			refused(h, "exit code 3")
			h.is("available", "degraded", "exit code 3")
			refused(h, "exit code 3") // each request tries again
		}},
		{name: "never becomes ready", change: soon, happens: func(h *house) {
			h.set(atStart, "stall")
			refused(h, "not ready after 1s")
			h.is("available", "degraded", "not ready after 1s")
			h.gone()
		}},
		{name: "is ready and not healthy", change: soon, happens: func(h *house) {
			h.set(atHealth, "fail")
			refused(h, "not ready after 1s", "/health: 503")
			h.gone()
		}},
		{name: "becomes ready slowly", happens: func(h *house) {
			h.set(atHealth, "fail")
			first := h.doing(http.MethodGet, h.any(), "")
			h.reached(atHealth)
			h.is("starting", "ok")
			second := h.doing(http.MethodGet, h.any(), "")
			h.clear()
			h.wants("who woke it", <-first, http.StatusOK)
			h.wants("who waited", <-second, http.StatusOK)
		}},
		{name: "takes longer than a request waits", change: func(_ *world, service tree) { service["wake_timeout"] = "300ms" }, happens: func(h *house) {
			h.set(atStart, "stall")
			h.wants("the request", h.do(http.MethodGet, h.any(), ""), http.StatusServiceUnavailable, "service_waking", h.service, "300ms")
			h.is("starting", "ok")
		}},
		{name: "listens elsewhere", change: soon, happens: func(h *house) {
			h.set(atPort, "127.0.0.1:0")
			refused(h, "not ready after 1s", "connection refused")
			h.gone()
		}},
		{name: "dies in the restore", only: kind.memory, happens: func(h *house) {
			h.set(atRestore, "die")
			refused(h)
			h.is("available", "degraded", "exit code 3")
		}},
		{name: "dies as soon as it is restored", only: kind.memory, happens: func(h *house) {
			h.set(atRestored, "die once")
			h.hasSafe()
		}},
		{name: "hangs in the restore", only: kind.memory, change: soon, happens: func(h *house) {
			h.set(atRestore, "stall")
			broken(h, "1s")
		}},
		{name: "refuses what was saved", only: kind.memory, happens: func(h *house) {
			h.set(atRestore, "refuse")
			broken(h, "503", "not now")
		}},
		{name: "takes its time to be restored", only: kind.memory, happens: func(h *house) {
			h.set(atRestore, "slow")
			h.hasSafe()
			h.has()
		}},
		{name: "dies at the first request", happens: func(h *house) {
			h.set(atRequest, "die once")
			h.wants("the request", h.do(http.MethodGet, h.any(), ""), http.StatusBadGateway, "upstream_failed", h.service)
			h.hasSafe() // it is started again
			h.has()
		}},
	}
}

// TestFirstWake: the fault happens when a runtime wakes the service for the first time.
func TestFirstWake(t *testing.T) {
	each(t, wakeFaults(), func(w *world) *house {
		h := w.settled()
		h.sync()
		h.stop()
		return w.start()
	}, (*house).recovers)
}

// TestWakeFromSleep: it happens when the service has been put to sleep.
func TestWakeFromSleep(t *testing.T) {
	each(t, wakeFaults(), func(w *world) *house {
		h := w.settled()
		h.wants("sleep", h.order("sleep"), http.StatusOK)
		h.saved()
		if h := h.health(); h.Status != "available" || !h.Asleep {
			w.t.Errorf("asleep it is %+v", h)
		}
		h.gone()
		return h
	}, (*house).recovers)
}

// TestPortTaken: a port that is configured belongs to somebody else.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			var port int
			h := newWorld(t, k, func(w *world, service tree) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				port = l.Addr().(*net.TCPAddr).Port
				l.Close()
				service.under("run")["port"] = port
			}).settled()
			h.wants("sleep", h.order("sleep"), http.StatusOK)
			h.saved()
			other, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				t.Fatal(err)
			}
			h.wants("the request", h.do(http.MethodGet, h.any(), ""), http.StatusServiceUnavailable, "service_unavailable", h.service, strconv.Itoa(port))
			h.is("available", "degraded", strconv.Itoa(port))
			other.Close()
			h.hasSafe()
			h.has()
			h.recovers()
		})
	}
}

// TestKilledService: somebody kills the service, with what it had not saved.
func TestKilledService(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			h := newWorld(t, k, nil).settled()
			h.killService()
			h.says("was ended by SIGKILL")
			if k.memory() {
				h.lossTold() // and it runs, without a request
			} else {
				h.is("running", "ok")
			}
			h.hasSafe()
			if k.files() {
				if got := h.all(inFiles); got["new"] != "is not saved" {
					t.Errorf("its files are %q; what it had written was still there", got)
				}
			}
			h.recovers()
		})
	}
}

// TestCrashLoop: a service that dies again and again is given up, and the next request tries once more.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			h := newWorld(t, k, func(_ *world, service tree) {
				service.under("run")["restarts"] = tree{"most": 2, "within": "10m"}
			}).settled()
			h.set(atStart, "die")
			h.killService()
			h.says("could not be started again")
			if n := strings.Count(h.Log.String(), "exit code 3"); n < 2 {
				t.Errorf("it was started again %d times, want 2", n)
			}
			h.is("available", "degraded", "exit code 3")
			h.gone()
			h.wants("a request", h.do(http.MethodGet, h.any(), ""), http.StatusServiceUnavailable, "exit code 3")
			h.recovers()
		})
	}
}

// TestDiesAtRequest: a service that dies at one of its requests is there for the next.
func TestDiesAtRequest(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			h := newWorld(t, k, nil).settled()
			h.set(atRequest, "die 3")
			for i := range 3 {
				want := []int{http.StatusOK, http.StatusOK, http.StatusBadGateway}[i]
				h.wants("request "+strconv.Itoa(i+1), h.do(http.MethodGet, h.any(), ""), want)
			}
			h.clear()
			h.hasSafe()
			h.recovers()
		})
	}
}

// TestChildren: what a service has begun goes with it, however it ends.
func TestChildren(t *testing.T) {
	t.Parallel()
	ends := map[string]func(h *house){
		"put to sleep": func(h *house) { h.wants("sleep", h.order("sleep"), http.StatusOK); h.saved() },
		"killed": func(h *house) {
			h.set(atStart, "stall")
			_ = syscall.Kill(h.processes()[0], syscall.SIGKILL) // the lower number: not the child
			h.reached(atStart)
		},
		"stopped with the runtime": func(h *house) { h.stop(); h.allSaved() },
		"the runtime killed":       (*house).kill,
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind{inMemory, inFiles}, nil)
			w.set(atChild, "leave")
			h := w.settled()
			before := w.processes()
			if len(before) != 2 {
				t.Fatalf("processes %v, want the service and its child", before)
			}
			w.clear()
			end(h)
			eventually(t, "both are gone", func() bool {
				return !running(before[0]) && !running(before[1])
			})
			w.clear()
			select {
			case <-h.Exited:
				w.next().stop()
			default:
				h.recovers()
			}
		})
	}
}
