package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/server/gateway"
)

// BenchmarkLatency sends small requests one after the other, to a service and through the gateway in turn, and
// gives the medians.
func BenchmarkLatency(b *testing.B) {
	direct, through, client := pairOf(b)
	times := map[string][]time.Duration{}
	for b.Loop() {
		for _, u := range []string{direct, through} {
			start := time.Now()
			get(b, client, u+"/small", 13)
			times[u] = append(times[u], time.Since(start))
		}
	}
	median := func(u string) float64 {
		slices.Sort(times[u])
		return float64(times[u][len(times[u])/2].Nanoseconds()) / 1000
	}
	b.ReportMetric(median(direct), "µs-direct")
	b.ReportMetric(median(through), "µs-gateway")
	b.ReportMetric(median(through)-median(direct), "µs-added")
}

// BenchmarkThroughput gives how much of what the service alone does is done through the gateway.
func BenchmarkThroughput(b *testing.B) {
	for _, c := range []struct {
		name    string
		path    string
		size    int64
		clients int
		each    int
	}{{"download64MiB", "/large", large, 1, 1}, {"requests16clients", "/small", 13, 16, 50}, {"busy16clients", "/busy", 13, 16, 5}, {"upload64MiB", "/upload", 13, 1, 1}} {
		b.Run(c.name, func(b *testing.B) {
			direct, through, client := pairOf(b)
			times := map[string]time.Duration{}
			for b.Loop() {
				for _, u := range []string{direct, through} {
					start := time.Now()
					var wg sync.WaitGroup
					for range c.clients {
						wg.Go(func() {
							for range c.each {
								if c.path == "/upload" {
									put(b, client, u+c.path)
								} else {
									get(b, client, u+c.path, c.size)
								}
							}
						})
					}
					wg.Wait()
					times[u] += time.Since(start)
				}
			}
			b.ReportMetric(100*float64(times[direct])/float64(times[through]), "%-of-direct")
		})
	}
}

const large = 64 << 20

// pairOf gives the addresses of a service and of a gateway in front of it.
func pairOf(b *testing.B) (direct, through string, client *http.Client) {
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			w.Header().Set("Content-Length", fmt.Sprint(large))
			for range large / len(chunk) {
				w.Write(chunk)
			}
		case "/busy": // as much work as an emulator of a cloud service has with a request, at least
			for start := time.Now(); time.Since(start) < 500*time.Microsecond; {
			}
			io.WriteString(w, "hello, world\n")
		default:
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "hello, world\n")
		}
	}))
	b.Cleanup(service.Close)
	u, _ := url.Parse(service.URL)
	proxy, err := gateway.New(gateway.Config{Service: "bench", Address: func() string { return u.Host }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(proxy.Close)
	front := httptest.NewServer(proxy)
	b.Cleanup(front.Close)
	client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(client.CloseIdleConnections)
	return service.URL, front.URL, client
}

func get(b *testing.B, client *http.Client, u string, size int64) {
	resp, err := client.Get(u)
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		b.Errorf("%d bytes, %v", n, err)
	}
}

func put(b *testing.B, client *http.Client, u string) {
	req, _ := http.NewRequest(http.MethodPut, u, io.LimitReader(zeros{}, large))
	req.ContentLength = large
	resp, err := client.Do(req)
	if err != nil {
		b.Error(err)
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
