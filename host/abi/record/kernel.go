package record

// The kernels below do nearly all of the work of a [Scanner]: what is usual, for as long as it is usual.
// What they stop at is for the rest of the Scanner, which does everything.
//
// They are shaped by what WebAssembly made by Go takes time for: they call nothing, because around a call
// everything must live in memory; each jump, which goes through a table and costs some 4 ns, is for a whole
// item; and they check once that there is a margin of bytes, within which they read without a check (bytes.go).

// margin is how many bytes behind its first one a kernel may read of an item.
const margin = 32

// short is the longest string whose length is in its head's first byte.
const short = 23

// tops is the top bit of each of eight bytes, which is set in what is no ASCII.
const tops = 0x8080808080808080

// prefix gives where the key and the value of the record at p begin, if it is one of three items of which the
// first two are short ASCII strings, the second one in text or bytes; else 0.
func prefix(b []byte, p int) (key, value int) {
	const most = 2*(1+short) + margin
	if len(b)-p < most || byteAt(b, p) != recordHead {
		return 0, 0
	}
	n := int(byteAt(b, p+1)) - majorText
	if uint(n) > short {
		return 0, 0
	}
	key = p + 2 + n
	found := uint64(0)
	p += 2
	for ; n > 8; n -= 8 {
		found |= wordAt(b, p)
		p += 8
	}
	found |= wordAt(b, p) << ((32 - 4*n) & 63) << ((32 - 4*n) & 63)
	p = key + 1
	n = int(byteAt(b, key)) - majorText
	if uint(n) > short {
		return 0, 0
	}
	value = p + n
	for ; n > 8; n -= 8 {
		found |= wordAt(b, p)
		p += 8
	}
	found |= wordAt(b, p) << ((32 - 4*n) & 63) << ((32 - 4*n) & 63)
	if found&tops != 0 {
		return 0, 0
	}
	return key, value
}

// walk passes over items from b[p:], of which left are to come at this depth and s.stack says how many at
// those above, until one it has no part in or the end of all, when left is 0. It may end behind the end of b.
func (s *Scanner) walk(b []byte, p, depth int, left uint64) (int, int, uint64) {
	var (
		limit  = len(b) - margin
		first  byte
		second byte
		n      int
	)

next:
	if p > limit {
		return p, depth, left
	}
	first = byteAt(b, p)
	n = int(leaf[first])
	if n > 0 {
		p += n
		left--
		if left > 0 {
			goto next
		}
		goto end
	}
	n = int(first & 0x1f)
	if first >= majorArray {
		if first >= majorTag || n >= 24 || depth == MaxDepth {
			return p, depth, left
		}
		p++
		if n == 0 {
			goto one
		}
		s.stack[depth&(MaxDepth-1)] = left - 1
		depth++
		left = uint64(n)
		if first >= majorMap {
			left += left
		}
		goto next
	}
	second = byteAt(b, p+1)
	if n == 24 {
		if second < 24 {
			return p, depth, left
		}
	} else if n == 26 {
		second |= byteAt(b, p+2)
	}
	if n > 26 || second == 0 {
		return p, depth, left
	}
	if first >= majorBytes {
		if n > 24 {
			return p, depth, left
		}
		p += int(byteAt(b, p+1))
	}
	p += 1 + 1<<(n&7)

one:
	left--
	if left > 0 {
		goto next
	}

end:
	if depth == 0 {
		return p, depth, left
	}
	depth--
	left = s.stack[depth&(MaxDepth-1)]
	if left == 0 {
		goto end
	}
	goto next
}
