package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often a wrong key may be sent.
const (
	// MaxWrongKeys is how many wrong keys an address may send at once.
	MaxWrongKeys = 10
	// WrongKeyInterval is after how long it may send one more.
	WrongKeyInterval = 6 * time.Second
	// MaxWrongAddresses is of how many addresses wrong keys are remembered; of more, who failed longest ago is
	// forgotten.
	MaxWrongAddresses = 1024
)

// checkKey refuses a call without the key.
func (g *guard) checkKey(r *http.Request, remote netip.Addr) *refused {
	const hint = "send the key that Torpor was started with (TORPOR_API_KEY, or LOCALSTACK_AUTH_TOKEN) as Authorization: Bearer KEY, or as the password of Basic"
	key, has := sentKey(r)
	if !has {
		// Nothing was guessed, so it does not count.
		return &refused{status: http.StatusUnauthorized, code: refusedNoKey, message: "control calls need the key, and this one has none", hint: hint}
	}
	// Digests have one length, so the comparison tells nothing of the key's.
	digest := sha256.Sum256([]byte(key))
	right := subtle.ConstantTimeCompare(digest[:], g.key[:]) == 1
	if wait := g.failures.count(remote, right); wait > 0 {
		return &refused{status: http.StatusTooManyRequests, code: refusedTooMany, message: "too many wrong keys came from " + remote.String() + ", so none is looked at for a while",
			hint: "wait as long as Retry-After says", wait: wait}
	}
	if !right {
		return &refused{status: http.StatusUnauthorized, code: refusedWrongKey, message: "the key is not the one of the control API", hint: hint}
	}
	return nil
}

// sentKey takes the key from the Authorization header: a Bearer token, or the password of Basic, whoever the user
// is, which for LocalStack's clients is nobody.
func sentKey(r *http.Request) (key string, ok bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, password != ""
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, token != "" && strings.EqualFold(scheme, "Bearer")
}

// failures counts wrong keys by address. It is safe for concurrent use.
type failures struct {
	now func() time.Time

	mu sync.Mutex
	by map[netip.Prefix]*failing
}

// failing is what is known of one address.
type failing struct {
	left *rate.Limiter // wrong keys that it may still send
	last time.Time     // when it sent one
}

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, by: map[netip.Prefix]*failing{}}
}

// count notes whether addr sent the right key, and says for how long none of its keys counts, not even the right
// one: else it could go on guessing. Other addresses are not concerned.
func (f *failures) count(addr netip.Addr, right bool) (wait time.Duration) {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64 // what one customer has
	}
	from, _ := addr.Prefix(bits) // of no address it is the zero Prefix, which is as good as another
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.by[from]
	switch {
	case known != nil:
	case right:
		return 0
	default:
		f.forget()
		known = &failing{left: rate.NewLimiter(rate.Every(WrongKeyInterval), MaxWrongKeys)}
		f.by[from] = known
	}
	if left := known.left.TokensAt(now); left < 1 {
		return time.Duration((1 - left) * float64(WrongKeyInterval))
	}
	if !right {
		known.left.AllowN(now, 1)
		known.last = now
	}
	return 0
}

// forget makes room for one more address.
func (f *failures) forget() {
	if len(f.by) < MaxWrongAddresses {
		return
	}
	var oldest netip.Prefix
	var at time.Time
	for from, known := range f.by {
		if at.IsZero() || known.last.Before(at) {
			oldest, at = from, known.last
		}
	}
	delete(f.by, oldest)
}
