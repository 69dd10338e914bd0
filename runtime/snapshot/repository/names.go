package repository

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// MaxNameBytes is the longest name of a snapshot.
const MaxNameBytes = 128

// Where blobs lie.
const (
	packsFolder    = "packs"
	commitsFolder  = "commits"
	removalsFolder = "removals"
)

// CheckName says why name can be no snapshot's: it may have 1 to 128 ASCII letters, digits, '.', '_' and '-', and begins
// with a letter or digit. Upper and lower case are told apart. The names that the HTTP API has for itself beside those of
// snapshots are taken.
func CheckName(name string) error {
	switch name {
	case "gc", "verify", "state", "environment", "remotes":
		return fmt.Errorf("no snapshot can be called %q: the API has that name for itself; choose another", name)
	}
	ok := len(name) >= 1 && len(name) <= MaxNameBytes
	for i := 0; ok && i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-':
			ok = i > 0
		default:
			ok = false
		}
	}
	if !ok {
		if len(name) > MaxNameBytes {
			name = name[:MaxNameBytes] + "…"
		}
		return fmt.Errorf("snapshot name %q is not allowed: it must have 1 to %d letters, digits, '.', '_' or '-' and begin with a letter or digit", name, MaxNameBytes)
	}
	return nil
}

// encodeName makes of a name one in which no case matters: in lower case and, if that changed it, behind '=' a hexadecimal
// digit for every four characters, whose bits say which of them are upper case, the first one's being the lowest. Zeros
// at the end are left out.
func encodeName(name string) string {
	var digits strings.Builder
	for i := 0; i < len(name); i += 4 {
		bits := 0
		for j := 0; j < 4 && i+j < len(name); j++ {
			if c := name[i+j]; 'A' <= c && c <= 'Z' {
				bits |= 1 << j
			}
		}
		digits.WriteString(strconv.FormatInt(int64(bits), 16))
	}
	lower := strings.ToLower(name)
	if lower == name {
		return name
	}
	return lower + "=" + strings.TrimRight(digits.String(), "0")
}

// decodeName is the inverse of encodeName; ok is false for what that does not give.
func decodeName(encoded string) (name string, ok bool) {
	lower, digits, _ := strings.Cut(encoded, "=")
	b := []byte(lower)
	for i := range b {
		if i/4 >= len(digits) {
			break
		}
		bits, err := strconv.ParseUint(digits[i/4:i/4+1], 16, 8)
		if err != nil {
			return "", false
		}
		if c := b[i]; bits>>(i%4)&1 == 1 && 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	name = string(b)
	return name, CheckName(name) == nil && encodeName(name) == encoded
}

// recordName is the name of the commit or removal record of a version.
func recordName(folder string, ref Ref) string {
	return fmt.Sprintf("%s/%s/%012d", folder, encodeName(ref.Name), ref.Version)
}

// parseRecordName is the inverse of recordName; ok is false for what that does not give.
func parseRecordName(folder, blob string) (ref Ref, ok bool) {
	rest, ok := strings.CutPrefix(blob, folder+"/")
	if !ok {
		return Ref{}, false
	}
	encoded, digits, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(digits, 10, 64)
	name, ok := decodeName(encoded)
	if err != nil || !ok || n == 0 {
		return Ref{}, false
	}
	ref = Ref{Name: name, Version: n}
	return ref, recordName(folder, ref) == blob
}

// packName is the name of the pack whose bytes have that SHA-256.
func packName(sum ID) string { return PacksPrefix + hex.EncodeToString(sum[:]) }

// parsePackName is the inverse of packName.
func parsePackName(blob string) (sum ID, ok bool) {
	digits, ok := strings.CutPrefix(blob, PacksPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(sum) {
		return ID{}, false
	}
	return ID(b), packName(ID(b)) == blob
}
