package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/torpor-run/torpor/server/embedded/s3"
)

// A service is filled by requests, put to sleep, and woken in another process: here, by another value.
func Example() {
	ctx := context.Background()
	request := func(service *s3.Service, method, path, body string) string {
		srv := httptest.NewServer(service.Handler())
		defer srv.Close()
		r, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("ETag"), " ", string(answer))
	}

	awake := s3.New(s3.Options{OnChange: func(bucket, key string) { fmt.Printf("changed: %s/%s\n", bucket, key) }})
	request(awake, "PUT", "/greetings", "")
	request(awake, "PUT", "/greetings/morning", "Good morning")

	capture, err := awake.Capture(ctx)
	if err != nil {
		log.Fatal(err)
	}
	request(awake, "DELETE", "/greetings/morning", "") // too late for the capture
	var native bytes.Buffer
	if err := capture.WriteNative(ctx, &native); err != nil {
		log.Fatal(err)
	}
	if err := capture.Close(); err != nil {
		log.Fatal(err)
	}

	woken := s3.New(s3.Options{})
	if err := woken.Restore(ctx, &native); err != nil {
		log.Fatal(err)
	}
	fmt.Println(request(woken, "GET", "/greetings/morning", ""))

	// Output:
	// changed: greetings/
	// changed: greetings/morning
	// changed: greetings/morning
	// 200 "4e44298897ed12cdc10e5302fa781688" Good morning
}
