package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// clock is a time that only moves when it is told to.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func TestWrongKeysAreForgiven(t *testing.T) {
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	f := newFailures(c.Now)
	addr := netip.MustParseAddr("192.0.2.7")
	for range MaxWrongKeys {
		if wait := f.count(addr, false); wait != 0 {
			t.Fatalf("must wait %v too early", wait)
		}
	}
	if wait := f.count(addr, true); wait <= 0 || wait > WrongKeyInterval {
		t.Errorf("must wait %v, want up to %v", wait, WrongKeyInterval)
	}
	for range 5 * MaxWrongKeys { // what was refused does not make it longer
		f.count(addr, false)
	}
	c.now = c.now.Add(WrongKeyInterval)
	if wait := f.count(addr, false); wait != 0 {
		t.Errorf("one more try: must wait %v", wait)
	}
	if wait := f.count(addr, false); wait == 0 {
		t.Error("a second more try")
	}
	c.now = c.now.Add(WrongKeyInterval)
	for range 3 * MaxWrongKeys { // right ones cost nothing
		if wait := f.count(addr, true); wait != 0 {
			t.Fatalf("the right key must wait %v", wait)
		}
	}
}

func TestNeighboursOfWrongKeys(t *testing.T) {
	f := newFailures((&clock{now: time.Unix(1_800_000_000, 0)}).Now)
	for _, first := range []string{"192.0.2.7", "2001:db8:1:2::1", "fe80::1", ""} {
		addr, _ := netip.ParseAddr(first)
		for range 2 * MaxWrongKeys {
			f.count(addr, false)
		}
	}
	for neighbour, want := range map[string]bool{"192.0.2.7": true, "192.0.2.8": false, "2001:db8:1:2:ffff::9": true, "2001:db8:1:3::1": false} {
		if got := f.count(netip.MustParseAddr(neighbour), true) > 0; got != want {
			t.Errorf("%s must wait: %v, want %v", neighbour, got, want)
		}
	}
}

// TestWrongKeysTakeBoundedMemory: and who is forgotten is the one that failed longest ago.
func TestWrongKeysTakeBoundedMemory(t *testing.T) {
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	f := newFailures(c.Now)
	first, kept := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	block := func(addr netip.Addr) {
		for range MaxWrongKeys {
			f.count(addr, false)
		}
	}
	block(first)
	c.now = c.now.Add(time.Millisecond)
	block(kept)
	for i := range MaxWrongAddresses - 1 {
		c.now = c.now.Add(time.Microsecond)
		f.count(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), false)
		f.count(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), true) // the right one at once is not remembered
	}
	if len(f.by) != MaxWrongAddresses {
		t.Errorf("%d addresses are remembered, want %d", len(f.by), MaxWrongAddresses)
	}
	if f.count(first, true) != 0 || f.count(kept, true) == 0 {
		t.Error("not the one that failed longest ago was forgotten")
	}
}

// TestLookersAreQuiet: routes whose use is not worth a line are only such as are read.
func TestLookersAreQuiet(t *testing.T) {
	for _, routes := range []map[string]bool{openRoutes(), quietRoutes()} {
		for route := range routes {
			if method, _, _ := strings.Cut(route, " "); method != http.MethodGet && method != http.MethodHead {
				t.Errorf("%s may change something", route)
			}
		}
	}
}

func FuzzSentKey(f *testing.F) {
	for _, s := range []string{"", "Bearer k", "bearer  k ", "Basic OnRva2Vu", "Basic Og==", "Basic ", "Basic\tOg==", "AWS4-HMAC-SHA256 Credential=x", "Bearer", "Basic OnRva2Vu=", "Bearer \x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		r := &http.Request{Header: http.Header{"Authorization": {authorization}}}
		key, ok := sentKey(r)
		switch {
		case ok && key == "":
			t.Errorf("%q has an empty key", authorization)
		case len(key) > len(authorization):
			t.Errorf("%q has a longer key %q", authorization, key)
		}
		// What was taken as a key is one again, however it is sent.
		if !ok || strings.TrimSpace(key) != key {
			return
		}
		for _, send := range []func(){
			func() { r.SetBasicAuth("", key) },
			func() { r.SetBasicAuth("user", key) },
			func() { r.Header.Set("Authorization", fmt.Sprint("Bearer ", key)) },
		} {
			send()
			if got, ok := sentKey(r); !ok || got != key {
				t.Errorf("%q of %q comes as %q", key, r.Header.Get("Authorization"), got)
			}
		}
	})
}
