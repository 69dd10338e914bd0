package seal

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Errors of locks and keys. Both say what to do.
var (
	// ErrKey: what is to be read is encrypted, and the key is missing, cannot be one, or is not the right one.
	ErrKey = errors.New("no key for it")
	// ErrLock: what is to be encrypted cannot be so: a recipient that is none, or a passphrase and recipients at once.
	ErrLock = errors.New("cannot encrypt")
)

// Work factors of a passphrase: scrypt takes 2^factor KiB of memory, and twice the time for each more. 17 (128 MiB, some
// 0.4 s) is the least that OWASP advises for scrypt; the age program itself takes 18. Who sends a file chooses what
// opening it costs, so what is accepted ends at 20 (1 GiB, some 3 s).
const (
	MinWorkFactor     = 1
	DefaultWorkFactor = 17
	MaxWorkFactor     = 20
)

// Limits on what is taken from outside.
const (
	MaxRecipients  = 256       // keys in a lock
	MaxIdentities  = 256       // keys in a key
	MaxKeyBytes    = 64 << 10  // text of one entry of Lock.Recipients or Key.Identities
	MaxHeaderBytes = 256 << 10 // of an age file: what stands before the content
)

// Lock says who may read what is encrypted: who knows the passphrase, or who has the identity of one of the recipients.
// The zero Lock is none: nothing is encrypted. Both is an error, since age does not have it.
type Lock struct {
	Passphrase string
	// Recipients are public keys: age1…, age1pq1… (which do not go together with others), or lines of an SSH public key
	// file, ssh-ed25519 or ssh-rsa. An entry may be a file's content: a key a line, empty lines and those that begin
	// with # left out.
	Recipients []string
	// WorkFactor is what guessing a passphrase costs, MinWorkFactor to MaxWorkFactor; 0: DefaultWorkFactor.
	WorkFactor int
}

// Key opens what a Lock has locked. A zero Key opens nothing.
type Key struct {
	Passphrase string
	// Identities are private keys: AGE-SECRET-KEY-1…, or a whole SSH private key. An entry may be a file's content, as
	// age-keygen or ssh-keygen writes it. One that is itself encrypted is refused.
	Identities []string
}

// IsZero tells that nothing is to be encrypted.
func (l Lock) IsZero() bool { return l.Passphrase == "" && len(l.Recipients) == 0 }

// Check says what is wrong with a lock, as Encrypt would; the error wraps ErrLock. Nothing is wrong with the zero Lock.
func (l Lock) Check() error {
	if l.IsZero() {
		return nil
	}
	_, err := l.recipients()
	return err
}

// IsZero tells that there is no key.
func (k Key) IsZero() bool { return k.Passphrase == "" && len(k.Identities) == 0 }

// Encrypt gives a writer that encrypts to w. What was written is whole once its Close has returned without an error;
// Close does not close w. An error wraps ErrLock, the zero Lock's too, or is w's.
func Encrypt(w io.Writer, l Lock) (io.WriteCloser, error) {
	recipients, err := l.recipients()
	if err != nil {
		return nil, err
	}
	out, err := age.Encrypt(w, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}
