// Package s3 is a repository.Remote in a bucket of S3, or of what speaks its API: a blob is an object whose key is the
// blob's name behind a prefix.
//
// It asks for conditional writes (If-None-Match: *, which Amazon S3 has had since 2024), by which of two who put the same
// name one is told that it exists, and for strong consistency. Neither versioning nor lifecycle rules should touch what
// lies below the prefix.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
)

// MaxBlobBytes is how large a blob may be that is put: it is held in memory, since a request that is tried again must
// send it again.
const MaxBlobBytes = 1 << 30

// DefaultRegion is where a bucket is looked for unless Config says it.
const DefaultRegion = "us-east-1"

// conflicts is how often a put is tried again that met another one of the same name.
const conflicts = 5

// Config says where the bucket is, and as whom to ask.
type Config struct {
	Bucket   string
	Prefix   string // without slashes at its ends; "": the bucket's root
	Region   string // "": DefaultRegion
	Endpoint string // URL of another than Amazon's, asked path-style; "": Amazon's

	AccessKey, SecretKey, SessionToken string
}

// Parse reads s3://BUCKET/PREFIX?access_key_id=…&secret_access_key=…, as LocalStack's clients define such a place, with
// session_token, region and endpoint_url besides. What stands in braces is taken from params, by that name: no definition
// has secrets in it. What the URL says nothing of is as in base.
func Parse(text string, params map[string]string, base Config) (Config, error) {
	// No error shows the URL: there may be a password in it.
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return Config{}, errors.New("this is no URL of a bucket, as s3://bucket/prefix?access_key_id={access_key_id}&secret_access_key={secret_access_key}")
	}
	c := base
	c.Bucket, c.Prefix = u.Host, strings.Trim(u.Path, "/")
	for name, field := range map[string]*string{"access_key_id": &c.AccessKey, "secret_access_key": &c.SecretKey, "session_token": &c.SessionToken,
		"region": &c.Region, "endpoint_url": &c.Endpoint} {
		value := u.Query().Get(name)
		if inner, ok := strings.CutPrefix(value, "{"); ok && strings.HasSuffix(inner, "}") {
			inner = strings.TrimSuffix(inner, "}")
			if value = params[inner]; value == "" {
				return Config{}, fmt.Errorf("the parameter %s is missing: it stands in the URL as {%s}", inner, inner)
			}
		}
		if value != "" {
			*field = value
		}
	}
	return c, nil
}

// Bucket is a [repository.Remote].
type Bucket struct {
	client *s3.Client
	bucket string
	prefix string // with a slash behind it, or empty
}

// Open makes one, and asks nobody anything. The error says what is wrong with c.
func Open(c Config) (*Bucket, error) {
	if c.Bucket == "" || c.AccessKey == "" || c.SecretKey == "" {
		return nil, errors.New("a bucket, an access key and its secret are needed")
	}
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("endpoint %.200q is no URL, as https://s3.example.org", c.Endpoint)
		}
	}
	b := &Bucket{bucket: c.Bucket}
	if c.Prefix != "" {
		b.prefix = c.Prefix + "/"
	}
	region := c.Region
	if region == "" {
		region = DefaultRegion
	}
	b.client = s3.New(s3.Options{Region: region, Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken)},
		func(o *s3.Options) {
			if c.Endpoint != "" {
				o.BaseEndpoint, o.UsePathStyle = aws.String(c.Endpoint), true
			}
		})
	return b, nil
}

// key is the object of a blob.
func (b *Bucket) key(name string) (*string, error) {
	if err := repository.CheckBlobName(name); err != nil {
		return nil, err
	}
	return aws.String(b.prefix + name), nil
}

// fault is an error with the blob it is about.
func (b *Bucket) fault(what, name string, err error) error {
	if statusOf(err) == http.StatusNotFound && codeOf(err) != "NoSuchBucket" {
		return fmt.Errorf("s3://%s/%s%s: %w", b.bucket, b.prefix, name, abi.ErrNotFound)
	}
	return fmt.Errorf("%s s3://%s/%s%s: %w", what, b.bucket, b.prefix, name, err)
}

func codeOf(err error) string {
	if api := smithy.APIError(nil); errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func statusOf(err error) int {
	if response := (*smithyhttp.ResponseError)(nil); errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// Put implements [repository.Remote].
func (b *Bucket) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	key, err := b.key(name)
	if err != nil {
		return err
	}
	if size < 0 || size > MaxBlobBytes {
		return fmt.Errorf("put %s: %d bytes: %w; there may be %d", name, size, abi.ErrTooLarge, MaxBlobBytes)
	}
	content, err := io.ReadAll(io.LimitReader(r, size+1))
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if int64(len(content)) != size {
		return fmt.Errorf("put %s: it has %d bytes or more, and not %d", name, len(content), size)
	}
	for again := 0; ; again++ {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.bucket, Key: key, Body: bytes.NewReader(content), IfNoneMatch: aws.String("*")})
		switch {
		case err == nil:
			return nil
		case statusOf(err) == http.StatusPreconditionFailed:
			return fmt.Errorf("put s3://%s/%s%s: %w", b.bucket, b.prefix, name, fs.ErrExist)
		case statusOf(err) == http.StatusConflict && again < conflicts: // another put of it is under way, and may fail
			continue
		}
		return b.fault("put", name, err)
	}
}

// Get implements [repository.Remote].
func (b *Bucket) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	key, err := b.key(name)
	if err != nil {
		return nil, err
	}
	in := &s3.GetObjectInput{Bucket: &b.bucket, Key: key}
	switch {
	case length == 0:
		_, err := b.Stat(ctx, name)
		return http.NoBody, err
	case length > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	out, err := b.client.GetObject(ctx, in)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable { // it ends before
		return http.NoBody, nil
	}
	if err != nil {
		return nil, b.fault("get", name, err)
	}
	return out.Body, nil
}

// Stat implements [repository.Remote].
func (b *Bucket) Stat(ctx context.Context, name string) (repository.Blob, error) {
	key, err := b.key(name)
	if err != nil {
		return repository.Blob{}, err
	}
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.bucket, Key: key})
	if err != nil {
		return repository.Blob{}, b.fault("look at", name, err)
	}
	return repository.Blob{Name: name, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}, nil
}

// List implements [repository.Remote]. What lies below the prefix and can be no blob is passed over.
func (b *Bucket) List(ctx context.Context, prefix string, each func(repository.Blob) error) error {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.bucket, Prefix: aws.String(b.prefix + prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return b.fault("list", prefix, err)
		}
		for _, o := range page.Contents {
			name := strings.TrimPrefix(aws.ToString(o.Key), b.prefix)
			if repository.CheckBlobName(name) != nil {
				continue
			}
			if err := each(repository.Blob{Name: name, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete implements [repository.Remote].
func (b *Bucket) Delete(ctx context.Context, name string) error {
	key, err := b.key(name)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(name, repository.PacksPrefix) {
		return fmt.Errorf("delete %s: only packs are deleted", name)
	}
	if _, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.bucket, Key: key}); err != nil {
		if err = b.fault("delete", name, err); !errors.Is(err, abi.ErrNotFound) {
			return err
		}
	}
	return nil
}
