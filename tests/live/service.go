package live

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// What the services that [Start] starts are told.
const (
	Token = "of-the-test"          // of the state URL
	State = "/_torpor/state/store" // path of the state URL
)

// Service is a program that serves requests, and its state at a state URL.
type Service struct {
	t      testing.TB
	cmd    *exec.Cmd
	ended  chan struct{}
	url    string
	client *nethttp.Client
}

// Start starts a service, which takes a free port and says so in its first line, "… listening on URL". It is
// killed when the test ends. cmd must not end with the test's context.
func Start(t testing.TB, cmd *exec.Cmd) *Service {
	t.Helper()
	cmd.Env = append(cmd.Environ(), "TORPOR_STATE_TOKEN="+Token)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Service{t: t, cmd: cmd, ended: make(chan struct{}), client: &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true}}}
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	go func() {
		defer close(s.ended)
		_, _ = io.Copy(io.Discard, said)
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(s.Kill)
	_, url, ok := strings.Cut(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the service says %q (%v)", line, err)
	}
	s.url = url
	return s
}

// Kill is kill -9.
func (s *Service) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// Ask sends a request, and gives the answer to one that succeeds.
func (s *Service) Ask(method, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := nethttp.NewRequestWithContext(context.Background(), method, s.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != nethttp.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, said)
	}
	return said, err
}

// Must is Ask where it succeeds.
func (s *Service) Must(method, path string, body any) []byte {
	s.t.Helper()
	said, err := s.Ask(method, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return said
}

// Source is the service's state as the runtime takes it.
func (s *Service) Source() *http.Source {
	s.t.Helper()
	header := nethttp.Header{"Authorization": {"Bearer " + Token}}
	source, err := http.New(http.Config{Service: "service", Part: "store", URL: s.url + State, Header: header, Atomic: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return source
}

// Open is a runtime for one live service, on a state directory in folder, once it has loaded what is there.
// save saves it as after a change, end ends the runtime without saving.
func Open(t testing.TB, folder string, serializer runtime.Serializer, source runtime.Source) (svc *runtime.Service, save, end func()) {
	t.Helper()
	var dirty runtime.Dirty
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	fsys, err := vfs.OS(folder)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := statedir.Open(fsys, statedir.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Services: []runtime.ServiceConfig{{
		Name: "service", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: serializer, Source: source, Dirty: &dirty}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if svc, err = rt.Service("service"); err != nil {
		t.Fatal(err)
	}
	save = func() {
		dirty.Mark()
		if err := svc.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return svc, save, func() {
		if err := errors.Join(rt.Close(context.Background()), dir.Close()); err != nil {
			t.Error(err)
		}
	}
}
