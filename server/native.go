package server

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// openapi is what is written about the routes under /_torpor/. A test holds every answer against it.
//
//go:embed openapi.yaml
var openapi []byte

// progressEvery is how often a client is told how far a long call is, at most.
const progressEvery = 100 * time.Millisecond

// Header fields of the native API, in which keys travel: a URL is logged.
const (
	headerPhrase    = "X-Torpor-Passphrase"
	headerIdentity  = "X-Torpor-Identity"  // a private key; may be there more than once
	headerRecipient = "X-Torpor-Recipient" // a public key; likewise
)

// ndjson is the media type of answers of which each line is an object.
const ndjson = "application/x-ndjson"

// native adds the routes under /_torpor/ that are not of single services: see openapi.yaml.
func (s *server) native(e *echo.Echo) {
	add := func(method, path string, run nativeCall) { e.Add(method, path, s.call(run)) }
	add(http.MethodGet, "/_torpor/openapi.yaml", func(w http.ResponseWriter, _ *http.Request, _ echo.Context) error {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openapi)
		return nil
	})
	add(http.MethodGet, "/_torpor/services", s.listServices)
	add(http.MethodGet, "/_torpor/services/:service", s.showService)
	add(http.MethodGet, "/_torpor/services/:service/parts", s.listParts)
	add(http.MethodGet, "/_torpor/services/:service/parts/:part", s.showPart)
	add(http.MethodGet, "/_torpor/services/:service/parts/:part/records", s.records)
	add(http.MethodGet, "/_torpor/diff", s.diff)

	add(http.MethodGet, "/_torpor/snapshots", s.listSnapshots)
	add(http.MethodPost, "/_torpor/snapshots/gc", s.collectSnapshots)
	add(http.MethodPost, "/_torpor/snapshots/verify", s.verifySnapshots)
	add(http.MethodGet, "/_torpor/snapshots/:name", s.showSnapshot)
	add(http.MethodPost, "/_torpor/snapshots/:name", s.saveSnapshot)
	add(http.MethodDelete, "/_torpor/snapshots/:name", s.removeSnapshot)
	add(http.MethodPost, "/_torpor/snapshots/:name/load", s.loadSnapshot)
	add(http.MethodGet, "/_torpor/snapshots/:name/export", s.exportSnapshot)
	add(http.MethodPost, "/_torpor/snapshots/:name/import", s.importSnapshot)
	add(http.MethodGet, "/_torpor/export", s.exportLive)
	add(http.MethodPost, "/_torpor/import", s.importLive)
	if s.Events != nil {
		add(http.MethodGet, "/_torpor/events", func(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
			s.Events.ServeHTTP(w, r)
			return nil
		})
	}
}

// nativeCall answers a request. An error means that nothing has been written yet.
type nativeCall func(w http.ResponseWriter, r *http.Request, c echo.Context) error

func (s *server) call(run nativeCall) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := run(c.Response(), c.Request(), c); err != nil {
			s.fail(c.Response(), err)
		}
		return nil
	}
}

// parameters are what stands behind the question mark of a URL. It is read by name; done then says what is wrong, names
// that nobody has asked for included: a mistyped dry_run must not load.
type parameters struct {
	given url.Values
	known []string
	errs  []error
}

func parametersOf(r *http.Request) *parameters {
	given, err := url.ParseQuery(r.URL.RawQuery)
	p := &parameters{given: given}
	if err != nil {
		p.errs = append(p.errs, badRequest("the query cannot be read: %w", err))
	}
	return p
}

// all are the values of a parameter that may be there more than once.
func (p *parameters) all(name string) []string {
	p.known = append(p.known, name)
	return p.given[name]
}

// text is the value of a parameter that may be there once; there tells whether it is.
func (p *parameters) text(name string) (value string, there bool) {
	all := p.all(name)
	if len(all) > 1 {
		p.wrong(name, strings.Join(all, ", "), "once at most")
	}
	if len(all) == 0 {
		return "", false
	}
	return all[0], true
}

// list are names, separated by commas or given one by one.
func (p *parameters) list(name string) (names []string) {
	for _, all := range p.all(name) {
		for one := range strings.SplitSeq(all, ",") {
			if one = strings.TrimSpace(one); one != "" {
				names = append(names, one)
			}
		}
	}
	return names
}

// truth is true or false, and usual where it is not given.
func (p *parameters) truth(name string, usual bool) bool {
	text, there := p.text(name)
	if !there {
		return usual
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		p.wrong(name, text, "true or false")
	}
	return v
}

// number is one from least to most, and usual where it is not given.
func (p *parameters) number(name string, least, usual, most uint64) uint64 {
	text, there := p.text(name)
	if !there {
		return usual
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v < least || v > most {
		p.wrong(name, text, fmt.Sprintf("a number from %d to %d", least, most))
	}
	return v
}

// choice is one of some words, the first where it is not given.
func choice[T ~string](p *parameters, name string, allowed []T) T {
	text, _ := p.text(name)
	v, err := runtime.Parse("parameter "+name, text, allowed)
	if err != nil {
		p.errs = append(p.errs, marked{err, errBadRequest})
	}
	return v
}

func (p *parameters) wrong(name, value, allowed string) {
	p.errs = append(p.errs, badRequest("parameter %s is %q; it may be %s", name, value, allowed))
}

// done says what is wrong with what was read, or was not.
func (p *parameters) done() error {
	for name := range p.given {
		if !slices.Contains(p.known, name) {
			p.errs = append(p.errs, badRequest("there is no parameter %q here; there are %q", name, p.known))
		}
	}
	if len(p.errs) == 0 {
		return nil
	}
	return p.errs[0]
}

// readJSON reads a request's body, an object, into v. No body is an empty object.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	var body json.RawMessage
	if err := readBody(w, r, &body); err != nil || body == nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields() // as with parameters
	if err := d.Decode(v); err != nil {
		return badRequest("the body is not the JSON object expected: %w", err)
	}
	return nil
}

// keyOf is the key in a request's header.
func keyOf(r *http.Request) (seal.Key, error) {
	phrase, err := passphraseOf(r)
	if err != nil {
		return seal.Key{}, err
	}
	identities, err := keysIn(r, headerIdentity)
	return seal.Key{Passphrase: phrase, Identities: identities}, err
}

// passphraseOf is the passphrase in a request's header; "" if there is none.
func passphraseOf(r *http.Request) (string, error) {
	all, err := keysIn(r, headerPhrase)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[0], nil
}

// lockOf is what a request has something encrypted by: the recipients in its header, or, if encrypt, its passphrase, which
// otherwise only opens.
func lockOf(r *http.Request, encrypt bool) (l seal.Lock, err error) {
	if l.Recipients, err = keysIn(r, headerRecipient); err != nil {
		return l, err
	}
	if encrypt && len(l.Recipients) == 0 {
		if l.Passphrase, err = passphraseOf(r); err != nil {
			return l, err
		}
		if l.Passphrase == "" {
			return l, badRequest("encrypt is true, and there is neither %s nor %s in its header", headerPhrase, headerRecipient)
		}
	}
	return l, l.Check()
}

// keysIn are the keys in a header field: as they are, or, since a field is one line, base64: and the text of a key that
// has more.
func keysIn(r *http.Request, field string) (keys []string, err error) {
	for _, v := range r.Header.Values(field) {
		if coded, ok := strings.CutPrefix(v, "base64:"); ok {
			text, err := base64.StdEncoding.DecodeString(coded)
			if err != nil {
				return nil, badRequest("what stands behind base64: in %s is not base64", field)
			}
			v = string(text)
		}
		keys = append(keys, v)
	}
	return keys, nil
}

// progressLine tells how far a long call is; completionLine is its end.
type (
	progressLine struct {
		Event string `json:"event"` // progress
		Step  string `json:"step"`  // check, save, collect, verify
		Done  int64  `json:"done"`
		Total int64  `json:"total"`
	}
	completionLine struct {
		Event  string            `json:"event"`  // completion
		Status string            `json:"status"` // ok or error
		Result any               `json:"result,omitempty"`
		Error  map[string]string `json:"error,omitempty"`
	}
)

// steps gives what tells the client how far a step of a long call is, in bytes.
type steps func(step string) (progress func(done, total int64))

// long runs a call that may take long, and answers with its result; or, to a client that accepts NDJSON, with lines that
// say how far it is, then one with the result. What goes wrong before the first such line is answered as anywhere. work
// may tell progress from several goroutines, and not after it has returned.
func (s *server) long(w http.ResponseWriter, r *http.Request, status int, work func(steps) (any, error)) error {
	if !accepts(r, ndjson) {
		answer, err := work(func(string) func(int64, int64) { return func(int64, int64) {} })
		if err == nil {
			writeJSON(w, status, answer)
		}
		return err
	}
	lines := lineWriter{w: w}
	var (
		mu   sync.Mutex
		told time.Time
	)
	answer, err := work(func(step string) func(int64, int64) {
		return func(done, total int64) {
			mu.Lock()
			defer mu.Unlock()
			if done < total && time.Since(told) < progressEvery {
				return
			}
			told = time.Now()
			// A client that has gone away ends the call through its context.
			_ = lines.write(progressLine{"progress", step, done, total})
			_ = lines.flush()
		}
	})
	switch {
	case err != nil && !lines.begun:
		return err
	case err != nil:
		_ = lines.write(completionLine{Event: "completion", Status: "error", Error: errorOf(err)})
	default:
		_ = lines.write(completionLine{Event: "completion", Status: "ok", Result: answer})
	}
	return nil
}

// lineWriter writes NDJSON; the header goes out with the first line.
type lineWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (l *lineWriter) write(v any) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", ndjson)
		l.w.Header().Set("Cache-Control", "no-store")
	}
	return json.NewEncoder(l.w).Encode(v)
}

// fail is the end of lines that were to be more; before the first one, the error is the caller's to answer with.
func (l *lineWriter) fail(err error) error {
	if l.begun {
		_ = l.write(map[string]any{"error": errorOf(err)})
		return nil
	}
	return err
}

func (l *lineWriter) flush() error { return http.NewResponseController(l.w).Flush() }

// errorOf is an error as it stands in a line.
func errorOf(err error) map[string]string {
	_, code := statusOf(err)
	e := map[string]string{"code": code, "message": err.Error()}
	if hint := hintOf(code); hint != "" {
		e["hint"] = hint
	}
	return e
}

// accepts tells whether a client says that it understands a media type; */* does not say so.
func accepts(r *http.Request, media string) bool {
	for _, v := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(v, ",") {
			name, with, err := mime.ParseMediaType(one)
			if err == nil && name == media && (with["q"] == "" || strings.Trim(with["q"], "0.") != "") {
				return true
			}
		}
	}
	return false
}

// Services is the answer of GET /_torpor/services.
type Services struct {
	Services []ServiceHealth `json:"services"`
}

func (s *server) listServices(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
	if err := parametersOf(r).done(); err != nil {
		return err
	}
	answer := Services{Services: []ServiceHealth{}}
	for _, svc := range s.Runtime.Services() {
		answer.Services = append(answer.Services, s.serviceHealth(svc))
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func (s *server) showService(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	h, err := s.healthOf(r, c)
	if err == nil {
		writeJSON(w, http.StatusOK, h)
	}
	return err
}

// healthOf is the service that a request without parameters names.
func (s *server) healthOf(r *http.Request, c echo.Context) (ServiceHealth, error) {
	if err := parametersOf(r).done(); err != nil {
		return ServiceHealth{}, err
	}
	return s.serviceNamed(c)
}

func (s *server) serviceNamed(c echo.Context) (ServiceHealth, error) {
	svc, err := s.Runtime.Service(c.Param("service"))
	if err != nil {
		return ServiceHealth{}, err
	}
	return s.serviceHealth(svc), nil
}

// Parts is the answer of GET /_torpor/services/{service}/parts.
type Parts struct {
	Parts []PartHealth `json:"parts"`
}

func (s *server) listParts(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	h, err := s.healthOf(r, c)
	if err == nil {
		writeJSON(w, http.StatusOK, Parts{h.Parts})
	}
	return err
}

// PartDetail is the answer of GET /_torpor/services/{service}/parts/{part}.
type PartDetail struct {
	PartHealth
	Saved *SavedPart `json:"saved"` // null: nothing is
}

// SavedPart is the newest generation of a part.
type SavedPart struct {
	Generation  uint64           `json:"generation"`
	Created     time.Time        `json:"created"`
	Compression string           `json:"compression"`
	Serializer  SavedSerializer  `json:"serializer"`
	Size        int64            `json:"size"` // bytes of the state file
	Records     uint64           `json:"records"`
	Bytes       uint64           `json:"bytes"` // of records, uncompressed
	Chunks      int              `json:"chunks"`
	Deltas      int              `json:"deltas"`
	Changes     uint64           `json:"changes"` // records and tombstones in the deltas
	Root        string           `json:"root"`    // root digest: equal roots, equal records
	Partitions  []SavedPartition `json:"partitions"`
}

// SavedSerializer is what wrote a [SavedPart].
type SavedSerializer struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Schema  uint64 `json:"schema"`
	SHA256  string `json:"sha256"`
}

// SavedPartition is a partition of a [SavedPart], as it was at the full save before the deltas.
type SavedPartition struct {
	Name    string `json:"name"`
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
	Changes uint64 `json:"changes"` // since then, in the deltas
}

func (s *server) showPart(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	h, err := s.healthOf(r, c)
	if err != nil {
		return err
	}
	part, err := partNamed(h, c.Param("part"))
	if err != nil {
		return err
	}
	answer := PartDetail{PartHealth: part}
	saved, err := s.savedPart(h.Name, part.Name, 0)
	if err == nil {
		answer.Saved = describe(saved.file)
		s.closed("state that was read", saved.Close())
	} else if errors.Is(err, abi.ErrNotFound) || errors.Is(err, errNothingSaved) {
		err = nil
	}
	if err == nil {
		writeJSON(w, http.StatusOK, answer)
	}
	return err
}

func partNamed(h ServiceHealth, name string) (PartHealth, error) {
	i := slices.IndexFunc(h.Parts, func(p PartHealth) bool { return p.Name == name })
	if i < 0 {
		names := make([]string, len(h.Parts))
		for i, p := range h.Parts {
			names[i] = p.Name
		}
		return PartHealth{}, fmt.Errorf("service %s, part %q: %w; its parts are %q", h.Name, name, abi.ErrNotFound, names)
	}
	return h.Parts[i], nil
}

func describe(f *statefile.File) *SavedPart {
	h, info := f.Header(), f.Info()
	d := &SavedPart{Generation: h.Generation, Created: h.Created, Compression: h.Compression, Size: info.Size, Records: info.Records,
		Bytes: info.Raw, Chunks: info.Chunks, Deltas: info.Deltas, Changes: info.Changes, Root: hex.EncodeToString(info.Root[:]),
		Serializer: SavedSerializer{h.Serializer.Name, h.Serializer.Version, h.Serializer.Schema, hex.EncodeToString(h.Serializer.Digest[:])},
		Partitions: []SavedPartition{}}
	for _, p := range f.Partitions() {
		d.Partitions = append(d.Partitions, SavedPartition{p.Name, p.Records, p.Raw, p.Changes})
	}
	return d
}

// Loaded is the answer of POST /_torpor/services/{service}/load.
type Loaded struct {
	ServiceHealth
	Found bool `json:"found"` // false: nothing is saved, and the live state stays as it is
}

func (s *server) saveService(ctx context.Context, svc *runtime.Service) (any, error) {
	err := svc.Save(ctx)
	return s.serviceHealth(svc), err
}

func (s *server) loadService(ctx context.Context, svc *runtime.Service) (any, error) {
	found, err := svc.Load(ctx)
	return Loaded{s.serviceHealth(svc), found}, err
}

func (s *server) resetService(ctx context.Context, svc *runtime.Service) (any, error) {
	err := svc.Reset(ctx)
	return s.serviceHealth(svc), err
}
