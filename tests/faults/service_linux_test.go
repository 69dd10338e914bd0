package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The environment of the service: serviceAddress makes the test binary be it.
const (
	serviceAddress = "FAULTS_ADDRESS" // where it listens
	serviceControl = "FAULTS_CONTROL" // folder of files that say what goes wrong, see fault
	serviceFolder  = "FAULTS_FOLDER"  // where it keeps files
	serviceCareful = "FAULTS_CAREFUL" // set: a kill leaves each of them as it was or as it was to be
	serviceMark    = "FAULTS_MARK"    // by which all that belongs to one test's service is known
	serviceChild   = "FAULTS_CHILD"   // it is the service's child, which does nothing and does not go
)

// The moments at which something can go wrong. A file of that name in the control folder says what: "die", "stall"
// until the file is gone, "slow", or a word that the moment gives a meaning; "die once" takes the file away, "die 3"
// is for the third time in this process. Reaching a moment that has a file leaves a file "reached-<moment>".
const (
	atStart    = "start"    // before it listens
	atPort     = "port"     // where it listens instead
	atHealth   = "health"   // "fail": it is not ready
	atChild    = "child"    // "leave": it begins one
	atRequest  = "request"  // of a client
	atDump     = "dump"     // half of the state is sent
	atDumped   = "dumped"   // all of it is
	atRestore  = "restore"  // half of a state is read; "refuse" answers 503, and so does one that stalled
	atRestored = "restored" // it is taken, and that is answered
	atReset    = "reset"    // before it is emptied
	atTerm     = "term"     // SIGTERM has come; "ignore", or "write" writes lastWords
)

const (
	dying     = 3            // exit code of one that dies
	lastWords = "last-words" // key of what is written at SIGTERM
	statePath = "/_torpor/state/store"
)

// service keeps texts by key: what is put to /m/ in memory, to be had at the state URL, and what is put to /f/ in
// files of a folder.
type service struct {
	control, folder string
	careful         bool

	mu     sync.Mutex
	memory map[string]string
	times  map[string]int // that moments with a count have come
}

// serve is the service's program. It ends by syscall.Exit, as the race detector has os.Exit wait for a second.
func serve(address string) {
	s := &service{control: os.Getenv(serviceControl), folder: os.Getenv(serviceFolder), careful: os.Getenv(serviceCareful) != "", memory: map[string]string{}, times: map[string]int{}}
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			syscall.Exit(9)
		}
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		for range term {
			switch s.fault(atTerm) {
			case "ignore":
				continue
			case "write":
				must(s.write(lastWords, []byte(lastWords)))
			}
			syscall.Exit(0)
		}
	}()
	must(os.MkdirAll(s.folder, 0o700))
	if s.fault(atChild) != "" {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), serviceChild+"=1")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		must(child.Start())
	}
	s.fault(atStart)
	if other := s.fault(atPort); other != "" {
		address = other
	}
	listener, err := net.Listen("tcp", address)
	must(err)
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if s.fault(atHealth) == "fail" {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET "+statePath, s.dump)
	mux.HandleFunc("PUT "+statePath, s.restore)
	mux.HandleFunc("DELETE "+statePath, func(http.ResponseWriter, *http.Request) {
		s.fault(atReset)
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.memory)
	})
	mux.HandleFunc("PUT /{part}/{key}", s.put)
	mux.HandleFunc("GET /{part}/{key}", func(w http.ResponseWriter, r *http.Request) {
		s.fault(atRequest)
		all, err := s.all(r.PathValue("part"))
		if v, ok := all[r.PathValue("key")]; err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		} else if !ok {
			http.NotFound(w, r)
		} else {
			_, _ = io.WriteString(w, v)
		}
	})
	mux.HandleFunc("GET /{part}/{$}", func(w http.ResponseWriter, r *http.Request) {
		s.fault(atRequest)
		all, err := s.all(r.PathValue("part"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	must(http.Serve(listener, mux))
}

// fault does what is to go wrong at a moment, or gives the word that says what; "" if nothing is.
func (s *service) fault(moment string) string {
	name := filepath.Join(s.control, moment)
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	what, when, _ := strings.Cut(string(b), " ")
	if n, err := strconv.Atoi(when); err == nil {
		s.mu.Lock()
		s.times[moment]++
		due := s.times[moment] == n
		s.mu.Unlock()
		if !due {
			return ""
		}
	}
	if when == "once" {
		_ = os.Remove(name) // of two at once both may do it
	}
	if err := os.WriteFile(filepath.Join(s.control, "reached-"+moment), nil, 0o600); err != nil {
		fmt.Println(err)
	}
	switch what {
	case "die":
		syscall.Exit(dying)
	case "stall":
		for err == nil {
			time.Sleep(5 * time.Millisecond)
			_, err = os.Stat(name)
		}
		return "stalled"
	case "slow":
		time.Sleep(500 * time.Millisecond)
	default:
		return what
	}
	return ""
}

func (s *service) dump(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	b, err := json.Marshal(s.memory)
	s.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b[:len(b)/2])
	_ = http.NewResponseController(w).Flush()
	s.fault(atDump)
	_, _ = w.Write(b[len(b)/2:])
	_ = http.NewResponseController(w).Flush()
	s.fault(atDumped)
}

func (s *service) restore(w http.ResponseWriter, r *http.Request) {
	b := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, b[:len(b)/2])
	if what := s.fault(atRestore); what != "" { // stalled, it does not take what nobody waits for any more
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	if err == nil {
		_, err = io.ReadFull(r.Body, b[len(b)/2:])
	}
	next := map[string]string{}
	if err := errors.Join(err, json.Unmarshal(b, &next)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.memory = next
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	_ = http.NewResponseController(w).Flush()
	s.fault(atRestored)
}

func (s *service) put(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	s.fault(atRequest)
	if err == nil && r.PathValue("part") == inFiles {
		err = s.write(r.PathValue("key"), b)
	} else if err == nil {
		s.mu.Lock()
		s.memory[r.PathValue("key")] = string(b)
		s.mu.Unlock()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// write writes a file where it stands, in two pieces, so that who looks in between finds it torn. A careful service
// writes it beside the folder and exchanges it, so that a kill leaves it whole.
func (s *service) write(key string, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := filepath.Join(s.folder, key)
	at := name
	if s.careful {
		at = filepath.Join(filepath.Dir(s.folder), "written")
	}
	f, err := os.Create(at)
	if err != nil {
		return err
	}
	_, err = f.Write(b[:len(b)/2])
	if err == nil {
		_, err = io.Copy(f, bytes.NewReader(b[len(b)/2:]))
	}
	if err = errors.Join(err, f.Close()); err == nil && at != name {
		err = os.Rename(at, name)
	}
	return err
}

// all is what the service has of a part.
func (s *service) all(part string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]string{}
	if part != inFiles {
		for k, v := range s.memory {
			all[k] = v
		}
		return all, nil
	}
	return all, filepath.WalkDir(s.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[filepath.Base(path)] = string(b)
		return err
	})
}
