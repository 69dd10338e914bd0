package record

import (
	"encoding/binary"
	"math"
)

// The Append functions add one CBOR item to dst, in the shortest form, and return the longer slice.
// They never fail. Those of a head, AppendArray for one, are followed by what it announces.

func appendHead(dst []byte, major byte, arg uint64) []byte {
	switch {
	case arg < 24:
		return append(dst, major|byte(arg))
	case arg <= math.MaxUint8:
		return append(dst, major|24, byte(arg))
	case arg <= math.MaxUint16:
		return append(dst, major|25, byte(arg>>8), byte(arg))
	case arg <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(arg))
	default:
		return binary.BigEndian.AppendUint64(append(dst, major|27), arg)
	}
}

// AppendRecord adds the head of a record; partition, key and value follow.
func AppendRecord(dst []byte) []byte { return append(dst, recordHead) }

// AppendTombstone adds the head of a tombstone; partition and key follow.
func AppendTombstone(dst []byte) []byte { return append(dst, tombstoneHead) }

// AppendUint adds an unsigned integer.
func AppendUint(dst []byte, v uint64) []byte { return appendHead(dst, majorUint, v) }

// AppendInt adds a signed integer.
func AppendInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendHead(dst, majorNeg, uint64(-(v + 1)))
	}
	return appendHead(dst, majorUint, uint64(v))
}

// AppendText adds a text string; s should be UTF-8.
func AppendText[T string | []byte](dst []byte, s T) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

// AppendBytes adds a byte string.
func AppendBytes[T string | []byte](dst []byte, s T) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(s))), s...)
}

// AppendBytesHead adds the head of a byte string of n bytes, which follow.
func AppendBytesHead(dst []byte, n int) []byte { return appendHead(dst, majorBytes, uint64(n)) }

// AppendTextHead adds the head of a text string of n bytes, which follow and should be UTF-8.
func AppendTextHead(dst []byte, n int) []byte { return appendHead(dst, majorText, uint64(n)) }

// AppendArray adds the head of an array of n items.
func AppendArray(dst []byte, n int) []byte { return appendHead(dst, majorArray, uint64(n)) }

// AppendMap adds the head of a map of n pairs.
func AppendMap(dst []byte, n int) []byte { return appendHead(dst, majorMap, uint64(n)) }

// AppendTag adds a tag; its content follows.
func AppendTag(dst []byte, tag uint64) []byte { return appendHead(dst, majorTag, tag) }

// AppendBool adds true or false.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, majorOther|21)
	}
	return append(dst, majorOther|20)
}

// AppendNull adds null.
func AppendNull(dst []byte) []byte { return append(dst, majorOther|22) }

// AppendFloat adds a float, in eight bytes.
func AppendFloat(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, majorOther|27), math.Float64bits(v))
}
