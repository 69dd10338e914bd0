package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/server"
)

const (
	// maxAnswerBytes bounds an answer in one piece, and maxLineBytes one line of the others, of whatever listens there.
	maxAnswerBytes = 64 << 20
	maxLineBytes   = 256 << 20
	// askTimeout is how long a torpor may take to say that it is there.
	askTimeout = 10 * time.Second
	// patience is how long one may take to do something, unless --timeout says otherwise.
	patience = 10 * time.Minute

	ndjson = "application/x-ndjson"
)

// client talks to the running torpor. It is safe for concurrent use.
type client struct {
	base         string // without a slash at its end
	named        bool   // by --url, --listen or TORPOR_URL: then somebody expects it to be there
	key, keyFrom string
}

const urlFlag = "url"

// addClientFlags gives flags what client reads, and the settings keys.
func addClientFlags(flags *pflag.FlagSet, keys ...string) {
	addFlagsFor(flags, append(keys, "listen", keyFileKey)...)
	flags.String(urlFlag, "", "where the running torpor is to be called (default: where --listen says) ($"+urlVariable+")")
}

// controller reads where the running torpor is and the key of its control API.
func (p *program) controller(flags *pflag.FlagSet) (*client, *settings, error) {
	c, s, err := p.client(flags)
	if err == nil {
		c.key, c.keyFrom, err = p.apiKey(s)
	}
	return c, s, err
}

// client reads where the running torpor is.
func (p *program) client(flags *pflag.FlagSet) (*client, *settings, error) {
	s, err := readSettings(flags, p.environ, knownServices())
	if err != nil {
		return nil, nil, err
	}
	c := &client{base: "http://" + reachable(s.Listen), named: flags.Changed("listen")}
	given, from := flags.Lookup(urlFlag).Value.String(), "--"+urlFlag
	if given == "" && !c.named {
		given, from = p.env(urlVariable), "$"+urlVariable
	}
	if given != "" {
		u, err := url.Parse(given)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, nil, usageError{fmt.Errorf("%s is %q; it must be as http://127.0.0.1:4566", from, given)}
		}
		c.base, c.named = strings.TrimRight(given, "/"), true
	}
	return c, s, nil
}

// reachable turns an address to listen on into one to call.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// request is one call. what says in errors what it is for.
type request struct {
	what         string
	method, path string
	query        url.Values
	header       http.Header
	json         any       // the body, or
	body         io.Reader // of size bytes; -1: not known
	size         int64
	lines        bool // take an answer in lines, if there is one
}

// silentError says that nothing answers.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

// send makes a call. The answer, whatever its status is, is to be closed.
func (c *client) send(ctx context.Context, r request) (*http.Response, error) {
	if r.json != nil {
		b, err := json.Marshal(r.json)
		if err != nil {
			return nil, err
		}
		r.body, r.size = bytes.NewReader(b), int64(len(b))
	}
	u := c.base + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, r.body)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", c.base, err)}
	}
	if r.body != nil {
		req.ContentLength = r.size
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	switch {
	case r.json != nil:
		req.Header.Set("Content-Type", "application/json")
	case r.body != nil:
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if r.lines {
		req.Header.Set("Accept", ndjson)
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	// Straight to the address: what listens on this machine is not behind a proxy. And to no other: there are secrets in
	// the request.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err == nil {
		return resp, nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return nil, fmt.Errorf("%s: no torpor answers in time; what was asked for may still come to its end there (--timeout says how long to wait): %w", r.what, cause)
	case cause != nil:
		return nil, fmt.Errorf("%s: interrupted before torpor answered; what was asked for may still come to its end there: %w", r.what, cause)
	}
	err = fmt.Errorf("no torpor answers: %w", err)
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		err = silentError{err}
	}
	return nil, err
}

// do makes a call that is answered with success, or gives the error that the answer is. The answer is to be closed.
func (c *client) do(ctx context.Context, r request) (*http.Response, error) {
	resp, err := c.send(ctx, r)
	if err != nil || resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.what, err)
	}
	var said struct {
		Error answeredError `json:"error"`
	}
	if json.Unmarshal(body, &said) != nil || said.Error.Message == "" {
		return nil, fmt.Errorf("%s: the answer of %s is %d %s, and not as torpor's are", r.what, c.base, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if resp.StatusCode == http.StatusUnauthorized { // the server's hint is for those who write requests
		said.Error.Hint = keyHint(c.keyFrom)
	}
	return nil, said.Error.err(r.what)
}

// answeredError is an error in an answer.
type answeredError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// err is the error as if it had come from this process: the one place where codes become errors that exitCode knows.
func (a answeredError) err(what string) error {
	err := fmt.Errorf("%s: %s", what, a.Message)
	if a.Hint != "" {
		err = fmt.Errorf("%w; %s", err, a.Hint)
	}
	if server.Refused(a.Code) {
		return notAllowed{err}
	}
	switch a.Code {
	case "bad_request":
		return usageError{err}
	case "not_found", "gone":
		return toldError{err, abi.ErrNotFound}
	case "corrupt", "incompatible":
		return toldError{err, abi.ErrCorrupt}
	case "unsupported_version":
		return toldError{err, abi.ErrVersion}
	case "too_large":
		return toldError{err, abi.ErrTooLarge}
	case "no_key":
		return toldError{err, seal.ErrKey}
	}
	return err
}

// toldError is an error that another process found to be is.
type toldError struct {
	error
	is error
}

func (e toldError) Is(target error) bool { return target == e.is }

// answer makes a call and gives what it is answered with.
func (c *client) answer(ctx context.Context, r request) ([]byte, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return answerOf(resp, r.what)
}

func answerOf(resp *http.Response, what string) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err == nil && len(body) > maxAnswerBytes {
		err = fmt.Errorf("an answer of more than %d bytes: %w", maxAnswerBytes, abi.ErrTooLarge)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return body, nil
}

// ask makes a call and reads its answer, JSON, into v.
func (c *client) ask(ctx context.Context, r request, v any) error {
	body, err := c.answer(ctx, r)
	if err != nil {
		return err
	}
	return understand(r.what, body, v)
}

func understand(what string, body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s: the answer is not as torpor's are: %w", what, err)
	}
	return nil
}

// lines makes a call that is answered with lines, each an object, and hands them to each. An error in one of them ends it.
func (c *client) lines(ctx context.Context, r request, each func(line []byte) error) error {
	r.lines = true
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return linesOf(resp.Body, r.what, each)
}

func linesOf(body io.Reader, what string, each func(line []byte) error) error {
	in := bufio.NewScanner(body)
	in.Buffer(nil, maxLineBytes)
	for in.Scan() {
		var said struct {
			Error *answeredError `json:"error"`
		}
		if err := understand(what, in.Bytes(), &said); err != nil {
			return err
		}
		if said.Error != nil {
			return said.Error.err(what)
		}
		if err := each(in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("%s: the answer broke off: %w", what, err)
	}
	return nil
}

// long makes a call that may take long, which bar shows, and gives its result.
func (c *client) long(ctx context.Context, r request, bar *progress) ([]byte, error) {
	r.lines = bar.shown()
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), ndjson) {
		return answerOf(resp, r.what)
	}
	var result []byte
	err = linesOf(resp.Body, r.what, func(line []byte) error {
		var said struct {
			Event, Step, Status string
			Done, Total         int64
			Result              json.RawMessage
		}
		if err := understand(r.what, line, &said); err != nil {
			return err
		}
		if said.Event == "progress" {
			bar.step(said.Step)
			bar.set(said.Done, said.Total)
			return nil
		}
		result = said.Result
		return nil
	})
	if err == nil && result == nil {
		err = fmt.Errorf("%s: the answer broke off", r.what)
	}
	return result, err
}

// health asks how the running torpor is. body is the answer as it came, which may say that a service is not served.
func (c *client) health(ctx context.Context) (h server.Health, body []byte, status int, err error) {
	resp, err := c.send(ctx, request{what: "health", method: http.MethodGet, path: "/_torpor/health"})
	if err != nil {
		return h, nil, 0, err
	}
	defer resp.Body.Close()
	if body, err = answerOf(resp, "health"); err != nil {
		return h, nil, 0, err
	}
	if err := json.Unmarshal(body, &h); err != nil || h.Status == "" {
		return h, nil, 0, fmt.Errorf("what listens at %s answered %d %s, and not as torpor does", c.base, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return h, body, resp.StatusCode, nil
}

// place is where a command finds state: with the running torpor or, where there is none, in the data folder.
type place struct {
	*client
	settings *settings
	running  bool
	how      server.Health // of the running one
	why      string        // there is none
	alone    bool          // no running torpor is to be asked
}

const offlineFlag = "offline"

// addPlaceFlags gives flags what place reads.
func addPlaceFlags(flags *pflag.FlagSet) {
	addClientFlags(flags, "data")
	flags.Bool(offlineFlag, false, "ask no running torpor: take what the data folder holds")
}

// place finds out whether a torpor runs. Where one is named, not finding it is an error; where what listens is something
// else, too.
func (p *program) place(cmd *cobra.Command) (*place, error) {
	c, s, err := p.controller(cmd.Flags())
	if err != nil {
		return nil, err
	}
	at := &place{client: c, settings: s}
	if at.alone, _ = cmd.Flags().GetBool(offlineFlag); at.alone {
		at.why = "--" + offlineFlag
		return at, nil
	}
	err = at.look(cmd.Context())
	return at, err
}

// look asks whether a torpor runs.
func (at *place) look(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	at.running = false
	at.how, _, _, err = at.health(ctx)
	var silent silentError
	switch {
	case err == nil:
		at.running = true
	case errors.As(err, &silent) && !at.named:
		at.why, err = "no torpor answers at "+at.base, nil
	case at.named:
	default:
		err = fmt.Errorf("%w; say with --%s where torpor is, or look into the data folder with --%s", err, urlFlag, offlineFlag)
	}
	return err
}

// offline tells people that what comes is of the data folder.
func (p *program) offline(at *place) {
	fmt.Fprintf(p.Err, "torpor: %s: this is of the data folder %s\n", at.why, at.settings.Data)
}

// needed is the error of a command that cannot do without a running torpor.
func (at *place) needed(what string) error {
	if at.running {
		return nil
	}
	return fmt.Errorf("%s needs a running torpor, and %s; start one with torpor serve, or say with --%s where it is", what, cmp.Or(at.why, "there is none"), urlFlag)
}
