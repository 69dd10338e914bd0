package seal_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

func Example() {
	var file bytes.Buffer
	w, err := seal.Encrypt(&file, seal.Lock{Passphrase: "correct horse"})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.WriteString(w, "what a service was")
	_ = w.Close()

	_, err = seal.Decrypt(bytes.NewReader(file.Bytes()), seal.Key{})
	fmt.Println(err)
	r, err := seal.Decrypt(&file, seal.Key{Passphrase: "correct horse"})
	if err != nil {
		fmt.Println(err)
		return
	}
	content, _ := io.ReadAll(r)
	fmt.Printf("%s\n", content)
	// Output:
	// it is encrypted: no key for it: it needs a passphrase; give the one that it was encrypted with
	// what a service was
}

// quick is a work factor for tests.
const quick = 2

func encrypt(t testing.TB, content string, l seal.Lock) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := seal.Encrypt(&file, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// decrypt reads a file in both ways, which must agree.
func decrypt(t testing.TB, file []byte, k seal.Key) (string, error) {
	t.Helper()
	var content []byte
	r, err := seal.Decrypt(bytes.NewReader(file), k)
	if err == nil {
		content, err = io.ReadAll(r)
	}
	if seal.Armored(file) {
		return string(content), err
	}
	var other []byte
	at, size, otherErr := seal.DecryptAt(bytes.NewReader(file), int64(len(file)), k)
	if otherErr == nil {
		other, otherErr = io.ReadAll(io.NewSectionReader(at, 0, size))
	}
	if (err == nil) != (otherErr == nil) || err == nil && !bytes.Equal(content, other) {
		t.Fatalf("read from its beginning there are %d bytes and %v, read at random %d and %v", len(content), err, len(other), otherErr)
	}
	for _, sentinel := range []error{seal.ErrKey, abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge} {
		if errors.Is(err, sentinel) != errors.Is(otherErr, sentinel) {
			t.Fatalf("read from its beginning: %v; read at random: %v", err, otherErr)
		}
	}
	return string(content), err
}

// pair is a recipient and its identity.
type pair struct{ public, private string }

func native(t testing.TB) pair {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return pair{i.Recipient().String(), i.String()}
}

func hybrid(t testing.TB) pair {
	t.Helper()
	i, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return pair{i.Recipient().String(), i.String()}
}

// sshPair makes an SSH key, protected where there is a passphrase.
func sshPair(t testing.TB, kind, passphrase string) pair {
	t.Helper()
	var public, private any
	var err error
	switch kind {
	case "ed25519":
		public, private, err = ed25519Key()
	case "rsa":
		var k *rsa.PrivateKey
		if k, err = rsa.GenerateKey(rand.Reader, 2048); err == nil {
			public, private = k.Public(), k
		}
	case "ecdsa":
		var k *ecdsa.PrivateKey
		if k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			public, private = k.Public(), k
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "somebody@somewhere")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "somebody@somewhere", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pair{string(ssh.MarshalAuthorizedKey(line)), string(pem.EncodeToMemory(block))}
}

func ed25519Key() (public, private any, err error) {
	p, k, err := ed25519.GenerateKey(rand.Reader)
	return p, k, err
}

func TestWhatIsLockedIsOpened(t *testing.T) {
	a, b, pq, ed, rs := native(t), native(t), hybrid(t), sshPair(t, "ed25519", ""), sshPair(t, "rsa", "")
	for _, c := range []struct {
		name string
		lock seal.Lock
		keys []seal.Key
	}{
		{"a passphrase", seal.Lock{Passphrase: "päss phrase", WorkFactor: quick}, []seal.Key{
			{Passphrase: "päss phrase"}, {Passphrase: "päss phrase", Identities: []string{a.private}},
		}},
		{"a recipient", seal.Lock{Recipients: []string{a.public}}, []seal.Key{
			{Identities: []string{a.private}}, {Identities: []string{b.private, a.private}}, {Passphrase: "another", Identities: []string{a.private}},
			{Identities: []string{"# created: yesterday\n# public key: " + a.public + "\r\n\n" + a.private + "\r\n"}},
		}},
		{"several recipients", seal.Lock{Recipients: []string{a.public, "# a file\n\n " + b.public + "\n" + ed.public, rs.public}}, []seal.Key{
			{Identities: []string{a.private}}, {Identities: []string{b.private}}, {Identities: []string{ed.private}}, {Identities: []string{"\n" + rs.private}},
		}},
		{"a hybrid recipient", seal.Lock{Recipients: []string{pq.public}}, []seal.Key{{Identities: []string{pq.private}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.lock.Check(); err != nil || c.lock.IsZero() {
				t.Fatalf("%v, is zero: %v", err, c.lock.IsZero())
			}
			for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
				content := strings.Repeat("0123456789abcdefg", size/17+1)[:size]
				file := encrypt(t, content, c.lock)
				if !seal.Sealed(file[:min(len(file), seal.HeadBytes)]) || seal.Armored(file) {
					t.Errorf("%.40q is not told to be sealed", file)
				}
				for _, k := range c.keys {
					if got, err := decrypt(t, file, k); err != nil || got != content {
						t.Errorf("%d bytes: %d came back: %v", size, len(got), err)
					}
				}
			}
		})
	}
	if err := (seal.Lock{}).Check(); err != nil || !(seal.Lock{}).IsZero() || !(seal.Key{}).IsZero() {
		t.Errorf("no lock: %v", err)
	}
}

func TestWrongKeys(t *testing.T) {
	a, b, ed, other := native(t), native(t), sshPair(t, "ed25519", ""), sshPair(t, "ed25519", "")
	pass := encrypt(t, "content", seal.Lock{Passphrase: "right", WorkFactor: quick})
	recipient := encrypt(t, "content", seal.Lock{Recipients: []string{a.public, ed.public}})
	for _, c := range []struct {
		name string
		file []byte
		key  seal.Key
		says string
	}{
		{"none, for a passphrase", pass, seal.Key{}, "needs a passphrase"},
		{"none, for a recipient", recipient, seal.Key{}, "for recipients (X25519, ssh-ed25519); give the identity"},
		{"another passphrase", pass, seal.Key{Passphrase: "wrong"}, "passphrase is not the right one"},
		{"a passphrase for a recipient", recipient, seal.Key{Passphrase: "right"}, "for recipients"},
		{"an identity for a passphrase", pass, seal.Key{Identities: []string{a.private}}, "needs a passphrase"},
		{"another identity", recipient, seal.Key{Identities: []string{b.private}}, "other recipients (X25519, ssh-ed25519)"},
		{"another SSH key", recipient, seal.Key{Identities: []string{other.private}}, "other recipients"},
		{"a public key", recipient, seal.Key{Identities: []string{a.public}}, "public key"},
		{"a public SSH key", recipient, seal.Key{Identities: []string{ed.public}}, "public key"},
		{"a key with a wrong letter", recipient, seal.Key{Identities: []string{a.private[:40] + "B" + a.private[41:]}}, "identity 1 of 1"},
		{"a plugin's", recipient, seal.Key{Identities: []string{"AGE-PLUGIN-YUBIKEY-1QQPSXQVZ4DFJR4G8WXQVX"}}, "plugin"},
		{"nothing", recipient, seal.Key{Identities: []string{a.private, "# only a comment\n"}}, "identity 2 of 2: there is no key in it"},
		{"anything", recipient, seal.Key{Identities: []string{"sesame"}}, "neither"},
		{"an SSH key with a passphrase", recipient, seal.Key{Identities: []string{sshPair(t, "ed25519", "secret").private}}, "ssh-keygen -p"},
		{"an SSH key of another type", recipient, seal.Key{Identities: []string{sshPair(t, "ecdsa", "").private}}, "type ed25519 or rsa"},
		{"a damaged SSH key", recipient, seal.Key{Identities: []string{ed.private[:100]}}, "damaged"},
		{"an encrypted file of keys", recipient, seal.Key{Identities: []string{string(pass)}}, "itself encrypted"},
		{"a long one", recipient, seal.Key{Identities: []string{strings.Repeat("x", seal.MaxKeyBytes+1)}}, "65536"},
		{"many", recipient, seal.Key{Identities: []string{strings.Repeat(b.private+"\n", seal.MaxIdentities+1)}}, "there may be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decrypt(t, c.file, c.key)
			if !errors.Is(err, seal.ErrKey) || errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want ErrKey that says %q", err, c.says)
			}
			for _, i := range c.key.Identities {
				if len(i) > 20 && strings.Contains(err.Error(), i[10:20]) {
					t.Errorf("the error quotes a key: %v", err)
				}
			}
		})
	}
}

func TestWrongLocks(t *testing.T) {
	a, pq := native(t), hybrid(t)
	for _, c := range []struct {
		name string
		lock seal.Lock
		says string
	}{
		{"both", seal.Lock{Passphrase: "x", Recipients: []string{a.public}}, "at once"},
		{"a private key", seal.Lock{Recipients: []string{a.private}}, "private key"},
		{"a private SSH key", seal.Lock{Recipients: []string{sshPair(t, "rsa", "").private}}, "private key"},
		{"a plugin's", seal.Lock{Recipients: []string{"age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"}}, "plugin"},
		{"a wrong letter", seal.Lock{Recipients: []string{a.public[:30] + "b" + a.public[31:]}}, "malformed"},
		{"an SSH key of another type", seal.Lock{Recipients: []string{sshPair(t, "ecdsa", "").public}}, "no recipient"},
		{"a damaged SSH key", seal.Lock{Recipients: []string{"ssh-rsa AAAA"}}, "malformed"},
		{"a name", seal.Lock{Recipients: []string{"alice"}}, "no recipient"},
		{"nothing", seal.Lock{Recipients: []string{" \n# x"}}, "no key in it"},
		{"hybrid and other", seal.Lock{Recipients: []string{pq.public, a.public}}, "post-quantum"},
		{"a long one", seal.Lock{Recipients: []string{strings.Repeat("x", seal.MaxKeyBytes+1)}}, "65536"},
		{"many", seal.Lock{Recipients: []string{strings.Repeat(a.public+"\n", seal.MaxRecipients+1)}}, "there may be"},
		{"too much work", seal.Lock{Passphrase: "x", WorkFactor: seal.MaxWorkFactor + 1}, "work factor"},
		{"less than no work", seal.Lock{Passphrase: "x", WorkFactor: -1}, "work factor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checked := c.lock.Check()
			_, err := seal.Encrypt(io.Discard, c.lock)
			for _, err := range []error{checked, err} {
				if !errors.Is(err, seal.ErrLock) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 500 {
					t.Errorf("%v; want ErrLock that says %q", err, c.says)
				}
			}
			for _, r := range c.lock.Recipients {
				if strings.Contains(r, "PRIVATE KEY") && strings.Contains(err.Error(), r[60:90]) || strings.HasPrefix(r, "AGE-") && strings.Contains(err.Error(), r[20:]) {
					t.Errorf("the error quotes a private key: %v", err)
				}
			}
		})
	}
	if _, err := seal.Encrypt(io.Discard, seal.Lock{}); !errors.Is(err, seal.ErrLock) {
		t.Errorf("no lock: %v", err)
	}
}

// TestDamage cuts a file at every length and changes every byte of it: what is read is all of it or an error, and what
// comes before the error is as it was.
func TestDamage(t *testing.T) {
	a := native(t)
	const content = "what a service was"
	for _, c := range []struct {
		name string
		lock seal.Lock
		key  seal.Key
	}{
		{"passphrase", seal.Lock{Passphrase: "x", WorkFactor: 1}, seal.Key{Passphrase: "x"}},
		{"recipient", seal.Lock{Recipients: []string{a.public}}, seal.Key{Identities: []string{a.private}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := encrypt(t, content, c.lock)
			for n := range file {
				if _, err := decrypt(t, file[:n], c.key); !errors.Is(err, abi.ErrCorrupt) {
					t.Fatalf("cut at %d of %d: %v", n, len(file), err)
				}
				changed := bytes.Clone(file)
				changed[n] ^= 1
				if got, err := decrypt(t, changed, c.key); err == nil || !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, seal.ErrKey) && !errors.Is(err, abi.ErrTooLarge) && !errors.Is(err, abi.ErrVersion) {
					t.Fatalf("byte %d changed: %q, %v", n, got, err)
				}
			}
			if _, err := decrypt(t, append(bytes.Clone(file), 'x'), c.key); !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("a byte behind its end: %v", err)
			}
		})
	}
	// Cut at the end of a chunk, where nothing but the mark of the last one tells.
	long := strings.Repeat("x", 3*64<<10)
	file := encrypt(t, long, seal.Lock{Recipients: []string{a.public}})
	key := seal.Key{Identities: []string{a.private}}
	for _, chunks := range []int{1, 2} {
		if _, err := decrypt(t, file[:len(file)-chunks*(64<<10+16)], key); !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("cut behind a chunk: %v", err)
		}
	}
	r, err := seal.Decrypt(bytes.NewReader(file[:len(file)-1]), key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, abi.ErrCorrupt) || string(got) != long[:2*64<<10] {
		t.Errorf("of a file that is cut %d bytes are read, then %v", len(got), err)
	}
}

func TestLimitsOfTheHeader(t *testing.T) {
	key := seal.Key{Passphrase: "x"}
	const body = "\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n0123456789012345"
	for _, c := range []struct {
		name, file string
		want       error
		says       string
	}{
		{"work", "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 21" + body, abi.ErrTooLarge, "work factor of 21"},
		{"a line without end", "age-encryption.org/v1\n-> X25519 " + strings.Repeat("A", 2*seal.MaxHeaderBytes), abi.ErrTooLarge, "header"},
		{"recipients", "age-encryption.org/v1\n" + strings.Repeat("-> X25519 A\nAAAA\n", seal.MaxRecipients+1) + body[len("\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"):], abi.ErrTooLarge, "257 recipients"},
		{"another version", "age-encryption.org/v2\n-> anything", abi.ErrVersion, "version 2"},
		{"no version", "age-encryption.org/vX\n-> anything", abi.ErrCorrupt, "does not begin"},
		{"something else", "PK\x03\x04", abi.ErrCorrupt, "does not begin"},
		{"nothing", "", abi.ErrCorrupt, "does not begin"},
		{"a passphrase among recipients", "age-encryption.org/v1\n-> X25519 A\nAAAA\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 1" + body, abi.ErrCorrupt, "only one"},
		{"an armored line without end", armor.Header + "\n" + strings.Repeat("A", 10_000), abi.ErrTooLarge, "line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decrypt(t, []byte(c.file), key)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 500 {
				t.Errorf("%v; want %v that says %q", err, c.want, c.says)
			}
		})
	}
}

func TestArmored(t *testing.T) {
	a := native(t)
	content := strings.Repeat("what a service was ", 10_000)
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	if _, err := w.Write(encrypt(t, content, seal.Lock{Recipients: []string{a.public}})); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := text.Bytes()
	if !seal.Sealed(file[:seal.HeadBytes]) || !seal.Armored(file[:seal.HeadBytes]) || seal.Sealed(file[:seal.HeadBytes-1]) {
		t.Error("it is not told to be an armored age file")
	}
	key := seal.Key{Identities: []string{a.private}}
	if got, err := decrypt(t, file, key); err != nil || got != content {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
	if _, _, err := seal.DecryptAt(bytes.NewReader(file), int64(len(file)), key); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("at random: %v", err)
	}
	for _, n := range []int{40, 100, 1000, len(file) / 2, len(file) - 40} {
		if _, err := decrypt(t, file[:n], key); !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	// Behind the header, where no limit of the header holds any more.
	long := append(bytes.Clone(file[:len(file)/65*65/2]), bytes.Repeat([]byte("A"), 5000)...)
	if _, err := decrypt(t, long, key); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a long line: %v", err)
	}
}

var errBroken = errors.New("broken (injected)")

// brokenAt is a reader at random that breaks behind some bytes, and gives io.EOF as early as it may.
type brokenAt struct {
	file []byte
	good int64
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.good {
		return 0, errBroken
	}
	n := copy(p, b.file[off:])
	if off+int64(n) == int64(len(b.file)) {
		return n, io.EOF
	}
	return n, nil
}

// TestErrorsOfTheReader: they are not taken for damage.
func TestErrorsOfTheReader(t *testing.T) {
	a := native(t)
	key := seal.Key{Identities: []string{a.private}}
	file := encrypt(t, strings.Repeat("x", 150_000), seal.Lock{Recipients: []string{a.public}})
	for _, n := range []int{0, 10, 100, 1000, 100_000, len(file)} {
		r, err := seal.Decrypt(io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(errBroken)), key)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if !errors.Is(err, errBroken) || errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("broken behind %d bytes: %v", n, err)
		}
	}
	if _, _, err := seal.DecryptAt(brokenAt{file, int64(len(file)) - 1}, int64(len(file)), key); !errors.Is(err, errBroken) || errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("the end cannot be read: %v", err)
	}
	at, size, err := seal.DecryptAt(brokenAt{file, int64(len(file))}, int64(len(file)), key)
	if err != nil || size != 150_000 {
		t.Fatalf("%d bytes: %v", size, err)
	}
	if n, err := at.ReadAt(make([]byte, 10), size-10); n != 10 || err != nil {
		t.Errorf("the last bytes: %d, %v", n, err)
	}
	if n, err := at.ReadAt(make([]byte, 10), size-5); n != 5 || !errors.Is(err, io.EOF) {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
	if n, err := at.ReadAt(make([]byte, 10), size+5); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if _, err := at.ReadAt(make([]byte, 10), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("before the beginning: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errBroken }

func TestWriterThatFails(t *testing.T) {
	if _, err := seal.Encrypt(failing{}, seal.Lock{Passphrase: "x", WorkFactor: quick}); !errors.Is(err, errBroken) || errors.Is(err, seal.ErrLock) {
		t.Errorf("%v", err)
	}
}

// TestDefaultWork: what stands in the file is the factor that the documentation tells.
func TestDefaultWork(t *testing.T) {
	file := encrypt(t, "", seal.Lock{Passphrase: "x"})
	if line := strings.Split(string(file), "\n")[1]; !strings.HasSuffix(line, fmt.Sprint(" ", seal.DefaultWorkFactor)) {
		t.Errorf("%q", line)
	}
}

func FuzzDecrypt(f *testing.F) {
	f.Add(encrypt(f, "content", seal.Lock{Passphrase: "x", WorkFactor: 1}))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 A\nAAAA\n---"))
	f.Add([]byte(armor.Header + "\nYWdl\n" + armor.Footer))
	f.Fuzz(func(t *testing.T, file []byte) {
		if strings.Contains(string(file), " 1") && !bytes.Contains(file, []byte(" 1\n")) {
			return // much work, which is what it is allowed to ask for
		}
		_, _ = decrypt(t, file, seal.Key{Passphrase: "x"})
	})
}
