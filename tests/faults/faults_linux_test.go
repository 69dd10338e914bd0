package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/server"
	"github.com/torpor-run/torpor/tests/program"
)

// torporFile is the built binary, built once by TestMain; compiled is the folder of compiled modules that all
// tests share.
var torporFile, compiled string

func TestMain(m *testing.M) {
	if address := os.Getenv(serviceAddress); address != "" {
		if os.Getenv(serviceChild) != "" {
			time.Sleep(time.Hour) // the guard ends it
		}
		serve(address)
	}
	flag.Parse()
	// The tests wait most of the time, for services that start or do not.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	os.Exit(func() int {
		var err error
		if compiled, err = os.MkdirTemp("", "faults-cache-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(compiled) }()
		return program.Run(m, &torporFile)
	}())
}

// patience is how long anything may take that is bound to happen. The machine may be busy with other things; no
// test depends on how long something takes.
const patience = 2 * time.Minute

// eventually waits for what is bound to happen.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// Where the service keeps what is put to it: the first element of the path.
const (
	inMemory = "m" // part store, source http
	inFiles  = "f" // part assets, source files
)

// kind is which parts the service has.
type kind []string

func (k kind) String() string {
	return map[string]string{inMemory: "http", inFiles: "files", inMemory + inFiles: "both"}[strings.Join(k, "")]
}

func (k kind) memory() bool { return slices.Contains(k, inMemory) }
func (k kind) files() bool  { return slices.Contains(k, inFiles) }

// kinds are all there are; of them, with -short, the one that has most to go wrong.
func kinds() []kind {
	all := []kind{{inMemory}, {inFiles}, {inMemory, inFiles}}
	if testing.Short() {
		return all[2:]
	}
	return all
}

// everyKind has each fault happen to every kind of service, which takes some minutes.
const everyKind = "FAULTS_ALL"

// some are the kinds that the i-th fault of a list happens to: the one with both parts, and for every second fault
// another one in turn.
func some(i int, only func(kind) bool) []kind {
	all := slices.DeleteFunc(kinds(), func(k kind) bool { return only != nil && !only(k) })
	if os.Getenv(everyKind) != "" || len(all) <= 1 {
		return all
	}
	both := len(all) - 1
	if i%2 == 1 || len(all[both]) == 1 {
		return all[both:]
	}
	return []kind{all[i/2%both], all[both]}
}

// tree is what stands in torpor.yaml below a key.
type tree map[string]any

// world is one service, its runtime's configuration and data, and what is known of its state.
type world struct {
	t       testing.TB
	kind    kind
	service string // its name, and the mark of its processes
	data    string
	control string
	yaml    string
	env     []string // of the runtime, beside PATH and HOME
	logs    []*program.Output

	// By part and key: what was acknowledged, and what of it a barrier has said is saved.
	mu          sync.Mutex
	acked, safe map[string]map[string]string
	written     map[string]bool // all that was ever written: part/key=value
	generation  uint64          // the least that there must be
}

// numbered makes names of services unique.
var numbered atomic.Int64

// newWorld configures a service. change changes the configuration of the service before it is written.
func newWorld(t testing.TB, k kind, change func(w *world, service tree)) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, kind: k, service: fmt.Sprintf("orders-%d-%d", os.Getpid(), numbered.Add(1)),
		data: filepath.Join(dir, "data"), control: filepath.Join(dir, "control"), yaml: filepath.Join(dir, "torpor.yaml"),
		acked: map[string]map[string]string{}, safe: map[string]map[string]string{}, written: map[string]bool{}}
	if err := os.Mkdir(w.control, 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parts := tree{}
	if k.memory() {
		parts["store"] = tree{"serializer": "json", "source": tree{"http": tree{"url": "http://{address}" + statePath}}}
	}
	if k.files() {
		parts["assets"] = tree{"serializer": "files", "source": tree{"files": tree{"root": "{data}/kept"}}}
	}
	service := tree{
		"run": tree{"command": []string{self}, "stop_timeout": "5m", "ready_timeout": "5m",
			"env": tree{serviceAddress: "{address}", serviceControl: w.control, serviceFolder: "{data}/kept", serviceMark: w.service}},
		"ready":          tree{"http": "/health"},
		"match":          tree{"path": []string{"/" + inMemory, "/" + inFiles}},
		"wake_timeout":   "5m",
		"hold_timeout":   "5m",
		"flush_interval": "1h",
		"parts":          parts,
	}
	if change != nil {
		change(w, service)
	}
	text, err := json.Marshal(tree{"services": tree{"s3": tree{"enabled": false}, w.service: service}}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.yaml, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i, log := range w.logs {
				t.Logf("runtime %d of %v said:\n%s", i+1, k, log)
			}
		}
		for _, pid := range w.processes() { // the service of a runtime that has gone wrong
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return w
}

// under gives the map below keys, to be changed.
func (n tree) under(keys ...string) tree {
	for _, k := range keys {
		n, _ = n[k].(tree)
	}
	return n
}

// timeout bounds one exchange with the state URL, which never takes long but where it hangs.
func timeout(service tree, d string) {
	if http := service.under("parts", "store", "source", "http"); http != nil {
		http["timeout"] = d
	}
}

// set says what goes wrong at a moment.
func (w *world) set(moment, what string) {
	w.t.Helper()
	temp := filepath.Join(w.control, "new")
	if err := os.WriteFile(temp, []byte(what), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(w.control, moment)); err != nil {
		w.t.Fatal(err)
	}
}

// clear ends all that goes wrong.
func (w *world) clear() {
	w.t.Helper()
	all, err := os.ReadDir(w.control)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		if err := os.Remove(filepath.Join(w.control, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
	}
}

// reached waits until something has gone wrong at a moment.
func (w *world) reached(moment string) {
	w.t.Helper()
	eventually(w.t, "the service has reached: "+moment, func() bool {
		_, err := os.Stat(filepath.Join(w.control, "reached-"+moment))
		return err == nil
	})
}

// processes lists the service's processes, and what they have left behind.
func (w *world) processes() []int {
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		w.t.Error(err)
	}
	var pids []int
	for _, name := range names {
		b, err := os.ReadFile(name) // of a zombie it is empty
		if err == nil && bytes.Contains(b, []byte(serviceMark+"="+w.service+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				w.t.Error(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone waits for the last process of the service.
func (w *world) gone() {
	w.t.Helper()
	for left := w.processes(); len(left) > 0; left = w.processes() { // those may have begun others
		eventually(w.t, fmt.Sprintf("processes %v of the service are gone", left), func() bool {
			left = slices.DeleteFunc(left, func(pid int) bool { return !running(pid) })
			return len(left) == 0
		})
	}
}

// running reports whether a process runs; a zombie does not.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && len(b) > 0
}

// house is a runtime that serves.
type house struct {
	*world
	*program.Serving
	url    string
	client *http.Client
}

// command prepares the program.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(torporFile, args...)
	cmd.Dir = filepath.Dir(w.yaml)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TORPOR_CACHE=" + compiled, "TMPDIR=" + cmd.Dir}, w.env...)
	return cmd
}

// start runs torpor serve and returns when it listens. begin is what starts the command, where that is not
// all that is to be done.
func (w *world) start(begin ...func(*exec.Cmd) error) *house {
	w.t.Helper()
	cmd := w.command("serve", "--listen", "127.0.0.1:0", "--data", w.data, "--config", w.yaml, "--init", filepath.Join(w.control, "init"))
	h := &house{world: w, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}, Timeout: patience}}
	w.t.Cleanup(h.client.CloseIdleConnections)
	h.Serving = program.Start(w.t, cmd, append(begin, nil)[0], nil)
	w.logs = append(w.logs, h.Log)
	h.url = h.URL(w.t)
	return h
}

// wait waits for the runtime's end and gives its exit code, -1 where a signal ended it.
func (h *house) wait() int {
	h.t.Helper()
	return h.Wait(h.t)
}

// terminate asks the runtime to end.
func (h *house) terminate() {
	h.t.Helper()
	if err := h.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
}

// stop ends the runtime in order.
func (h *house) stop() {
	h.t.Helper()
	h.terminate()
	if code := h.wait(); code != 0 {
		h.t.Errorf("exit code %d after SIGTERM", code)
	}
	if left := h.processes(); len(left) > 0 {
		h.t.Errorf("processes %v of the service outlive the runtime, which has ended in order", left)
	}
}

// kill is kill -9 of the runtime alone.
func (h *house) kill() {
	h.t.Helper()
	_ = h.Cmd.Process.Kill() // it may have ended by itself, which wait tells
	h.wait()
}

// killService is kill -9 of the service.
func (w *world) killService() {
	for _, pid := range w.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// says waits until the log has s.
func (h *house) says(s string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("the log says %q", s), func() bool { return strings.Contains(h.Log.String(), s) })
}

// answer is what came back.
type answer struct {
	status int
	retry  string
	body   string
}

// ask sends a request.
func (h *house) ask(method, path, body string) (answer, error) {
	r, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := h.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), string(b)}, err
}

// do is ask where there is an answer.
func (h *house) do(method, path, body string) answer {
	h.t.Helper()
	a, err := h.ask(method, path, body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// doing is do beside others.
func (h *house) doing(method, path, body string) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		a, _ := h.ask(method, path, body) // of a runtime that is killed there is no answer
		done <- a
	}()
	return done
}

// wants checks an answer: its status, and the words that must be in it.
func (h *house) wants(what string, a answer, status int, words ...string) {
	h.t.Helper()
	for _, word := range words {
		if a.status != status || !strings.Contains(a.body, word) {
			h.t.Errorf("%s: %d %s; want %d and %q", what, a.status, a.body, status, word)
		}
	}
	if a.status != status {
		h.t.Errorf("%s: %d %s; want %d", what, a.status, a.body, status)
	}
	if a.status == http.StatusServiceUnavailable && a.retry == "" {
		h.t.Errorf("%s: no Retry-After with 503 %s", what, a.body)
	}
}

// command does a control call of the native API.
func (h *house) order(action string) answer {
	h.t.Helper()
	return h.do(http.MethodPost, "/_torpor/services/"+h.service+"/"+action, "")
}

// state does a control call of LocalStack's API.
func (h *house) state(action string) answer {
	h.t.Helper()
	return h.do(http.MethodPost, "/_localstack/state/"+h.service+"/"+action, "")
}

// any is a path of the service.
func (w *world) any() string { return "/" + w.kind[0] + "/" }

// put writes a key of every part, which must be acknowledged.
func (h *house) put(key, value string) {
	h.t.Helper()
	for _, part := range h.kind {
		a := h.do(http.MethodPut, "/"+part+"/"+key, value)
		for deadline := time.Now().Add(patience); strings.Contains(a.body, "service_waking") && time.Now().Before(deadline); {
			a = h.do(http.MethodPut, "/"+part+"/"+key, value)
		}
		if a.status != http.StatusOK {
			h.t.Fatalf("PUT /%s/%s: %d %s", part, key, a.status, a.body)
		}
		h.noted(part, key, value)
	}
}

// noted takes down what was acknowledged.
func (w *world) noted(part, key, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.acked[part] == nil {
		w.acked[part] = map[string]string{}
	}
	w.acked[part][key] = value
	w.written[part+"/"+key+"="+value] = true
}

// allSaved notes that all that was acknowledged is saved, as a barrier, a sleep or an end in good order says.
func (w *world) allSaved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.safe = map[string]map[string]string{}
	for part, all := range w.acked {
		w.safe[part] = maps.Clone(all)
	}
}

// saved is allSaved where the runtime can be asked for the generation.
func (h *house) saved() {
	h.t.Helper()
	h.allSaved()
	least := ^uint64(0)
	for _, p := range h.health().Parts {
		least = min(least, p.Generation)
	}
	if least < h.generation {
		h.t.Errorf("the newest generation is %d, and was %d before", least, h.generation)
	}
	h.generation = least
}

// forget notes that what no barrier has said to be saved may be gone.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = map[string]map[string]string{}
	for part, all := range w.safe {
		w.acked[part] = maps.Clone(all)
	}
}

// sync is the barrier, which must succeed.
func (h *house) sync() {
	h.t.Helper()
	a := h.order("sync")
	var s server.Synced
	if err := json.Unmarshal([]byte(a.body), &s); a.status != http.StatusOK || err != nil || len(s.Parts) != len(h.kind) || s.Parts[0].Generation == 0 {
		h.t.Fatalf("sync: %d %s (%v)", a.status, a.body, err)
	}
	h.saved()
}

// health is the service's.
func (h *house) health() server.ServiceHealth {
	h.t.Helper()
	_, all := h.healthOfAll()
	return all.Services[0]
}

func (h *house) healthOfAll() (status int, all server.Health) {
	h.t.Helper()
	a := h.do(http.MethodGet, "/_torpor/health", "")
	if err := json.Unmarshal([]byte(a.body), &all); err != nil || len(all.Services) != 1 || all.Services[0].Name != h.service || len(all.Services[0].Parts) != len(h.kind) {
		h.t.Fatalf("health: %d %s (%v)", a.status, a.body, err)
	}
	return a.status, all
}

// is waits for a status of the service, and checks what health says with it: the words of its error.
func (h *house) is(service, overall string, words ...string) {
	h.t.Helper()
	var status int
	var all server.Health
	eventually(h.t, "the service is "+service, func() bool {
		status, all = h.healthOfAll()
		return all.Services[0].Status == service
	})
	text := all.Services[0].Error
	for _, p := range all.Services[0].Parts {
		text += " " + p.LastError
	}
	want := http.StatusOK
	if overall == "error" {
		want = http.StatusServiceUnavailable
	}
	if all.Status != overall || status != want {
		h.t.Errorf("health is %d %s, want %d %s: %+v", status, all.Status, want, overall, all.Services[0])
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			h.t.Errorf("the errors in health are %q; want %q in them", text, word)
		}
	}
	if len(words) == 0 && strings.TrimSpace(text) != "" {
		h.t.Errorf("the errors in health are %q, want none", text)
	}
}

// all reads a part, which must be served; a service that has just died and nobody knows yet is asked again.
func (h *house) all(part string) map[string]string {
	h.t.Helper()
	var a answer
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if a = h.do(http.MethodGet, "/"+part+"/", ""); a.status != http.StatusBadGateway && a.status != http.StatusServiceUnavailable {
			break
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the service does not come back: %d %s", a.status, a.body)
		}
	}
	var all map[string]string
	if err := json.Unmarshal([]byte(a.body), &all); a.status != http.StatusOK || err != nil {
		h.t.Fatalf("GET /%s/: %d %s (%v)", part, a.status, a.body, err)
	}
	return all
}

// hasSafe checks that what a barrier said is saved is there, and what else there is was acknowledged; the next
// barrier is compared with what was found.
func (h *house) hasSafe() {
	h.t.Helper()
	for _, part := range h.kind {
		got := h.all(part)
		h.mu.Lock()
		for key, want := range h.safe[part] {
			if v, ok := got[key]; !ok || v != want && v != h.acked[part][key] {
				h.t.Errorf("/%s/%s is %.60q, %v; a barrier said that %.60q is saved", part, key, v, ok, want)
			}
		}
		for key, v := range got {
			if !h.written[part+"/"+key+"="+v] {
				h.t.Errorf("/%s/%s is %.60q; nobody has written that", part, key, v)
			}
		}
		h.acked[part] = got
		h.mu.Unlock()
	}
}

// has checks that all that was acknowledged is there.
func (h *house) has() {
	h.t.Helper()
	for _, part := range h.kind {
		h.mu.Lock()
		want := maps.Clone(h.acked[part])
		h.mu.Unlock()
		if got := h.all(part); !maps.Equal(got, want) {
			h.t.Errorf("/%s/ has %.200q, want %.200q", part, fmt.Sprint(got), fmt.Sprint(want))
		}
	}
}

// sound checks the data folder of no runtime.
func (w *world) sound() {
	w.t.Helper()
	cmd := w.command("verify", w.data)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Errorf("torpor verify: %v: %s", err, out)
	}
	err := filepath.WalkDir(w.data, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, ".corrupt-") {
			w.t.Errorf("%s was set aside", path)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// next checks what is left of a runtime that has ended, and what the next one makes of it.
func (w *world) next() *house {
	w.t.Helper()
	w.gone()
	w.clear()
	w.sound()
	h := w.start()
	for _, p := range h.health().Parts {
		if p.Generation < w.generation {
			w.t.Errorf("part %s: the newest generation is %d, and was %d", p.Name, p.Generation, w.generation)
		}
	}
	h.hasSafe()
	return h
}

// recovers checks a runtime that has been through a fault, which is over: it serves, saves, sleeps, wakes and ends
// as ever, and so does the next one.
func (h *house) recovers() {
	h.t.Helper()
	h.clear()
	h.hasSafe()
	h.accept()
	h.put("after", "the fault")
	h.sync()
	h.is("running", "ok") // whatever failed has gone well now
	h.put("unsaved", "but for the stop")
	h.stop()
	h.allSaved()
	n := h.next()
	n.has()
	n.stop()
}

// lost is what health, the log and the barrier say of a service that died with something unsaved.
const lost = "what was not saved is lost"

// lossTold checks that the service runs again and that nobody can overlook that something is lost: until somebody
// has accepted that, the barrier fails.
func (h *house) lossTold() {
	h.t.Helper()
	h.says("and with it what was not saved")
	h.is("running", "degraded", lost)
	for range 2 {
		h.fails("sync", h.order("sync"), lost)
	}
	h.accept()
	h.is("running", "ok")
}

// accept accepts that something is lost, if it is.
func (h *house) accept() {
	h.t.Helper()
	for _, p := range h.health().Parts {
		if strings.Contains(p.LastError, lost) {
			h.wants("a save", h.state("save"), http.StatusOK, "ok")
			return
		}
	}
}

// settled starts a runtime whose service has something saved and something that is not.
func (w *world) settled() *house {
	w.t.Helper()
	h := w.start()
	h.put("kept", "is saved")
	h.put("changed", "before")
	h.sync()
	h.put("changed", "after")
	h.put("new", "is not saved")
	return h
}
