//go:build unix

package localstack

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLstk has a test for each thing that the lstk command line does, under the name of the command.
func TestLstk(t *testing.T) {
	for _, c := range []struct {
		command string
		test    func(*testing.T)
	}{
		{"any command: GET health first", health},
		{"snapshot save ./f", saveFile},
		{"snapshot save ./f --services", saveFileOfServices},
		{"snapshot load ./f.snapshot --merge overwrite", loadFileOverwrite},
		{"snapshot load ./f.snapshot, other strategies", loadFileMerge},
		{"snapshot load ./f.snapshot, a file that cannot be loaded", loadBadFile},
		{"snapshot save pod:base", savePod},
		{"snapshot load pod:base", loadPod},
		{"snapshot load pod:base --dry-run", dryRun},
		{"snapshot remove pod:base --force", removePod},
		{"a missing pod or version, on load or diff", missing},
		{"reset --force", reset},
		{"status", status},
		{"snapshot save mypod s3://bkt/pre", saveToS3},
		{"snapshot list s3://bkt/pre", listOnS3},
		{"snapshot list, show pod:base, versions pod:base", platform},
	} {
		t.Run(c.command, c.test)
	}
}

func health(t *testing.T) {
	e := begin(t)
	var got struct {
		Version  string            `json:"version"`
		Services map[string]string `json:"services"`
	}
	e.do(http.MethodGet, "/_localstack/health", nil).is(http.StatusOK).json(&got)
	if got.Version == "" || got.Services["s3"] == "" || got.Services["orders"] == "" {
		t.Errorf("health is %+v", got)
	}
}

// export does what snapshot save ./f does, and checks the headers.
func (e *emulator) export(query string, services string) []byte {
	e.t.Helper()
	a := e.do(http.MethodGet, "/_localstack/pods/state"+query, nil).is(http.StatusOK)
	if got := a.header.Get("x-localstack-pod-services"); got != services {
		e.t.Errorf("the services are %q, want %q", got, services)
	}
	if a.header.Get("Content-Type") != "application/zip" || !strings.Contains(a.header.Get("Content-Disposition"), "attachment") {
		e.t.Errorf("the header is %v", a.header)
	}
	if size := a.header.Get("x-localstack-pod-size"); size != a.header.Get("Content-Length") || size == "" || size == "0" {
		e.t.Errorf("the size is %q of %d bytes", size, len(a.body))
	}
	if _, err := zip.NewReader(bytes.NewReader(a.body), int64(len(a.body))); err != nil {
		e.t.Errorf("the file is no zip archive: %v", err)
	}
	return a.body
}

func saveFile(t *testing.T) {
	e := filled(t)
	file := e.export("", "orders,s3")
	if got := manifest(t, e.export("?pod_name=mine", "orders,s3")); got.Name != "mine" || got.Torpor == "" {
		t.Errorf("the manifest is %+v", got)
	}
	// What is saved is what was there, in another one, too.
	other := begin(t)
	other.do(http.MethodPost, "/_localstack/pods?merge=overwrite", chunks(file), "Content-Type", "application/octet-stream").loaded("orders", "s3")
	other.has("/fruits/apple", "red")
	other.wants(map[string]string{"1": "bread"})
}

// described is what the manifest of a file says of it.
type described struct{ Name, Torpor string }

func manifest(t *testing.T, file []byte) (got described) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.ReadFile(z, "manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func saveFileOfServices(t *testing.T) {
	e := filled(t)
	file := e.export("?services=s3", "s3")
	e.export("?services=s3,orders", "orders,s3")
	e.do(http.MethodGet, "/_localstack/pods/state?services=s3,sqs", nil).is(http.StatusNotFound).text("sqs")
	// Others stay as they are when it is loaded.
	e.order("2", "milk")
	e.put("/fruits/apple", "green")
	e.do(http.MethodPost, "/_localstack/pods", chunks(file), "Content-Type", "application/octet-stream").loaded("s3")
	e.has("/fruits/apple", "red")
	e.wants(map[string]string{"1": "bread", "2": "milk"})
}

func loadFileOverwrite(t *testing.T) {
	e := filled(t)
	file := e.export("", "orders,s3")
	e.put("/fruits/apple", "green")
	e.bucket("other", "eu-central-1")
	e.order("2", "milk")
	e.do(http.MethodPost, "/_localstack/state/reset", nil).is(http.StatusOK)
	e.lacks("/fruits/apple")
	e.wants(nil)
	e.do(http.MethodPost, "/_localstack/pods", chunks(file), "Content-Type", "application/octet-stream").loaded("orders", "s3")
	e.has("/fruits/apple", "red")
	e.lacks("/other")
	e.wants(map[string]string{"1": "bread"})
}

func loadFileMerge(t *testing.T) {
	for _, c := range []struct {
		strategy string
		pear     bool // that was put where the snapshot has something else stays
		far      bool // so does what is in a region that the snapshot has nothing of
		orders   map[string]string
	}{
		{"account-region-merge", false, true, map[string]string{"1": "bread"}},
		{"service-merge", true, true, map[string]string{"1": "bread", "2": "milk"}},
		{"overwrite", false, false, map[string]string{"1": "bread"}},
	} {
		t.Run(c.strategy, func(t *testing.T) {
			e := filled(t)
			file := e.export("", "orders,s3")
			e.put("/fruits/apple", "green")
			e.put("/fruits/pear", "yellow")
			e.bucket("far", "eu-central-1")
			e.put("/far/away", "there")
			e.order("1", "cake")
			e.order("2", "milk")
			e.do(http.MethodPost, "/_localstack/pods?merge="+c.strategy, chunks(file), "Content-Type", "application/octet-stream").loaded("orders", "s3")
			e.has("/fruits/apple", "red")
			if c.pear {
				e.has("/fruits/pear", "yellow")
			} else {
				e.lacks("/fruits/pear")
			}
			if c.far {
				e.has("/far/away", "there")
			} else {
				e.lacks("/far/away")
			}
			e.wants(c.orders)
		})
	}
}

func loadBadFile(t *testing.T) {
	e := filled(t)
	const lstk = "application/octet-stream"
	load := func(body any, media string) answer {
		return e.do(http.MethodPost, "/_localstack/pods", body, "Content-Type", media)
	}
	invalid := func(a answer, text string) {
		t.Helper()
		lines := a.is(http.StatusOK).lines()
		if len(lines) != 1 || lines[0].Status != "error" || !strings.Contains(lines[0].Message, text) {
			t.Errorf("the lines are %s, want one with %q", a.body, text)
		}
	}
	file := e.export("", "orders,s3")
	e.order("2", "milk")
	e.put("/fruits/apple", "green")

	load(chunks(nil), lstk).is(http.StatusBadRequest)
	invalid(load(chunks([]byte("SNAP")), lstk), "not a valid zip archive")
	invalid(load(chunks(file[:len(file)/2]), lstk), "invalid pod file")
	invalid(load(chunks(packed(t, "readme.txt")), lstk), "invalid pod file")
	load(chunks(packed(t, "api_states/s3/store.state")), lstk).is(http.StatusUnprocessableEntity).text("pod of LocalStack")
	damaged := slices.Clone(file)
	damaged[len(damaged)/2] ^= 1
	invalid(load(chunks(damaged), lstk), "invalid pod file")

	// Other clients look at the status only.
	load(chunks([]byte("SNAP")), "application/x-www-form-urlencoded").is(http.StatusUnprocessableEntity).text("not a valid zip archive")
	load(chunks(damaged), "").is(http.StatusUnprocessableEntity).text("invalid pod file")

	e.do(http.MethodPost, "/_localstack/pods?merge=mixed", chunks(file), "Content-Type", lstk).is(http.StatusBadRequest).text("account-region-merge")

	// Of a service that is not here: what is of the other one is not loaded either.
	other := lone(t)
	other.do(http.MethodPost, "/_localstack/pods", chunks(file), "Content-Type", lstk).is(http.StatusUnprocessableEntity).text("orders")
	other.lacks("/fruits/apple")

	// Of one that does not take it.
	e.orders.refuse(true)
	if a := load(chunks(file), lstk); a.status < 400 {
		t.Errorf("a state that its service does not take was answered with %d %s", a.status, a.body)
	}
	e.orders.refuse(false)

	// Nothing has changed.
	e.has("/fruits/apple", "green")
	e.wants(map[string]string{"1": "bread", "2": "milk"})
}

// packed is a zip archive of one empty file.
func packed(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if _, err := z.Create(name); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func savePod(t *testing.T) {
	e := filled(t)
	done := e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	if done.Info.Version != 1 || !slices.Equal(done.Info.Services, []string{"orders", "s3"}) || done.Info.Size <= 0 {
		t.Errorf("the completion is %+v", done)
	}
	e.put("/fruits/apple", "green")
	done = e.call(http.MethodPost, "/_localstack/pods/base", `{"attributes":{"services":["s3"]}}`).done("save", "s3")
	if done.Info.Version != 2 || !slices.Equal(done.Info.Services, []string{"s3"}) {
		t.Errorf("the completion is %+v", done)
	}
	// The command line written in Python has null for what it has nothing to say about.
	e.call(http.MethodPost, "/_localstack/pods/base?", `{"attributes":null}`).done("save", "orders", "s3")
	e.call(http.MethodPost, "/_localstack/pods/Other_1.2", `{"attributes":{"is_public":false,"description":"mine","services":null}}`).done("save", "orders", "s3")
	e.call(http.MethodPost, "/_localstack/pods/base", `{"attributes":{"services":["sqs"]}}`).is(http.StatusNotFound).text("sqs")
	e.call(http.MethodPost, "/_localstack/pods/base", `{"attributes":`).is(http.StatusBadRequest)
	e.call(http.MethodPost, "/_localstack/pods/-", `{}`).is(http.StatusBadRequest)
	e.call(http.MethodPost, "/_localstack/pods/state", `{}`).is(http.StatusBadRequest).text("state")
	e.call(http.MethodPost, "/_localstack/pods/base?version=9", `{}`).is(http.StatusBadRequest).text("version")
}

func loadPod(t *testing.T) {
	e := filled(t)
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	e.put("/fruits/apple", "green")
	e.put("/fruits/pear", "yellow")
	e.order("2", "milk")
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")

	if done := e.call(http.MethodPut, "/_localstack/pods/base?merge=account-region-merge&version=1", `{}`).done("load", "orders", "s3"); done.Info.Version != 1 {
		t.Errorf("the completion is %+v", done)
	}
	e.has("/fruits/apple", "red")
	e.lacks("/fruits/pear")
	e.wants(map[string]string{"1": "bread"})

	e.order("3", "salt")
	e.call(http.MethodPut, "/_localstack/pods/base?merge=service-merge", `{}`).done("load", "orders", "s3")
	e.has("/fruits/apple", "green")
	e.has("/fruits/pear", "yellow")
	e.wants(map[string]string{"1": "bread", "2": "milk", "3": "salt"})

	e.call(http.MethodPut, "/_localstack/pods/base?merge=overwrite&ignore_version_mismatches=true", `{}`).done("load", "orders", "s3")
	e.wants(map[string]string{"1": "bread", "2": "milk"})

	for query, text := range map[string]string{"merge=mixed": "service-merge", "version=x": "version", "version=0": "version", "ignore_version_mismatches=perhaps": "true or false"} {
		e.call(http.MethodPut, "/_localstack/pods/base?"+query, `{}`).is(http.StatusBadRequest).text(text)
	}
	// A service that does not take it: none has changed.
	e.put("/fruits/apple", "brown")
	e.orders.refuse(true)
	if a := e.call(http.MethodPut, "/_localstack/pods/base?version=1", `{}`); a.status < 400 {
		t.Errorf("a state that its service does not take was answered with %d %s", a.status, a.body)
	}
	e.orders.refuse(false)
	e.has("/fruits/apple", "brown")
	e.wants(map[string]string{"1": "bread", "2": "milk"})
}

// operation is one of a diff, as lstk reads it, and more.
type operation struct {
	Type    string `json:"operation_type"`
	Account string `json:"account_id"`
	Region  string `json:"region_name"`
	Key     string `json:"key"`
}

func dryRun(t *testing.T) {
	e := filled(t)
	diff := func(query string) map[string][]operation {
		t.Helper()
		got := map[string][]operation{}
		e.call(http.MethodGet, "/_localstack/pods/base/diff"+query, "").is(http.StatusOK).json(&got)
		return got
	}
	counts := func(ops []operation) map[string]int {
		n := map[string]int{}
		for _, op := range ops {
			n[op.Type]++
		}
		return n
	}
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	if got := diff(""); len(got) != 0 {
		t.Errorf("nothing has changed, and the diff is %v", got)
	}
	e.put("/fruits/pear", "yellow")
	e.order("1", "cake")
	got := diff("?version=1")
	if n := counts(got["s3"]); n["ADDITION"] != 0 || n["DELETION"] == 0 {
		t.Errorf("s3: %v", got["s3"])
	}
	if op := got["s3"][slices.IndexFunc(got["s3"], func(op operation) bool { return op.Type == "DELETION" })]; !strings.Contains(op.Key, "pear") || op.Account == "" || op.Region == "" {
		t.Errorf("s3: %v", got["s3"])
	}
	if n := counts(got["orders"]); n["MODIFICATION"] != 1 || len(n) != 1 {
		t.Errorf("orders: %v", got["orders"])
	}
	if n := counts(diff("?merge=service-merge")["s3"]); n["DELETION"] != 0 {
		t.Errorf("service-merge removes nothing, and the diff has %v", n)
	}
	e.do(http.MethodPost, "/_localstack/state/reset", nil).is(http.StatusOK)
	if got := diff(""); counts(got["s3"])["ADDITION"] == 0 || counts(got["orders"])["ADDITION"] == 0 {
		t.Errorf("against nothing: %v", got)
	}
	e.lacks("/fruits/apple") // nothing was loaded
}

func removePod(t *testing.T) {
	e := filled(t)
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	e.call(http.MethodPost, "/_localstack/pods/kept", `{}`).done("save", "orders", "s3")
	e.call(http.MethodDelete, "/_localstack/pods/base", `{}`).is(http.StatusOK)
	if a := e.call(http.MethodDelete, "/_localstack/pods/base", `{}`).text("not found"); a.status < 400 {
		t.Errorf("removing it again was answered with %d", a.status)
	}
	var got struct {
		CloudPods []struct {
			Name string `json:"pod_name"`
		} `json:"cloudpods"`
	}
	e.call(http.MethodGet, "/_localstack/pods", `{}`).is(http.StatusOK).json(&got)
	if len(got.CloudPods) != 1 || got.CloudPods[0].Name != "kept" {
		t.Errorf("left are %+v", got)
	}
}

func missing(t *testing.T) {
	e := filled(t)
	completion := func(path string) string {
		t.Helper()
		a := e.call(http.MethodPut, path, `{}`).is(http.StatusOK)
		lines := a.lines()
		if last := lines[len(lines)-1]; last.Event == "completion" && last.Status == "error" {
			return strings.ToLower(last.Message)
		}
		t.Fatalf("the lines are %s", a.body)
		return ""
	}
	if got := completion("/_localstack/pods/nothing?merge=account-region-merge"); !strings.Contains(got, "failed to get version information from platform") {
		t.Errorf("of no pod: %s", got)
	}
	if a := e.call(http.MethodGet, "/_localstack/pods/nothing/diff", "").text("failed to get version information from platform"); a.status < 400 {
		t.Errorf("answered with %d", a.status)
	}
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	if got := completion("/_localstack/pods/base?version=9"); !strings.HasSuffix(got, "maximum version available in the remote storage is 1") {
		t.Errorf("of no version: %s", got)
	}
	if a := e.call(http.MethodGet, "/_localstack/pods/base/diff?version=9", "").text("maximum version available in the remote storage is 1"); a.status < 400 {
		t.Errorf("answered with %d", a.status)
	}
}

func reset(t *testing.T) {
	e := filled(t)
	e.do(http.MethodPost, "/_localstack/state/reset", nil).is(http.StatusOK)
	e.lacks("/fruits")
	e.wants(nil)
}

func status(t *testing.T) {
	e := begin(t)
	if a := e.do(http.MethodGet, "/_localstack/resources", nil).is(http.StatusOK); len(a.body) != 0 {
		t.Errorf("of nothing: %s", a.body)
	}
	e.bucket("fruits", "")
	e.bucket("far", "eu-central-1")
	e.put("/far/away", "there")
	type resource struct {
		Region  string `json:"region_name"`
		Account string `json:"account_id"`
		ID      string `json:"id"`
	}
	a := e.do(http.MethodGet, "/_localstack/resources", nil).is(http.StatusOK)
	got := map[resource]bool{}
	for line := range bytes.Lines(a.body) {
		var chunk map[string][]resource
		if err := json.Unmarshal(line, &chunk); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for kind, list := range chunk {
			if kind != "AWS::S3::Bucket" {
				t.Errorf("there is a %s", kind)
			}
			for _, r := range list {
				got[r] = true
			}
		}
	}
	if want := (resource{"eu-central-1", "000000000000", "far"}); len(got) != 2 || !got[want] {
		t.Errorf("the resources are %v", got)
	}
}

const (
	s3Remote = "/_localstack/pods/remotes/lstk-s3-0123456789"
	secret   = "wJalrXUtnFEMI"
)

// onS3 starts one that finds S3, with the bucket bkt, in another.
func onS3(t *testing.T) (e, s3 *emulator) {
	t.Helper()
	s3 = lone(t)
	s3.bucket("bkt", "")
	return filled(t, "AWS_ENDPOINT_URL_S3="+s3.url), s3
}

func saveToS3(t *testing.T) {
	e, s3 := onS3(t)
	const body = `{"name":"lstk-s3-0123456789","protocols":["s3"],"remote_url":"s3://bkt/pre?access_key_id={access_key_id}&secret_access_key={secret_access_key}"}`
	e.do(http.MethodPost, s3Remote, body, "Content-Type", "application/json").is(http.StatusOK)
	e.do(http.MethodPost, s3Remote, body, "Content-Type", "application/json").is(http.StatusOK) // again is no mistake
	var got struct{ Name, Remote_url string }
	e.do(http.MethodGet, s3Remote, nil).is(http.StatusOK).json(&got)
	if got.Name != "lstk-s3-0123456789" || !strings.Contains(got.Remote_url, "{secret_access_key}") {
		t.Errorf("the remote is %+v", got)
	}
	const there = `"remote":{"remote_name":"lstk-s3-0123456789","remote_params":{"access_key_id":"AKIA","secret_access_key":"` + secret + `"}}`
	if done := e.call(http.MethodPost, "/_localstack/pods/mypod", `{`+there+`}`).done("save", "orders", "s3"); done.Info.Version != 1 || done.Info.Size <= 0 {
		t.Errorf("the completion is %+v", done)
	}
	e.call(http.MethodGet, "/_localstack/pods", `{}`).is(http.StatusOK).text(`"cloudpods":[]`) // not here
	e.put("/fruits/apple", "green")
	e.order("2", "milk")
	e.call(http.MethodPut, "/_localstack/pods/mypod?merge=overwrite", `{`+there+`}`).done("load", "orders", "s3")
	e.has("/fruits/apple", "red")
	e.wants(map[string]string{"1": "bread"})
	// Another emulator, on another machine.
	other := begin(t, e.env...)
	other.do(http.MethodPost, s3Remote, body, "Content-Type", "application/json").is(http.StatusOK)
	other.call(http.MethodPut, "/_localstack/pods/mypod?merge=overwrite", `{`+there+`}`).done("load", "orders", "s3")
	other.has("/fruits/apple", "red")
	other.call(http.MethodPost, "/_localstack/pods/mypod", `{`+there+`}`).done("save", "orders", "s3")
	s3.do(http.MethodGet, "/bkt/pre/commits/mypod/000000000002", nil).is(http.StatusOK)

	e.call(http.MethodPost, "/_localstack/pods/mypod", `{"remote":{"remote_name":"lstk-s3-0123456789","remote_params":{"access_key_id":"AKIA"}}}`).is(http.StatusBadRequest).text("secret_access_key")
	e.do(http.MethodPost, "/_localstack/pods/remotes/oras", `{"name":"oras","protocols":["oras"],"remote_url":"oras://{user}:{password}@registry"}`).is(http.StatusOK)
	e.call(http.MethodPost, "/_localstack/pods/mypod", `{"remote":{"remote_name":"oras"}}`).is(http.StatusNotImplemented).text("oras")
	e.call(http.MethodPost, "/_localstack/pods/mypod", `{"remote":{"remote_name":"nothing"}}`).is(http.StatusNotFound).text("nothing")

	// Credentials are to be sent with each call, and to be found nowhere.
	for _, url := range []string{
		"s3://bkt/pre?access_key_id=AKIA&secret_access_key=" + secret, "s3://bkt/pre?access_key_id={access_key_id}&session_token=" + secret, "s3://AKIA:" + secret + "@bkt/pre", "oras://{user}:" + secret + "@registry", "",
	} {
		b, err := json.Marshal(map[string]any{"name": "lstk-s3-0123456789", "protocols": []string{"s3"}, "remote_url": url})
		if err != nil {
			t.Fatal(err)
		}
		if a := e.do(http.MethodPost, s3Remote, b).is(http.StatusBadRequest); bytes.Contains(a.body, []byte(secret)) {
			t.Errorf("the answer has the secret: %s", a.body)
		}
	}
	if strings.Contains(e.log.String(), secret) {
		t.Error("the log has the secret")
	}
	err := filepath.WalkDir(e.data, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s has the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func listOnS3(t *testing.T) {
	e, _ := onS3(t)
	e.call(http.MethodPost, "/_localstack/pods/here", `{}`).done("save", "orders", "s3")
	e.do(http.MethodPost, s3Remote, `{"name":"lstk-s3-0123456789","protocols":["s3"],"remote_url":"s3://bkt/pre?access_key_id={access_key_id}&secret_access_key={secret_access_key}"}`).is(http.StatusOK)
	const there = `{"remote":{"remote_name":"lstk-s3-0123456789","remote_params":{"access_key_id":"AKIA","secret_access_key":"` + secret + `"}}}`
	e.call(http.MethodPost, "/_localstack/pods/base", there).done("save", "orders", "s3")
	for body, name := range map[string]string{there: "base", `{}`: "here"} {
		var got struct {
			CloudPods []pod `json:"cloudpods"`
		}
		e.call(http.MethodGet, "/_localstack/pods?creator=me", body).is(http.StatusOK).json(&got)
		if len(got.CloudPods) != 1 || got.CloudPods[0].Name != name || got.CloudPods[0].MaxVersion != 1 || got.CloudPods[0].LastChange == 0 {
			t.Errorf("the pods are %+v, want %s", got, name)
		}
	}
}

// pod is a snapshot as lstk reads it of the platform.
type pod struct {
	Name        string `json:"pod_name"`
	MaxVersion  int    `json:"max_version"`
	LastChange  int64  `json:"last_change"`
	StorageSize int64  `json:"storage_size"`
	Versions    []version
}

type version struct {
	Version     int      `json:"version"`
	LocalStack  string   `json:"localstack_version"`
	Services    []string `json:"services"`
	StorageSize int64    `json:"storage_size"`
	Size        int64    `json:"size"`
	Description string   `json:"description"`
	CreatedAt   int64    `json:"created_at"`
	Deleted     bool     `json:"deleted"`
}

func (v version) check(t *testing.T, number int, description string) {
	t.Helper()
	if v.Version != number || v.LocalStack == "" || !slices.Equal(v.Services, []string{"orders", "s3"}) || v.StorageSize <= 0 || v.Size != v.StorageSize ||
		v.Description != description || v.CreatedAt == 0 || v.Deleted {
		t.Errorf("version %d is %+v", number, v)
	}
}

func platform(t *testing.T) {
	e := filled(t)
	const api = "/_localstack/platform/v1/cloudpods" // what LSTK_API_ENDPOINT leads to
	e.call(http.MethodGet, api+"?creator=me", "").is(http.StatusOK).text("[]")
	e.call(http.MethodGet, api+"/base", "").is(http.StatusNotFound)
	e.call(http.MethodPost, "/_localstack/pods/base", `{"attributes":{"description":"first"}}`).done("save", "orders", "s3")
	e.put("/fruits/apple", "green")
	e.call(http.MethodPost, "/_localstack/pods/base", `{}`).done("save", "orders", "s3")
	e.call(http.MethodPost, "/_localstack/pods/more", `{}`).done("save", "orders", "s3")
	var all []pod
	e.call(http.MethodGet, api+"?creator=me", "").is(http.StatusOK).json(&all)
	if len(all) != 2 || all[0].Name != "base" || all[0].MaxVersion != 2 || all[0].LastChange == 0 || all[1].Name != "more" {
		t.Errorf("the pods are %+v", all)
	}
	var one pod
	e.call(http.MethodGet, api+"/base", "").is(http.StatusOK).json(&one)
	if one.Name != "base" || one.MaxVersion != 2 || one.StorageSize <= 0 || len(one.Versions) != 2 {
		t.Fatalf("the pod is %+v", one)
	}
	one.Versions[0].check(t, 1, "first")
	one.Versions[1].check(t, 2, "")
}
