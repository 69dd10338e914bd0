//go:build unix

package localstack

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// TestRoutes has a test for each route of LocalStack's OpenAPI document that lstk does not use.
func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		route string
		test  func(*testing.T)
	}{
		{"POST state/{save,load}, state/{service}/{save,load,reset}", stateCalls},
		{"POST pods as multipart with the field pod", multipartPod},
		{"GET pods/{name}/versions", versions},
		{"GET pods/environment", environment},
		{"GET pods/remotes; GET, POST, DELETE pods/remotes/{name}", remotes},
		{"GET pods/state/metamodel", metamodel},
		{"header x-localstack-state-secret", encrypted},
		{"GET init and init/{stage}", initScripts},
		{"GET info", info},
		{"POST health", healthActions},
	} {
		t.Run(c.route, c.test)
	}
}

func stateCalls(t *testing.T) {
	e := filled(t)
	e.do(http.MethodPost, "/_localstack/state/save", nil).is(http.StatusOK)
	e.put("/fruits/apple", "green")
	e.do(http.MethodPost, "/_localstack/state/s3/load", `{"start":true}`, "Content-Type", "application/json").is(http.StatusOK)
	e.has("/fruits/apple", "red")
	var health struct {
		Services map[string]string `json:"services"`
	}
	e.do(http.MethodPost, "/_torpor/services/s3/sleep", nil).is(http.StatusOK)
	e.do(http.MethodPost, "/_localstack/state/s3/load", `{"start":true}`).is(http.StatusOK)
	e.do(http.MethodGet, "/_localstack/health", nil).json(&health)
	if health.Services["s3"] != "running" {
		t.Errorf("a service that was started is %s", health.Services["s3"])
	}
	e.do(http.MethodPost, "/_localstack/state/s3/load", `{"start":`).is(http.StatusBadRequest)
	e.do(http.MethodPost, "/_localstack/state/load", `{}`).is(http.StatusOK)
	e.do(http.MethodPost, "/_localstack/state/s3/save", nil).is(http.StatusOK)
	e.do(http.MethodPost, "/_localstack/state/s3/reset", nil).is(http.StatusOK)
	e.lacks("/fruits/apple")
	e.wants(map[string]string{"1": "bread"})
	for _, action := range []string{"save", "load", "reset"} {
		e.do(http.MethodPost, "/_localstack/state/sqs/"+action, nil).is(http.StatusNotFound).text("sqs")
	}
}

// form is a form with one file.
func form(t *testing.T, field string, content []byte) (body io.Reader, media string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	f, err := w.CreateFormFile(field, "state.zip")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b, w.FormDataContentType()
}

func multipartPod(t *testing.T) {
	e := filled(t)
	file := e.export("", "orders,s3")
	e.put("/fruits/apple", "green")
	body, media := form(t, "file", file)
	e.do(http.MethodPost, "/_localstack/pods", body, "Content-Type", media).is(http.StatusBadRequest).text("expected a single file with name 'pod'")
	body, media = form(t, "pod", nil)
	e.do(http.MethodPost, "/_localstack/pods", body, "Content-Type", media).is(http.StatusBadRequest)
	e.has("/fruits/apple", "green")
	body, media = form(t, "pod", file)
	e.do(http.MethodPost, "/_localstack/pods", body, "Content-Type", media).loaded("orders", "s3")
	e.has("/fruits/apple", "red")

	// The command line written in Python adds a file to what it has exported, and sends it without a media type.
	python := need.Program(t, "python3")
	path := filepath.Join(t.TempDir(), "state.zip")
	added := exec.Command(python, "-c", `
import sys, zipfile
with open(sys.argv[1], "wb") as f: f.write(sys.stdin.buffer.read())
with zipfile.ZipFile(sys.argv[1], "a") as z: z.writestr("metadata.yaml", "name: mine\nservices: [s3]\n")
sys.stdout.buffer.write(open(sys.argv[1], "rb").read())`, path)
	added.Stdin, added.Stderr = bytes.NewReader(file), t.Output()
	whole, err := added.Output()
	if err != nil {
		t.Fatal(err)
	}
	e.put("/fruits/apple", "green")
	e.do(http.MethodPost, "/_localstack/pods", whole).loaded("orders", "s3")
	e.has("/fruits/apple", "red")
}

func versions(t *testing.T) {
	e := filled(t)
	e.call(http.MethodGet, "/_localstack/pods/base/versions", "").is(http.StatusNotFound).text("not found")
	e.call(http.MethodPost, "/_localstack/pods/base", `{"attributes":{"description":"first"}}`).done("save", "orders", "s3")
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	var got struct{ Versions []version }
	e.call(http.MethodGet, "/_localstack/pods/base/versions", `{}`).is(http.StatusOK).json(&got)
	if len(got.Versions) != 2 {
		t.Fatalf("the versions are %+v", got)
	}
	got.Versions[0].check(t, 1, "first")
	got.Versions[1].check(t, 2, "")
}

func environment(t *testing.T) {
	e := begin(t)
	var got map[string]any
	e.do(http.MethodGet, "/_localstack/pods/environment", nil).is(http.StatusOK).json(&got)
	for _, key := range []string{"localstack_version", "localstack_ext_version", "moto_ext_version"} {
		if _, ok := got[key].(string); !ok {
			t.Errorf("%s is %v", key, got[key])
		}
	}
	if _, ok := got["pro"].(bool); !ok {
		t.Errorf("pro is %v", got["pro"])
	}
}

func remotes(t *testing.T) {
	e := begin(t)
	e.do(http.MethodGet, "/_localstack/pods/remotes", nil).is(http.StatusOK).text(`"remotes":[]`)
	e.do(http.MethodGet, "/_localstack/pods/remotes/mine", nil).is(http.StatusNotFound).text("mine")
	e.do(http.MethodPost, "/_localstack/pods/remotes/mine", `{"name":"other","remote_url":"s3://b"}`).is(http.StatusBadRequest)
	e.do(http.MethodPost, "/_localstack/pods/remotes/mine", `{"name":"mine","protocols":["oras"],"remote_url":"oras://{user}:{password}@host/repo"}`).is(http.StatusOK)
	e.do(http.MethodPost, "/_localstack/pods/remotes/also", `{"protocols":["s3"],"remote_url":"s3://b?access_key_id={access_key_id}"}`).is(http.StatusOK)
	var got struct {
		Remotes []struct {
			Name      string   `json:"name"`
			Protocols []string `json:"protocols"`
			URL       string   `json:"remote_url"`
		} `json:"remotes"`
	}
	e.do(http.MethodGet, "/_localstack/pods/remotes", nil).is(http.StatusOK).json(&got)
	if len(got.Remotes) != 2 || got.Remotes[0].Name != "also" || got.Remotes[1].URL != "oras://{user}:{password}@host/repo" || !slices.Equal(got.Remotes[1].Protocols, []string{"oras"}) {
		t.Errorf("the remotes are %+v", got)
	}
	e.do(http.MethodDelete, "/_localstack/pods/remotes/also", nil).is(http.StatusOK)
	e.do(http.MethodDelete, "/_localstack/pods/remotes/also", nil).is(http.StatusNotFound)
	e.do(http.MethodGet, "/_localstack/pods/remotes", nil).is(http.StatusOK).json(&got)
	if len(got.Remotes) != 1 {
		t.Errorf("the remotes are %+v", got)
	}
	e.again()
	e.do(http.MethodGet, "/_localstack/pods/remotes/mine", nil).is(http.StatusOK).text("oras://{user}:{password}@host/repo")
}

func metamodel(t *testing.T) {
	e := filled(t)
	e.bucket("far", "eu-central-1")
	var got map[string]map[string]map[string]map[string]json.RawMessage // account, service, region
	e.do(http.MethodGet, "/_localstack/pods/state/metamodel", nil).is(http.StatusOK).json(&got)
	s3 := got["000000000000"]["s3"]
	if len(s3) != 2 || string(s3["eu-central-1"]["store"]) != `{"records":1}` || string(s3["eu-central-1"]["AWS::S3::Bucket"]) != `["far"]` {
		t.Errorf("of s3 there is %s", s3)
	}
	if orders := got[""]["orders"][""]; len(orders) != 1 {
		t.Errorf("of orders there is %s", orders)
	}
}

func encrypted(t *testing.T) {
	e := filled(t)
	const header = "X-Localstack-State-Secret"
	file := e.do(http.MethodGet, "/_localstack/pods/state", nil, header, "one").is(http.StatusOK).body
	if bytes.Contains(file, []byte("api_states")) || bytes.HasPrefix(file, []byte("PK")) {
		t.Error("the file is not encrypted")
	}
	e.do(http.MethodPost, "/_localstack/pods/base", `{}`, header, "one").done("save", "orders", "s3")
	e.put("/fruits/apple", "green")
	e.do(http.MethodPost, "/_localstack/pods", file, "Content-Type", "application/octet-stream").is(http.StatusForbidden)
	e.do(http.MethodPut, "/_localstack/pods/base", `{}`, header, "two").is(http.StatusForbidden)
	e.has("/fruits/apple", "green")
	e.do(http.MethodPost, "/_localstack/pods", file, header, "one").loaded("orders", "s3")
	e.has("/fruits/apple", "red")
	e.put("/fruits/apple", "green")
	e.do(http.MethodPut, "/_localstack/pods/base", `{}`, header, "one").done("load", "orders", "s3")
	e.has("/fruits/apple", "red")
	if strings.Contains(e.log.String(), `"one"`) {
		t.Error("the log has the secret")
	}
}

func initScripts(t *testing.T) {
	e := begin(t)
	var got struct {
		Completed map[string]bool `json:"completed"`
		Scripts   []any           `json:"scripts"`
	}
	e.do(http.MethodGet, "/_localstack/init", nil).is(http.StatusOK).json(&got)
	if !got.Completed["BOOT"] || got.Scripts == nil {
		t.Errorf("init is %+v", got)
	}
	e.do(http.MethodGet, "/_localstack/init/ready", nil).is(http.StatusOK).text(`"completed"`)
}

func info(t *testing.T) {
	e := begin(t)
	var got map[string]any
	e.do(http.MethodGet, "/_localstack/info", nil).is(http.StatusOK).json(&got)
	for _, key := range []string{"version", "edition", "is_license_activated", "session_id", "machine_id", "system", "is_docker", "server_time_utc", "uptime"} {
		if got[key] == nil {
			t.Errorf("info has no %s", key)
		}
	}
}

func healthActions(t *testing.T) {
	e := begin(t)
	e.do(http.MethodPost, "/_localstack/health", `{}`).is(http.StatusBadRequest)
	e.do(http.MethodPost, "/_localstack/health", `{"action":"dance"}`).is(http.StatusBadRequest).text("restart")
	e.bucket("fruits", "")
	e.put("/fruits/apple", "red")
	e.again() // what is unsaved is saved then
	e.has("/fruits/apple", "red")
}
