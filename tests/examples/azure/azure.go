// Package azure is as much of a client of Azure Blob Storage as tests of its emulator need.
package azure

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The account that every emulator has, with the key that everybody knows.
const (
	account = "devstoreaccount1"
	key     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// Do sends a request to the emulator at base, signed as the documentation of "Shared Key" says. path is
// "/CONTAINER" or "/CONTAINER/BLOB"; a container is made by PUT, and so is a blob. It gives the body of an answer
// below 300.
func Do(ctx context.Context, base, method, path, body string) (string, error) {
	url, resource := base+"/"+account+path, "/"+account+"/"+account+path
	header := http.Header{}
	header.Set("x-ms-date", time.Now().UTC().Format(http.TimeFormat))
	header.Set("x-ms-version", "2021-12-02")
	if strings.Count(path, "/") == 1 {
		url, resource = url+"?restype=container", resource+"\nrestype:container"
	} else if method == http.MethodPut {
		header.Set("x-ms-blob-type", "BlockBlob")
	}
	length := ""
	if body != "" {
		length = strconv.Itoa(len(body))
	}
	// Method, encoding, language, length, MD5, type, date and five conditions.
	sign := method + "\n\n\n" + length + strings.Repeat("\n", 9)
	var own []string
	for name := range header {
		own = append(own, strings.ToLower(name)+":"+header.Get(name)+"\n")
	}
	slices.Sort(own)
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(mac, sign+strings.Join(own, "")+resource) // a hash takes all
	header.Set("Authorization", "SharedKey "+account+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))

	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header = header
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, b)
	}
	return string(b), err
}
