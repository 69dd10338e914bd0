package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

// Header fields of the native API, in which keys travel.
const (
	headerPassphrase = "X-Torpor-Passphrase" //nolint:gosec // the name of one
	headerIdentity   = "X-Torpor-Identity"
	headerRecipient  = "X-Torpor-Recipient"
)

// secrets are what opens and locks snapshots. No flag holds a secret itself: flags are in the list of processes for all to
// see.
type secrets struct {
	passphraseFile string
	identityFiles  []string
	recipients     []string
	recipientFiles []string
	encrypt        bool

	asked string // the passphrase that a person has typed
}

// addKey gives flags what opens something encrypted.
func (s *secrets) addKey(flags *pflag.FlagSet) {
	flags.StringVar(&s.passphraseFile, "passphrase-file", "", "file with the passphrase (default: $"+passphraseVariable+"; on a terminal it is asked for)")
	flags.StringArrayVar(&s.identityFiles, "identity-file", nil, "file with private keys, of age-keygen or SSH; may be given more than once")
}

// addLock gives flags what encrypts.
func (s *secrets) addLock(flags *pflag.FlagSet) {
	flags.BoolVar(&s.encrypt, "encrypt", false, "encrypt it by the passphrase")
	flags.StringArrayVar(&s.recipients, "recipient", nil, "encrypt it to this public key, age1… or of SSH; may be given more than once")
	flags.StringArrayVar(&s.recipientFiles, "recipients-file", nil, "encrypt it to the public keys in this file; may be given more than once")
}

// key gives what opens, as far as it was given.
func (p *program) key(s *secrets) (k seal.Key, err error) {
	if k.Passphrase, err = p.passphrase(s); err != nil {
		return k, err
	}
	k.Identities, err = readSecrets("--identity-file", s.identityFiles)
	return k, err
}

// passphrase is the one that was given; "": none was.
func (p *program) passphrase(s *secrets) (string, error) {
	if s.asked != "" {
		return s.asked, nil
	}
	if s.passphraseFile == "" {
		return p.env(passphraseVariable), nil
	}
	all, err := readSecrets("--passphrase-file", []string{s.passphraseFile})
	if err != nil {
		return "", err
	}
	passphrase := strings.TrimRight(all[0], "\r\n") // editors end a file with a new line
	if passphrase == "" {
		return "", usageError{fmt.Errorf("--passphrase-file: %s is empty", s.passphraseFile)}
	}
	return passphrase, nil
}

// readSecrets reads files that flag names.
func readSecrets(flag string, paths []string) (all []string, _ error) {
	for _, path := range paths {
		b, err := readBounded(path, seal.MaxKeyBytes)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", flag, err)}
		}
		all = append(all, string(b))
	}
	return all, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes, so it is no key", path, most)
	}
	return b, err
}

// lock gives what encrypts; the zero Lock: nothing is to be. With given, a passphrase that was given is enough to say so.
func (p *program) lock(s *secrets, given bool) (l seal.Lock, err error) {
	if l.Recipients, err = readSecrets("--recipients-file", s.recipientFiles); err != nil {
		return l, err
	}
	l.Recipients = append(l.Recipients, s.recipients...)
	passphrase := ""
	if s.encrypt || given && len(l.Recipients) == 0 {
		if passphrase, err = p.passphrase(s); err != nil {
			return l, err
		}
	}
	if s.encrypt && passphrase == "" && len(l.Recipients) == 0 {
		if passphrase, err = p.newPassphrase(); err != nil {
			return l, err
		}
	}
	l.Passphrase = passphrase
	if err := l.Check(); err != nil {
		return l, usageError{err}
	}
	return l, nil
}

// newPassphrase asks for one twice.
func (p *program) newPassphrase() (string, error) {
	first, err := p.askSecret("passphrase to encrypt by: ")
	if errors.Is(err, errNobody) {
		return "", usageError{fmt.Errorf("--encrypt needs a passphrase, in $%s or in the file of --passphrase-file, or take --recipient", passphraseVariable)}
	}
	if err != nil {
		return "", err
	}
	again, err := p.askSecret("once more: ")
	switch {
	case err != nil:
		return "", err
	case first != again:
		return "", usageError{errors.New("the two passphrases are not the same")}
	case first == "":
		return "", usageError{errors.New("the passphrase is empty")}
	}
	return first, nil
}

// errNobody: there is no terminal at which somebody could be asked.
var errNobody = errors.New("there is no terminal to ask at")

// askSecret asks for a line that is not shown.
func (p *program) askSecret(prompt string) (string, error) {
	if !isTerminal(p.In) {
		return "", errNobody
	}
	fmt.Fprint(p.Err, prompt)
	b, err := term.ReadPassword(int(p.In.(*os.File).Fd()))
	fmt.Fprintln(p.Err)
	return string(b), err
}

// opening does something with a key. Where it turns out that one is needed and none was given, the person at the terminal
// is asked, and it is done once more.
func (p *program) opening(s *secrets, do func(k seal.Key) error) error {
	k, err := p.key(s)
	if err != nil {
		return err
	}
	if err = do(k); !errors.Is(err, seal.ErrKey) {
		return err
	}
	if !k.IsZero() {
		return err
	}
	passphrase, askErr := p.askSecret("it is encrypted; passphrase: ")
	if askErr != nil || passphrase == "" {
		return fmt.Errorf("%w: see --passphrase-file, --identity-file and $%s", err, passphraseVariable)
	}
	s.asked = passphrase
	return do(seal.Key{Passphrase: passphrase})
}

// keyHeader is the header that a key travels in.
func keyHeader(k seal.Key) http.Header {
	h := http.Header{}
	if k.Passphrase != "" {
		h.Set(headerPassphrase, inHeader(k.Passphrase))
	}
	for _, identity := range k.Identities {
		h.Add(headerIdentity, inHeader(identity))
	}
	return h
}

// addLockHeader adds what a lock travels in. A passphrase is in one field with that of the key.
func addLockHeader(h http.Header, l seal.Lock) {
	if l.Passphrase != "" {
		h.Set(headerPassphrase, inHeader(l.Passphrase))
	}
	for _, recipient := range l.Recipients {
		h.Add(headerRecipient, inHeader(recipient))
	}
}

// inHeader is a key, which may have several lines, for a field that has one.
func inHeader(key string) string { return "base64:" + base64.StdEncoding.EncodeToString([]byte(key)) }
