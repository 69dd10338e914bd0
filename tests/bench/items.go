package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// addressVariable says where serveItems listens.
const addressVariable = "BENCH_ADDRESS"

// statePath is where services have their state.
const statePath = "/_torpor/state/store"

// busyBytes is what the service hashes for a request that is to cost it something: about as much work as an
// emulator of a cloud has with one, at least.
const busyBytes = 512 << 10

// items is a service that keeps named JSON documents in memory, and gives and takes its state as a service with
// a part of source http does. An item that was put is never changed, so that it can be written while requests
// go on: its state is consistent without holding them.
type items struct {
	mu    sync.RWMutex
	items map[string]json.RawMessage
}

// itemState is the native state.
type itemState struct {
	Items map[string]json.RawMessage `json:"items"`
}

// serveItems serves at an address, by default a free port, and says where.
func serveItems(address string, out io.Writer) error {
	s := &items{items: map[string]json.RawMessage{}}
	l, err := net.Listen("tcp", cmp.Or(address, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "listening on http://%s\n", l.Addr())
	server := http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	return server.Serve(l)
}

func (s *items) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, smallAnswer) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		sum := sha256.New()
		for range busyBytes / len(zeroes) {
			_, _ = sum.Write(zeroes[:]) // it never fails
		}
		w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
		_, _ = io.WriteString(w, smallAnswer)
	})
	mux.HandleFunc("GET /large/{size}", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.PathValue("size"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", r.PathValue("size"))
		for size > 0 {
			n, err := w.Write(zeroes[:min(size, int64(len(zeroes)))])
			if err != nil {
				return // the client has gone
			}
			size -= int64(n)
		}
	})
	mux.HandleFunc("PUT /large", func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, len(zeroes))
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, buf)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("GET /items/{name...}", s.get)
	mux.HandleFunc("PUT /items/{name...}", s.put)
	mux.HandleFunc("GET "+statePath, s.save)
	mux.HandleFunc("PUT "+statePath, s.load)
	mux.HandleFunc("DELETE "+statePath, func(http.ResponseWriter, *http.Request) { s.replace(map[string]json.RawMessage{}) })
	return mux
}

// smallAnswer is as long as many an answer of an emulator.
const smallAnswer = `{"TableDescription":{"TableName":"orders","TableStatus":"ACTIVE","ItemCount":1234,"TableSizeBytes":567890,"TableArn":"arn:aws:dynamodb:eu-west-1:000000000000:table/orders"}}`

func (s *items) get(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	item, ok := s.items[r.PathValue("name")]
	s.mu.RUnlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(item)
}

func (s *items) put(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err == nil && !json.Valid(b) {
		err = fmt.Errorf("%d bytes are no JSON", len(b))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[r.PathValue("name")] = b
}

func (s *items) replace(all map[string]json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items = all
}

func (s *items) save(w http.ResponseWriter, _ *http.Request) {
	s.mu.RLock()
	all := maps.Clone(s.items)
	s.mu.RUnlock()
	b := itemState{all}.native()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // who asked has gone
}

// native is a state as the service gives it: compact, in the order of names.
func (s itemState) native() []byte {
	size := 32
	for name, item := range s.Items {
		size += len(name) + len(item) + 8
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	b.WriteString(`{"items":{`)
	for i, name := range slices.Sorted(maps.Keys(s.Items)) {
		b.WriteString(comma(i))
		quoted, _ := json.Marshal(name) // of a string
		b.Write(quoted)
		b.WriteByte(':')
		b.Write(s.Items[name])
	}
	b.WriteString("}}")
	return b.Bytes()
}

func (s *items) load(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err == nil && int64(len(b)) != r.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	taken := itemState{Items: map[string]json.RawMessage{}}
	if err == nil {
		err = json.Unmarshal(b, &taken)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	s.replace(taken.Items)
}
