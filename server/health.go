package server

import (
	"fmt"
	"io"
	"net/http"
	"os"
	goruntime "runtime"
	"time"

	"github.com/torpor-run/torpor/runtime"
)

// edition is what LocalStack's clients show as the product's edition.
const edition = "torpor"

func (s *server) features() map[string]string {
	if s.Runtime.Persistent() {
		return map[string]string{"persistence": "initialized"}
	}
	return map[string]string{"persistence": "disabled"}
}

// localstackHealth is LocalStack's health: always 200, the services' statuses in the body.
func (s *server) localstackHealth(w http.ResponseWriter, r *http.Request) {
	services := map[string]string{}
	for _, svc := range s.Runtime.Services() {
		services[svc.Name()] = string(svc.Status().Status)
	}
	writeJSON(w, http.StatusOK, struct {
		Services map[string]string `json:"services"`
		Edition  string            `json:"edition"`
		Version  string            `json:"version"`
		Features map[string]string `json:"features"`
	}{services, edition, s.Version, s.features()})
}

// healthAction does what LocalStack's POST /_localstack/health does: it ends the program, or starts it anew.
func (s *server) healthAction(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Action string `json:"action"`
	}
	err := readBody(w, r, &body)
	if err == nil {
		do, known := map[string]func() error{"restart": s.Restart, "kill": s.Kill}[body.Action]
		switch {
		case !known:
			err = badRequest("the action is %.64q; it may be restart or kill", body.Action)
		case do == nil:
			err = marked{fmt.Errorf("the action %s is not to be had where Torpor runs as it does now", body.Action), errNotHere}
		default:
			err = do()
		}
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok") // who has gone away need not know
}

func (s *server) localstackInfo(w http.ResponseWriter, r *http.Request) {
	_, err := os.Stat("/.dockerenv")
	writeJSON(w, http.StatusOK, struct {
		Version   string `json:"version"`
		Edition   string `json:"edition"`
		Activated bool   `json:"is_license_activated"`
		Session   string `json:"session_id"`
		Machine   string `json:"machine_id"` // made up, as LocalStack does where it knows of none: nothing tells which machine this is
		System    string `json:"system"`
		Docker    bool   `json:"is_docker"`
		ServerUTC string `json:"server_time_utc"`
		Uptime    int64  `json:"uptime"` // seconds
	}{s.Version, edition, false, s.Session, "gen_" + s.Session[:min(12, len(s.Session))], goruntime.GOOS, err == nil,
		time.Now().UTC().Format("2006-01-02T15:04:05"), int64(time.Since(s.Started).Seconds())})
}

// Health is the body of GET /_torpor/health.
type Health struct {
	Status   string            `json:"status"` // ok, degraded (served, but see last_error), error (a service is not served)
	Version  string            `json:"version"`
	Features map[string]string `json:"features"`
	Services []ServiceHealth   `json:"services"`
}

// ServiceHealth is one service in [Health].
type ServiceHealth struct {
	Name    string       `json:"name"`
	Status  string       `json:"status"` // available, starting, running, stopping, error
	Asleep  bool         `json:"asleep"` // put to sleep: its next request wakes it
	Error   string       `json:"error,omitempty"`
	Process any          `json:"process,omitempty"` // of a service that Torpor runs: see [Process]
	Parts   []PartHealth `json:"parts"`
}

// PartHealth is one part in [ServiceHealth]: what would be lost if the process died now, and what went
// wrong last.
type PartHealth struct {
	Name         string     `json:"name"`
	Status       string     `json:"status"` // saved, dirty, empty (never saved), error (see last_error)
	Serializer   string     `json:"serializer,omitempty"`
	Generation   uint64     `json:"generation"`
	DirtySeconds float64    `json:"dirty_seconds"`
	DirtyKeys    *int       `json:"dirty_keys"` // null: more than are counted, or not known by key
	LastGoodSave *time.Time `json:"last_good_save"`
	LastError    string     `json:"last_error,omitempty"`
	Records      uint64     `json:"records"`
	Bytes        uint64     `json:"bytes"`
	FileBytes    int64      `json:"file_bytes"`
	Deltas       int        `json:"deltas"`
}

// health answers 200, or 503 when a service is not served.
func (s *server) health(w http.ResponseWriter, r *http.Request) {
	h := Health{Status: "ok", Version: s.Version, Features: s.features()}
	status := http.StatusOK
	for _, svc := range s.Runtime.Services() {
		sh := s.serviceHealth(svc)
		for _, ph := range sh.Parts {
			if ph.LastError != "" && h.Status == "ok" {
				h.Status = "degraded"
			}
		}
		if sh.Error != "" && h.Status == "ok" {
			h.Status = "degraded" // its program has died or could not be started; its next request tries again
		}
		if sh.Status == string(runtime.StatusError) {
			h.Status, status = "error", http.StatusServiceUnavailable
		}
		h.Services = append(h.Services, sh)
	}
	writeJSON(w, status, h)
}

func (s *server) serviceHealth(svc *runtime.Service) ServiceHealth {
	st := svc.Status()
	h := ServiceHealth{Name: st.Name, Status: string(st.Status), Asleep: st.Asleep, Parts: []PartHealth{}}
	if st.Err != nil {
		h.Error = st.Err.Error()
	}
	if s.Processes != nil {
		if process, ok := s.Processes(st.Name); ok {
			h.Process = process
		}
	}
	for _, p := range st.Parts {
		h.Parts = append(h.Parts, partHealth(p))
	}
	return h
}

func partHealth(p runtime.PartStatus) PartHealth {
	h := PartHealth{Name: p.Name, Status: "saved", Serializer: p.Serializer, Generation: p.Generation,
		Records: p.Records, Bytes: p.Bytes, FileBytes: p.FileBytes, Deltas: p.Deltas}
	if p.Generation == 0 {
		h.Status = "empty"
	}
	if !p.SavedAt.IsZero() {
		at := p.SavedAt.UTC()
		h.LastGoodSave = &at
	}
	if !p.DirtyAll {
		h.DirtyKeys = &p.DirtyKeys
	}
	if !p.DirtySince.IsZero() {
		h.Status, h.DirtySeconds = "dirty", time.Since(p.DirtySince).Seconds()
	}
	if p.Err != nil {
		h.Status, h.LastError = "error", p.Err.Error()
	}
	return h
}
