package seal

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
)

// recipients are those of the lock as age has them; the error wraps ErrLock.
func (l Lock) recipients() ([]age.Recipient, error) {
	switch {
	case l.IsZero():
		return nil, fmt.Errorf("%w: give a passphrase or recipients", ErrLock)
	case l.Passphrase != "" && len(l.Recipients) > 0:
		return nil, fmt.Errorf("%w with a passphrase and to recipients at once: give one of them", ErrLock)
	case l.WorkFactor != 0 && (l.WorkFactor < MinWorkFactor || l.WorkFactor > MaxWorkFactor):
		return nil, fmt.Errorf("%w: the work factor of a passphrase is %d; it may be %d to %d", ErrLock, l.WorkFactor, MinWorkFactor, MaxWorkFactor)
	case l.Passphrase != "":
		r, err := age.NewScryptRecipient(l.Passphrase)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrLock, err)
		}
		r.SetWorkFactor(cmp.Or(l.WorkFactor, DefaultWorkFactor))
		return []age.Recipient{r}, nil
	}
	var all []age.Recipient
	hybrids := 0
	for _, text := range l.Recipients {
		if len(text) > MaxKeyBytes {
			return nil, fmt.Errorf("%w: a recipient of %d bytes; there may be %d", ErrLock, len(text), MaxKeyBytes)
		}
		before := len(all)
		for line := range entries(text) {
			if strings.HasPrefix(line, "AGE-") || strings.HasPrefix(line, "-----BEGIN") { // which is not quoted
				return nil, fmt.Errorf("%w: a private key was given as recipient; a recipient is the public one", ErrLock)
			}
			r, err := recipient(line)
			if err != nil {
				return nil, fmt.Errorf("%w to %q: %s", ErrLock, shorten(line, 80), shorten(err.Error(), 200))
			}
			if _, is := r.(*age.HybridRecipient); is {
				hybrids++
			}
			all = append(all, r)
		}
		if len(all) == before {
			return nil, fmt.Errorf("%w to %q: there is no key in it", ErrLock, shorten(text, 80))
		}
	}
	if len(all) > MaxRecipients {
		return nil, fmt.Errorf("%w to %d recipients; there may be %d", ErrLock, len(all), MaxRecipients)
	}
	if hybrids > 0 && hybrids < len(all) {
		return nil, fmt.Errorf("%w to post-quantum recipients, age1pq1…, and others at once: the others would give away what those protect", ErrLock)
	}
	return all, nil
}

// recipient reads one public key.
func recipient(line string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(line, "age1pq1"):
		return age.ParseHybridRecipient(line)
	case strings.HasPrefix(line, "age1") && strings.Contains(line[len("age1"):], "1"):
		// The second 1 ends the name of a plugin: what follows the last one has none.
		return nil, errors.New("it needs a plugin of the age program, which Torpor does not run; take a key of age-keygen, age1…, or of SSH")
	case strings.HasPrefix(line, "age1"):
		return age.ParseX25519Recipient(line)
	case strings.HasPrefix(line, "ssh-rsa "), strings.HasPrefix(line, "ssh-ed25519 "):
		return agessh.ParseRecipient(line)
	}
	return nil, errors.New("that is no recipient: it must be a key of age-keygen, age1…, or of SSH, ssh-ed25519 … or ssh-rsa …")
}

// identities are those of the key as age has them; the error wraps ErrKey. It quotes nothing of a key, which would be
// in logs then.
func (k Key) identities() ([]age.Identity, error) {
	var all []age.Identity
	if k.Passphrase != "" {
		i, err := age.NewScryptIdentity(k.Passphrase)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		i.SetMaxWorkFactor(MaxWorkFactor)
		all = append(all, i)
	}
	for n, text := range k.Identities {
		some, err := identitiesIn(text)
		if err != nil {
			return nil, fmt.Errorf("%w: identity %d of %d: %w", ErrKey, n+1, len(k.Identities), err)
		}
		all = append(all, some...)
	}
	if len(all) > MaxIdentities {
		return nil, fmt.Errorf("%w: %d keys were given; there may be %d", ErrKey, len(all), MaxIdentities)
	}
	return all, nil
}

// identitiesIn reads the private keys of one entry.
func identitiesIn(text string) ([]age.Identity, error) {
	text = strings.TrimSpace(text)
	switch {
	case len(text) > MaxKeyBytes:
		return nil, fmt.Errorf("it has %d bytes; it may have %d", len(text), MaxKeyBytes)
	case Sealed([]byte(text)), strings.HasPrefix(text, armor.Header):
		return nil, errors.New("it is itself encrypted with age: decrypt it first (age --decrypt)")
	case strings.HasPrefix(text, "-----BEGIN"):
		i, err := agessh.ParseIdentity([]byte(text))
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			return nil, errors.New("it is an SSH key that is itself encrypted: take the passphrase off a copy of it (ssh-keygen -p), or use a key of age-keygen")
		case err != nil:
			return nil, errors.New("it is no SSH private key of type ed25519 or rsa, or it is damaged")
		}
		return []age.Identity{i}, nil
	}
	var all []age.Identity
	for line := range entries(text) {
		var i age.Identity
		var err error
		switch {
		case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
			i, err = age.ParseHybridIdentity(line)
		case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
			i, err = age.ParseX25519Identity(line)
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			return nil, errors.New("it needs a plugin of the age program, which Torpor does not run; decrypt the file with that program and load what it gives")
		case strings.HasPrefix(line, "age1"), strings.HasPrefix(line, "ssh-"):
			return nil, errors.New("it is a public key; what decrypts is the private one")
		default:
			return nil, errors.New("it is neither a key of age-keygen, AGE-SECRET-KEY-1…, nor an SSH private key")
		}
		if err != nil {
			return nil, errors.New("it begins as a key of age-keygen and is none: a character is wrong or missing")
		}
		all = append(all, i)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return all, nil
}

// entries are the lines of a file of keys that hold one.
func entries(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !yield(line) {
				return
			}
		}
	}
}

// shorten keeps an error short, whatever it quotes.
func shorten(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
