package seal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/torpor-run/torpor/host/abi"
)

// How age files begin, and those of the version that there is.
const (
	intro      = "age-encryption.org/"
	firstIntro = intro + "v1\n"
)

// HeadBytes is how much of a file's beginning Sealed and Armored need.
const HeadBytes = len(armor.Header)

// Sealed tells whether a file that begins with head, HeadBytes of it or all there is, is an age file, armored or not.
func Sealed(head []byte) bool {
	return bytes.HasPrefix(head, []byte(intro)) || Armored(head)
}

// Armored tells whether a file that begins with head, HeadBytes of it, is an age file in its text form.
func Armored(head []byte) bool { return bytes.HasPrefix(head, []byte(armor.Header)) }

// Decrypt gives a reader of what Encrypt was given; an armored file is read as well. Its errors and those of the reader
// wrap ErrKey, abi.ErrCorrupt for what is damaged or cut off, abi.ErrVersion for a later version of age files,
// abi.ErrTooLarge where the header passes a limit or asks for too much work, or are r's. What was read before an error
// is as it was written, but not all of it.
func Decrypt(r io.Reader, k Key) (io.Reader, error) {
	ring, err := newKeyring(k)
	if err != nil {
		return nil, err
	}
	in := &source{r: r, header: MaxHeaderBytes}
	buffered := bufio.NewReader(in)
	if head, _ := buffered.Peek(HeadBytes); Armored(head) {
		in.lines = MaxLineBytes
		buffered = bufio.NewReader(armor.NewReader(buffered))
	}
	if err := checkIntro(buffered); err != nil {
		return nil, fault(err)
	}
	out, err := age.Decrypt(buffered, ring)
	if err != nil {
		return nil, fault(err)
	}
	in.header = -1
	return &content{out}, nil
}

// DecryptAt is Decrypt for reading at random: r holds size bytes, and the second result is how many are in it. The end is
// checked at once, the rest as it is read. An armored file is refused as corrupt: Decrypt reads it. It is safe for
// concurrent use as far as r is.
func DecryptAt(r io.ReaderAt, size int64, k Key) (io.ReaderAt, int64, error) {
	ring, err := newKeyring(k)
	if err != nil {
		return nil, 0, err
	}
	at := sourceAt{r}
	// Once for the key, and so that the header is known to keep to its limit when it is read without one.
	begin := &source{r: io.NewSectionReader(at, 0, size), header: MaxHeaderBytes}
	buffered := bufio.NewReader(begin)
	if err := checkIntro(buffered); err != nil {
		return nil, 0, fault(err)
	}
	if _, err := age.Decrypt(buffered, ring); err != nil {
		return nil, 0, fault(err)
	}
	out, n, err := age.DecryptReaderAt(at, size, age.NewInjectedFileKeyIdentity(ring.fileKey))
	if err != nil {
		return nil, 0, fault(err)
	}
	return contentAt{out, n}, n, nil
}

// checkIntro looks at an age file's first line.
func checkIntro(r *bufio.Reader) error {
	head, err := r.Peek(len(firstIntro))
	if string(head) == firstIntro {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if version, ok := strings.CutPrefix(string(head), intro+"v"); ok {
		number, _, _ := strings.Cut(version, "\n")
		if n, err := strconv.ParseUint(number, 10, 64); err == nil && n > 1 {
			return fmt.Errorf("an age file of version %d: %w; this Torpor reads version 1", n, abi.ErrVersion)
		}
	}
	return fmt.Errorf("no age file: %w: it does not begin as one", abi.ErrCorrupt)
}

// keyring is all of a key, as one identity: so it sees a file's header before anything is computed for it.
type keyring struct {
	identities []age.Identity
	fileKey    []byte // of the file that it has opened
}

func newKeyring(k Key) (*keyring, error) {
	identities, err := k.identities()
	return &keyring{identities: identities}, err
}

// Unwrap is for package age.
func (k *keyring) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) > MaxRecipients {
		return nil, fmt.Errorf("an age file for %d recipients: %w; there may be %d", len(stanzas), abi.ErrTooLarge, MaxRecipients)
	}
	var types []string
	for _, s := range stanzas {
		types = append(types, s.Type)
		if s.Type != "scrypt" || len(s.Args) != 2 {
			continue
		}
		if n, err := strconv.Atoi(s.Args[1]); err == nil && n > MaxWorkFactor {
			return nil, fmt.Errorf("opening it takes a work factor of %d: %w; %d is the most", n, abi.ErrTooLarge, MaxWorkFactor)
		}
	}
	passphrase := slices.Contains(types, "scrypt")
	for _, i := range k.identities {
		if _, is := i.(*age.ScryptIdentity); is != passphrase {
			continue // of the other kind; a passphrase with other recipients is refused by the first that is tried
		}
		key, err := i.Unwrap(stanzas)
		if errors.Is(err, age.ErrIncorrectIdentity) {
			continue
		}
		if err == nil {
			k.fileKey = key
		}
		return key, err
	}
	slices.Sort(types)
	return nil, k.missing(passphrase, slices.Compact(types))
}

// missing says what key it takes.
func (k *keyring) missing(passphrase bool, types []string) error {
	given := slices.ContainsFunc(k.identities, func(i age.Identity) bool {
		_, is := i.(*age.ScryptIdentity)
		return is == passphrase
	})
	switch {
	case passphrase && given:
		return fmt.Errorf("it is encrypted: %w: the passphrase is not the right one; give the one that it was encrypted with", ErrKey)
	case passphrase:
		return fmt.Errorf("it is encrypted: %w: it needs a passphrase; give the one that it was encrypted with", ErrKey)
	case given:
		return fmt.Errorf("it is encrypted: %w: it is for other recipients (%s) than those whose identities were given; give the identity of one of them", ErrKey, shorten(strings.Join(types, ", "), 100))
	}
	return fmt.Errorf("it is encrypted: %w: it is for recipients (%s); give the identity of one of them, its private key", ErrKey, shorten(strings.Join(types, ", "), 100))
}

// MaxLineBytes is how long a line of an armored file may be. The form has lines of 64.
const MaxLineBytes = 1 << 10

// source is where an age file comes from. It tells its own errors from what package age makes of the bytes, and holds
// them to limits that package age has not.
type source struct {
	r      io.Reader
	header int // bytes that may be read yet, as long as the header is being read; -1: it has been
	lines  int // how long a line may be; 0: there are none
	line   int // bytes since the last one's end
}

func (s *source) Read(p []byte) (int, error) {
	if s.header == 0 {
		return 0, sourceError{fmt.Errorf("the header of an age file: %w: there may be %d bytes", abi.ErrTooLarge, MaxHeaderBytes)}
	}
	if s.header > 0 && len(p) > s.header {
		p = p[:s.header]
	}
	n, err := s.r.Read(p)
	if s.header > 0 {
		s.header -= n
	}
	if s.lines > 0 {
		for _, c := range p[:n] {
			if s.line++; c == '\n' {
				s.line = 0
			}
			if s.line > s.lines {
				return 0, sourceError{fmt.Errorf("a line of an armored age file: %w: there may be %d bytes", abi.ErrTooLarge, s.lines)}
			}
		}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a reader's io.EOF is never wrapped
		err = asSource(err)
	}
	return n, err
}

// sourceAt is source for reading at random.
type sourceAt struct{ r io.ReaderAt }

func (s sourceAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.r.ReadAt(p, off)
	switch {
	case n == len(p):
		err = nil // an io.EOF besides all that was asked for is allowed, but not understood by package age
	case err != nil && err != io.EOF: //nolint:errorlint // as above
		err = asSource(err)
	}
	return n, err
}

// sourceError is one of where the file comes from, or of a limit: not of what package age makes of its bytes.
type sourceError struct{ error }

// asSource marks an error once.
func asSource(err error) error {
	if errors.As(err, new(sourceError)) {
		return err
	}
	return sourceError{err}
}

// fault says what an error of package age is.
func fault(err error) error {
	var from sourceError
	if errors.As(err, &from) {
		return from.error
	}
	for _, known := range []error{ErrKey, abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge} {
		if errors.Is(err, known) {
			return err
		}
	}
	// Package age quotes lines, however long.
	return fmt.Errorf("an age file: %w: %s", abi.ErrCorrupt, shorten(err.Error(), 200))
}

// content gives errors of package age as this package's.
type content struct{ r io.Reader }

func (c *content) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as above
		err = fault(err)
	}
	return n, err
}

// contentAt is content for reading at random.
type contentAt struct {
	r    io.ReaderAt
	size int64
}

func (c contentAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("seal: offset %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	n, err := c.r.ReadAt(p, off)
	switch {
	case n == len(p):
		err = nil
	case err != nil && err != io.EOF: //nolint:errorlint // as above
		err = fault(err)
	}
	return n, err
}
