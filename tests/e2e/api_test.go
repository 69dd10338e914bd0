//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/torpor-run/torpor/tests/need"
)

// fields decodes a JSON object.
func fields(t *testing.T, body string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return m
}

func TestHealthAndInfo(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data"), "--flush-interval", "1h"))
	health := fields(t, c.do(http.MethodGet, "/_localstack/health", "").body)
	if health["services"].(map[string]any)["s3"] != "available" || health["features"].(map[string]any)["persistence"] != "initialized" ||
		health["edition"] != "torpor" || health["version"] == "" {
		t.Errorf("LocalStack's health: %v", health)
	}
	info := fields(t, c.do(http.MethodGet, "/_localstack/info", "").body)
	for _, key := range []string{"version", "edition", "is_license_activated", "session_id", "system", "is_docker", "server_time_utc", "uptime"} {
		if _, ok := info[key]; !ok {
			t.Errorf("info lacks %s: %v", key, info)
		}
	}
	if again := fields(t, c.do(http.MethodGet, "/_localstack/info", "").body); again["session_id"] != info["session_id"] {
		t.Error("the session's id changes within a session")
	}

	if p := c.part(); p.Status != "empty" || p.Generation != 0 || p.LastGoodSave != nil {
		t.Errorf("at the beginning: %+v", p)
	}
	c.put("/bucket/key", "content")
	if p := c.part(); p.Status != "dirty" || p.DirtySeconds <= 0 || !strings.HasPrefix(p.Serializer, "records ") {
		t.Errorf("with a change: %+v", p)
	}
	began := time.Now()
	c.save()
	if p := c.part(); p.Status != "saved" || p.DirtySeconds != 0 || p.Generation != 1 || p.LastGoodSave == nil || p.LastGoodSave.Before(began.Add(-time.Second)) ||
		p.Records < 2 || p.Bytes == 0 || p.FileBytes <= int64(p.Bytes) {
		t.Errorf("after a save: %+v", p)
	}
	c.has("/bucket/key", "content") // reading is no change
	c.do(http.MethodHead, "/bucket/key", "")
	c.do(http.MethodGet, "/bucket?list-type=2", "")
	if p := c.part(); p.Status != "saved" {
		t.Errorf("after reading: %+v", p)
	}
}

func TestStateCalls(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data")))
	const ok = `{"service":"s3","status":"ok"}` + "\n"
	c.put("/bucket/key", "content")
	for _, path := range []string{"/_localstack/state/save", "/_localstack/state/s3/save", "/_localstack/state/load", "/_localstack/state/s3/load"} {
		if a := c.do(http.MethodPost, path, ""); a.status != http.StatusOK || a.body != ok || a.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%s: %d %s %s", path, a.status, a.header.Get("Content-Type"), a.body)
		}
	}
	c.has("/bucket/key", "content")
	for _, action := range []string{"save", "load", "reset"} {
		a := c.do(http.MethodPost, "/_localstack/state/sqs/"+action, "")
		if line := fields(t, a.body); a.status != http.StatusNotFound || line["service"] != "sqs" || line["status"] != "error" || !strings.Contains(line["message"].(string), "s3") {
			t.Errorf("%s of an unknown service: %d %s", action, a.status, a.body)
		}
		if a := c.do(http.MethodPost, "/_localstack/state/s3/"+action, "", "Origin", "https://example.com"); a.status != http.StatusForbidden || !strings.Contains(a.body, "https://example.com") {
			t.Errorf("%s from a foreign page: %d %s", action, a.status, a.body)
		}
		if a := c.do(http.MethodGet, "/_localstack/state/s3/"+action, ""); a.status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d %s", action, a.status, a.body)
		}
	}
	c.has("/bucket/key", "content")
	for _, path := range []string{"/_localstack/state/s3/reset", "/_localstack/state/reset"} {
		c.put("/bucket/key", "content")
		if a := c.do(http.MethodPost, path, ""); a.status != http.StatusOK || a.body != ok {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		c.lacks("/bucket/key")
	}
	if a := c.do(http.MethodGet, "/_torpor/nothing", ""); a.status != http.StatusNotFound || fields(t, a.body)["error"] == nil {
		t.Errorf("an unknown route: %d %s", a.status, a.body)
	}
}

// TestBucketNamedMetrics: the route /metrics takes nothing from S3.
func TestBucketNamedMetrics(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data")))
	client := c.client()
	bucket := aws.String("metrics")
	if _, err := client.CreateBucket(bg(), &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	putSDK(t, client, object{bucket: "metrics", key: "key", body: []byte("content"), contentType: "text/plain"})
	c.put("/metrics/plain", "content")
	listed, err := client.ListObjectsV2(bg(), &s3.ListObjectsV2Input{Bucket: bucket})
	if err != nil || len(listed.Contents) != 2 {
		t.Errorf("listing: %v, %v", listed, err)
	}
	if v1, err := client.ListObjects(bg(), &s3.ListObjectsInput{Bucket: bucket}); err != nil || len(v1.Contents) != 2 {
		t.Errorf("listing in the old way: %v, %v", v1, err)
	}
	if _, err := client.HeadBucket(bg(), &s3.HeadBucketInput{Bucket: bucket}); err != nil {
		t.Error(err)
	}
	presigned, err := s3.NewPresignClient(client).PresignGetObject(bg(), &s3.GetObjectInput{Bucket: bucket, Key: aws.String("key")})
	if err != nil {
		t.Fatal(err)
	}
	c.has(strings.TrimPrefix(presigned.URL, c.url), "content")
	if a := c.do(http.MethodGet, "/metrics", ""); !strings.Contains(a.body, "# TYPE torpor_build_info gauge") {
		t.Errorf("/metrics: %d %.200s", a.status, a.body)
	}
	remove(t, client, "metrics", "key")
	remove(t, client, "metrics", "plain")
	if _, err := client.DeleteBucket(bg(), &s3.DeleteBucketInput{Bucket: bucket}); err != nil {
		t.Error(err)
	}
}

// lived gives a program that has saved and restored, and has failed at nothing.
func lived(t *testing.T) *child {
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data))
	c.put("/bucket/key", string(noise(7, 100_000)))
	c.stop()
	c = start(t, on(data))
	c.put("/bucket/key", "content")
	c.save()
	return c
}

func TestMetrics(t *testing.T) {
	c := lived(t)
	for series, least := range map[string]float64{
		`torpor_restore_duration_seconds_count{part="store",phase="read",service="s3"}`:    1,
		`torpor_restore_duration_seconds_count{part="store",phase="decode",service="s3"}`:  1,
		`torpor_restore_duration_seconds_count{part="store",phase="deliver",service="s3"}`: 1,
		`torpor_restore_duration_seconds_count{part="store",phase="total",service="s3"}`:   1,
		`torpor_save_duration_seconds_count{part="store",phase="total",service="s3"}`:      1,
		`torpor_pause_duration_seconds_count{service="s3"}`:                                1,
		`torpor_restored_bytes_total{part="store",service="s3"}`:                           100_000,
		`torpor_saved_bytes_total{part="store",service="s3"}`:                              10,
		`torpor_state_generation{part="store",service="s3"}`:                               2,
		`torpor_state_records{part="store",service="s3"}`:                                  2,
		`torpor_state_bytes{part="store",service="s3"}`:                                    10,
		`torpor_state_file_bytes{part="store",service="s3"}`:                               10,
		`torpor_service_status{service="s3",status="running"}`:                             1,
		`torpor_module_compile_duration_seconds_count{module="records"}`:                   1,
		`torpor_module_call_duration_seconds_count{module="records",operation="load"}`:     1,
		`torpor_module_call_duration_seconds_count{module="records",operation="save"}`:     1,
		`torpor_module_memory_bytes{module="records"}`:                                     65536,
		`torpor_gateway_requests_total{code="2xx",service="s3"}`:                           1,
		`torpor_gateway_request_duration_seconds_count{service="s3"}`:                      1,
		`go_goroutines`:              1,
		`process_open_fds`:           1,
		`process_start_time_seconds`: 1,
	} {
		if got := c.metric(series); got < least {
			t.Errorf("%s is %v, want at least %v", series, got, least)
		}
	}
	for _, series := range []string{`torpor_corrupt_files_total{part="store",service="s3"}`, `torpor_state_dirty_seconds{part="store",service="s3"}`} {
		if got := c.metric(series); got != 0 {
			t.Errorf("%s is %v", series, got)
		}
	}
	body := c.do(http.MethodGet, "/metrics", "").body
	if !regexp.MustCompile(`(?m)^torpor_build_info\{goversion="go[^"]+",revision="[^"]*",version="[^"]+"\} 1$`).MatchString(body) {
		t.Error("there is no build info")
	}
	if strings.Contains(body, "torpor_failures_total{") {
		t.Errorf("something failed:\n%s", body)
	}
	if sum := c.metric(`torpor_restore_duration_seconds_sum{part="store",phase="total",service="s3"}`); sum <= 0 {
		t.Errorf("restoring took %v seconds", sum)
	}
}

// TestMetricsForms: the text form has classic buckets, the protobuf form native histograms beside them.
func TestMetricsForms(t *testing.T) {
	c := lived(t)
	const name = "torpor_restore_duration_seconds"
	for form, accept := range map[string]string{
		"text":        "text/plain; version=0.0.4",
		"openmetrics": "application/openmetrics-text; version=1.0.0",
	} {
		a := c.do(http.MethodGet, "/metrics", "", "Accept", accept)
		if !strings.Contains(a.body, name+`_bucket{part="store",phase="total",service="s3",le="0.1"} `) {
			t.Errorf("%s: no classic buckets in\n%.2000s", form, a.body)
		}
	}

	a := c.do(http.MethodGet, "/metrics", "", "Accept", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
	dec := expfmt.NewDecoder(bufio.NewReader(strings.NewReader(a.body)), expfmt.ResponseFormat(a.header))
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); errors.Is(err, io.EOF) {
			t.Fatalf("there is no %s in protobuf", name)
		} else if err != nil {
			t.Fatal(err)
		}
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			h := m.Histogram
			if h.GetSampleCount() > 0 && (len(h.Bucket) < 10 || h.Schema == nil || len(h.PositiveSpan) == 0 && h.GetZeroCount() == 0) {
				t.Errorf("%v has no classic and native buckets", m)
			}
		}
		return
	}
}

func TestPromtoolLikesTheMetrics(t *testing.T) {
	promtool := need.Program(t, "promtool")
	c := lived(t)
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(c.do(http.MethodGet, "/metrics", "").body)
	var out bytes.Buffer
	check.Stdout, check.Stderr = &out, &out
	if err := check.Run(); err != nil || out.Len() > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, &out)
	}
}
