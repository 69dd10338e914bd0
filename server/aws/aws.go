// Package aws tells of a request to an AWS service what a gateway has to know before it hands the request
// on: which service it is for, which operation, of which account and region, and whether it only reads.
//
// Nothing is verified: an emulator takes any signature. What a request says is taken in the order in which
// clients are sure of it: X-Amz-Target, the path of Smithy's RPC protocol, the credential scope of the
// signature, the host, the path. Sources: the Signature Version 4 documentation, the AWS JSON and query
// protocols and RPC v2 CBOR as Smithy describes them, and LocalStack's rule that an access key of twelve
// digits is an account.
package aws

import (
	"bytes"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// What is assumed where a request does not say.
const (
	DefaultAccount = "000000000000"
	DefaultRegion  = "us-east-1"
)

// MaxForm is how many bytes of a form are read to learn its action.
const MaxForm = 64 << 10

// Request is what a request to an AWS service says.
type Request struct {
	// Service is the name that LocalStack and the AWS CLI have for it, such as kinesis; "" if nothing says.
	Service string
	// Operation is such as PutRecord; "" for REST protocols, where method and path say it.
	Operation string
	Account   string // twelve digits
	Region    string
	// Reads says that the request changes nothing that a state would have to keep.
	Reads bool
}

// Partition is the name of the request's records in a state: account and region.
func (r Request) Partition() string { return r.Account + "/" + r.Region }

// Classify tells what r says. ok is false if nothing in it is AWS's. To learn the operation of the query
// protocol it reads up to [MaxForm] bytes of a form, and puts them back: r.Body then gives all of it
// again, the error of an early end included.
func Classify(r *http.Request) (request Request, ok bool) {
	q := Request{Account: DefaultAccount, Region: DefaultRegion}
	scope, signed := credentialScope(r)
	if signed {
		q.Service, ok = serviceOfScope(scope.service), true
		if scope.region != "" {
			q.Region = scope.region
		}
		if isAccount(scope.key) {
			q.Account = scope.key
		}
	}
	if service, operation, named := target(r); named {
		// A prefix that is not known leaves the service to the signature.
		q.Operation, ok = operation, true
		if service != "" {
			q.Service = service
		}
	} else if service, operation, named := rpcPath(r); named {
		q.Operation, ok = operation, true
		if q.Service == "" {
			q.Service = service
		}
	}
	if h, named := hostOf(r.Host); named {
		ok = true
		if q.Service == "" {
			q.Service = h.service
		}
		if !signed && h.region != "" {
			q.Region = h.region
		}
	}
	if q.Operation == "" && isForm(r) {
		if action := formAction(r); action != "" {
			q.Operation, ok = action, true
		}
	}
	if q.Operation == "" && r.URL.RawQuery != "" && (q.Service == "" || isQueryService(q.Service)) {
		if v := r.URL.Query(); v.Get("Action") != "" && (v.Get("Version") != "" || signed) {
			q.Operation, ok = v.Get("Action"), true
		}
	}
	q.Reads = reads(q, r.Method)
	return q, ok
}

// scope is where a signature is good: service and region, and the key that made it.
type scope struct{ key, region, service string }

// credentialScope reads the scope of Signature Version 4 and 4a, in the header or in a signed URL, and the
// key of version 2, which only S3 has.
func credentialScope(r *http.Request) (scope, bool) {
	if header := r.Header.Get("Authorization"); header != "" {
		if algorithm, rest, _ := strings.Cut(header, " "); strings.HasPrefix(algorithm, "AWS4-") {
			for field := range strings.SplitSeq(rest, ",") {
				if credential, is := strings.CutPrefix(strings.TrimSpace(field), "Credential="); is {
					return parseCredential(credential, r)
				}
			}
			return scope{}, false
		} else if algorithm == "AWS" {
			if key, _, is := strings.Cut(strings.TrimSpace(rest), ":"); is {
				return scope{key: key, service: "s3"}, true
			}
		}
	}
	if !strings.Contains(r.URL.RawQuery, "Credential=") && !strings.Contains(r.URL.RawQuery, "AWSAccessKeyId=") {
		return scope{}, false
	}
	query := r.URL.Query()
	if credential := query.Get("X-Amz-Credential"); credential != "" {
		return parseCredential(credential, r)
	}
	if key := query.Get("AWSAccessKeyId"); key != "" && query.Get("Signature") != "" {
		return scope{key: key, service: "s3"}, true
	}
	return scope{}, false
}

// parseCredential reads KEY/DATE/REGION/SERVICE/aws4_request; 4a leaves the region out and names a set.
func parseCredential(credential string, r *http.Request) (scope, bool) {
	fields := strings.Split(credential, "/")
	n := len(fields)
	if n < 4 || fields[n-1] != "aws4_request" {
		return scope{}, false
	}
	// A key may hold slashes; what follows does not.
	if n >= 5 && isDate(fields[n-4]) {
		return scope{key: strings.Join(fields[:n-4], "/"), region: fields[n-3], service: fields[n-2]}, true
	}
	if isDate(fields[n-3]) {
		region, _, _ := strings.Cut(r.Header.Get("X-Amz-Region-Set"), ",")
		if strings.Contains(region, "*") {
			region = ""
		}
		return scope{key: strings.Join(fields[:n-3], "/"), region: strings.TrimSpace(region), service: fields[n-2]}, true
	}
	return scope{}, false
}

func isDate(s string) bool { return len(s) == 8 && digits(s) }

func isAccount(s string) bool { return len(s) == 12 && digits(s) }

func digits(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

// target reads X-Amz-Target, PREFIX.OPERATION, of the JSON protocols.
func target(r *http.Request) (service, operation string, ok bool) {
	t := r.Header.Get("X-Amz-Target")
	at := strings.LastIndexByte(t, '.')
	if at < 0 {
		return "", "", false
	}
	return serviceOfTarget(t[:at]), t[at+1:], true
}

// rpcPath reads /service/NAME/operation/OPERATION of Smithy's RPC protocol.
func rpcPath(r *http.Request) (service, operation string, ok bool) {
	if r.Header.Get("Smithy-Protocol") == "" {
		return "", "", false
	}
	rest, operation, ok := strings.Cut(r.URL.Path, "/operation/")
	at := strings.LastIndex(rest, "/service/")
	if !ok || at < 0 || operation == "" || strings.Contains(operation, "/") {
		return "", "", false
	}
	return serviceOfTarget(rest[at+len("/service/"):]), operation, true
}

// endpoint is what a host name says.
type endpoint struct{ service, region string }

// hostOf reads names of the form [BUCKET.]SERVICE[.REGION].amazonaws.com, and the same below
// localhost.localstack.cloud and localhost.
func hostOf(host string) (endpoint, bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, domain := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".localhost.localstack.cloud", ".localhost"} {
		front, is := strings.CutSuffix(host, domain)
		if !is {
			continue
		}
		labels := strings.Split(strings.TrimPrefix(front, "dualstack."), ".")
		e := endpoint{}
		// From the right: the region, if it is there, then the service. What is before is the service's.
		for i := len(labels) - 1; i >= 0; i-- {
			switch l := labels[i]; {
			case l == "dualstack" || l == "fips":
			case e.region == "" && isRegion(l):
				e.region = l
			default:
				e.service = serviceOfHost(l)
				if e.service == "dynamodb" && i > 0 && labels[i-1] == "streams" {
					e.service = "dynamodbstreams"
				}
				return e, e.service != ""
			}
		}
		return e, false
	}
	return endpoint{}, false
}

// isRegion tells names such as us-gov-west-1.
func isRegion(s string) bool {
	labels := strings.Split(s, "-")
	n := len(labels)
	return n >= 3 && n <= 5 && len(labels[0]) == 2 && len(labels[n-1]) == 1 && digits(labels[n-1])
}

func isForm(r *http.Request) bool {
	if r.Method != http.MethodPost || r.Body == nil {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// formAction is the Action of a form, of which the beginning is read and put back.
func formAction(r *http.Request) string {
	beginning, err := io.ReadAll(io.LimitReader(r.Body, MaxForm))
	rest := io.Reader(r.Body)
	if err != nil {
		rest = failed{err}
	}
	r.Body = &body{Reader: io.MultiReader(bytes.NewReader(beginning), rest), Closer: r.Body}
	for pair := range bytes.SplitSeq(beginning, []byte("&")) {
		if value, is := bytes.CutPrefix(pair, []byte("Action=")); is {
			if action, err := url.QueryUnescape(string(value)); err == nil {
				return action
			}
		}
	}
	return ""
}

// body is one that was read from and put together again.
type body struct {
	io.Reader
	io.Closer
}

// failed is a reader that has failed.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }
