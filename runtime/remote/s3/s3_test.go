package s3_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/remote/remotetest"
	"github.com/torpor-run/torpor/runtime/remote/s3"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	embedded "github.com/torpor-run/torpor/server/embedded/s3"
)

// bucket makes an empty one, in the S3 of this house.
func bucket(t testing.TB) s3.Config {
	t.Helper()
	server := httptest.NewServer(embedded.New(embedded.Options{}).Handler())
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/bkt", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	return s3.Config{Bucket: "bkt", Endpoint: server.URL, AccessKey: "AKIA", SecretKey: "secret"}
}

func open(t testing.TB, c s3.Config) repository.Remote {
	t.Helper()
	b, err := s3.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRemote(t *testing.T) {
	for _, prefix := range []string{"", "pre/fix"} {
		remotetest.Test(t, func(t testing.TB) remotetest.Place {
			c := bucket(t)
			c.Prefix = prefix
			return func(t testing.TB) repository.Remote { return open(t, c) }
		})
	}
}

// Two places in one bucket do not see one another, nor what else is there.
func TestPrefixes(t *testing.T) {
	c := bucket(t)
	for _, prefix := range []string{"a", "ab", ""} {
		c.Prefix = prefix
		if err := open(t, c).Put(t.Context(), "packs/"+prefix+"x", strings.NewReader(prefix), int64(len(prefix))); err != nil {
			t.Fatal(err)
		}
	}
	c.Prefix = "a"
	var names []string
	if err := open(t, c).List(t.Context(), "", func(b repository.Blob) error { names = append(names, b.Name); return nil }); err != nil || len(names) != 1 || names[0] != "packs/ax" {
		t.Errorf("%q, %v", names, err)
	}
}

func TestParse(t *testing.T) {
	const url = "s3://bkt/pre/fix/?access_key_id={access_key_id}&secret_access_key={secret_access_key}"
	params := map[string]string{"access_key_id": "AKIA", "secret_access_key": "s3cr3t"}
	base := s3.Config{Region: "eu-west-1", Endpoint: "http://localhost:1"}
	got, err := s3.Parse(url, params, base)
	if want := (s3.Config{Bucket: "bkt", Prefix: "pre/fix", Region: "eu-west-1", Endpoint: "http://localhost:1", AccessKey: "AKIA", SecretKey: "s3cr3t"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = s3.Parse(url+"&region=us-west-2&endpoint_url=https://minio.example.org&session_token={t}", map[string]string{"access_key_id": "A", "secret_access_key": "B", "t": "T"}, base)
	if want := (s3.Config{Bucket: "bkt", Prefix: "pre/fix", Region: "us-west-2", Endpoint: "https://minio.example.org", AccessKey: "A", SecretKey: "B", SessionToken: "T"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []struct{ url, says string }{
		{url + "&session_token={token}", "token"}, {"http://bkt", "no URL of a bucket"}, {"s3:///x", "no URL of a bucket"}, {"%", "no URL of a bucket"},
	} {
		if _, err := s3.Parse(c.url, params, base); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.url, err)
		}
	}
	for _, c := range []s3.Config{{}, {Bucket: "b"}, {Bucket: "b", AccessKey: "a", SecretKey: "s", Endpoint: "ftp://x"}} {
		if _, err := s3.Open(c); err == nil {
			t.Errorf("%+v is opened", c)
		}
	}
}
