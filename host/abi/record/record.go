package record

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi"
)

// MaxDepth is how deep arrays, maps and tags may nest inside a record's value, the value itself
// counted.
const MaxDepth = 64

// Limits on the encoded length of one record, in bytes. A [Scanner] outside the bounds is a
// programmer's error and is brought inside them.
const (
	DefaultMaxBytes = 64 << 20
	MinMaxBytes     = 1 << 10
	MaxMaxBytes     = 1 << 30
)

// MaxKeyBytes and MaxPartitionBytes bound a key and a partition, without their heads: both are held in
// memory and in indexes. S3, the longest known to us, allows keys of 1,024 bytes.
const (
	MaxKeyBytes       = 64 << 10
	MaxPartitionBytes = 4 << 10
)

// Major types of CBOR (RFC 8949, section 3.1), as the top three bits of an item's first byte.
const (
	majorUint  = 0 << 5
	majorNeg   = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
	majorTag   = 6 << 5
	majorOther = 7 << 5
)

// recordHead is the first byte of every record: an array of three. A tombstone is an array of two.
const (
	recordHead    = majorArray | 3
	tombstoneHead = majorArray | 2
)

// Ref says where the parts of one record lie in its batch's Data.
type Ref struct {
	Start     int // the record's first byte
	Partition int // the partition's head
	Key       int // the key's head; the partition ends here
	Value     int // the value's head; the key ends here
	End       int // past the record's last byte
}

// Batch is some whole records, back to back. The bytes between records[i].End and
// records[i+1].Start are none: Refs cover Data without gaps.
//
// A Batch handed to a function is valid until that function returns; who keeps it copies it.
type Batch struct {
	Data []byte
	Refs []Ref
}

// Len is the number of records.
func (b *Batch) Len() int { return len(b.Refs) }

// Record is the encoded form of record i. It shares the batch's memory, as do Partition, Key, KeyItem
// and Value.
func (b *Batch) Record(i int) []byte { r := b.Refs[i]; return b.Data[r.Start:r.End] }

// Partition is the text of record i's partition, without its head.
func (b *Batch) Partition(i int) []byte {
	r := b.Refs[i]
	return content(b.Data[r.Partition:r.Key])
}

// Key is the content of record i's key, without its head; text tells a text key from a byte key.
func (b *Batch) Key(i int) (key []byte, text bool) {
	r := b.Refs[i]
	return content(b.Data[r.Key:r.Value]), b.Data[r.Key]&0xe0 == majorText
}

// KeyItem is the encoded key of record i, head included: what identifies it in its partition.
func (b *Batch) KeyItem(i int) []byte { r := b.Refs[i]; return b.Data[r.Key:r.Value] }

// Value is the encoded value of record i; a tombstone has none.
func (b *Batch) Value(i int) []byte { r := b.Refs[i]; return b.Data[r.Value:r.End] }

// Tombstone reports whether record i is a tombstone, [partition, key]: it says that there is no record
// of that key any more. There are some only where a Scanner accepts them.
func (b *Batch) Tombstone(i int) bool { r := b.Refs[i]; return r.Value == r.End }

// Clone copies the batch.
func (b *Batch) Clone() *Batch {
	return &Batch{Data: append([]byte(nil), b.Data...), Refs: append([]Ref(nil), b.Refs...)}
}

// content strips the head of a string item that has been checked.
func content(item []byte) []byte {
	switch info := item[0] & 0x1f; info {
	case 24:
		return item[2:]
	case 25:
		return item[3:]
	case 26:
		return item[5:]
	case 27:
		return item[9:]
	default:
		return item[1:]
	}
}

// Sink takes records. WriteBatch must not keep b or what it points to. After an error the sink is
// spent.
type Sink interface {
	WriteBatch(b *Batch) error
}

// Source gives records. ReadBatch returns io.EOF when there are no more, and never an empty batch.
// What it returns is valid until the next call. After another error the source is spent.
type Source interface {
	ReadBatch() (*Batch, error)
}

// A FormatError says why bytes are no record and where: it wraps abi.ErrCorrupt, or abi.ErrTooLarge
// when a limit was passed.
type FormatError struct {
	Offset int    // in the bytes given
	Reason string // for people
	Err    error  // abi.ErrCorrupt or abi.ErrTooLarge
}

func (e *FormatError) Error() string {
	return e.Err.Error() + " record at offset " + strconv.Itoa(e.Offset) + ": " + e.Reason
}

func (e *FormatError) Unwrap() error { return e.Err }

func corrupt(at int, reason string) error {
	return &FormatError{Offset: at, Reason: reason, Err: abi.ErrCorrupt}
}

func tooLarge(at int, reason string) error {
	return &FormatError{Offset: at, Reason: reason, Err: abi.ErrTooLarge}
}

// hex spells a byte. (Not package fmt, which adds 0.75 MB to every serializer written in Go.)
func hex(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{'0', 'x', digits[b>>4], digits[b&0xf]})
}

// errShort: the bytes end inside an item. Whether that is damage or merely the end of a piece is the
// caller's to say.
type errShort struct{}

func (errShort) Error() string { return "the bytes end inside an item" }

// Scanner checks records. The zero value is ready, with [DefaultMaxBytes]. It is not safe for
// concurrent use.
type Scanner struct {
	// MaxBytes bounds the encoded length of one record.
	MaxBytes int
	// Tombstones accepts tombstones, which deltas of a state have (Batch.Tombstone). A serializer never
	// meets one.
	Tombstones bool

	stack [MaxDepth]uint64
}

func (s *Scanner) maxBytes() int {
	if s.MaxBytes == 0 {
		return DefaultMaxBytes
	}
	return min(max(s.MaxBytes, MinMaxBytes), MaxMaxBytes)
}

// Scan checks that data is whole records and nothing else, and appends where they lie to refs. The
// error is a *[FormatError]; refs found before it are returned with it.
func (s *Scanner) Scan(data []byte, refs []Ref) ([]Ref, error) {
	refs, n, err := s.ScanPrefix(data, refs)
	if err == nil && n < len(data) {
		err = corrupt(len(data), "the input ends inside the record that begins at offset "+strconv.Itoa(n))
	}
	return refs, err
}

// ScanPrefix checks the whole records data begins with and returns how many bytes they take; what
// follows is the beginning of a record that is not whole yet, or nothing.
func (s *Scanner) ScanPrefix(data []byte, refs []Ref) ([]Ref, int, error) {
	limit := s.maxBytes()
	p := 0
	for p < len(data) {
		var err error
		ref := Ref{Start: p, Partition: p + 1}
		if ref.Key, ref.Value = prefix(data, p); ref.Value > 0 {
			end, depth, left := s.walk(data, ref.Value, 0, 1)
			if left > 0 || end > len(data) {
				end, err = s.items(data, end, depth, left)
			}
			ref.End = end
		} else {
			ref, err = s.one(data, p)
		}
		if err != nil {
			if _, short := err.(errShort); short {
				if len(data)-p > limit {
					return refs, p, tooLarge(p, "longer than the limit of "+strconv.Itoa(limit)+" bytes")
				}
				return refs, p, nil
			}
			return refs, p, err
		}
		if ref.End-ref.Start > limit {
			return refs, p, tooLarge(p, strconv.Itoa(ref.End-ref.Start)+" bytes; the limit is "+strconv.Itoa(limit))
		}
		refs = append(refs, ref)
		p = ref.End
	}
	return refs, p, nil
}

func (s *Scanner) one(b []byte, p int) (Ref, error) {
	ref := Ref{Start: p, Partition: p + 1}
	gone := s.Tombstones && b[p] == tombstoneHead
	if b[p] != recordHead && !gone {
		return ref, corrupt(p, "a record is an array of three ("+hex(recordHead)+"), this byte is "+hex(b[p]))
	}
	var err error
	if ref.Key, err = str(b, ref.Partition, "partition", MaxPartitionBytes, false); err != nil {
		return ref, err
	}
	if ref.Value, err = str(b, ref.Key, "key", MaxKeyBytes, true); err != nil {
		return ref, err
	}
	if gone {
		ref.End = ref.Value
		return ref, nil
	}
	ref.End, err = s.items(b, ref.Value, 0, 1)
	return ref, err
}

// str checks the string item at p, whose encoded length may be at most limit, and returns its end.
func str(b []byte, p int, what string, limit int, bytesToo bool) (int, error) {
	if p >= len(b) {
		return 0, errShort{}
	}
	if n := int(b[p]) - majorText; n >= 0 && n < 24 && n < len(b)-p && ascii(b[p+1:], n) { // the usual case
		return p + 1 + n, nil
	}
	major := b[p] & 0xe0
	if major != majorText && (major != majorBytes || !bytesToo) {
		want := "a text string"
		if bytesToo {
			want = "a text or byte string"
		}
		return 0, corrupt(p, "the "+what+" must be "+want+", this byte is "+hex(b[p]))
	}
	n, q, err := head(b, p)
	if err != nil {
		return 0, err
	}
	if n > uint64(limit) {
		return 0, tooLarge(p, "the "+what+" is "+strconv.FormatUint(n, 10)+" bytes; the limit is "+strconv.Itoa(limit))
	}
	end := q + int(n)
	if end > len(b) {
		return 0, errShort{}
	}
	if major == majorText && !utf8.Valid(b[q:end]) {
		return 0, corrupt(q, "the "+what+" is text but not UTF-8")
	}
	return end, nil
}

// ascii reports whether the first n bytes are below 0x80. It looks at eight at a time, the last of which
// may lie behind them.
func ascii(b []byte, n int) bool {
	const tops = 0x8080808080808080
	i := 0
	for ; i < n && i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:]) & tops
		if n-i < 8 {
			x &= 1<<(8*(n-i)) - 1
		}
		if x != 0 {
			return false
		}
	}
	for ; i < n; i++ {
		if b[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// head reads the head at p: its argument and where its content begins.
func head(b []byte, p int) (arg uint64, next int, err error) {
	info := b[p] & 0x1f
	if info < 24 {
		return uint64(info), p + 1, nil
	}
	switch info {
	case 24:
		if len(b)-p < 2 {
			return 0, 0, errShort{}
		}
		arg = uint64(b[p+1])
		if arg < 24 {
			return 0, 0, corrupt(p, "a head that is not of the shortest form")
		}
		return arg, p + 2, nil
	case 25:
		if len(b)-p < 3 {
			return 0, 0, errShort{}
		}
		arg = uint64(binary.BigEndian.Uint16(b[p+1:]))
		if arg <= math.MaxUint8 {
			return 0, 0, corrupt(p, "a head that is not of the shortest form")
		}
		return arg, p + 3, nil
	case 26:
		if len(b)-p < 5 {
			return 0, 0, errShort{}
		}
		arg = uint64(binary.BigEndian.Uint32(b[p+1:]))
		if arg <= math.MaxUint16 {
			return 0, 0, corrupt(p, "a head that is not of the shortest form")
		}
		return arg, p + 5, nil
	case 27:
		if len(b)-p < 9 {
			return 0, 0, errShort{}
		}
		arg = binary.BigEndian.Uint64(b[p+1:])
		if arg <= math.MaxUint32 {
			return 0, 0, corrupt(p, "a head that is not of the shortest form")
		}
		return arg, p + 9, nil
	case 31:
		return 0, 0, corrupt(p, "an indefinite length; records use definite ones only")
	default:
		return 0, 0, corrupt(p, hex(b[p])+" begins no CBOR item")
	}
}

// items checks the items from p, of which left are to come at this depth, and returns their end. It holds the
// count of those still to come at each open level in s.stack, so that no input can make it recurse or allocate.
// walk does what is usual, in this process and in guests, where all of this runs too.
func (s *Scanner) items(b []byte, p, depth int, left uint64) (int, error) {
	for {
		p, depth, left = s.walk(b, p, depth, left)
		if left == 0 && p <= len(b) {
			return p, nil
		}
		if p >= len(b) {
			return 0, errShort{}
		}
		first := b[p]
		if n := int(leaf[first]); n > 0 {
			if n > len(b)-p {
				return 0, errShort{}
			}
			p += n
		} else if first >= majorOther {
			var err error
			if p, err = other(b, p); err != nil {
				return 0, err
			}
		} else {
			arg, q := uint64(first&0x1f), p+1
			if arg == 24 && q < len(b) && b[q] >= 24 {
				arg, q = uint64(b[q]), q+1
			} else if arg >= 24 {
				var err error
				if arg, q, err = head(b, p); err != nil {
					return 0, err
				}
			}
			if major := first & 0xe0; major >= majorArray {
				if depth == MaxDepth {
					return 0, tooLarge(p, "nested deeper than "+strconv.Itoa(MaxDepth))
				}
				switch major {
				case majorTag:
					arg = 1 // its content
				default:
					if arg > MaxMaxBytes {
						return 0, tooLarge(p, "a collection of "+strconv.FormatUint(arg, 10)+" items; no record may pass "+strconv.Itoa(MaxMaxBytes)+" bytes")
					}
					if major == majorMap {
						arg *= 2
					}
				}
				if arg > 0 {
					s.stack[depth] = left - 1
					depth++
					left = arg
					p = q
					continue
				}
			} else if major >= majorBytes {
				if arg > uint64(len(b)-q) {
					if arg > MaxMaxBytes {
						return 0, tooLarge(p, "a string of "+strconv.FormatUint(arg, 10)+" bytes; no record may pass "+strconv.Itoa(MaxMaxBytes))
					}
					return 0, errShort{}
				}
				q += int(arg)
			}
			p = q
		}
		left--
		for left == 0 {
			if depth == 0 {
				return p, nil
			}
			depth--
			left = s.stack[depth]
		}
	}
}

// leaf is, by its first byte, the length of an item that has no head to check and holds no other item,
// and 0 of any other: most items of most records need no more than this look.
var leaf = func() (n [256]uint8) {
	for info := range uint8(24) {
		n[majorUint|info], n[majorNeg|info], n[majorOther|info] = 1, 1, 1
		n[majorBytes|info], n[majorText|info] = 1+info, 1+info
	}
	n[majorOther|25], n[majorOther|26], n[majorOther|27] = 3, 5, 9 // floats
	return n
}()

// other checks what is no leaf of major type 7, of which only simple values in two bytes are sound.
func other(b []byte, p int) (int, error) {
	switch info := b[p] & 0x1f; {
	case info == 31:
		return 0, corrupt(p, "a break without an indefinite length")
	case info > 24:
		return 0, corrupt(p, hex(b[p])+" begins no CBOR item")
	case len(b)-p < 2:
		return 0, errShort{}
	case b[p+1] < 32:
		return 0, corrupt(p, "a simple value below 32 in two bytes")
	}
	return p + 2, nil
}
