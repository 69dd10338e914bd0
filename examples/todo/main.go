// Command todo is a small service that keeps tasks, as an example of one whose state Torpor keeps by a
// serializer made for it: sdk/go/examples/todo. It knows nothing of Torpor.
//
//	GET    /tasks       all of them, as JSON
//	GET    /tasks/ID    one
//	PUT    /tasks/ID    {"list":"home","title":"Buy milk","priority":2,…}, a new one or all of it anew
//	DELETE /tasks/ID
//
// It keeps them in memory and in one file, which it writes as a whole, beside the old one, before it answers a
// request that changes something: whoever reads the file finds all that was answered, at any moment.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The file: a line that says what it is, one for each task in the order of ids, and one with their number.
type (
	header struct {
		Format string `json:"format"`
		Schema int    `json:"schema"`
	}
	task struct {
		ID       string   `json:"id"`
		List     string   `json:"list"`
		Title    string   `json:"title"`
		Owner    owner    `json:"owner"`
		Date     string   `json:"date"`
		Time     string   `json:"time"`
		Priority uint64   `json:"priority"`
		Done     bool     `json:"done"`
		Tags     []string `json:"tags"`
	}
	owner struct {
		Given  string `json:"given"`
		Family string `json:"family"`
	}
	trailer struct {
		Tasks int `json:"tasks"`
	}
)

const maxBody = 1 << 20

type service struct {
	file string

	mu    sync.Mutex
	tasks map[string]task
}

func main() {
	listen := flag.String("listen", "127.0.0.1:4700", "address and port to listen on")
	file := flag.String("file", "tasks.todo", "where the tasks are kept")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "todo:", serve(*listen, *file))
	os.Exit(1)
}

// serve serves what is in file, until that fails.
func serve(listen, file string) error {
	tasks, err := read(file)
	if err != nil {
		return err
	}
	s := &service{file: file, tasks: tasks}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tasks", s.all)
	mux.HandleFunc("GET /tasks/{id}", s.one)
	mux.HandleFunc("PUT /tasks/{id}", s.put)
	mux.HandleFunc("DELETE /tasks/{id}", s.remove)
	return (&http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}).ListenAndServe()
}

func (s *service) all(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, s.sorted())
}

func (s *service) one(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tasks[r.PathValue("id")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	answer(w, t)
}

func (s *service) put(w http.ResponseWriter, r *http.Request) {
	t := task{Tags: []string{}}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&t); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.ID = r.PathValue("id")
	s.change(w, func(tasks map[string]task) { tasks[t.ID] = t }, t)
}

func (s *service) remove(w http.ResponseWriter, r *http.Request) {
	s.change(w, func(tasks map[string]task) { delete(tasks, r.PathValue("id")) }, struct{}{})
}

// change makes a change, or, where it can not be written, none.
func (s *service) change(w http.ResponseWriter, f func(map[string]task), body any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.tasks
	s.tasks = maps.Clone(before)
	f(s.tasks)
	if err := s.write(); err != nil {
		s.tasks = before
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, body)
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}

func (s *service) sorted() []task {
	return slices.SortedFunc(maps.Values(s.tasks), func(a, b task) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
}

// write puts a new file in the place of the old one.
func (s *service) write() error {
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	err := lines.Encode(header{"todo", 2})
	for _, t := range s.sorted() {
		err = errors.Join(err, lines.Encode(t))
	}
	if err = errors.Join(err, lines.Encode(trailer{len(s.tasks)})); err != nil {
		return err
	}
	beside := filepath.Join(filepath.Dir(s.file), ".new-"+filepath.Base(s.file))
	if err := os.WriteFile(beside, b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(beside, s.file)
}

// read reads the file; one that is not there has no tasks.
func read(file string) (map[string]task, error) {
	tasks := map[string]task{}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return tasks, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	lines := json.NewDecoder(bufio.NewReader(f))
	var h header
	if err := lines.Decode(&h); err != nil || h != (header{"todo", 2}) {
		return nil, fmt.Errorf("%s is no file of tasks, schema 2: %+v (%w)", file, h, err)
	}
	for {
		var line struct {
			task
			trailer
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s is cut off", file)
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if line.ID == "" {
			if line.Tasks != len(tasks) {
				return nil, fmt.Errorf("%s has %d tasks, and says %d", file, len(tasks), line.Tasks)
			}
			return tasks, nil
		}
		tasks[line.ID] = line.task
	}
}
