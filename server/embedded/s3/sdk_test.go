package s3

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// awkwardKeys are keys that something on the way is tempted to change.
func awkwardKeys() []string {
	return []string{
		"plain", "with space", "ünïcödé/日本語", "a/b/c", "//two/leading", "/leading", "trailing/", "dou//ble",
		"../up", "a/../b", "a/./b", "..", ".", "plus+plus", "per%41cent", "per%2Fcent", "a&b=c?d#e;f", "quote\"'<>", "tab\tnewline\nreturn\r",
		"control\x01\x1f", "back\\slash", "*", "emoji 🐘", strings.Repeat("k", maxKeyBytes),
	}
}

func apiCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// TestSDKObjects puts objects of all kinds with the AWS SDK and reads them back before and after a
// restart: nothing a client can see may differ.
func TestSDKObjects(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("objects")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	for i, key := range awkwardKeys() {
		in := &awss3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader("content of " + key)}
		switch i % 4 {
		case 0:
			in.Body = strings.NewReader("")
		case 1:
			in.ContentType, in.CacheControl, in.ContentDisposition = aws.String("text/x-test; charset=utf-8"), aws.String("no-cache"), aws.String(`attachment; filename="x"`)
			in.ContentEncoding, in.ContentLanguage = aws.String("identity"), aws.String("de, en")
			in.Metadata = map[string]string{"Mixed-Case": "Value with  spaces", "empty": ""}
			in.Tagging = aws.String("team=a%20b&stage=")
		case 2:
			in.ChecksumAlgorithm, in.StorageClass = types.ChecksumAlgorithmSha256, types.StorageClassStandardIa
			in.WebsiteRedirectLocation, in.ServerSideEncryption = aws.String("/elsewhere"), types.ServerSideEncryptionAes256
		case 3:
			in.ChecksumAlgorithm, in.Metadata = types.ChecksumAlgorithmCrc64nvme, map[string]string{"n": key[:1]}
			if key[0] > 0x7e || key[0] < ' ' {
				in.Metadata = nil
			}
		}
		if _, err := c.PutObject(ctx, in); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
	}

	type seen struct {
		Body    string
		Get     awss3.GetObjectOutput
		Head    awss3.HeadObjectOutput
		Tags    []types.Tag
		Listing types.Object
	}
	look := func() map[string]seen {
		t.Helper()
		all := map[string]seen{}
		listing := map[string]types.Object{}
		pages := awss3.NewListObjectsV2Paginator(c, &awss3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(3), EncodingType: types.EncodingTypeUrl})
		var order []string
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Contents {
				key := unescape(t, *o.Key)
				listing[key] = o
				order = append(order, key)
			}
		}
		want := awkwardKeys()
		slices.Sort(want)
		if !slices.Equal(order, want) {
			t.Fatalf("listed %q, want %q", order, want)
		}
		for _, key := range awkwardKeys() {
			get, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: &key})
			if err != nil {
				t.Fatalf("%q: %v", key, err)
			}
			body, err := io.ReadAll(get.Body)
			if err != nil {
				t.Fatalf("%q: %v", key, err)
			}
			head, err := c.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				t.Fatalf("%q: %v", key, err)
			}
			tags, err := c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: &key})
			if err != nil {
				t.Fatalf("%q: %v", key, err)
			}
			get.Body, get.ResultMetadata, head.ResultMetadata = nil, middleware.Metadata{}, middleware.Metadata{}
			all[key] = seen{string(body), *get, *head, tags.TagSet, listing[key]}
		}
		return all
	}
	before := look()
	for i, key := range awkwardKeys() {
		o := before[key]
		want := "content of " + key
		if i%4 == 0 {
			want = ""
		}
		if o.Body != want || *o.Head.ContentLength != int64(len(want)) || *o.Listing.Size != int64(len(want)) {
			t.Errorf("%q: content %q, want %q", key, o.Body, want)
		}
		if *o.Get.ETag != *o.Head.ETag || *o.Get.ETag != *o.Listing.ETag || !o.Get.LastModified.Equal(*o.Head.LastModified) {
			t.Errorf("%q: GET, HEAD and the listing disagree: %v %v %v", key, *o.Get.ETag, *o.Head.ETag, *o.Listing.ETag)
		}
		switch i % 4 {
		case 0:
			if *o.Get.ContentType != "application/octet-stream" || o.Get.ChecksumCRC32 == nil || len(o.Get.Metadata) != 0 {
				t.Errorf("%q: %+v", key, o.Get)
			}
		case 1:
			if *o.Get.ContentType != "text/x-test; charset=utf-8" || *o.Get.CacheControl != "no-cache" || *o.Get.ContentDisposition != `attachment; filename="x"` ||
				*o.Get.ContentEncoding != "identity" || *o.Get.ContentLanguage != "de, en" {
				t.Errorf("%q: headers %+v", key, o.Get)
			}
			if !reflect.DeepEqual(o.Get.Metadata, map[string]string{"mixed-case": "Value with  spaces", "empty": ""}) {
				t.Errorf("%q: metadata %q", key, o.Get.Metadata)
			}
			if want := []types.Tag{{Key: aws.String("stage"), Value: aws.String("")}, {Key: aws.String("team"), Value: aws.String("a b")}}; !reflect.DeepEqual(o.Tags, want) || *o.Get.TagCount != 2 {
				t.Errorf("%q: tags %v", key, o.Tags)
			}
		case 2:
			if o.Get.ChecksumSHA256 == nil || o.Get.StorageClass != types.StorageClassStandardIa || o.Listing.StorageClass != types.ObjectStorageClassStandardIa ||
				*o.Get.WebsiteRedirectLocation != "/elsewhere" || o.Get.ServerSideEncryption != types.ServerSideEncryptionAes256 {
				t.Errorf("%q: %+v", key, o.Get)
			}
		case 3:
			if o.Get.ChecksumCRC64NVME == nil || o.Head.ChecksumCRC64NVME == nil {
				t.Errorf("%q: no checksum: %+v", key, o.Get)
			}
		}
	}
	s.restart()
	if after := look(); !reflect.DeepEqual(before, after) {
		for key := range before {
			if !reflect.DeepEqual(before[key], after[key]) {
				t.Errorf("%q differs after a restart:\n%+v\n%+v", key, before[key], after[key])
			}
		}
	}
}

// TestSDKKeepsNoRequestHeaders: what a request needs for itself is not sent back with the object.
func TestSDKKeepsNoRequestHeaders(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("x"), ACL: types.ObjectCannedACLPrivate}); err != nil {
		t.Fatal(err)
	}
	a := s.expect(http.StatusOK, "GET", "/bucket/k", "")
	for name := range a.Header {
		switch name {
		case "Accept-Ranges", "Content-Length", "Content-Type", "Date", "Etag", "Last-Modified", "Server", "X-Amz-Id-2", "X-Amz-Request-Id":
		default:
			t.Errorf("header %s: %q", name, a.Header[name])
		}
	}
}

// TestSDKOverwrite: an object replaced leaves nothing behind.
func TestSDKOverwrite(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket, key := aws.String("bucket"), aws.String("k")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("one"), ContentType: aws.String("a/b"),
		Metadata: map[string]string{"a": "b"}, Tagging: aws.String("c=d")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("two")}); err != nil {
		t.Fatal(err)
	}
	out, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if *out.ContentType == "a/b" || len(out.Metadata) != 0 || out.TagCount != nil {
		t.Errorf("left from the object before: %+v", out)
	}
}

// TestSDKMultipart uploads in parts as the SDK's transfer manager does, with a restart in between.
func TestSDKMultipart(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 21<<20+77)
	rand.NewChaCha8([32]byte{1}).Read(big)
	tm := transfermanager.New(c)
	up, err := tm.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: bucket, Key: aws.String("big"), Body: bytes.NewReader(big), ContentType: aws.String("x/y"),
		Metadata: map[string]string{"a": "b"}, Tagging: aws.String("c=d")})
	if err != nil {
		t.Fatal(err)
	}
	wantETag := quoted(multipartETag(big, 8<<20))
	if *up.ETag != wantETag {
		t.Errorf("ETag %s, want %s", *up.ETag, wantETag)
	}
	s.restart()
	head, err := c.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: bucket, Key: aws.String("big")})
	if err != nil {
		t.Fatal(err)
	}
	if *head.ETag != wantETag || *head.ContentLength != int64(len(big)) || *head.ContentType != "x/y" || head.Metadata["a"] != "b" || *head.TagCount != 1 {
		t.Errorf("%+v", head)
	}
	got, err := tm.GetObject(ctx, &transfermanager.GetObjectInput{Bucket: bucket, Key: aws.String("big")})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(data, big) {
		t.Errorf("downloaded %d bytes that differ: %v", len(data), err)
	}
	part, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: aws.String("big"), PartNumber: aws.Int32(2)})
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(part.Body); err != nil || !bytes.Equal(data, big[8<<20:16<<20]) || *part.PartsCount != 3 {
		t.Errorf("part 2: %d bytes of %v parts: %v", len(data), part.PartsCount, err)
	}
	if _, err = c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: aws.String("big"), PartNumber: aws.Int32(4)}); apiCode(err) != "InvalidPartNumber" {
		t.Errorf("part 4 of 3: %v", err)
	}
}

// TestSDKUploadInProgress: an upload goes on after a restart where it was.
func TestSDKUploadInProgress(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket, key := aws.String("bucket"), aws.String("in/progress ü")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	first := bytes.Repeat([]byte("0123456789abcdef"), minPartBytes/16)
	up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ContentType: aws.String("x/y"), Tagging: aws.String("a=b")})
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	put := func(number int32, data []byte) *string {
		t.Helper()
		out, err := c.UploadPart(ctx, &awss3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: &number, Body: bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		if out.ChecksumCRC32 == nil {
			t.Error("the part's checksum is not told")
		}
		return out.ETag
	}
	put(7, []byte("replaced"))
	e7 := put(7, []byte("last"))
	e2 := put(2, first)
	put(9, []byte("never used"))
	s.restart()
	uploads, err := c.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: bucket})
	if err != nil || len(uploads.Uploads) != 2 || *uploads.Uploads[0].UploadId != *up.UploadId || *uploads.Uploads[1].UploadId != *other.UploadId {
		t.Fatalf("uploads after a restart: %+v, %v", uploads.Uploads, err)
	}
	parts, err := c.ListParts(ctx, &awss3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId, MaxParts: aws.Int32(2)})
	if err != nil || len(parts.Parts) != 2 || *parts.Parts[1].ETag != *e7 || *parts.Parts[1].PartNumber != 7 || !*parts.IsTruncated {
		t.Fatalf("parts after a restart: %+v, %v", parts, err)
	}
	if parts, err = c.ListParts(ctx, &awss3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumberMarker: parts.NextPartNumberMarker}); err != nil || len(parts.Parts) != 1 || *parts.Parts[0].PartNumber != 9 {
		t.Fatalf("the rest of the parts: %+v, %v", parts, err)
	}
	complete := func(parts ...types.CompletedPart) (*awss3.CompleteMultipartUploadOutput, error) {
		return c.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	}
	p2, p7 := types.CompletedPart{PartNumber: aws.Int32(2), ETag: e2}, types.CompletedPart{PartNumber: aws.Int32(7), ETag: e7}
	for code, list := range map[string][]types.CompletedPart{
		"InvalidPartOrder": {p7, p2},
		"InvalidPart":      {{PartNumber: aws.Int32(2), ETag: e7}},
		"EntityTooSmall":   {p2, p7, {PartNumber: aws.Int32(9), ETag: parts.Parts[0].ETag}},
	} {
		if _, err := complete(list...); apiCode(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	done, err := complete(p2, p7)
	if err != nil {
		t.Fatal(err)
	}
	get, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(get.Body)
	if err != nil || !bytes.Equal(data, append(slices.Clone(first), "last"...)) || *get.ETag != *done.ETag || *get.ContentType != "x/y" || *get.TagCount != 1 {
		t.Errorf("completed: %d bytes, %+v, %v", len(data), get, err)
	}
	if _, err := complete(p2, p7); apiCode(err) != "NoSuchUpload" {
		t.Errorf("completed twice: %v", err)
	}
	if _, err := c.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: other.UploadId}); err != nil {
		t.Error(err)
	}
	if uploads, err = c.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: bucket}); err != nil || len(uploads.Uploads) != 0 {
		t.Errorf("uploads in the end: %+v, %v", uploads.Uploads, err)
	}
	s.restart()
}

// TestSDKVersioning walks a key through all states of versioning, with restarts in between.
func TestSDKVersioning(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket, key := aws.String("bucket"), aws.String("key")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	put := func(content string) string {
		t.Helper()
		out, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader(content)})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.VersionId)
	}
	remove := func(id *string) *awss3.DeleteObjectOutput {
		t.Helper()
		out, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: key, VersionId: id})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	versioning := func(status types.BucketVersioningStatus) {
		t.Helper()
		if _, err := c.PutBucketVersioning(ctx, &awss3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: status}}); err != nil {
			t.Fatal(err)
		}
		got, err := c.GetBucketVersioning(ctx, &awss3.GetBucketVersioningInput{Bucket: bucket})
		if err != nil || got.Status != status {
			t.Fatalf("versioning %v, want %v: %v", got.Status, status, err)
		}
	}
	read := func(id string) string {
		t.Helper()
		in := &awss3.GetObjectInput{Bucket: bucket, Key: key}
		head := &awss3.HeadObjectInput{Bucket: bucket, Key: key}
		if id != "" {
			in.VersionId, head.VersionId = &id, &id
		}
		out, err := c.GetObject(ctx, in)
		if err != nil {
			return apiCode(err)
		}
		data, _ := io.ReadAll(out.Body)
		h, err := c.HeadObject(ctx, head)
		if err != nil || *h.ContentLength != int64(len(data)) || *h.ETag != *out.ETag || aws.ToString(h.VersionId) != aws.ToString(out.VersionId) {
			t.Errorf("HEAD of version %q: %+v, %v", id, h, err)
		}
		return string(data)
	}
	expect := func(want string) {
		t.Helper()
		s.restart()
		out, err := c.ListObjectVersions(ctx, &awss3.ListObjectVersionsInput{Bucket: bucket})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range out.Versions {
			entry := read(*v.VersionId)
			if *v.IsLatest {
				entry += "*"
			}
			got = append(got, entry)
		}
		for _, m := range out.DeleteMarkers {
			entry := "marker"
			if *m.IsLatest {
				entry += "*"
			}
			got = append(got, entry)
			if code := read(*m.VersionId); code != "MethodNotAllowed" {
				t.Errorf("GET of a delete marker: %s", code)
			}
		}
		if strings.Join(got, " ") != want {
			t.Fatalf("versions %q, want %q", got, want)
		}
	}

	if id := put("zero"); id != "" {
		t.Errorf("version id %q in a bucket never versioned", id)
	}
	expect("zero*")
	versioning(types.BucketVersioningStatusEnabled)
	if got := read(nullVersion); got != "zero" {
		t.Errorf("the null version: %q", got)
	}
	one, two := put("one"), put("two")
	if one == two || one == "" || one == nullVersion {
		t.Errorf("ids %q and %q", one, two)
	}
	expect("two* one zero")
	marker := remove(nil)
	if !aws.ToBool(marker.DeleteMarker) || read("") != "NoSuchKey" {
		t.Errorf("after a delete: %+v, %s", marker, read(""))
	}
	expect("two one zero marker*")
	if out := remove(marker.VersionId); !aws.ToBool(out.DeleteMarker) {
		t.Errorf("deleting the marker: %+v", out)
	}
	expect("two* one zero")
	remove(&two)
	expect("one* zero")
	if got := read(two); got != "NoSuchVersion" {
		t.Errorf("a version deleted: %s", got)
	}
	versioning(types.BucketVersioningStatusSuspended)
	if id := put("three"); id != nullVersion {
		t.Errorf("id %q while suspended", id)
	}
	expect("three* one")
	put("four")
	expect("four* one")
	if out := remove(nil); !aws.ToBool(out.DeleteMarker) || *out.VersionId != nullVersion {
		t.Errorf("delete while suspended: %+v", out)
	}
	expect("one marker*")
	put("five")
	expect("five* one")
	remove(aws.String(nullVersion))
	expect("one*")
	remove(&one)
	expect("")
	versioning(types.BucketVersioningStatusEnabled)
	remove(nil) // S3 puts a marker even where nothing is
	expect("marker*")
	if _, err := c.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: bucket}); apiCode(err) != "BucketNotEmpty" {
		t.Errorf("deleting a bucket with a marker in it: %v", err)
	}
}

// TestSDKVersionsPaged pages through versions with every page length.
func TestSDKVersionsPaged(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutBucketVersioning(ctx, &awss3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "a", "a", "b/1", "b/2", "b/2", "c", "c", "d/1"} {
		if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, delimiter := range []string{"", "/"} {
		want := 9
		if delimiter != "" {
			want = 7
		}
		for limit := int32(1); limit < 11; limit++ {
			seen := map[string]bool{}
			pages := awss3.NewListObjectVersionsPaginator(c, &awss3.ListObjectVersionsInput{Bucket: bucket, MaxKeys: &limit, Delimiter: &delimiter})
			total := 0
			for pages.HasMorePages() {
				page, err := pages.NextPage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range page.Versions {
					seen[*v.Key+" "+*v.VersionId] = true
				}
				for _, p := range page.CommonPrefixes {
					seen[*p.Prefix] = true
				}
				n := len(page.Versions) + len(page.CommonPrefixes)
				if n > int(limit) {
					t.Fatalf("a page of %d with a limit of %d", n, limit)
				}
				total += n
			}
			if len(seen) != want || total != want {
				t.Errorf("delimiter %q, %d a page: %d entries, %d different, want %d", delimiter, limit, total, len(seen), want)
			}
		}
	}
}

// TestSDKCopy copies objects whole and in parts.
func TestSDKCopy(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutBucketVersioning(ctx, &awss3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	first, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("a b/ü"), Body: strings.NewReader("first"), ContentType: aws.String("a/b"),
		Metadata: map[string]string{"m": "1"}, Tagging: aws.String("t=1"), StorageClass: types.StorageClassStandardIa})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("a b/ü"), Body: strings.NewReader("second")}); err != nil {
		t.Fatal(err)
	}
	source := aws.String("bucket/a%20b/%C3%BC?versionId=" + *first.VersionId)
	out, err := c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: source})
	if err != nil {
		t.Fatal(err)
	}
	if *out.CopySourceVersionId != *first.VersionId || *out.VersionId == "" || *out.VersionId == *first.VersionId || *out.CopyObjectResult.ETag != *first.ETag {
		t.Errorf("%+v", out)
	}
	get := func(key string) (*awss3.GetObjectOutput, string) {
		t.Helper()
		o, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(o.Body)
		if err != nil {
			t.Fatal(err)
		}
		return o, string(data)
	}
	if o, data := get("copy"); data != "first" || *o.ContentType != "a/b" || o.Metadata["m"] != "1" || *o.TagCount != 1 || o.StorageClass != "" {
		t.Errorf("a copy: %q %+v", data, o)
	}
	if _, err = c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: source, MetadataDirective: types.MetadataDirectiveReplace,
		TaggingDirective: types.TaggingDirectiveReplace, Tagging: aws.String("u=1&v=2"), Metadata: map[string]string{"n": "2"}, StorageClass: types.StorageClassGlacierIr}); err != nil {
		t.Fatal(err)
	}
	if o, data := get("copy"); data != "first" || *o.ContentType != defaultContentType || len(o.Metadata) != 1 || o.Metadata["n"] != "2" || *o.TagCount != 2 || o.StorageClass != types.StorageClassGlacierIr {
		t.Errorf("a copy with new metadata: %q %+v", data, o)
	}
	for code, in := range map[string]*awss3.CopyObjectInput{
		"NoSuchKey":          {CopySource: aws.String("bucket/none")},
		"NoSuchBucket":       {CopySource: aws.String("none/none")},
		"NoSuchVersion":      {CopySource: aws.String("bucket/copy?versionId=none")},
		"InvalidArgument":    {CopySource: aws.String("bucket")},
		"PreconditionFailed": {CopySource: aws.String("bucket/copy"), CopySourceIfNoneMatch: first.ETag},
		"InvalidRequest":     {CopySource: aws.String("bucket/a%20b%2F%C3%BC"), Key: aws.String("a b/ü")},
	} {
		in.Bucket = bucket
		if in.Key == nil {
			in.Key = aws.String("target")
		}
		if _, err := c.CopyObject(ctx, in); apiCode(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
	}

	up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("parts")})
	if err != nil {
		t.Fatal(err)
	}
	part, err := c.UploadPartCopy(ctx, &awss3.UploadPartCopyInput{Bucket: bucket, Key: aws.String("parts"), UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: source, CopySourceRange: aws.String("bytes=1-3")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.UploadPartCopy(ctx, &awss3.UploadPartCopyInput{Bucket: bucket, Key: aws.String("parts"), UploadId: up.UploadId, PartNumber: aws.Int32(2), CopySource: source, CopySourceRange: aws.String("bytes=1-5")}); apiCode(err) != "InvalidArgument" {
		t.Errorf("a range beyond the source: %v", err)
	}
	if _, err := c.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: bucket, Key: aws.String("parts"), UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.CopyPartResult.ETag}}}}); err != nil {
		t.Fatal(err)
	}
	if _, data := get("parts"); data != "irs" {
		t.Errorf("copied in parts: %q", data)
	}
	// A copy of what was uploaded in parts is one object, with the MD5 of its content as entity tag.
	if out, err = c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: bucket, Key: aws.String("whole"), CopySource: aws.String("/bucket/parts")}); err != nil || *out.CopyObjectResult.ETag != quoted(plainETag("irs")) {
		t.Errorf("a copy of parts: %+v, %v", out, err)
	}
	s.restart()
}

// TestSDKDeleteMany deletes many objects at once.
func TestSDKDeleteMany(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	var ids []types.ObjectIdentifier
	for _, key := range awkwardKeys() {
		if strings.ContainsAny(key, "\x01") {
			continue // no XML has it
		}
		if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: &key}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, types.ObjectIdentifier{Key: aws.String(key)})
	}
	out, err := c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: append(ids, types.ObjectIdentifier{Key: aws.String("never there")})}})
	if err != nil || len(out.Deleted) != len(ids)+1 || len(out.Errors) != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if list, err := c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: bucket}); err != nil || *list.KeyCount != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
	if _, err := c.PutBucketVersioning(ctx, &awss3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	put, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	out, err = c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("k")}, {Key: aws.String("k"), VersionId: put.VersionId}, {Key: aws.String("")}}}})
	if err != nil || len(out.Deleted) != 2 || !*out.Deleted[0].DeleteMarker || *out.Deleted[0].DeleteMarkerVersionId == "" || out.Deleted[1].DeleteMarker != nil ||
		len(out.Errors) != 1 || *out.Errors[0].Code != "UserKeyMustBeSpecified" {
		t.Errorf("%+v, %v", out, err)
	}
	quiet, err := c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Quiet: aws.Bool(true), Objects: []types.ObjectIdentifier{{Key: aws.String("k")}}}})
	if err != nil || len(quiet.Deleted) != 0 {
		t.Errorf("%+v, %v", quiet, err)
	}
	s.restart()
}

// TestSDKTagging changes tags, which changes nothing else.
func TestSDKTagging(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket, key := aws.String("bucket"), aws.String("a b")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("content")}); err != nil {
		t.Fatal(err)
	}
	before, err := c.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	set := func(tags ...types.Tag) error {
		_, err := c.PutObjectTagging(ctx, &awss3.PutObjectTaggingInput{Bucket: bucket, Key: key, Tagging: &types.Tagging{TagSet: tags}})
		return err
	}
	tag := func(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }
	if err := set(tag("zoo", "ü <&>"), tag("a", "")); err != nil {
		t.Fatal(err)
	}
	s.restart()
	got, err := c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: key})
	if err != nil || !reflect.DeepEqual(got.TagSet, []types.Tag{tag("a", ""), tag("zoo", "ü <&>")}) {
		t.Errorf("%v, %v", got, err)
	}
	after, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := io.ReadAll(after.Body); string(data) != "content" || *after.ETag != *before.ETag || !after.LastModified.Equal(*before.LastModified) || *after.TagCount != 2 {
		t.Errorf("tags changed the object: %q %+v", data, after)
	}
	many := make([]types.Tag, maxTags+1)
	for i := range many {
		many[i] = tag(string(rune('a'+i)), "")
	}
	for code, tags := range map[string][]types.Tag{"BadRequest": many, "InvalidTag": {tag("a", "1"), tag("a", "2")}} {
		if err := set(tags...); apiCode(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	if err := set(tag("a", strings.Repeat("ü", maxTagValueChars+1))); apiCode(err) != "InvalidTag" {
		t.Errorf("a value too long: %v", err)
	}
	if _, err := c.DeleteObjectTagging(ctx, &awss3.DeleteObjectTaggingInput{Bucket: bucket, Key: key}); err != nil {
		t.Error(err)
	}
	if got, err = c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: key}); err != nil || len(got.TagSet) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err = c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: aws.String("none")}); apiCode(err) != "NoSuchKey" {
		t.Errorf("tags of nothing: %v", err)
	}
}

// TestSDKConditions writes and reads with conditions.
func TestSDKConditions(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket, key := aws.String("bucket"), aws.String("k")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	put := func(content, ifMatch, ifNoneMatch string) error {
		in := &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader(content)}
		if ifMatch != "" {
			in.IfMatch = &ifMatch
		}
		if ifNoneMatch != "" {
			in.IfNoneMatch = &ifNoneMatch
		}
		_, err := c.PutObject(ctx, in)
		return err
	}
	if err := put("one", quoted(plainETag("one")), ""); apiCode(err) != "NoSuchKey" {
		t.Errorf("If-Match of nothing: %v", err)
	}
	if err := put("one", "", "*"); err != nil {
		t.Errorf("If-None-Match of nothing: %v", err)
	}
	if err := put("two", "", "*"); apiCode(err) != "PreconditionFailed" {
		t.Errorf("If-None-Match of something: %v", err)
	}
	if err := put("two", quoted(plainETag("two")), ""); apiCode(err) != "PreconditionFailed" {
		t.Errorf("If-Match of another: %v", err)
	}
	if err := put("two", quoted(plainETag("one")), ""); err != nil {
		t.Errorf("If-Match: %v", err)
	}
	if err := put("three", "", plainETag("one")); apiCode(err) != "NotImplemented" {
		t.Errorf("If-None-Match of an entity tag: %v", err)
	}
	if _, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: key, IfMatch: aws.String(plainETag("one"))}); apiCode(err) != "PreconditionFailed" {
		t.Errorf("delete of another: %v", err)
	}
	if _, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: key, IfMatch: aws.String(quoted(plainETag("two")))}); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// TestSDKBuckets creates, finds and deletes buckets.
func TestSDKBuckets(t *testing.T) {
	s := newServer(t, Options{Partition: "123456789012/eu-central-1"})
	c, ctx := s.client(), t.Context()
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("one")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("two"), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "ap-south-1"}}); err != nil {
		t.Fatal(err)
	}
	var owned *types.BucketAlreadyOwnedByYou
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("one")}); !errors.As(err, &owned) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("Not_A_Bucket")}); apiCode(err) != "InvalidBucketName" {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("three"), ObjectLockEnabledForBucket: aws.Bool(true)}); apiCode(err) != "NotImplemented" {
		t.Errorf("with object lock: %v", err)
	}
	look := func() (seen []string) {
		t.Helper()
		out, err := c.ListBuckets(ctx, &awss3.ListBucketsInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range out.Buckets {
			at, err := c.GetBucketLocation(ctx, &awss3.GetBucketLocationInput{Bucket: b.Name})
			if err != nil {
				t.Fatal(err)
			}
			head, err := c.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: b.Name})
			if err != nil || *head.BucketRegion != string(at.LocationConstraint) {
				t.Errorf("HEAD: %+v, %v", head, err)
			}
			seen = append(seen, *b.Name+" "+string(at.LocationConstraint)+" "+b.CreationDate.String())
		}
		return seen
	}
	before := look()
	if len(before) != 2 || !strings.HasPrefix(before[0], "one eu-central-1 2024-02-29") || !strings.HasPrefix(before[1], "two ap-south-1 2024-02-29") {
		t.Errorf("buckets %q", before)
	}
	s.restart()
	if after := look(); !slices.Equal(before, after) {
		t.Errorf("buckets after a restart %q", after)
	}
	if _, err := c.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: aws.String("one")}); err != nil {
		t.Error(err)
	}
	if _, err := c.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: aws.String("one")}); apiCode(err) != "NotFound" {
		t.Errorf("a bucket deleted: %v", err)
	}
	if _, err := c.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: aws.String("one")}); apiCode(err) != "NoSuchBucket" {
		t.Errorf("deleted twice: %v", err)
	}
}

// TestSDKListing pages through a bucket by prefix and delimiter, against a plain computation of what
// there is to find.
func TestSDKListing(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	keys := []string{"/", "//", "/a", "a", "a/", "a/b", "a/b/c", "a/b/d", "a//e", "ab", "ab/c", "b", "b/x/y", "c/\xff/z", "ü/ü", "ü"}
	slices.Sort(keys)
	for _, key := range keys {
		if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "/", "z", "ü", "c/"} {
		for _, delimiter := range []string{"", "/", "b", "//", "ü"} {
			var want []string
			for _, key := range keys {
				if !strings.HasPrefix(key, prefix) {
					continue
				}
				entry := key
				if i := strings.Index(key[len(prefix):], delimiter); delimiter != "" && i >= 0 {
					entry = "prefix " + key[:len(prefix)+i+len(delimiter)]
				}
				if !slices.Contains(want, entry) {
					want = append(want, entry)
				}
			}
			for limit := int32(1); limit < 8; limit++ {
				var v1, v2 []string
				pages := awss3.NewListObjectsV2Paginator(c, &awss3.ListObjectsV2Input{Bucket: bucket, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &limit, EncodingType: types.EncodingTypeUrl})
				for pages.HasMorePages() {
					page, err := pages.NextPage(ctx)
					if err != nil {
						t.Fatal(err)
					}
					entries := merged(t, page.Contents, page.CommonPrefixes)
					if len(entries) > int(limit) || int(*page.KeyCount) != len(entries) {
						t.Fatalf("a page of %d, KeyCount %d, limit %d", len(entries), *page.KeyCount, limit)
					}
					v2 = append(v2, entries...)
				}
				for marker := ""; ; {
					page, err := c.ListObjects(ctx, &awss3.ListObjectsInput{Bucket: bucket, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &limit, Marker: &marker, EncodingType: types.EncodingTypeUrl})
					if err != nil {
						t.Fatal(err)
					}
					entries := merged(t, page.Contents, page.CommonPrefixes)
					v1 = append(v1, entries...)
					if !*page.IsTruncated {
						break
					}
					// As S3's manual says: NextMarker, or the last key where there is none.
					marker = strings.TrimPrefix(entries[len(entries)-1], "prefix ")
					if page.NextMarker != nil && unescape(t, *page.NextMarker) != marker {
						t.Fatalf("NextMarker %q, last %q", *page.NextMarker, marker)
					}
				}
				if !slices.Equal(v1, want) || !slices.Equal(v2, want) {
					t.Fatalf("prefix %q, delimiter %q, %d a page:\nversion 1 %q\nversion 2 %q\nwant      %q", prefix, delimiter, limit, v1, v2, want)
				}
			}
		}
	}
	out, err := c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: bucket, StartAfter: aws.String("ab"), FetchOwner: aws.Bool(true), MaxKeys: aws.Int32(1)})
	if err != nil || *out.Contents[0].Key != "ab/c" || *out.Contents[0].Owner.ID != "000000000000" {
		t.Errorf("%+v, %v", out, err)
	}
	if out, err = c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(0)}); err != nil || *out.KeyCount != 0 || *out.IsTruncated {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err = c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: bucket, ContinuationToken: aws.String("%%%")}); apiCode(err) != "InvalidArgument" {
		t.Errorf("%v", err)
	}
}

// TestSDKTagVersions changes the tags of versions that are not the current one.
func TestSDKTagVersions(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket, key := aws.String("bucket"), aws.String("k")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("null")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutBucketVersioning(ctx, &awss3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	ids := []*string{aws.String(nullVersion)}
	for _, content := range []string{"one", "two"} {
		out, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader(content)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, out.VersionId)
	}
	for _, id := range ids {
		out, err := c.PutObjectTagging(ctx, &awss3.PutObjectTaggingInput{Bucket: bucket, Key: key, VersionId: id, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("id"), Value: id}}}})
		if err != nil || *out.VersionId != *id {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	if _, err := c.DeleteObjectTagging(ctx, &awss3.DeleteObjectTaggingInput{Bucket: bucket, Key: key, VersionId: ids[1]}); err != nil {
		t.Fatal(err)
	}
	s.restart()
	for i, id := range ids {
		out, err := c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: bucket, Key: key, VersionId: id})
		if err != nil {
			t.Fatal(err)
		}
		get, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: bucket, Key: key, VersionId: id})
		if err != nil {
			t.Fatal(err)
		}
		if data, _ := io.ReadAll(get.Body); string(data) != []string{"null", "one", "two"}[i] || *out.VersionId != *id {
			t.Errorf("version %d: %q %+v", i, data, out)
		}
		if want := i != 1; want && (len(out.TagSet) != 1 || *out.TagSet[0].Value != *id) || !want && len(out.TagSet) != 0 {
			t.Errorf("version %d: tags %v", i, out.TagSet)
		}
	}
	marker, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObjectTagging(ctx, &awss3.PutObjectTaggingInput{Bucket: bucket, Key: key, VersionId: marker.VersionId, Tagging: &types.Tagging{TagSet: []types.Tag{}}}); apiCode(err) != "MethodNotAllowed" {
		t.Errorf("tags of a delete marker: %v", err)
	}
}

// TestSDKUploadsPaged pages through uploads in progress with every page length.
func TestSDKUploadsPaged(t *testing.T) {
	s := newServer(t, Options{})
	c, ctx := s.client(), t.Context()
	bucket := aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	var want []string // by key, then in the order they began
	for _, key := range []string{"a", "a", "a", "b/1", "b/1", "b/2", "c", "d/1"} {
		up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: bucket, Key: &key, StorageClass: types.StorageClassGlacier})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, key+" "+*up.UploadId)
	}
	for _, delimiter := range []string{"", "/"} {
		if delimiter != "" {
			want = append(want[:3:3], "b/", want[6], "d/")
		}
		for limit := int32(1); limit < 10; limit++ {
			var got []string
			in := &awss3.ListMultipartUploadsInput{Bucket: bucket, MaxUploads: &limit, Delimiter: &delimiter}
			for {
				page, err := c.ListMultipartUploads(ctx, in)
				if err != nil {
					t.Fatal(err)
				}
				var entries []string
				for _, u := range page.Uploads {
					if u.StorageClass != types.StorageClassGlacier {
						t.Errorf("storage class %s", u.StorageClass)
					}
					entries = append(entries, *u.Key+" "+*u.UploadId)
				}
				for _, p := range page.CommonPrefixes {
					entries = append(entries, *p.Prefix)
				}
				if len(entries) > int(limit) {
					t.Fatalf("a page of %d with a limit of %d", len(entries), limit)
				}
				slices.SortStableFunc(entries, func(a, b string) int {
					return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0])
				})
				got = append(got, entries...)
				if !*page.IsTruncated {
					break
				}
				in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
			}
			if !slices.Equal(got, want) {
				t.Errorf("delimiter %q, %d a page:\n%q, want\n%q", delimiter, limit, got, want)
			}
		}
	}
	if page, err := c.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: bucket, Prefix: aws.String("b")}); err != nil || len(page.Uploads) != 3 {
		t.Errorf("%+v, %v", page.Uploads, err)
	}
	if _, err := c.UploadPart(ctx, &awss3.UploadPartInput{Bucket: bucket, Key: aws.String("another"), UploadId: aws.String(strings.Fields(want[0])[1]), PartNumber: aws.Int32(1), Body: strings.NewReader("x")}); apiCode(err) != "NoSuchUpload" {
		t.Errorf("a part of another key: %v", err)
	}
	// A bucket may go with its uploads.
	if _, err := c.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: bucket}); err != nil {
		t.Error(err)
	}
}
