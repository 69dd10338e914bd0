/*
 * torpor.h: write a Torpor serializer in C, a WebAssembly module that turns a service's native state
 * into records and back. One header of C11, without libc, without an allocator, without recursion.
 *
 * Write functions save and load, name them in a torpor_serializer, and export it with
 * TORPOR_SERIALIZER. torpor_in streams the input in, as checked records (torpor_next), as lines
 * (torpor_until) or as a window of bytes; torpor_out streams records or native state out. Memory stays
 * at the static buffers, whatever the size of the state.
 *
 * The first failure of a call is kept and ends it: what reads gives nothing more, what writes does
 * nothing more, and the host is told that failure, whatever the serializer returns. So loops end by
 * themselves, and a serializer need not look at the result of each write.
 *
 * README.md beside this file has the shortest complete serializer, torpor_test.h runs serializers on
 * the machine itself, and host/abi/ABI.md is the specification. Names that begin with torpor_i_ are the
 * header's own.
 */
#ifndef TORPOR_H
#define TORPOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The buffer of input, in bytes. It bounds the longest line that torpor_until and the longest record
 * that torpor_next can give. */
#ifndef TORPOR_INPUT_BYTES
#define TORPOR_INPUT_BYTES 131072
#endif

/* The buffer of output, in bytes. It bounds nothing: what does not fit leaves in pieces. */
#ifndef TORPOR_OUTPUT_BYTES
#define TORPOR_OUTPUT_BYTES 65536
#endif

#define TORPOR_MAX_PARTITION_BYTES 4096 /* a partition, without its head */
#define TORPOR_MAX_KEY_BYTES 65536      /* a key, without its head */
#define TORPOR_MAX_DEPTH 64             /* arrays, maps and tags inside one another */
#define TORPOR_MAX_LENGTH (1u << 30)    /* bytes of a string, items of an array, pairs of a map */
#define TORPOR_ARG_BYTES 65536          /* the longest parameters of a call */
#define TORPOR_TEXT_BYTES 240           /* a message or a path; what goes beyond is cut */

_Static_assert(TORPOR_INPUT_BYTES >= 73728, "the input buffer must hold any record up to its value");
_Static_assert(TORPOR_OUTPUT_BYTES >= 16, "the output buffer must hold a head");
_Static_assert(TORPOR_INPUT_BYTES <= 1073741824 && TORPOR_OUTPUT_BYTES <= 1073741824, "a buffer has at most 1 GiB");

/* Not all of it is used in every serializer. */
#define TORPOR_API static __attribute__((unused))
#define TORPOR_FAST static inline __attribute__((unused, always_inline))
#define TORPOR_COLD static __attribute__((unused, cold, noinline))

/* ---- bytes ------------------------------------------------------------------------------------- */

/* Bytes that lie elsewhere: text is not ended by a NUL. `at` may be NULL where `len` is 0. */
typedef struct {
	const uint8_t *at;
	size_t len;
} torpor_bytes;

/* A string literal as bytes. */
#define TORPOR_STR(literal) ((torpor_bytes){(const uint8_t *)("" literal), sizeof(literal) - 1})

#define TORPOR_I_LOW UINT64_C(0x0101010101010101)
#define TORPOR_I_HIGH UINT64_C(0x8080808080808080)

TORPOR_FAST uint64_t torpor_i_word(const uint8_t *at) {
	uint64_t w;
	__builtin_memcpy(&w, at, sizeof w);
	return w;
}

/* Copies bytes that do not overlap. Most are few, and a call to copy them would take longer. */
TORPOR_FAST void torpor_i_copy(uint8_t *to, const uint8_t *from, size_t n) {
	if (n > 64) {
		__builtin_memcpy(to, from, n);
		return;
	}
	if (n >= 8) {
		for (size_t i = 0; i + 8 < n; i += 8)
			__builtin_memcpy(to + i, from + i, 8);
		__builtin_memcpy(to + n - 8, from + n - 8, 8);
		return;
	}
	for (size_t i = 0; i < n; i++)
		to[i] = from[i];
}

/* The bytes of a string that ends with a NUL; NULL is the empty one. */
TORPOR_API torpor_bytes torpor_string(const char *s) {
	torpor_bytes b = {(const uint8_t *)s, 0};
	while (s != NULL && s[b.len] != 0)
		b.len++;
	return b;
}

/* Where `byte` is first; s.len if nowhere. */
TORPOR_FAST size_t torpor_find(torpor_bytes s, uint8_t byte) {
	size_t i = 0;
	const uint64_t all = TORPOR_I_LOW * byte;
	while (i + 8 <= s.len) {
		const uint64_t w = torpor_i_word(s.at + i) ^ all;
		const uint64_t hit = (w - TORPOR_I_LOW) & ~w & TORPOR_I_HIGH;
		if (hit != 0) /* the lowest hit is a true one */
			return i + (size_t)__builtin_ctzll(hit) / 8;
		i += 8;
	}
	while (i < s.len && s.at[i] != byte)
		i++;
	return i;
}

/* Cuts s at the first `byte`. False, and nothing cut, if there is none. */
TORPOR_FAST bool torpor_cut(torpor_bytes s, uint8_t byte, torpor_bytes *before, torpor_bytes *after) {
	const size_t i = torpor_find(s, byte);
	if (i == s.len)
		return false;
	*before = (torpor_bytes){s.at, i};
	*after = (torpor_bytes){s.at + i + 1, s.len - i - 1};
	return true;
}

/* Less than, equal to or greater than 0, as a is below, equal to or above b, byte by byte. */
TORPOR_API int torpor_compare(torpor_bytes a, torpor_bytes b) {
	const size_t n = a.len < b.len ? a.len : b.len;
	size_t i = 0;
	while (i + 8 <= n && torpor_i_word(a.at + i) == torpor_i_word(b.at + i))
		i += 8;
	for (; i < n; i++)
		if (a.at[i] != b.at[i])
			return a.at[i] < b.at[i] ? -1 : 1;
	return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

/* Whether s is the string that ends with a NUL. */
TORPOR_API bool torpor_is(torpor_bytes s, const char *string) { return torpor_compare(s, torpor_string(string)) == 0; }

/* Copies s to memory of its own, which has room for `cap` bytes; what does not fit is cut off. */
TORPOR_API torpor_bytes torpor_copy(uint8_t *to, size_t cap, torpor_bytes s) {
	const size_t n = s.len < cap ? s.len : cap;
	torpor_i_copy(to, s.at, n);
	return (torpor_bytes){to, n};
}

/* Whether s is well-formed UTF-8 (RFC 3629). */
TORPOR_API bool torpor_utf8(torpor_bytes s) {
	size_t i = 0;
	while (i < s.len) {
		while (i + 8 <= s.len && (torpor_i_word(s.at + i) & TORPOR_I_HIGH) == 0)
			i += 8;
		while (i < s.len && s.at[i] < 0x80)
			i++;
		if (i == s.len)
			return true;
		const uint8_t lead = s.at[i];
		size_t more = 0;
		uint8_t low = 0x80, high = 0xbf; /* of the second byte: no form longer than need be, no half of a pair */
		if (lead >= 0xc2 && lead <= 0xdf) {
			more = 1;
		} else if (lead >= 0xe0 && lead <= 0xef) {
			more = 2;
			low = lead == 0xe0 ? 0xa0 : 0x80;
			high = lead == 0xed ? 0x9f : 0xbf;
		} else if (lead >= 0xf0 && lead <= 0xf4) {
			more = 3;
			low = lead == 0xf0 ? 0x90 : 0x80;
			high = lead == 0xf4 ? 0x8f : 0xbf;
		}
		if (more == 0 || s.len - i <= more || s.at[i + 1] < low || s.at[i + 1] > high)
			return false;
		for (size_t k = 2; k <= more; k++)
			if ((s.at[i + k] & 0xc0) != 0x80)
				return false;
		i += more + 1;
	}
	return true;
}

/* ---- the border to the host (ABI.md, "Imports") -------------------------------------------------- */

#ifdef __wasm__
#define TORPOR_I_IMPORT(name) __attribute__((import_module("torpor_v1"), import_name(name)))
#define TORPOR_I_EXPORT(name) __attribute__((export_name(name)))
#else /* torpor_test.h has the imports */
#define TORPOR_I_IMPORT(name)
#define TORPOR_I_EXPORT(name)
#endif

TORPOR_I_IMPORT("next") int64_t torpor_import_next(uint8_t *buf, uint32_t cap);
TORPOR_I_IMPORT("emit") int32_t torpor_import_emit(const uint8_t *ptr, uint32_t len, uint32_t flags);
TORPOR_I_IMPORT("arg") int32_t torpor_import_arg(uint8_t *buf, uint32_t cap);
TORPOR_I_IMPORT("fail") void torpor_import_fail(int32_t code, const uint8_t *ptr, uint32_t len);
TORPOR_I_IMPORT("log") void torpor_import_log(int32_t level, const uint8_t *ptr, uint32_t len);

#define TORPOR_I_NEXT_END (INT64_C(1) << 32)

#ifdef __wasm__
/* What clang makes calls to. Weak, so that a program of several files has each once. */
#ifdef __wasm_bulk_memory__
#define TORPOR_I_LIBC __attribute__((weak))
TORPOR_I_LIBC void *memcpy(void *restrict to, const void *restrict from, size_t n) { return __builtin_memcpy(to, from, n); }
TORPOR_I_LIBC void *memmove(void *to, const void *from, size_t n) { return __builtin_memmove(to, from, n); }
TORPOR_I_LIBC void *memset(void *to, int byte, size_t n) { return __builtin_memset(to, byte, n); }
#else
#define TORPOR_I_LIBC __attribute__((weak, no_builtin))
TORPOR_I_LIBC void *memmove(void *to, const void *from, size_t n) {
	uint8_t *t = to;
	const uint8_t *f = from;
	if (t <= f)
		for (size_t i = 0; i < n; i++)
			t[i] = f[i];
	else
		while (n-- > 0)
			t[n] = f[n];
	return to;
}
TORPOR_I_LIBC void *memcpy(void *restrict to, const void *restrict from, size_t n) {
	uint8_t *t = to;
	const uint8_t *f = from;
	for (size_t i = 0; i < n; i++)
		t[i] = f[i];
	return to;
}
TORPOR_I_LIBC void *memset(void *to, int byte, size_t n) {
	uint8_t *t = to;
	for (size_t i = 0; i < n; i++)
		t[i] = (uint8_t)byte;
	return to;
}
#endif
__attribute__((weak, no_builtin)) int memcmp(const void *a, const void *b, size_t n) {
	const uint8_t *x = a, *y = b;
	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}
#endif

enum { TORPOR_LOG_DEBUG = 0, TORPOR_LOG_INFO = 1, TORPOR_LOG_WARN = 2, TORPOR_LOG_ERROR = 3 };

/* Writes a line to the host's log, which cuts it to 1 KiB and drops lines beyond a limit. */
TORPOR_API void torpor_log(int level, torpor_bytes line) { torpor_import_log(level, line.at, (uint32_t)line.len); }

/* ---- failures ---------------------------------------------------------------------------------- */

/* The kind of a failure (ABI.md, "Errors"). Numbers from 64 up are a serializer's own. */
enum {
	TORPOR_INTERNAL = 1,    /* a fault of the serializer itself */
	TORPOR_CORRUPT = 2,     /* the input is not what it claims to be */
	TORPOR_VERSION = 3,     /* the input is of a schema or version the serializer does not read */
	TORPOR_UNSUPPORTED = 4, /* the input is sound but holds what this serializer cannot keep */
	TORPOR_TOO_LARGE = 5    /* the input passes a limit */
};

/* A short text, built piece by piece. What does not fit is cut at a character and the rest ignored. */
typedef struct {
	size_t len;
	bool full;
	uint8_t bytes[TORPOR_TEXT_BYTES];
} torpor_text;

/* Adds bytes, which should be UTF-8. */
TORPOR_COLD void torpor_text_add(torpor_text *t, torpor_bytes s) {
	if (t->full)
		return;
	size_t n = s.len;
	if (n > TORPOR_TEXT_BYTES - t->len) {
		n = TORPOR_TEXT_BYTES - t->len;
		t->full = true;
		while (n > 0 && (s.at[n] & 0xc0) == 0x80)
			n--;
	}
	torpor_i_copy(t->bytes + t->len, s.at, n);
	t->len += n;
}

/* Adds a string that ends with a NUL. */
TORPOR_COLD void torpor_text_string(torpor_text *t, const char *s) { torpor_text_add(t, torpor_string(s)); }

/* Adds a number in decimal. */
TORPOR_COLD void torpor_text_number(torpor_text *t, uint64_t n) {
	uint8_t digits[20];
	size_t at = sizeof digits;
	do {
		digits[--at] = (uint8_t)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	torpor_text_add(t, (torpor_bytes){digits + at, sizeof digits - at});
}

/* What went wrong: which kind, what happened in words, where in the state for people, and at which byte
 * of the call's input. */
typedef struct {
	int32_t code;
	torpor_text msg;
	torpor_text path;
	bool has_offset;
	uint64_t offset;
} torpor_failure;

/* The parameters of one call (ABI.md, "Call"). */
typedef struct {
	torpor_bytes op; /* describe, save, load, migrate or inspect */
	torpor_bytes service;
	torpor_bytes part;
	uint64_t schema; /* save: the schema wanted; load, inspect: of the records given */
	uint64_t from;   /* migrate: of the records given */
	uint64_t to;     /* migrate: the one wanted */
	int64_t time;    /* the wall clock of this call, nanoseconds since 1970 */
	torpor_bytes settings; /* a map, encoded; empty if there are none: see torpor_setting */
	torpor_failure failure; /* the first of this call; its code is 0 while there is none */
} torpor_call;

/* Whether the call has failed. */
TORPOR_FAST bool torpor_failed(const torpor_call *call) { return call->failure.code != 0; }

/* Ends the call with all there is to say. Only the first failure of a call counts. Returns its code, to
 * be returned. */
TORPOR_COLD int32_t torpor_fail_with(torpor_call *call, const torpor_failure *f) {
	if (!torpor_failed(call)) {
		call->failure = *f;
		if (f->code < TORPOR_INTERNAL || (f->code > TORPOR_TOO_LARGE && f->code < 64))
			call->failure.code = TORPOR_INTERNAL;
	}
	return call->failure.code;
}

/* Ends the call: which kind, and what happened. */
TORPOR_COLD int32_t torpor_fail(torpor_call *call, int32_t code, const char *msg) {
	torpor_failure f = {.code = code};
	torpor_text_string(&f.msg, msg);
	return torpor_fail_with(call, &f);
}

/* Ends the call: which kind, at which byte of the input, and what happened. */
TORPOR_COLD int32_t torpor_fail_at(torpor_call *call, int32_t code, uint64_t offset, const char *msg) {
	torpor_failure f = {.code = code, .has_offset = true, .offset = offset};
	torpor_text_string(&f.msg, msg);
	return torpor_fail_with(call, &f);
}

/* Ends the call because its input is not what it claims to be. */
TORPOR_COLD int32_t torpor_corrupt(torpor_call *call, uint64_t offset, const char *msg) {
	return torpor_fail_at(call, TORPOR_CORRUPT, offset, msg);
}

/* ---- CBOR (RFC 8949; ABI.md, "Records") ---------------------------------------------------------- */

/* Major types. */
enum {
	TORPOR_UINT = 0,
	TORPOR_NEGATIVE = 1,
	TORPOR_BYTES = 2,
	TORPOR_TEXT = 3,
	TORPOR_ARRAY = 4,
	TORPOR_MAP = 5,
	TORPOR_TAG = 6,
	TORPOR_OTHER = 7
};

#define TORPOR_RECORD_HEAD 0x83 /* the first byte of every record: an array of three */

/* How a look at bytes ends: they end too early, all is well, or a fault. */
typedef enum {
	TORPOR_I_SHORT = 0,
	TORPOR_I_WHOLE,
	TORPOR_I_NO_ITEM,
	TORPOR_I_NOT_SHORTEST,
	TORPOR_I_INDEFINITE,
	TORPOR_I_BREAK,
	TORPOR_I_LONG_SIMPLE,
	TORPOR_I_DEEP,
	TORPOR_I_LONG_STRING,
	TORPOR_I_LONG_COLLECTION,
	TORPOR_I_NO_RECORD,
	TORPOR_I_PARTITION,
	TORPOR_I_KEY,
	TORPOR_I_LONG_PARTITION,
	TORPOR_I_LONG_KEY,
	TORPOR_I_NOT_UTF8,
	TORPOR_I_LEFT,
	TORPOR_I_NO_INT,
	TORPOR_I_NO_BOOL,
	TORPOR_I_NO_FLOAT,
	TORPOR_I_NO_UINT,
	TORPOR_I_NO_TAG,
	TORPOR_I_NO_TEXT,
	TORPOR_I_NO_BYTES,
	TORPOR_I_NO_ARRAY,
	TORPOR_I_NO_MAP
} torpor_i_end;

TORPOR_COLD const char *torpor_i_words(torpor_i_end e) {
	switch (e) {
	case TORPOR_I_SHORT: return "the bytes end inside an item";
	case TORPOR_I_WHOLE: return "nothing is wrong";
	case TORPOR_I_NO_ITEM: return "a byte that begins no CBOR item";
	case TORPOR_I_NOT_SHORTEST: return "a head that is not of the shortest form";
	case TORPOR_I_INDEFINITE: return "an indefinite length; records use definite ones only";
	case TORPOR_I_BREAK: return "a break without an indefinite length";
	case TORPOR_I_LONG_SIMPLE: return "a simple value below 32 in two bytes";
	case TORPOR_I_DEEP: return "nested deeper than 64";
	case TORPOR_I_LONG_STRING: return "a string of more than 1073741824 bytes";
	case TORPOR_I_LONG_COLLECTION: return "a collection of more than 1073741824 items";
	case TORPOR_I_NO_RECORD: return "a record is an array of three (0x83), this byte is not";
	case TORPOR_I_PARTITION: return "the partition must be a text string";
	case TORPOR_I_KEY: return "the key must be a text or byte string";
	case TORPOR_I_LONG_PARTITION: return "the partition is longer than 4096 bytes";
	case TORPOR_I_LONG_KEY: return "the key is longer than 65536 bytes";
	case TORPOR_I_NOT_UTF8: return "text that is not UTF-8";
	case TORPOR_I_LEFT: return "bytes after the end";
	case TORPOR_I_NO_INT: return "an integer of 64 bits expected";
	case TORPOR_I_NO_BOOL: return "true or false expected";
	case TORPOR_I_NO_FLOAT: return "a float expected";
	case TORPOR_I_NO_UINT: return "an unsigned integer expected";
	case TORPOR_I_NO_TAG: return "a tag expected";
	case TORPOR_I_NO_TEXT: return "a text string expected";
	case TORPOR_I_NO_BYTES: return "a byte string expected";
	case TORPOR_I_NO_ARRAY: return "an array expected";
	case TORPOR_I_NO_MAP: return "a map expected";
	}
	return "";
}

TORPOR_COLD int32_t torpor_i_code(torpor_i_end e) {
	switch (e) {
	case TORPOR_I_DEEP:
	case TORPOR_I_LONG_STRING:
	case TORPOR_I_LONG_COLLECTION:
	case TORPOR_I_LONG_PARTITION:
	case TORPOR_I_LONG_KEY: return TORPOR_TOO_LARGE;
	default: return TORPOR_CORRUPT;
	}
}

/* Reads a head at *p, which is left behind it; unless the result is WHOLE, *p stays. Not for major type 7,
 * whose rules differ. */
TORPOR_FAST torpor_i_end torpor_i_head(const uint8_t *data, size_t len, size_t *p, uint64_t *arg) {
	if (*p >= len)
		return TORPOR_I_SHORT;
	const uint8_t info = data[*p] & 0x1f;
	if (info < 24) {
		*arg = info;
		*p += 1;
		return TORPOR_I_WHOLE;
	}
	if (info > 27)
		return info == 31 ? TORPOR_I_INDEFINITE : TORPOR_I_NO_ITEM;
	const size_t size = (size_t)1 << (info - 24);
	if (len - *p - 1 < size)
		return TORPOR_I_SHORT;
	uint64_t v = 0;
	for (size_t i = 1; i <= size; i++)
		v = v << 8 | data[*p + i];
	if (info == 24 ? v < 24 : v >> (size * 4) == 0)
		return TORPOR_I_NOT_SHORTEST;
	*arg = v;
	*p += 1 + size;
	return TORPOR_I_WHOLE;
}

/* Writes the shortest head and returns its length, at most 9. */
TORPOR_FAST size_t torpor_i_put_head(uint8_t *to, int major, uint64_t arg) {
	const uint8_t high = (uint8_t)(major << 5);
	if (arg < 24) {
		to[0] = (uint8_t)(high | arg);
		return 1;
	}
	const unsigned power = arg <= 0xff ? 0 : arg <= 0xffff ? 1 : arg <= 0xffffffff ? 2 : 3;
	const size_t size = (size_t)1 << power;
	to[0] = (uint8_t)(high | (24 + power));
	for (size_t i = size; i > 0; i--) {
		to[i] = (uint8_t)arg;
		arg >>= 8;
	}
	return 1 + size;
}

/* How many bytes an item takes whose first byte is the index, where that byte alone tells and the item
 * has no items inside; 0 elsewhere, and for floats, which must not be stepped over before they are whole.
 * Most items of most states are of these kinds. */
#define TORPOR_I_8(x) x, x, x, x, x, x, x, x
#define TORPOR_I_ONE TORPOR_I_8(1), TORPOR_I_8(1), TORPOR_I_8(1)
#define TORPOR_I_STRING 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, TORPOR_I_8(0)
#define TORPOR_I_NONE TORPOR_I_8(0), TORPOR_I_8(0), TORPOR_I_8(0), TORPOR_I_8(0)
static const uint8_t torpor_i_step[256] __attribute__((unused)) = {
    TORPOR_I_ONE, TORPOR_I_8(0), TORPOR_I_ONE, TORPOR_I_8(0), TORPOR_I_STRING, TORPOR_I_STRING,
    TORPOR_I_NONE, TORPOR_I_NONE, TORPOR_I_NONE, TORPOR_I_ONE, TORPOR_I_8(0),
};

/* Passes over one item, whole or in pieces, checking that it is well-formed. It counts the items still to
 * come at each open level, so that no input can make it recurse or allocate, and the bytes of a string
 * still to come, so that a string need not be in memory. */
typedef struct {
	uint32_t left;  /* items still to come at this level */
	uint32_t depth; /* open levels */
	size_t skip;    /* bytes of the last item still to come */
	uint32_t stack[TORPOR_MAX_DEPTH];
} torpor_nesting;

/* Makes it ready for one item. */
TORPOR_FAST void torpor_nesting_begin(torpor_nesting *n) {
	n->left = 1;
	n->depth = 0;
	n->skip = 0;
}

/* Goes on at *p. WHOLE: *p is the item's end. SHORT: all is well up to *p; to go on, give the bytes from
 * there, with more behind them. Else *p is where the fault is. */
TORPOR_FAST torpor_i_end torpor_i_pass(torpor_nesting *n, const uint8_t *data, size_t len, size_t *p) {
	if (n->skip > len - *p) {
		n->skip -= len - *p;
		*p = len;
		return TORPOR_I_SHORT;
	}
	size_t at = *p + n->skip;
	n->skip = 0;
	uint32_t left = n->left, depth = n->depth;
	torpor_i_end end = TORPOR_I_WHOLE;
	while (left > 0) {
		if (at >= len) {
			end = TORPOR_I_SHORT;
			break;
		}
		const uint8_t first = data[at];
		const int major = first >> 5;
		size_t next = at;
		if (torpor_i_step[first] != 0) {
			next = at + torpor_i_step[first];
		} else if (major == TORPOR_OTHER) {
			/* A float is passed whole, like a head, so that no piece of a record cuts it. */
			const size_t size = (size_t)1 + ((size_t)1 << (first & 7));
			end = first == 0xff ? TORPOR_I_BREAK
			      : first > 0xfb ? TORPOR_I_NO_ITEM
			      : len - at < size ? TORPOR_I_SHORT
			      : first == 0xf8 && data[at + 1] < 32 ? TORPOR_I_LONG_SIMPLE
			                                           : TORPOR_I_WHOLE;
			next = at + size;
		} else {
			uint64_t arg = 0;
			end = torpor_i_head(data, len, &next, &arg);
			if (end == TORPOR_I_WHOLE && major >= TORPOR_BYTES && major <= TORPOR_MAP && arg > TORPOR_MAX_LENGTH)
				end = major <= TORPOR_TEXT ? TORPOR_I_LONG_STRING : TORPOR_I_LONG_COLLECTION;
			if (end == TORPOR_I_WHOLE && major >= TORPOR_ARRAY && depth == TORPOR_MAX_DEPTH)
				end = TORPOR_I_DEEP;
			if (end != TORPOR_I_WHOLE)
				break;
			if (major == TORPOR_BYTES || major == TORPOR_TEXT) {
				next += (size_t)arg;
			} else if (major >= TORPOR_ARRAY) {
				const uint32_t inside = major == TORPOR_TAG ? 1 : major == TORPOR_MAP ? (uint32_t)arg * 2 : (uint32_t)arg;
				if (inside > 0) {
					n->stack[depth++] = left - 1;
					left = inside;
					at = next;
					continue;
				}
			}
		}
		if (end != TORPOR_I_WHOLE)
			break;
		left--;
		while (left == 0 && depth > 0)
			left = n->stack[--depth];
		if (next > len) { /* the rest of this item is still to come */
			n->skip = next - len;
			at = len;
			end = TORPOR_I_SHORT;
			break;
		}
		at = next;
	}
	n->left = left;
	n->depth = depth;
	*p = at;
	return end;
}

/* Items in memory, read one after another. The first fault stays: what is read behind it is 0 or empty,
 * and torpor_end tells. Strings share the memory that is read. */
typedef struct {
	const uint8_t *data;
	size_t len;
	size_t at;       /* of the next item; after a fault, where that is */
	uint64_t offset; /* of data in the call's input */
	torpor_i_end end;
} torpor_items;

/* Items in bytes that lie at `offset` of the call's input. */
TORPOR_FAST torpor_items torpor_items_in(torpor_bytes s, uint64_t offset) {
	return (torpor_items){.data = s.at, .len = s.len, .offset = offset, .end = TORPOR_I_WHOLE};
}

/* The major type of the next item; -1 at the end and after a fault. */
TORPOR_FAST int torpor_major(const torpor_items *it) {
	return it->end == TORPOR_I_WHOLE && it->at < it->len ? it->data[it->at] >> 5 : -1;
}

/* Whether all has been read and nothing was wrong. Bytes that are left are a fault. */
TORPOR_FAST bool torpor_end(torpor_items *it) {
	if (it->end == TORPOR_I_WHOLE && it->at < it->len)
		it->end = TORPOR_I_LEFT;
	return it->end == TORPOR_I_WHOLE;
}

/* What was wrong, in words. */
TORPOR_API const char *torpor_fault(const torpor_items *it) { return torpor_i_words(it->end); }

/* Ends the call because of what is wrong with these items. */
TORPOR_COLD int32_t torpor_fail_items(torpor_call *call, const torpor_items *it) {
	return torpor_fail_at(call, torpor_i_code(it->end), it->offset + it->at, torpor_i_words(it->end));
}

TORPOR_FAST uint64_t torpor_i_expect(torpor_items *it, int major, torpor_i_end otherwise) {
	uint64_t arg = 0;
	if (it->end != TORPOR_I_WHOLE)
		return 0;
	if (it->at >= it->len)
		it->end = TORPOR_I_SHORT;
	else if (it->data[it->at] >> 5 != major)
		it->end = otherwise;
	else
		it->end = torpor_i_head(it->data, it->len, &it->at, &arg);
	return it->end == TORPOR_I_WHOLE ? arg : 0;
}

/* An unsigned integer. */
TORPOR_API uint64_t torpor_get_uint(torpor_items *it) { return torpor_i_expect(it, TORPOR_UINT, TORPOR_I_NO_UINT); }

/* An integer that fits in 64 bits with its sign. */
TORPOR_API int64_t torpor_get_int(torpor_items *it) {
	const bool negative = torpor_major(it) == TORPOR_NEGATIVE;
	const size_t at = it->at;
	const uint64_t v = torpor_i_expect(it, negative ? TORPOR_NEGATIVE : TORPOR_UINT, TORPOR_I_NO_INT);
	if (v > INT64_MAX) {
		it->end = TORPOR_I_NO_INT;
		it->at = at;
		return 0;
	}
	return negative && it->end == TORPOR_I_WHOLE ? -1 - (int64_t)v : (int64_t)v;
}

TORPOR_FAST torpor_bytes torpor_i_get_string(torpor_items *it, int major, torpor_i_end otherwise) {
	const size_t at = it->at;
	const uint64_t n = torpor_i_expect(it, major, otherwise);
	if (it->end != TORPOR_I_WHOLE)
		return (torpor_bytes){NULL, 0};
	if (n > it->len - it->at) {
		it->end = TORPOR_I_SHORT;
		it->at = at;
		return (torpor_bytes){NULL, 0};
	}
	const torpor_bytes s = {it->data + it->at, (size_t)n};
	it->at += (size_t)n;
	return s;
}

/* A byte string. */
TORPOR_API torpor_bytes torpor_get_bytes(torpor_items *it) { return torpor_i_get_string(it, TORPOR_BYTES, TORPOR_I_NO_BYTES); }

/* A text string, which is UTF-8. */
TORPOR_API torpor_bytes torpor_get_text(torpor_items *it) {
	const size_t at = it->at;
	const torpor_bytes s = torpor_i_get_string(it, TORPOR_TEXT, TORPOR_I_NO_TEXT);
	if (torpor_utf8(s))
		return s;
	it->end = TORPOR_I_NOT_UTF8;
	it->at = at;
	return (torpor_bytes){NULL, 0};
}

TORPOR_FAST size_t torpor_i_count(torpor_items *it, int major, size_t each, torpor_i_end otherwise) {
	const size_t at = it->at;
	const uint64_t n = torpor_i_expect(it, major, otherwise);
	if (it->end == TORPOR_I_WHOLE && n > (it->len - it->at) / each) {
		it->end = TORPOR_I_SHORT;
		it->at = at;
		return 0;
	}
	return (size_t)n;
}

/* The head of an array: how many items follow. No more than the bytes left can hold. */
TORPOR_API size_t torpor_get_array(torpor_items *it) { return torpor_i_count(it, TORPOR_ARRAY, 1, TORPOR_I_NO_ARRAY); }

/* The head of a map: how many pairs follow. No more than the bytes left can hold. */
TORPOR_API size_t torpor_get_map(torpor_items *it) { return torpor_i_count(it, TORPOR_MAP, 2, TORPOR_I_NO_MAP); }

/* The number of a tag; its content follows. */
TORPOR_API uint64_t torpor_get_tag(torpor_items *it) { return torpor_i_expect(it, TORPOR_TAG, TORPOR_I_NO_TAG); }

/* True or false. */
TORPOR_API bool torpor_get_bool(torpor_items *it) {
	if (it->end != TORPOR_I_WHOLE)
		return false;
	if (it->at >= it->len)
		it->end = TORPOR_I_SHORT;
	else if ((it->data[it->at] & 0xfe) != 0xf4)
		it->end = TORPOR_I_NO_BOOL;
	else
		return it->data[it->at++] == 0xf5;
	return false;
}

/* Passes over null if that is what comes next, and tells. */
TORPOR_API bool torpor_get_null(torpor_items *it) {
	if (torpor_major(it) != TORPOR_OTHER || it->data[it->at] != 0xf6)
		return false;
	it->at++;
	return true;
}

/* A float of any width. */
TORPOR_API double torpor_get_float(torpor_items *it) {
	if (it->end != TORPOR_I_WHOLE)
		return 0;
	if (it->at >= it->len) {
		it->end = TORPOR_I_SHORT;
		return 0;
	}
	const uint8_t first = it->data[it->at];
	if (first < 0xf9 || first > 0xfb) {
		it->end = TORPOR_I_NO_FLOAT;
		return 0;
	}
	const size_t size = (size_t)2 << (first - 0xf9);
	if (it->len - it->at - 1 < size) {
		it->end = TORPOR_I_SHORT;
		return 0;
	}
	uint64_t bits = 0;
	for (size_t i = 1; i <= size; i++)
		bits = bits << 8 | it->data[it->at + i];
	it->at += 1 + size;
	if (size == 4) {
		const uint32_t low = (uint32_t)bits;
		float f;
		__builtin_memcpy(&f, &low, sizeof f);
		return (double)f;
	}
	if (size == 2) { /* sign, five bits of exponent, ten of fraction */
		const uint64_t sign = bits >> 15 << 63, fraction = bits & 0x3ff;
		const uint64_t exponent = bits >> 10 & 0x1f;
		if (exponent == 0) {
			const double v = (double)fraction / 16777216.0;
			return sign != 0 ? -v : v;
		}
		bits = sign | (exponent == 31 ? UINT64_C(0x7ff) : exponent + 1008) << 52 | fraction << 42;
	}
	double d;
	__builtin_memcpy(&d, &bits, sizeof d);
	return d;
}

/* Passes over one item of any kind and gives its bytes. */
TORPOR_API torpor_bytes torpor_get_item(torpor_items *it) {
	if (it->end != TORPOR_I_WHOLE)
		return (torpor_bytes){NULL, 0};
	torpor_nesting n;
	torpor_nesting_begin(&n);
	const size_t at = it->at;
	it->end = torpor_i_pass(&n, it->data, it->len, &it->at);
	if (it->end != TORPOR_I_WHOLE)
		return (torpor_bytes){NULL, 0};
	return (torpor_bytes){it->data + at, it->at - at};
}

/* ---- input ------------------------------------------------------------------------------------- */

/* The input of one call: native state, or records. It holds a window of the input in a buffer that never
 * grows. Either look at the window (torpor_window, torpor_consume, torpor_fill), or take one record or
 * line after another (torpor_next or torpor_begin, torpor_until). */
typedef struct {
	torpor_call *call;
	uint8_t *buf;
	size_t cap;
	size_t start; /* the window's first byte */
	size_t end;
	uint64_t offset; /* of start in the input */
	bool ended;
	int part; /* of the record under way that comes next: 0 head, 1 partition, 2 key, 3 value */
	torpor_nesting value;
} torpor_in;

/* The bytes read and not consumed. Their memory is given up by the next call with this input. */
TORPOR_FAST torpor_bytes torpor_window(const torpor_in *in) { return (torpor_bytes){in->buf + in->start, in->end - in->start}; }

/* The offset in the input of the window's first byte. */
TORPOR_FAST uint64_t torpor_offset(const torpor_in *in) { return in->offset; }

/* Gives up the first n bytes of the window, or all of it if it has fewer. */
TORPOR_FAST void torpor_consume(torpor_in *in, size_t n) {
	if (n > in->end - in->start)
		n = in->end - in->start;
	in->start += n;
	in->offset += n;
}

/* Whether the window takes up the whole buffer. */
TORPOR_FAST bool torpor_is_full(const torpor_in *in) { return in->end - in->start == in->cap; }

/* Adds at least one byte to the window. False if the input has ended or the call has failed, as it has
 * with TORPOR_TOO_LARGE where the window is full. */
TORPOR_API bool torpor_fill(torpor_in *in) {
	if (in->ended || torpor_failed(in->call))
		return false;
	if (in->start > 0) {
		__builtin_memmove(in->buf, in->buf + in->start, in->end - in->start);
		in->end -= in->start;
		in->start = 0;
	}
	if (in->end == in->cap) {
		torpor_failure f = {.code = TORPOR_TOO_LARGE, .has_offset = true, .offset = in->offset};
		torpor_text_string(&f.msg, "longer than this serializer's buffer of ");
		torpor_text_number(&f.msg, in->cap);
		torpor_text_string(&f.msg, " bytes");
		torpor_fail_with(in->call, &f);
		return false;
	}
	const int64_t got = torpor_import_next(in->buf + in->end, (uint32_t)(in->cap - in->end));
	const uint32_t n = (uint32_t)(got & 0xffffffff);
	in->ended = got >= 0 && (got & TORPOR_I_NEXT_END) != 0;
	if (got < 0 || n > in->cap - in->end || (n == 0 && !in->ended)) {
		torpor_fail_at(in->call, TORPOR_INTERNAL, in->offset + in->end, "the input cannot be read");
		return false;
	}
	in->end += n;
	return n > 0;
}

/* The next bytes up to and including `stop`, or up to the end of the input. False at the end, or if the
 * call has failed, as it has where there are more than the buffer holds. Their memory is given up by the
 * next call with this input. */
TORPOR_API bool torpor_until(torpor_in *in, uint8_t stop, torpor_bytes *out) {
	size_t seen = 0;
	for (;;) {
		const torpor_bytes w = torpor_window(in);
		const size_t at = seen + torpor_find((torpor_bytes){w.at + seen, w.len - seen}, stop);
		if (at < w.len) {
			*out = (torpor_bytes){w.at, at + 1};
			break;
		}
		seen = w.len;
		if (!torpor_fill(in)) {
			*out = torpor_window(in);
			break;
		}
	}
	if (torpor_failed(in->call) || out->len == 0)
		return false;
	torpor_consume(in, out->len);
	return true;
}

/* One record that lies whole in memory. */
typedef struct {
	torpor_bytes partition; /* <account>/<region> for cloud services, empty where there is none */
	torpor_bytes key;       /* unique in its partition */
	bool key_is_text;       /* else it is a byte string */
	torpor_bytes value;     /* one encoded item: read it with torpor_value */
	torpor_bytes encoded;   /* the whole record */
	uint64_t offset;        /* of the record in the input */
} torpor_record;

/* The partition or key at *p; *p is left behind it, unless the result is not WHOLE. */
TORPOR_FAST torpor_i_end torpor_i_name(const uint8_t *data, size_t len, size_t *p, bool key, torpor_bytes *name) {
	if (*p >= len)
		return TORPOR_I_SHORT;
	const int major = data[*p] >> 5;
	if (major != TORPOR_TEXT && (!key || major != TORPOR_BYTES))
		return key ? TORPOR_I_KEY : TORPOR_I_PARTITION;
	size_t at = *p;
	uint64_t n = 0;
	const torpor_i_end end = torpor_i_head(data, len, &at, &n);
	if (end != TORPOR_I_WHOLE)
		return end;
	if (n > (key ? TORPOR_MAX_KEY_BYTES : TORPOR_MAX_PARTITION_BYTES))
		return key ? TORPOR_I_LONG_KEY : TORPOR_I_LONG_PARTITION;
	if (n > len - at)
		return TORPOR_I_SHORT;
	*name = (torpor_bytes){data + at, (size_t)n};
	if (major == TORPOR_TEXT && !torpor_utf8(*name)) {
		*p = at;
		return TORPOR_I_NOT_UTF8;
	}
	*p = at + (size_t)n;
	return TORPOR_I_WHOLE;
}

/* Checks the record at *p of data, going on where it stood. The results are those of torpor_i_pass. */
TORPOR_FAST torpor_i_end torpor_i_check(torpor_in *in, const uint8_t *data, size_t len, size_t *p) {
	torpor_bytes name;
	torpor_i_end end;
	if (in->part == 0) {
		if (*p >= len)
			return TORPOR_I_SHORT;
		if (data[*p] != TORPOR_RECORD_HEAD)
			return TORPOR_I_NO_RECORD;
		*p += 1;
		in->part = 1;
	}
	while (in->part < 3) {
		if ((end = torpor_i_name(data, len, p, in->part == 2, &name)) != TORPOR_I_WHOLE)
			return end;
		if (++in->part == 3)
			torpor_nesting_begin(&in->value);
	}
	if ((end = torpor_i_pass(&in->value, data, len, p)) == TORPOR_I_WHOLE)
		in->part = 0;
	return end;
}

/* Ends the call because the record at p of the window is not sound. */
TORPOR_COLD void torpor_i_unsound(torpor_in *in, torpor_i_end end, size_t p) {
	torpor_fail_at(in->call, torpor_i_code(end), in->offset + p, torpor_i_words(end));
}

/* Fills the window where a record goes on. False, and the call has failed, if there is no more; at the end
 * of the input that is no failure between records. */
TORPOR_FAST bool torpor_i_more(torpor_in *in) {
	if (torpor_fill(in))
		return true;
	if (!torpor_failed(in->call) && (in->end > in->start || in->part > 0))
		torpor_corrupt(in->call, in->offset + (in->end - in->start), "the input ends inside a record");
	return false;
}

/* The next bytes of the value of a record that torpor_begin gave. False at its end, or if the call has
 * failed. A piece ends where an item ends or inside the content of a string, so that heads and floats
 * are whole. */
TORPOR_API bool torpor_piece(torpor_in *in, torpor_bytes *piece) {
	while (in->part == 3 && !torpor_failed(in->call)) {
		const torpor_bytes w = torpor_window(in);
		size_t p = 0;
		const torpor_i_end end = torpor_i_pass(&in->value, w.at, w.len, &p);
		if (end == TORPOR_I_WHOLE)
			in->part = 0;
		else if (end != TORPOR_I_SHORT)
			torpor_i_unsound(in, end, p);
		else if (p == 0 && torpor_i_more(in))
			continue;
		if (torpor_failed(in->call))
			return false;
		*piece = (torpor_bytes){w.at, p};
		torpor_consume(in, p);
		return true;
	}
	return false;
}

/* Begins the next record, of any length: r has its partition and key, and torpor_piece gives its value.
 * What is left of the record before is passed over. False at the end, or if the call has failed. */
TORPOR_API bool torpor_begin(torpor_in *in, torpor_record *r) {
	torpor_bytes rest;
	while (torpor_piece(in, &rest)) {
	}
	while (!torpor_failed(in->call)) {
		const torpor_bytes w = torpor_window(in);
		torpor_i_end end = w.len == 0 ? TORPOR_I_SHORT : w.at[0] == TORPOR_RECORD_HEAD ? TORPOR_I_WHOLE : TORPOR_I_NO_RECORD;
		size_t p = 0;
		if (end == TORPOR_I_WHOLE) {
			p = 1;
			end = torpor_i_name(w.at, w.len, &p, false, &r->partition);
		}
		if (end == TORPOR_I_WHOLE) {
			r->key_is_text = p < w.len && w.at[p] >> 5 == TORPOR_TEXT;
			end = torpor_i_name(w.at, w.len, &p, true, &r->key);
		}
		if (end == TORPOR_I_WHOLE) {
			r->offset = in->offset;
			r->value = r->encoded = (torpor_bytes){w.at + p, 0};
			in->part = 3;
			torpor_nesting_begin(&in->value);
			torpor_consume(in, p);
			return true;
		}
		if (end != TORPOR_I_SHORT)
			torpor_i_unsound(in, end, p);
		else if (!torpor_i_more(in))
			return false;
	}
	return false;
}

/* The next record, checked and whole. False at the end, or if the call has failed, as it has where the
 * record is longer than the buffer. Its memory is given up by the next call with this input. */
TORPOR_API bool torpor_next(torpor_in *in, torpor_record *r) {
	torpor_bytes rest;
	size_t p = 0;
	while (in->part == 3 && torpor_piece(in, &rest)) {
	}
	if (torpor_failed(in->call))
		return false;
	for (;;) {
		const torpor_bytes w = torpor_window(in);
		const torpor_i_end end = torpor_i_check(in, w.at, w.len, &p);
		if (end == TORPOR_I_WHOLE)
			break;
		if (end != TORPOR_I_SHORT) {
			torpor_i_unsound(in, end, p);
			return false;
		}
		if (!torpor_i_more(in))
			return false;
	}
	/* It is sound, so that its parts need no second look. */
	const uint8_t *data = in->buf + in->start;
	size_t at = 1;
	uint64_t n = 0;
	(void)torpor_i_head(data, p, &at, &n);
	r->partition = (torpor_bytes){data + at, (size_t)n};
	at += (size_t)n;
	r->key_is_text = data[at] >> 5 == TORPOR_TEXT;
	(void)torpor_i_head(data, p, &at, &n);
	r->key = (torpor_bytes){data + at, (size_t)n};
	at += (size_t)n;
	r->value = (torpor_bytes){data + at, p - at};
	r->encoded = (torpor_bytes){data, p};
	r->offset = in->offset;
	torpor_consume(in, p);
	return true;
}

/* The value of a record, to be read. */
TORPOR_FAST torpor_items torpor_value(const torpor_record *r) {
	return torpor_items_in(r->value, r->offset + (r->encoded.len - r->value.len));
}

/* ---- output ------------------------------------------------------------------------------------ */

/* The output of one call: records, native state, or one CBOR map. Small writes gather in a buffer.
 * Records leave it whole; one that is longer than the buffer leaves in fragments. */
typedef struct {
	torpor_call *call;
	uint8_t *buf;
	size_t cap;
	size_t len;
	size_t whole;  /* where in buf the record under way begins */
	bool records;  /* a record is under way, so that what is emitted needs framing */
	bool fragment; /* part of the record under way has been emitted */
} torpor_out;

TORPOR_API void torpor_i_emit(torpor_out *out, const uint8_t *at, size_t n, bool more) {
	if (!torpor_failed(out->call) && torpor_import_emit(at, (uint32_t)n, more) != 0)
		torpor_fail(out->call, TORPOR_INTERNAL, "the host refused the output");
}

/* Ends the record under way, if there is one. */
TORPOR_FAST void torpor_i_close(torpor_out *out) {
	if (out->fragment) {
		/* Its last fragment must go alone. */
		out->fragment = false;
		torpor_i_emit(out, out->buf, out->len, false);
		out->len = 0;
	}
	out->whole = out->len;
}

/* Ends the record under way and hands over all that is gathered. */
TORPOR_API void torpor_i_flush(torpor_out *out) {
	torpor_i_close(out);
	out->records = false;
	if (out->len > 0)
		torpor_i_emit(out, out->buf, out->len, false);
	out->len = out->whole = 0;
}

/* Makes room in a buffer that is full, or nearly. */
static __attribute__((unused, noinline)) void torpor_i_make_room(torpor_out *out) {
	if (out->records && out->whole > 0) {
		torpor_i_emit(out, out->buf, out->whole, false);
		__builtin_memmove(out->buf, out->buf + out->whole, out->len - out->whole);
		out->len -= out->whole;
		out->whole = 0;
		return;
	}
	torpor_i_emit(out, out->buf, out->len, out->records);
	out->fragment = out->records;
	out->len = 0;
}

/* Writes bytes as they are: native state, or encoded items. */
TORPOR_FAST void torpor_write(torpor_out *out, torpor_bytes s) {
	while (s.len > out->cap - out->len) {
		const size_t n = out->cap - out->len;
		torpor_i_copy(out->buf + out->len, s.at, n);
		out->len += n;
		s.at += n;
		s.len -= n;
		torpor_i_make_room(out);
		if (torpor_failed(out->call))
			return;
	}
	torpor_i_copy(out->buf + out->len, s.at, s.len);
	out->len += s.len;
}

/* Writes one byte as it is. */
TORPOR_FAST void torpor_write_byte(torpor_out *out, uint8_t byte) {
	if (out->len == out->cap)
		torpor_i_make_room(out);
	out->buf[out->len++] = byte;
}

/* Hands bytes to the host without the detour over the buffer: whole records, or with `more` a fragment of
 * one (ABI.md, "Output"), or native state. */
TORPOR_API void torpor_emit(torpor_out *out, torpor_bytes s, bool more) {
	torpor_i_flush(out);
	torpor_i_emit(out, s.at, s.len, more);
}

/* The head of an item of a major type, in its shortest form. */
TORPOR_FAST void torpor_put_head(torpor_out *out, int major, uint64_t arg) {
	if (out->cap - out->len >= 9) {
		out->len += torpor_i_put_head(out->buf + out->len, major, arg);
		return;
	}
	uint8_t head[9];
	const size_t n = torpor_i_put_head(head, major, arg);
	torpor_write(out, (torpor_bytes){head, n});
}

/* An unsigned integer. */
TORPOR_API void torpor_put_uint(torpor_out *out, uint64_t v) { torpor_put_head(out, TORPOR_UINT, v); }

/* A signed integer. */
TORPOR_API void torpor_put_int(torpor_out *out, int64_t v) {
	if (v < 0)
		torpor_put_head(out, TORPOR_NEGATIVE, (uint64_t) - (v + 1));
	else
		torpor_put_head(out, TORPOR_UINT, (uint64_t)v);
}

/* A text string, which must be UTF-8. */
TORPOR_API void torpor_put_text(torpor_out *out, torpor_bytes s) {
	torpor_put_head(out, TORPOR_TEXT, s.len);
	torpor_write(out, s);
}

/* A byte string. */
TORPOR_API void torpor_put_bytes(torpor_out *out, torpor_bytes s) {
	torpor_put_head(out, TORPOR_BYTES, s.len);
	torpor_write(out, s);
}

/* The head of a text string; write its n bytes next, in as many pieces as they come. */
TORPOR_API void torpor_put_text_head(torpor_out *out, uint64_t n) { torpor_put_head(out, TORPOR_TEXT, n); }

/* The head of a byte string; write its n bytes next. */
TORPOR_API void torpor_put_bytes_head(torpor_out *out, uint64_t n) { torpor_put_head(out, TORPOR_BYTES, n); }

/* The head of an array; its n items follow. */
TORPOR_API void torpor_put_array(torpor_out *out, uint64_t n) { torpor_put_head(out, TORPOR_ARRAY, n); }

/* The head of a map; its n pairs follow. */
TORPOR_API void torpor_put_map(torpor_out *out, uint64_t n) { torpor_put_head(out, TORPOR_MAP, n); }

/* A tag; its content follows. */
TORPOR_API void torpor_put_tag(torpor_out *out, uint64_t n) { torpor_put_head(out, TORPOR_TAG, n); }

/* True or false. */
TORPOR_API void torpor_put_bool(torpor_out *out, bool v) { torpor_write_byte(out, v ? 0xf5 : 0xf4); }

/* Null. */
TORPOR_API void torpor_put_null(torpor_out *out) { torpor_write_byte(out, 0xf6); }

/* A float, in eight bytes. */
TORPOR_API void torpor_put_float(torpor_out *out, double v) {
	uint64_t bits;
	uint8_t item[9] = {0xfb};
	__builtin_memcpy(&bits, &v, sizeof bits);
	for (size_t i = 8; i > 0; i--) {
		item[i] = (uint8_t)bits;
		bits >>= 8;
	}
	torpor_write(out, (torpor_bytes){item, sizeof item});
}

TORPOR_FAST void torpor_i_begin(torpor_out *out, torpor_bytes partition) {
	torpor_i_close(out);
	out->records = true;
	torpor_write_byte(out, TORPOR_RECORD_HEAD);
	torpor_put_text(out, partition);
}

/* Begins a record with a key of text; the items written next are its value, which is one item. The record
 * ends where the next one begins, or with the call. */
TORPOR_API void torpor_put_record(torpor_out *out, torpor_bytes partition, torpor_bytes key) {
	torpor_i_begin(out, partition);
	torpor_put_text(out, key);
}

/* Begins a record with a key of bytes. */
TORPOR_API void torpor_put_record_bytes(torpor_out *out, torpor_bytes partition, torpor_bytes key) {
	torpor_i_begin(out, partition);
	torpor_put_bytes(out, key);
}

/* ---- serializers ------------------------------------------------------------------------------- */

/* Reads its input to the end, writes, and returns 0 or what torpor_fail returned. Pure: the same input
 * gives the same output, so no static variable may carry anything from one call to the next. */
typedef int torpor_operation(torpor_call *call, torpor_in *in, torpor_out *out);

/* What a serializer is (ABI.md, "Descriptor") and does. */
typedef struct {
	const char *name;    /* as in a state file's header */
	const char *version; /* its own, free text */
	uint64_t schema;     /* of the records that save writes; not 0 */
	uint64_t reads[8];   /* the schemas load takes, ended by 0; none means schema alone */
	const char *media;   /* media type of the native state */
	bool ordered;        /* within a partition, records leave save in ascending order of their encoded keys */
	bool canonical;      /* load gives back the very bytes save was given */
	const char *nesting; /* may be NULL: the bytes that may follow the key of a record in the keys of those inside of
	                      * it (ABI.md, "Records inside of others") */
	const char *known[8]; /* the part's settings that it knows, ended by NULL; another one is refused */
	torpor_operation *save;    /* native state in, records out */
	torpor_operation *load;    /* records in, native state out */
	torpor_operation *migrate; /* may be NULL: records of call->from in, records of call->to out */
	torpor_operation *inspect; /* may be NULL: records in, a summary for people out, one map */
} torpor_serializer;

/* Ends the call because of a setting: `expected` in words. */
TORPOR_COLD int32_t torpor_wrong_setting(torpor_call *call, torpor_bytes name, const char *expected) {
	torpor_failure f = {.code = TORPOR_UNSUPPORTED};
	torpor_text_string(&f.msg, expected);
	torpor_text_string(&f.path, "settings.");
	torpor_text_add(&f.path, name);
	return torpor_fail_with(call, &f);
}

/* Finds one of the part's settings. False if it is not set. Its value is to be read with torpor_get_...
 * and torpor_end; if it is not what it should be, return torpor_wrong_setting. */
TORPOR_API bool torpor_setting(const torpor_call *call, const char *name, torpor_items *value) {
	torpor_items it = torpor_items_in(call->settings, 0);
	for (size_t n = call->settings.len > 0 ? torpor_get_map(&it) : 0; n > 0; n--) {
		const bool found = torpor_is(torpor_get_text(&it), name);
		const torpor_bytes item = torpor_get_item(&it);
		if (found && it.end == TORPOR_I_WHOLE) {
			*value = torpor_items_in(item, 0);
			return true;
		}
	}
	return false;
}

/* Refuses settings that the serializer does not know: a misspelled one is worth telling. */
TORPOR_API void torpor_i_refuse_unknown(torpor_call *call, const char *const known[8]) {
	torpor_items it = torpor_items_in(call->settings, 0);
	for (size_t n = call->settings.len > 0 ? torpor_get_map(&it) : 0; n > 0 && !torpor_failed(call); n--) {
		const torpor_bytes name = torpor_get_text(&it);
		bool found = false;
		for (size_t i = 0; i < 8 && known[i] != NULL; i++)
			found = found || torpor_is(name, known[i]);
		(void)torpor_get_item(&it);
		if (it.end == TORPOR_I_WHOLE && !found) {
			torpor_failure f = {.code = TORPOR_UNSUPPORTED};
			torpor_text_string(&f.msg, "unknown setting; ");
			torpor_text_string(&f.msg, known[0] == NULL ? "this serializer has none" : "known are:");
			for (size_t i = 0; i < 8 && known[i] != NULL; i++) {
				torpor_text_string(&f.msg, " ");
				torpor_text_string(&f.msg, known[i]);
			}
			torpor_text_string(&f.path, "settings.");
			torpor_text_add(&f.path, name);
			torpor_fail_with(call, &f);
		}
	}
	if (it.end != TORPOR_I_WHOLE) {
		torpor_failure f = {.code = TORPOR_UNSUPPORTED};
		torpor_text_string(&f.msg, torpor_i_words(it.end));
		torpor_text_string(&f.path, "settings");
		torpor_fail_with(call, &f);
	}
}

/* Reads the map that arg gave. Keys it does not know are passed over. */
TORPOR_API void torpor_i_parse_call(torpor_call *call, torpor_bytes arg) {
	torpor_items it = torpor_items_in(arg, 0);
	for (size_t n = torpor_get_map(&it); n > 0 && it.end == TORPOR_I_WHOLE; n--) {
		const torpor_bytes key = torpor_get_text(&it);
		if (torpor_is(key, "op"))
			call->op = torpor_get_text(&it);
		else if (torpor_is(key, "service"))
			call->service = torpor_get_text(&it);
		else if (torpor_is(key, "part"))
			call->part = torpor_get_text(&it);
		else if (torpor_is(key, "schema"))
			call->schema = torpor_get_uint(&it);
		else if (torpor_is(key, "from"))
			call->from = torpor_get_uint(&it);
		else if (torpor_is(key, "to"))
			call->to = torpor_get_uint(&it);
		else if (torpor_is(key, "time"))
			call->time = torpor_get_int(&it);
		else if (!torpor_is(key, "settings"))
			(void)torpor_get_item(&it);
		else if (!torpor_get_null(&it))
			call->settings = torpor_get_item(&it);
	}
	if (torpor_end(&it))
		return;
	torpor_failure f = {.code = TORPOR_INTERNAL};
	torpor_text_string(&f.msg, "the parameters of the call: ");
	torpor_text_string(&f.msg, torpor_i_words(it.end));
	torpor_fail_with(call, &f);
}

/* Tells the host how the call ended, and gives what the export returns. */
TORPOR_API int32_t torpor_i_status(torpor_call *call) {
	const torpor_failure *f = &call->failure;
	if (f->code == 0)
		return 0;
	uint8_t map[3 * 9 + 16 + 2 * (TORPOR_TEXT_BYTES + 9)];
	size_t n = torpor_i_put_head(map, TORPOR_MAP, 1 + (uint64_t)(f->path.len > 0) + (uint64_t)f->has_offset);
	const torpor_bytes texts[4] = {TORPOR_STR("msg"), {f->msg.bytes, f->msg.len}, TORPOR_STR("path"), {f->path.bytes, f->path.len}};
	for (size_t i = 0; i < (f->path.len > 0 ? 4u : 2u); i++) {
		n += torpor_i_put_head(map + n, TORPOR_TEXT, texts[i].len);
		torpor_i_copy(map + n, texts[i].at, texts[i].len);
		n += texts[i].len;
	}
	if (f->has_offset) {
		n += torpor_i_put_head(map + n, TORPOR_TEXT, 6);
		torpor_i_copy(map + n, (const uint8_t *)"offset", 6);
		n += 6;
		n += torpor_i_put_head(map + n, TORPOR_UINT, f->offset);
	}
	torpor_import_fail(f->code, map, (uint32_t)n);
	return f->code;
}

/* A guest's memory: arg has TORPOR_ARG_BYTES. */
typedef struct {
	uint8_t *arg;
	uint8_t *input;
	size_t input_bytes;
	uint8_t *output;
	size_t output_bytes;
} torpor_buffers;

/* The export torpor_describe. */
TORPOR_API int32_t torpor_i_describe(const torpor_buffers *b, const torpor_serializer *s) {
	torpor_call call = {.time = 0};
	torpor_out out = {.call = &call, .buf = b->output, .cap = b->output_bytes};
	size_t reads = 0;
	while (reads < 8 && s->reads[reads] != 0)
		reads++;
	torpor_put_map(&out, 9 + (uint64_t)(s->nesting != NULL));
	torpor_put_text(&out, TORPOR_STR("name"));
	torpor_put_text(&out, torpor_string(s->name));
	torpor_put_text(&out, TORPOR_STR("version"));
	torpor_put_text(&out, torpor_string(s->version));
	torpor_put_text(&out, TORPOR_STR("schema"));
	torpor_put_uint(&out, s->schema);
	torpor_put_text(&out, TORPOR_STR("reads"));
	torpor_put_array(&out, reads > 0 ? reads : 1);
	for (size_t i = 0; i < reads; i++)
		torpor_put_uint(&out, s->reads[i]);
	if (reads == 0)
		torpor_put_uint(&out, s->schema);
	torpor_put_text(&out, TORPOR_STR("media"));
	torpor_put_text(&out, torpor_string(s->media));
	torpor_put_text(&out, TORPOR_STR("operations"));
	torpor_put_array(&out, 2 + (uint64_t)(s->migrate != NULL) + (uint64_t)(s->inspect != NULL));
	torpor_put_text(&out, TORPOR_STR("save"));
	torpor_put_text(&out, TORPOR_STR("load"));
	if (s->migrate != NULL)
		torpor_put_text(&out, TORPOR_STR("migrate"));
	if (s->inspect != NULL)
		torpor_put_text(&out, TORPOR_STR("inspect"));
	torpor_put_text(&out, TORPOR_STR("ordered"));
	torpor_put_bool(&out, s->ordered);
	torpor_put_text(&out, TORPOR_STR("canonical"));
	torpor_put_bool(&out, s->canonical);
	if (s->nesting != NULL) {
		torpor_put_text(&out, TORPOR_STR("nesting"));
		torpor_put_text(&out, torpor_string(s->nesting));
	}
	torpor_put_text(&out, TORPOR_STR("memory"));
	torpor_put_uint(&out, TORPOR_ARG_BYTES + b->input_bytes + b->output_bytes);
	torpor_i_flush(&out);
	return torpor_i_status(&call);
}

/* The other exports. */
TORPOR_API int32_t torpor_i_run(const torpor_buffers *b, const torpor_serializer *s, torpor_operation *operation) {
	torpor_call call = {.time = 0};
	torpor_in in = {.call = &call, .buf = b->input, .cap = b->input_bytes};
	torpor_out out = {.call = &call, .buf = b->output, .cap = b->output_bytes};
	const uint32_t n = (uint32_t)torpor_import_arg(b->arg, TORPOR_ARG_BYTES);
	if (n > TORPOR_ARG_BYTES)
		torpor_fail(&call, TORPOR_TOO_LARGE, "the parameters of the call are too long");
	else
		torpor_i_parse_call(&call, (torpor_bytes){b->arg, n});
	if (operation == NULL)
		torpor_fail(&call, TORPOR_UNSUPPORTED, "this serializer does not offer that operation");
	if (!torpor_failed(&call))
		torpor_i_refuse_unknown(&call, s->known);
	if (!torpor_failed(&call)) {
		const int result = operation(&call, &in, &out);
		if (result != 0)
			torpor_fail(&call, result, "the serializer failed without saying why");
		torpor_i_flush(&out);
	}
	return torpor_i_status(&call);
}

/* Exports a torpor_serializer as this module's. In one file only. */
#define TORPOR_SERIALIZER(serializer)                                                                                                       \
	static uint8_t torpor_i_arg[TORPOR_ARG_BYTES];                                                                                          \
	static uint8_t torpor_i_input[TORPOR_INPUT_BYTES];                                                                                      \
	static uint8_t torpor_i_output[TORPOR_OUTPUT_BYTES];                                                                                    \
	static const torpor_buffers torpor_i_memory = {torpor_i_arg, torpor_i_input, TORPOR_INPUT_BYTES, torpor_i_output, TORPOR_OUTPUT_BYTES}; \
	int32_t torpor_describe(void);                                                                                                          \
	TORPOR_I_EXPORT("torpor_describe") int32_t torpor_describe(void) {                                                                      \
		return torpor_i_describe(&torpor_i_memory, &(serializer));                                                                          \
	}                                                                                                                                       \
	int32_t torpor_save(void);                                                                                                              \
	TORPOR_I_EXPORT("torpor_save") int32_t torpor_save(void) {                                                                              \
		return torpor_i_run(&torpor_i_memory, &(serializer), (serializer).save);                                                            \
	}                                                                                                                                       \
	int32_t torpor_load(void);                                                                                                              \
	TORPOR_I_EXPORT("torpor_load") int32_t torpor_load(void) {                                                                              \
		return torpor_i_run(&torpor_i_memory, &(serializer), (serializer).load);                                                            \
	}                                                                                                                                       \
	int32_t torpor_migrate(void);                                                                                                           \
	TORPOR_I_EXPORT("torpor_migrate") int32_t torpor_migrate(void) {                                                                        \
		return torpor_i_run(&torpor_i_memory, &(serializer), (serializer).migrate);                                                         \
	}                                                                                                                                       \
	int32_t torpor_inspect(void);                                                                                                           \
	TORPOR_I_EXPORT("torpor_inspect") int32_t torpor_inspect(void) {                                                                        \
		return torpor_i_run(&torpor_i_memory, &(serializer), (serializer).inspect);                                                         \
	}                                                                                                                                       \
	_Static_assert(sizeof(torpor_serializer) > 0, "so that the macro is used with a semicolon")

#endif
