package repository

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

const (
	dataKeyBytes = 32
	nonceBytes   = 12
)

// dataKey is what the pieces of an encrypted version are encrypted and named by. A nil one encrypts nothing and names
// by SHA-256.
type dataKey struct {
	secret [dataKeyBytes]byte
	aead   cipher.AEAD
	ids    []byte
}

// newDataKey takes the keys for encryption and for names from one secret.
func newDataKey(secret [dataKeyBytes]byte) (*dataKey, error) {
	pieces, err := hkdf.Key(sha256.New, secret[:], nil, "torpor snapshot: pieces", dataKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	ids, err := hkdf.Key(sha256.New, secret[:], nil, "torpor snapshot: ids", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	block, err := aes.NewCipher(pieces)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	return &dataKey{secret: secret, aead: aead, ids: ids}, nil
}

func randomDataKey() (*dataKey, error) {
	var secret [dataKeyBytes]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	return newDataKey(secret)
}

// wrap encrypts the key for those who may have it.
func (k *dataKey) wrap(l seal.Lock) ([]byte, error) {
	var b bytes.Buffer
	w, err := seal.Encrypt(&b, l)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(k.secret[:]); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if b.Len() > MaxKeyBytes {
		return nil, fmt.Errorf("the key, encrypted for %d recipients: %w: %d bytes; the limit is %d", len(l.Recipients), abi.ErrTooLarge, b.Len(), MaxKeyBytes)
	}
	return b.Bytes(), nil
}

// unwrapDataKey is the inverse of wrap. blob stands in errors.
func unwrapDataKey(blob string, wrapped []byte, k seal.Key) (*dataKey, error) {
	r, err := seal.Decrypt(bytes.NewReader(wrapped), k)
	if err != nil {
		return nil, fmt.Errorf("snapshots: %s: %w", blob, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, dataKeyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("snapshots: %s: %w", blob, err)
	}
	if len(b) != dataKeyBytes {
		return nil, corrupt(blob, -1, "its key has other than %d bytes", dataKeyBytes)
	}
	return newDataKey([dataKeyBytes]byte(b))
}

// id names a piece.
func (k *dataKey) id(piece []byte) ID {
	if k == nil {
		return sha256.Sum256(piece)
	}
	h := hmac.New(sha256.New, k.ids)
	h.Write(piece)
	return ID(h.Sum(nil))
}

// seal encrypts b, which goes with what bound says and nothing else, to dst. A nonce is random: of the 2^32 that one key
// can have so (NIST SP 800-38D, 8.3), pieces of 64 KiB take up one in 256 TiB.
func (k *dataKey) seal(dst, b, bound []byte) ([]byte, error) {
	var nonce [nonceBytes]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	return k.aead.Seal(append(dst, nonce[:]...), nonce[:], b, bound), nil
}

// open is the inverse of seal.
func (k *dataKey) open(b, bound []byte) ([]byte, error) {
	if k == nil {
		return nil, errors.New("it is encrypted, and what needs it is not")
	}
	if len(b) < nonceBytes {
		return nil, errors.New("it is too short to be encrypted")
	}
	return k.aead.Open(nil, b[:nonceBytes], b[nonceBytes:], bound)
}
