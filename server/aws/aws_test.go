package aws_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/server/aws"
)

func Example() {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"StreamName":"orders"}`))
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecord")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=111122223333/20260101/eu-west-1/kinesis/aws4_request, SignedHeaders=host, Signature=0")
	q, ok := aws.Classify(r)
	fmt.Println(ok, q.Service, q.Operation, q.Partition(), q.Reads)
	// Output:
	// true kinesis PutRecord 111122223333/eu-west-1 false
}

func signed(key, region, service string) string {
	return fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/20260101/%s/%s/aws4_request, SignedHeaders=host;x-amz-date, Signature=abc", key, region, service)
}

func TestClassify(t *testing.T) {
	form := "application/x-www-form-urlencoded; charset=utf-8"
	for _, c := range []struct {
		name         string
		method, url  string
		header       []string // name, value
		body         string
		want         aws.Request // Account and Region default
		nothingOfAWS bool
	}{
		{name: "JSON protocol", method: "POST", url: "http://localhost:4566/", header: []string{"X-Amz-Target", "DynamoDB_20120810.PutItem", "Authorization", signed("test", "eu-west-1", "dynamodb")},
			want: aws.Request{Service: "dynamodb", Operation: "PutItem", Region: "eu-west-1"}},
		{name: "JSON protocol that reads", method: "POST", url: "/", header: []string{"X-Amz-Target", "DynamoDB_20120810.GetItem"},
			want: aws.Request{Service: "dynamodb", Operation: "GetItem", Reads: true}},
		{name: "target over signature", method: "POST", url: "/", header: []string{"X-Amz-Target", "DynamoDBStreams_20120810.GetRecords", "Authorization", signed("123456789012", "us-west-2", "dynamodb")},
			want: aws.Request{Service: "dynamodbstreams", Operation: "GetRecords", Account: "123456789012", Region: "us-west-2", Reads: true}},
		{name: "target with dots", method: "POST", url: "/", header: []string{"X-Amz-Target", "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.CreateTrail"},
			want: aws.Request{Service: "cloudtrail", Operation: "CreateTrail"}},
		{name: "unknown target, known signature", method: "POST", url: "/", header: []string{"X-Amz-Target", "Novelty_20300101.Make", "Authorization", signed("k", "us-east-1", "novelty")},
			want: aws.Request{Service: "novelty", Operation: "Make"}},
		{name: "unknown target alone", method: "POST", url: "/", header: []string{"X-Amz-Target", "Novelty_20300101.GetIt"},
			want: aws.Request{Operation: "GetIt", Reads: true}},
		{name: "a target that is none", method: "POST", url: "/", header: []string{"X-Amz-Target", "nothing"}, nothingOfAWS: true},
		{name: "SQS, JSON", method: "POST", url: "/", header: []string{"X-Amz-Target", "AmazonSQS.ReceiveMessage"}, want: aws.Request{Service: "sqs", Operation: "ReceiveMessage"}},
		{name: "query protocol", method: "POST", url: "/", header: []string{"Content-Type", form, "Authorization", signed("222233334444", "eu-north-1", "sns")},
			body: "Version=2010-03-31&Action=Publish&Message=x", want: aws.Request{Service: "sns", Operation: "Publish", Account: "222233334444", Region: "eu-north-1"}},
		{name: "query protocol in the URL", method: "GET", url: "/?Action=DescribeInstances&Version=2016-11-15", header: []string{"Authorization", signed("k", "us-east-1", "ec2")},
			want: aws.Request{Service: "ec2", Operation: "DescribeInstances", Reads: true}},
		{name: "escaped action", method: "POST", url: "/", header: []string{"Content-Type", form, "Authorization", signed("k", "us-east-1", "sts")}, body: "Action=Get%43allerIdentity",
			want: aws.Request{Service: "sts", Operation: "GetCallerIdentity", Reads: true}},
		{name: "credentials are made", method: "POST", url: "/", header: []string{"Content-Type", form, "Authorization", signed("k", "us-east-1", "sts")}, body: "Action=GetSessionToken",
			want: aws.Request{Service: "sts", Operation: "GetSessionToken"}},
		{name: "REST that reads", method: "GET", url: "http://localhost:4566/bucket/key", header: []string{"Authorization", signed("k", "ap-southeast-2", "s3")},
			want: aws.Request{Service: "s3", Region: "ap-southeast-2", Reads: true}},
		{name: "REST that writes", method: "DELETE", url: "/bucket/key", header: []string{"Authorization", signed("k", "us-east-1", "s3")}, want: aws.Request{Service: "s3"}},
		{name: "a form that S3 takes is no action", method: "POST", url: "/bucket", header: []string{"Content-Type", "multipart/form-data; boundary=x", "Authorization", signed("k", "us-east-1", "s3")},
			body: "Action=Publish", want: aws.Request{Service: "s3"}},
		{name: "an S3 key's query is no action", method: "GET", url: "/bucket/key?Action=Publish&Version=1", header: []string{"Authorization", signed("k", "us-east-1", "s3")},
			want: aws.Request{Service: "s3", Reads: true}},
		{name: "signed URL", method: "GET", url: "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=111122223333%2F20260101%2Feu-west-3%2Fs3%2Faws4_request&X-Amz-Signature=0",
			want: aws.Request{Service: "s3", Account: "111122223333", Region: "eu-west-3", Reads: true}},
		{name: "version 4a", method: "PUT", url: "/b/k", header: []string{"Authorization", "AWS4-ECDSA-P256-SHA256 Credential=AKIA/20260101/s3/aws4_request, Signature=0", "X-Amz-Region-Set", "eu-west-1,us-east-1"},
			want: aws.Request{Service: "s3", Region: "eu-west-1"}},
		{name: "version 4a, everywhere", method: "PUT", url: "/b/k", header: []string{"Authorization", "AWS4-ECDSA-P256-SHA256 Credential=AKIA/20260101/s3/aws4_request", "X-Amz-Region-Set", "*"},
			want: aws.Request{Service: "s3"}},
		{name: "version 2", method: "GET", url: "/b/k", header: []string{"Authorization", "AWS 111122223333:c2ln"}, want: aws.Request{Service: "s3", Account: "111122223333", Reads: true}},
		{name: "version 2 URL", method: "GET", url: "/b/k?AWSAccessKeyId=AKIA&Expires=1&Signature=x", want: aws.Request{Service: "s3", Reads: true}},
		{name: "a key with slashes", method: "PUT", url: "/b", header: []string{"Authorization", signed("a/b/c", "us-east-1", "s3")}, want: aws.Request{Service: "s3"}},
		{name: "RPC v2", method: "POST", url: "/service/GraniteServiceVersion20100801/operation/PutMetricData", header: []string{"Smithy-Protocol", "rpc-v2-cbor", "Authorization", signed("k", "us-west-1", "monitoring")},
			want: aws.Request{Service: "cloudwatch", Operation: "PutMetricData", Region: "us-west-1"}},
		{name: "RPC v2 unsigned", method: "POST", url: "/service/AmazonSQS/operation/SendMessage", header: []string{"Smithy-Protocol", "rpc-v2-cbor"},
			want: aws.Request{Service: "sqs", Operation: "SendMessage"}},
		{name: "a path like RPC's", method: "PUT", url: "/service/a/operation/b", header: []string{"Authorization", signed("k", "us-east-1", "s3")}, want: aws.Request{Service: "s3"}},
		{name: "host", method: "GET", url: "http://kinesis.eu-west-1.amazonaws.com/", want: aws.Request{Service: "kinesis", Region: "eu-west-1", Reads: true}},
		{name: "host with bucket", method: "PUT", url: "http://my.bucket.s3.us-west-2.amazonaws.com:443/key", want: aws.Request{Service: "s3", Region: "us-west-2"}},
		{name: "host of LocalStack", method: "GET", url: "http://sqs.eu-west-2.localhost.localstack.cloud:4566/000000000000/q", want: aws.Request{Service: "sqs", Region: "eu-west-2", Reads: true}},
		{name: "bucket below localhost", method: "GET", url: "http://b.s3.localhost:4566/k", want: aws.Request{Service: "s3", Reads: true}},
		{name: "dual stack", method: "GET", url: "http://b.s3.dualstack.eu-west-1.amazonaws.com/k", want: aws.Request{Service: "s3", Region: "eu-west-1", Reads: true}},
		{name: "streams", method: "POST", url: "http://streams.dynamodb.eu-west-1.amazonaws.com/", want: aws.Request{Service: "dynamodbstreams", Region: "eu-west-1"}},
		{name: "the signature's region over the host's", method: "GET", url: "http://kinesis.eu-west-1.amazonaws.com/", header: []string{"Authorization", signed("k", "us-west-2", "kinesis")},
			want: aws.Request{Service: "kinesis", Region: "us-west-2", Reads: true}},
		{name: "gov region", method: "GET", url: "http://s3.us-gov-west-1.amazonaws.com/", want: aws.Request{Service: "s3", Region: "us-gov-west-1", Reads: true}},
		{name: "names", method: "POST", url: "/", header: []string{"Authorization", signed("k", "us-east-1", "states"), "X-Amz-Target", "AWSStepFunctions.StartExecution"},
			want: aws.Request{Service: "stepfunctions", Operation: "StartExecution"}},
		{name: "nothing", method: "GET", url: "http://localhost:4566/posts?Action=", nothingOfAWS: true},
		{name: "a service's own form", method: "POST", url: "http://localhost/login", header: []string{"Content-Type", form}, body: "user=a&action=b", nothingOfAWS: true},
		{name: "another's authorization", method: "GET", url: "/", header: []string{"Authorization", "Bearer AWS4-HMAC"}, nothingOfAWS: true},
		{name: "damaged signature", method: "GET", url: "/", header: []string{"Authorization", "AWS4-HMAC-SHA256 Credential=a/b, Signature=0"}, nothingOfAWS: true},
		{name: "signature without a credential", method: "GET", url: "/", header: []string{"Authorization", "AWS4-HMAC-SHA256 Signature=0"}, nothingOfAWS: true},
		{name: "another cloud", method: "GET", url: "http://blob.core.windows.net/", nothingOfAWS: true},
		{name: "a host of no service", method: "GET", url: "http://www.amazonaws.com/", nothingOfAWS: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.url, strings.NewReader(c.body))
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Set(c.header[i], c.header[i+1])
			}
			got, ok := aws.Classify(r)
			if ok == c.nothingOfAWS {
				t.Fatalf("%+v, %v", got, ok)
			}
			want := c.want
			if want.Account == "" {
				want.Account = aws.DefaultAccount
			}
			if want.Region == "" {
				want.Region = aws.DefaultRegion
			}
			if ok && got != want {
				t.Errorf("%+v\nwant\n%+v", got, want)
			}
			if b, err := io.ReadAll(r.Body); err != nil || string(b) != c.body {
				t.Errorf("the body is now %q (%v)", b, err)
			}
		})
	}
}

// TestReads: the verb is a word of its own.
func TestReads(t *testing.T) {
	for operation, want := range map[string]bool{"GetItem": true, "ListStreams": true, "DescribeTable": true, "Query": true, "Scan": true, "BatchGetItem": true, "HeadObject": true,
		"PutItem": false, "Getaway": false, "Listen": false, "BatchWriteItem": false, "ReceiveMessage": false, "Testify": false, "ExecuteStatement": false, "get": false,
		"CheckoutLicense": false, "SelectObjectContent": true} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("X-Amz-Target", "X."+operation)
		if q, _ := aws.Classify(r); q.Reads != want || q.Operation != operation {
			t.Errorf("%s reads: %v, want %v", operation, q.Reads, want)
		}
	}
}

// TestLargeForm: of a body no more is read ahead than a form may need, and all of it still comes.
func TestLargeForm(t *testing.T) {
	content := "Message=" + strings.Repeat("x", 3*aws.MaxForm) + "&Action=Publish"
	source := &counting{r: strings.NewReader(content)}
	r := httptest.NewRequest(http.MethodPost, "/", source)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if q, ok := aws.Classify(r); ok || source.n > 2*aws.MaxForm {
		t.Errorf("%+v after %d bytes", q, source.n)
	}
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != content {
		t.Errorf("%d bytes of %d are left (%v)", len(b), len(content), err)
	}
	if err := r.Body.Close(); err != nil || !source.closed {
		t.Errorf("the body is not closed (%v)", err)
	}
}

// TestBrokenForm: what went wrong with the body is still told to whom reads it.
func TestBrokenForm(t *testing.T) {
	broken := errors.New("broken")
	r := httptest.NewRequest(http.MethodPost, "/", &counting{r: io.MultiReader(strings.NewReader("Action=Pub"), failing{broken})})
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	aws.Classify(r)
	if b, err := io.ReadAll(r.Body); !errors.Is(err, broken) || string(b) != "Action=Pub" {
		t.Errorf("%q, %v", b, err)
	}
}

type counting struct {
	r      io.Reader
	n      int
	closed bool
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func (c *counting) Close() error {
	c.closed = true
	return nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzClassify: no request makes it fail, and the body stays what it was.
func FuzzClassify(f *testing.F) {
	f.Add("POST", "/?Action=A&Version=1", "localhost", signed("k", "r", "s"), "Kinesis_20131202.PutRecord", "application/x-www-form-urlencoded", "Action=Publish&x=%zz")
	f.Add("GET", "/b/k?X-Amz-Credential=%2F%2F%2Faws4_request", "b.s3.amazonaws.com:1:2", "AWS :", ".", ";", "")
	f.Fuzz(func(t *testing.T, method, target, host, authorization, amzTarget, contentType, content string) {
		u, err := url.Parse(target)
		if err != nil {
			t.Skip()
		}
		r := &http.Request{Method: method, URL: u, Host: host, Body: io.NopCloser(strings.NewReader(content)),
			Header: http.Header{"Authorization": {authorization}, "X-Amz-Target": {amzTarget}, "Content-Type": {contentType}}}
		q, _ := aws.Classify(r)
		if len(q.Account) != 12 || q.Region == "" {
			t.Errorf("%+v", q)
		}
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != content {
			t.Errorf("the body is %q (%v), was %q", b, err, content)
		}
	})
}
