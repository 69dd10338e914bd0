package runtime

import (
	"fmt"
	"strings"

	"github.com/torpor-run/torpor/runtime/statefile"
)

// SaveStrategy says when a service is saved; names and meanings are LocalStack's
// (SNAPSHOT_SAVE_STRATEGY).
type SaveStrategy string

// The save strategies.
const (
	SaveScheduled  SaveStrategy = "SCHEDULED"   // dirty services every flush interval, and at shutdown
	SaveOnRequest  SaveStrategy = "ON_REQUEST"  // after each request that changed something, before it is finished
	SaveOnShutdown SaveStrategy = "ON_SHUTDOWN" // at shutdown only, and when put to sleep
	SaveManual     SaveStrategy = "MANUAL"      // when told to, and when put to sleep
)

// LoadStrategy says when a service's state is loaded (SNAPSHOT_LOAD_STRATEGY).
type LoadStrategy string

// The load strategies.
const (
	LoadOnRequest LoadStrategy = "ON_REQUEST" // at the service's first request
	LoadOnStartup LoadStrategy = "ON_STARTUP" // before the first request is accepted
	LoadManual    LoadStrategy = "MANUAL"     // when told to
)

// Proof says how a save is proved before it is committed: what was just saved is loaded again and
// compared with what was captured.
type Proof string

// The proofs.
const (
	ProofFull    Proof = "full"    // every save
	ProofSampled Proof = "sampled" // the first and every tenth generation
	ProofOff     Proof = "off"
)

// SaveStrategies lists the strategies, the default first.
func SaveStrategies() []SaveStrategy {
	return []SaveStrategy{SaveScheduled, SaveOnRequest, SaveOnShutdown, SaveManual}
}

// LoadStrategies lists the strategies, the default first.
func LoadStrategies() []LoadStrategy {
	return []LoadStrategy{LoadOnRequest, LoadOnStartup, LoadManual}
}

// Proofs lists the proofs, the default first.
func Proofs() []Proof { return []Proof{ProofFull, ProofSampled, ProofOff} }

// Compressions lists how the chunks of state files may be compressed, the default first.
func Compressions() []string {
	return []string{statefile.CompressionNone, statefile.CompressionZstd}
}

// Parse finds s, in any case, among the values allowed; "" is the first of them. The error names what,
// s and what is allowed.
func Parse[T ~string](what, s string, allowed []T) (T, error) {
	if s == "" {
		return allowed[0], nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		if strings.EqualFold(s, string(a)) {
			return a, nil
		}
		names[i] = string(a)
	}
	return "", fmt.Errorf("%s is %q; allowed are %s", what, s, strings.Join(names, ", "))
}
