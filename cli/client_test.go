package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// answering serves one answer to every request.
func answering(t *testing.T, status int, media, body string) (url string, asked func() []*http.Request) {
	t.Helper()
	var requests []*http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r)
		w.Header().Set("Content-Type", media)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []*http.Request { return requests }
}

func TestAnswersBecomeExitCodes(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		exit   int
	}{
		{400, "bad_request", 2},
		{401, "no_api_key", 8},
		{403, "not_local", 8},
		{429, "too_many_wrong_keys", 8},
		{403, "no_key", 9},
		{404, "not_found", 5},
		{410, "gone", 5},
		{409, "persistence_disabled", 1},
		{413, "too_large", 7},
		{422, "incompatible", 3},
		{500, "corrupt", 3},
		{500, "unsupported_version", 4},
		{500, "internal", 1},
		{503, "busy", 1},
		{503, "a word that is not known", 1},
	} {
		url, _ := answering(t, c.status, "application/json", fmt.Sprintf(`{"error":{"code":%q,"message":"what is wrong","hint":"what to do"}}`, c.code))
		_, errs, code := torpor(t, nil, "sync", "s3", "--url", url)
		if code != c.exit || !strings.Contains(errs, "sync s3: what is wrong; ") {
			t.Errorf("%d %s: exit code %d, want %d: %s", c.status, c.code, code, c.exit, errs)
		}
		// In a line of an answer that went well so far, too.
		url, _ = answering(t, 200, ndjson, fmt.Sprintf(`{"error":{"code":%q,"message":"what is wrong","hint":"what to do"}}`+"\n", c.code))
		err := (&client{base: url}).lines(context.Background(), request{what: "ask", method: http.MethodGet, path: "/"}, func([]byte) error { return nil })
		if got := exitCode(err); got != c.exit {
			t.Errorf("%s in a line: exit code %d, want %d: %v", c.code, got, c.exit, err)
		}
	}
}

func TestAnswersThatAreNotTorpors(t *testing.T) {
	for _, c := range []struct {
		status      int
		media, body string
		want        string
	}{
		{404, "text/html", "<html>", "is 404 Not Found, and not as torpor's are"},
		{307, "text/html", "", "is 307 Temporary Redirect, and not as torpor's are"},
		{500, "application/json", `{"error":{}}`, "is 500 Internal Server Error, and not as torpor's are"},
		{200, "text/html", "<html>", "is not as torpor's are"},
	} {
		url, asked := answering(t, c.status, c.media, c.body)
		_, errs, code := torpor(t, nil, "sync", "s3", "--url", url)
		if code != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%d %q: exit code %d: %s", c.status, c.body, code, errs)
		}
		if n := len(asked()); n != 1 { // a key must not be taken elsewhere
			t.Errorf("%d: %d requests", c.status, n)
		}
	}
	// What looks into the data folder otherwise does not where something else listens.
	url, _ := answering(t, 200, "text/html", "<html>")
	address := strings.TrimPrefix(url, "http://")
	for _, args := range [][]string{{"status"}, {"records", "s3"}, {"snapshot", "list"}, {"diff", "saved", "saved"}} {
		_, errs, code := torpor(t, []string{"TORPOR_LISTEN=" + address, "TORPOR_DATA=" + t.TempDir()}, args...)
		if code != 1 || !strings.Contains(errs, "not as torpor does; say with --url where torpor is, or look into the data folder with --offline") {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
	}
}

func TestAnswersThatBreakOff(t *testing.T) {
	ctx := context.Background()
	for name, body := range map[string]string{
		"without its end":   `{"event":"progress","done":1,"total":2}` + "\n",
		"within a line":     `{"event":"progress","done":1,"tot`,
		"nothing":           "",
		"an error":          `{"event":"completion","status":"error","error":{"code":"internal","message":"no room"}}` + "\n",
		"no such thing":     "no JSON\n",
		"a line without it": "{}\n",
	} {
		url, _ := answering(t, 200, ndjson, body)
		c := &client{base: url}
		if result, err := c.long(ctx, request{what: "work", method: http.MethodPost, path: "/"}, &progress{}); err == nil {
			t.Errorf("%s: %s, no error", name, result)
		}
	}
	url, _ := answering(t, 200, ndjson, `{"event":"progress","step":"save","done":1,"total":2}`+"\n"+`{"event":"completion","status":"ok","result":{"version":7}}`+"\n")
	result, err := (&client{base: url}).long(ctx, request{what: "work", method: http.MethodPost, path: "/"}, &progress{})
	if err != nil || string(result) != `{"version":7}` {
		t.Errorf("%s, %v", result, err)
	}
	for _, args := range [][]string{{"records", "s3/store"}, {"diff", "saved", "saved"}} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/_torpor/health" {
				io.WriteString(w, `{"status":"ok","services":[]}`)
				return
			}
			w.Header().Set("Content-Type", ndjson) // and no line
		}))
		_, errs, code := torpor(t, nil, append(args, "--url", srv.URL)...)
		srv.Close()
		if code != 1 || !strings.Contains(errs, "the answer broke off") {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
	}
}

func TestWhereTorporIs(t *testing.T) {
	for given, ok := range map[string]bool{
		"http://127.0.0.1:1":        true,
		"https://torpor.example/x/": true,
		"127.0.0.1:4566":            false,
		"ftp://127.0.0.1":           false,
		"http://":                   false,
		"http://h/?a=b":             false,
		"http://h/#a":               false,
		"http://user:secret@h":      false, // it would be in messages
		"http://h\x7f":              false,
	} {
		for _, from := range []struct {
			environ, args []string
		}{{nil, []string{"--url", given}}, {[]string{"TORPOR_URL=" + given}, nil}} {
			p := &program{environ: from.environ}
			cmd := p.health()
			if err := cmd.ParseFlags(from.args); err != nil {
				t.Fatal(err)
			}
			c, _, err := p.client(cmd.Flags())
			if (err == nil) != ok || err != nil && exitCode(err) != exitUsage {
				t.Errorf("%q: %v", given, err)
			}
			if err == nil && (!c.named || c.base != strings.TrimRight(given, "/")) {
				t.Errorf("%q: %+v", given, c)
			}
		}
	}
}

func TestKeysAreSent(t *testing.T) {
	url, asked := answering(t, 200, "application/json", `{"service":"s3","parts":[]}`)
	if _, errs, code := torpor(t, []string{"TORPOR_API_KEY=secret"}, "sync", "s3", "--url", url); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if got := asked()[0].Header.Get("Authorization"); got != "Bearer secret" {
		t.Errorf("Authorization: %q", got)
	}
	if got := asked()[0].URL.Path; got != "/_torpor/services/s3/sync" {
		t.Errorf("path %s", got)
	}
}

func TestSilence(t *testing.T) {
	url, _ := answering(t, 200, "", "")
	srv := httptest.NewServer(nil)
	gone := srv.URL
	srv.Close()
	for base, want := range map[string]bool{gone: true, url: false} {
		_, err := (&client{base: base}).send(context.Background(), request{method: http.MethodGet, path: "/"})
		var silent silentError
		if got := errors.As(err, &silent); got != want {
			t.Errorf("%s: silent %v, want %v: %v", base, got, want, err)
		}
	}
}
