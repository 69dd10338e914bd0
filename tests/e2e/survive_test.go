//go:build unix

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// object is what is put, and what must come back.
type object struct {
	bucket, key string
	body        []byte
	contentType string
	metadata    map[string]string
	tags        map[string]string
}

// noise is content that does not compress and is the same for the same seed.
func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// ordinary are objects as people have them.
func ordinary() []object {
	return []object{
		{bucket: "documents", key: "plain.txt", body: []byte("hello, world\n"), contentType: "text/plain"},
		{bucket: "documents", key: "empty", body: []byte{}, contentType: "application/octet-stream"},
		{bucket: "documents", key: "with metadata", body: []byte("x"), contentType: "text/html; charset=utf-8",
			metadata: map[string]string{"owner": "ada", "purpose": "a test, with commas; and = signs", "empty": ""}},
		{bucket: "documents", key: "with tags", body: []byte("x"), contentType: "application/json", tags: map[string]string{"env": "test", "a key": "a value/+-=._:@"}},
		{bucket: "documents", key: "with/slashes/in/it", body: []byte("a"), contentType: "text/plain"},
		{bucket: "documents", key: "with//two//slashes/", body: []byte("b"), contentType: "text/plain"},
		{bucket: "documents", key: "./dots/../stay", body: []byte("c"), contentType: "text/plain"},
		{bucket: "documents", key: "spaces and + plus %20 percent", body: []byte("d"), contentType: "text/plain"},
		{bucket: "documents", key: "äöü/日本語/🌍", body: []byte("e"), contentType: "text/plain"},
		{bucket: "documents", key: "e\u0301 is not \u00e9", body: []byte("decomposed"), contentType: "text/plain"},
		{bucket: "documents", key: "quotes\"'<&>?#[]{}|\\^`~", body: []byte("f"), contentType: "text/plain"},
		{bucket: "documents", key: strings.Repeat("k", 1024), body: []byte("the longest key"), contentType: "text/plain"},
		{bucket: "binary.data", key: "every byte", body: everyByte(), contentType: "application/octet-stream"},
		{bucket: "binary.data", key: "a megabyte", body: noise(1, 1<<20+1), contentType: "image/png"},
		{bucket: "metrics", key: "key", body: []byte("in a bucket named as the route"), contentType: "text/plain"},
		{bucket: "metrics", key: "a/b", body: []byte("below it"), contentType: "text/plain"},
	}
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// observed is all that a client can see of an object.
type observed struct {
	body     string // SHA-256, to be readable where it differs
	header   http.Header
	etag     string
	modified string
	metadata map[string]string
	tags     map[string]string
}

// world is all that a client can see of the service.
type world struct {
	buckets  map[string]string // with their creation dates
	objects  map[string]observed
	versions map[string][]string
	uploads  map[string][]string
}

// observe looks at everything with the SDK, and at the headers by plain HTTP.
func observe(t *testing.T, c *child) world {
	t.Helper()
	client := c.client()
	w := world{buckets: map[string]string{}, objects: map[string]observed{}, versions: map[string][]string{}, uploads: map[string][]string{}}
	buckets, err := client.ListBuckets(bg(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets.Buckets {
		w.buckets[*b.Name] = b.CreationDate.String()
		for pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: b.Name, MaxKeys: aws.Int32(5)}); pages.HasMorePages(); {
			page, err := pages.NextPage(bg())
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Contents {
				w.objects[*b.Name+"/"+*o.Key] = observeObject(t, c, client, *b.Name, o)
			}
		}
		versions, err := client.ListObjectVersions(bg(), &s3.ListObjectVersionsInput{Bucket: b.Name})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions.Versions {
			w.versions[*b.Name] = append(w.versions[*b.Name], fmt.Sprint(*v.Key, *v.VersionId, *v.IsLatest, *v.ETag, v.LastModified))
		}
		for _, v := range versions.DeleteMarkers {
			w.versions[*b.Name] = append(w.versions[*b.Name], fmt.Sprint("marker", *v.Key, *v.VersionId, *v.IsLatest, v.LastModified))
		}
		uploads, err := client.ListMultipartUploads(bg(), &s3.ListMultipartUploadsInput{Bucket: b.Name})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range uploads.Uploads {
			w.uploads[*b.Name] = append(w.uploads[*b.Name], *u.Key+" "+*u.UploadId)
		}
	}
	return w
}

func observeObject(t *testing.T, c *child, client *s3.Client, bucket string, listed types.Object) observed {
	t.Helper()
	got, err := client.GetObject(bg(), &s3.GetObjectInput{Bucket: &bucket, Key: listed.Key})
	if err != nil {
		t.Fatalf("get %s/%s: %v", bucket, *listed.Key, err)
	}
	defer got.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, got.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n != *listed.Size || *got.ETag != *listed.ETag || !got.LastModified.Truncate(1e9).Equal(listed.LastModified.Truncate(1e9)) {
		t.Errorf("%s/%s is listed with %d bytes, %s, %v; and is %d, %s, %v", bucket, *listed.Key,
			*listed.Size, *listed.ETag, listed.LastModified, n, *got.ETag, got.LastModified)
	}
	tagging, err := client.GetObjectTagging(bg(), &s3.GetObjectTaggingInput{Bucket: &bucket, Key: listed.Key})
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{}
	for _, tag := range tagging.TagSet {
		tags[*tag.Key] = *tag.Value
	}
	header := c.do(http.MethodHead, "/"+bucket+"/"+url.PathEscape(*listed.Key), "").header
	for _, volatile := range []string{"Date", "X-Amz-Request-Id", "X-Amz-Id-2", "Connection"} {
		header.Del(volatile)
	}
	return observed{body: fmt.Sprintf("%d bytes, SHA-256 %x", n, h.Sum(nil)), header: header, etag: *got.ETag,
		modified: listed.LastModified.String(), metadata: got.Metadata, tags: tags}
}

// same tells what differs between two observations.
func same(t *testing.T, when string, before, after world) {
	t.Helper()
	for key, was := range before.objects {
		if is, ok := after.objects[key]; !ok {
			t.Errorf("%s: %.80q is gone", when, key)
		} else if !reflect.DeepEqual(is, was) {
			t.Errorf("%s: %.80q was\n%+v, is\n%+v", when, key, was, is)
		}
	}
	for key := range after.objects {
		if _, ok := before.objects[key]; !ok {
			t.Errorf("%s: %.80q has appeared", when, key)
		}
	}
	if !reflect.DeepEqual(before.buckets, after.buckets) {
		t.Errorf("%s: the buckets were %v, are %v", when, before.buckets, after.buckets)
	}
	if !reflect.DeepEqual(before.versions, after.versions) {
		t.Errorf("%s: the versions were %v, are %v", when, before.versions, after.versions)
	}
	if !reflect.DeepEqual(before.uploads, after.uploads) {
		t.Errorf("%s: the uploads were %v, are %v", when, before.uploads, after.uploads)
	}
}

// putSDK puts with the SDK.
func putSDK(t *testing.T, client *s3.Client, o object) {
	t.Helper()
	in := &s3.PutObjectInput{Bucket: &o.bucket, Key: &o.key, Body: bytes.NewReader(o.body), ContentType: &o.contentType, Metadata: o.metadata}
	if len(o.tags) > 0 {
		v := url.Values{}
		for key, value := range o.tags {
			v.Set(key, value)
		}
		in.Tagging = aws.String(v.Encode())
	}
	if _, err := client.PutObject(bg(), in); err != nil {
		t.Fatalf("put %s/%.80q: %v", o.bucket, o.key, err)
	}
}

// putPlain puts as a person at a terminal does: with curl, or where there is none with net/http.
func putPlain(t *testing.T, c *child, o object) {
	t.Helper()
	target := c.url + "/" + o.bucket + "/" + url.PathEscape(o.key)
	header := []string{"Content-Type: " + o.contentType}
	for name, value := range o.metadata {
		h := "x-amz-meta-" + name + ": " + value
		if value == "" {
			h = "x-amz-meta-" + name + ";" // curl's way to send an empty one
		}
		header = append(header, h)
	}
	if len(o.tags) > 0 {
		v := url.Values{}
		for key, value := range o.tags {
			v.Set(key, value)
		}
		header = append(header, "x-amz-tagging: "+v.Encode())
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		args := []string{"-sS", "--fail-with-body", "--path-as-is", "--globoff", "-X", "PUT", "--data-binary", "@-", target}
		for _, h := range header {
			args = append(args, "-H", h)
		}
		cmd := exec.Command(curl, args...)
		cmd.Stdin = bytes.NewReader(o.body)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("curl %q: %v\n%s", args, err, out)
		}
		return
	}
	t.Log("there is no curl: net/http stands in for it")
	req, err := http.NewRequest(http.MethodPut, target, bytes.NewReader(o.body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Set(strings.TrimSuffix(name, ";"), strings.TrimSpace(value))
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT %s: %s", target, resp.Status)
	}
}

// TestStateSurvives puts everything S3's users put, and looks at it again after a stop, after a kill
// with everything saved, and with state loaded at the start.
func TestStateSurvives(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data))
	client := c.client()
	want := map[string]object{}
	put := func(o object, by func(object)) {
		if _, err := client.HeadBucket(bg(), &s3.HeadBucketInput{Bucket: &o.bucket}); err != nil {
			if _, err := client.CreateBucket(bg(), &s3.CreateBucketInput{Bucket: &o.bucket}); err != nil {
				t.Fatal(err)
			}
		}
		by(o)
		want[o.bucket+"/"+o.key] = o
	}
	for _, o := range ordinary() {
		put(o, func(o object) { putSDK(t, client, o) })
		o.bucket = "plain-" + o.bucket
		put(o, func(o object) { putPlain(t, c, o) })
	}

	// Multi-part: 24 MB by the SDK's own uploader, and by hand with parts of different lengths.
	large := object{bucket: "large", key: "uploaded", body: noise(2, 24<<20+12345), contentType: "video/mp4", metadata: map[string]string{"made-by": "transfermanager"}}
	put(large, func(o object) {
		up := transfermanager.New(client, func(o *transfermanager.Options) { o.PartSizeBytes = 6 << 20; o.MultipartUploadThreshold = 6 << 20 })
		if _, err := up.UploadObject(bg(), &transfermanager.UploadObjectInput{Bucket: &o.bucket, Key: &o.key, Body: bytes.NewReader(o.body),
			ContentType: &o.contentType, Metadata: o.metadata}); err != nil {
			t.Fatal(err)
		}
	})
	byHand := object{bucket: "large", key: "by hand", body: noise(3, 5<<20+5<<20+7), contentType: "application/zip", metadata: map[string]string{"parts": "three"}}
	put(byHand, func(o object) {
		multipart(t, client, o, beginMultipart(t, client, o), 5<<20, 10<<20)
	})
	// One that is still under way when the program stops.
	halfway := object{bucket: "large", key: "halfway", body: noise(4, 5<<20+99), contentType: "text/csv"}
	upload := beginMultipart(t, client, halfway)
	firstPart := uploadPart(t, client, halfway, upload, 1, halfway.body[:5<<20])

	// A versioned bucket: two versions and a delete marker.
	if _, err := client.CreateBucket(bg(), &s3.CreateBucketInput{Bucket: aws.String("versioned")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PutBucketVersioning(bg(), &s3.PutBucketVersioningInput{Bucket: aws.String("versioned"),
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "two"} {
		put(object{bucket: "versioned", key: "kept", body: []byte(body), contentType: "text/plain"}, func(o object) { putSDK(t, client, o) })
		putSDK(t, client, object{bucket: "versioned", key: "deleted", body: []byte(body), contentType: "text/plain"})
	}
	remove(t, client, "versioned", "deleted")

	// What is deleted stays so: one by one, many at once, a bucket.
	for i := range 6 {
		o := object{bucket: "documents", key: fmt.Sprint("deleted/", i), body: []byte("x"), contentType: "text/plain"}
		putSDK(t, client, o)
	}
	remove(t, client, "documents", "deleted/0")
	var many []types.ObjectIdentifier
	for i := 1; i < 6; i++ {
		many = append(many, types.ObjectIdentifier{Key: aws.String(fmt.Sprint("deleted/", i))})
	}
	if out, err := client.DeleteObjects(bg(), &s3.DeleteObjectsInput{Bucket: aws.String("documents"), Delete: &types.Delete{Objects: many}}); err != nil || len(out.Errors) > 0 {
		t.Fatalf("%v %v", err, out)
	}
	if _, err := client.CreateBucket(bg(), &s3.CreateBucketInput{Bucket: aws.String("short-lived")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteBucket(bg(), &s3.DeleteBucketInput{Bucket: aws.String("short-lived")}); err != nil {
		t.Fatal(err)
	}

	before := observe(t, c)
	is(t, before, want)
	c.stop()
	noLeftovers(t, data)

	c = start(t, on(data))
	same(t, "after a stop and a start", before, observe(t, c))
	c.healthy()
	// The upload goes on where it was.
	client = c.client()
	if _, err := client.CompleteMultipartUpload(bg(), &s3.CompleteMultipartUploadInput{Bucket: &halfway.bucket, Key: &halfway.key, UploadId: &upload,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{firstPart, uploadPart(t, client, halfway, upload, 2, halfway.body[5<<20:])}}}); err != nil {
		t.Fatal(err)
	}
	want[halfway.bucket+"/"+halfway.key] = halfway
	c.save()
	before = observe(t, c)
	is(t, before, want)
	c.kill()

	c = start(t, on(data).with("SNAPSHOT_LOAD_STRATEGY=ON_STARTUP"))
	same(t, "after a kill with everything saved", before, observe(t, c))
	c.healthy()
	noLeftovers(t, data)
}

// is checks what is seen against what was put.
func is(t *testing.T, w world, want map[string]object) {
	t.Helper()
	for key, o := range want {
		got, ok := w.objects[key]
		if !ok {
			t.Errorf("%.80q is not there", key)
			continue
		}
		if body := fmt.Sprintf("%d bytes, SHA-256 %x", len(o.body), sha256.Sum256(o.body)); got.body != body {
			t.Errorf("%.80q is %s, want %s", key, got.body, body)
		}
		if !maps.Equal(got.metadata, o.metadata) && len(got.metadata)+len(o.metadata) > 0 {
			t.Errorf("%.80q has metadata %v, want %v", key, got.metadata, o.metadata)
		}
		if !maps.Equal(got.tags, o.tags) && len(got.tags)+len(o.tags) > 0 {
			t.Errorf("%.80q has tags %v, want %v", key, got.tags, o.tags)
		}
		if ct := got.header.Get("Content-Type"); ct != o.contentType {
			t.Errorf("%.80q is of type %q, want %q", key, ct, o.contentType)
		}
		if got.header.Get("Etag") != got.etag || got.header.Get("Content-Length") != fmt.Sprint(len(o.body)) {
			t.Errorf("%.80q: HEAD says %v, GET %s", key, got.header, got.etag)
		}
	}
	if len(w.objects) != len(want) {
		t.Errorf("there are %d objects, want %d: %.1000q", len(w.objects), len(want), slices.Sorted(maps.Keys(w.objects)))
	}
}

func remove(t *testing.T, client *s3.Client, bucket, key string) {
	t.Helper()
	if _, err := client.DeleteObject(bg(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}); err != nil {
		t.Fatal(err)
	}
}

func beginMultipart(t *testing.T, client *s3.Client, o object) (id string) {
	t.Helper()
	begun, err := client.CreateMultipartUpload(bg(), &s3.CreateMultipartUploadInput{Bucket: &o.bucket, Key: &o.key, ContentType: &o.contentType, Metadata: o.metadata})
	if err != nil {
		t.Fatal(err)
	}
	return *begun.UploadId
}

func uploadPart(t *testing.T, client *s3.Client, o object, id string, n int32, body []byte) types.CompletedPart {
	t.Helper()
	out, err := client.UploadPart(bg(), &s3.UploadPartInput{Bucket: &o.bucket, Key: &o.key, UploadId: &id, PartNumber: &n, Body: bytes.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
	return types.CompletedPart{ETag: out.ETag, PartNumber: &n}
}

// multipart uploads o in parts that end at cuts, and completes it.
func multipart(t *testing.T, client *s3.Client, o object, id string, cuts ...int) {
	t.Helper()
	var parts []types.CompletedPart
	from := 0
	for i, to := range append(cuts, len(o.body)) {
		parts = append(parts, uploadPart(t, client, o, id, int32(i+1), o.body[from:to]))
		from = to
	}
	out, err := client.CompleteMultipartUpload(bg(), &s3.CompleteMultipartUploadInput{Bucket: &o.bucket, Key: &o.key, UploadId: &id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`-%d"`, len(parts)); !strings.HasSuffix(*out.ETag, want) {
		t.Errorf("the ETag of an object of %d parts is %s", len(parts), *out.ETag)
	}
}
