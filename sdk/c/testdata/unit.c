/* Tests of torpor.h on the machine itself; c_test.go runs them under the sanitizers. */
#include "every.c"

#include "torpor_test.h"

#define BYTES(literal) TORPOR_STR(literal)

/* What put writes, get reads, and at the edges of every length of a head. */
static void test_numbers(void) {
	uint8_t buf[9 * 80];
	torpor_call call = {.time = 0};
	torpor_out out = {.call = &call, .buf = buf, .cap = sizeof buf};
	const uint64_t edges[] = {0, 1, 23, 24, 0xff, 0x100, 0xffff, 0x10000, 0xffffffff, UINT64_C(0x100000000), INT64_MAX};
	const size_t n = sizeof edges / sizeof *edges;
	for (size_t i = 0; i < n; i++) {
		torpor_put_uint(&out, edges[i]);
		torpor_put_int(&out, (int64_t)edges[i]);
		torpor_put_int(&out, -1 - (int64_t)edges[i]);
		torpor_put_tag(&out, edges[i]);
	}
	torpor_put_uint(&out, UINT64_MAX);
	torpor_put_bool(&out, true);
	torpor_put_bool(&out, false);
	torpor_put_null(&out);
	torpor_put_float(&out, 1e300);
	torpor_items it = torpor_items_in((torpor_bytes){buf, out.len}, 0);
	for (size_t i = 0; i < n; i++) {
		TORPOR_EXPECT(torpor_get_uint(&it) == edges[i]);
		TORPOR_EXPECT(torpor_get_int(&it) == (int64_t)edges[i]);
		TORPOR_EXPECT(torpor_major(&it) == TORPOR_NEGATIVE);
		TORPOR_EXPECT(torpor_get_int(&it) == -1 - (int64_t)edges[i]);
		TORPOR_EXPECT(torpor_get_tag(&it) == edges[i]);
	}
	TORPOR_EXPECT(torpor_get_uint(&it) == UINT64_MAX);
	TORPOR_EXPECT(torpor_get_bool(&it));
	TORPOR_EXPECT(!torpor_get_bool(&it));
	TORPOR_EXPECT(!torpor_end(&it) && it.end == TORPOR_I_LEFT);
	it.end = TORPOR_I_WHOLE;
	TORPOR_EXPECT(torpor_get_null(&it) && !torpor_get_null(&it));
	TORPOR_EXPECT(torpor_get_float(&it) >= 1e300 && torpor_get_float(&it) <= 0);
	TORPOR_EXPECT(it.end == TORPOR_I_SHORT && !torpor_failed(&call));
}

static void test_floats(void) {
	const struct {
		torpor_bytes item;
		double want;
	} all[] = {
		/* RFC 8949, appendix A. */
		{BYTES("\xf9\x00\x00"), 0.0}, {BYTES("\xf9\x3c\x00"), 1.0}, {BYTES("\xf9\x3e\x00"), 1.5}, {BYTES("\xf9\x7b\xff"), 65504.0},
		{BYTES("\xfa\x47\xc3\x50\x00"), 100000.0}, {BYTES("\xfa\x7f\x7f\xff\xff"), 3.4028234663852886e+38},
		{BYTES("\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c"), 1.0e+300}, {BYTES("\xf9\x00\x01"), 5.960464477539063e-8},
		{BYTES("\xf9\x04\x00"), 0.00006103515625}, {BYTES("\xf9\xc4\x00"), -4.0}, {BYTES("\xfb\xc0\x10\x66\x66\x66\x66\x66\x66"), -4.1},
		{BYTES("\xf9\x7c\x00"), (double)__builtin_inff()}, {BYTES("\xf9\xfc\x00"), -(double)__builtin_inff()},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		torpor_items it = torpor_items_in(all[i].item, 0);
		const double got = torpor_get_float(&it);
		TORPOR_EXPECT(memcmp(&got, &all[i].want, sizeof got) == 0 && torpor_end(&it));
		for (size_t cut = 0; cut < all[i].item.len; cut++) {
			it = torpor_items_in((torpor_bytes){all[i].item.at, cut}, 0);
			TORPOR_EXPECT(torpor_get_float(&it) <= 0 && it.end == TORPOR_I_SHORT);
		}
	}
	torpor_items it = torpor_items_in(BYTES("\xf9\x7e\x00"), 0);
	TORPOR_EXPECT(__builtin_isnan(torpor_get_float(&it)));
}

/* What is wrong with an item is found, whichever way it is read, and stays found. */
static void test_faults(void) {
	uint8_t deep[TORPOR_MAX_DEPTH + 2];
	memset(deep, 0x81, sizeof deep);
	const struct {
		torpor_bytes item;
		torpor_i_end end;
		size_t at;
	} all[] = {
		{BYTES(""), TORPOR_I_SHORT, 0}, {BYTES("\x18"), TORPOR_I_SHORT, 0}, {BYTES("\x62" "a"), TORPOR_I_SHORT, 2},
		{BYTES("\x18\x17"), TORPOR_I_NOT_SHORTEST, 0}, {BYTES("\x19\x00\xff"), TORPOR_I_NOT_SHORTEST, 0},
		{BYTES("\x3a\x00\x00\xff\xff"), TORPOR_I_NOT_SHORTEST, 0}, {BYTES("\x5b\x00\x00\x00\x00\xff\xff\xff\xff"), TORPOR_I_NOT_SHORTEST, 0},
		{BYTES("\x1c"), TORPOR_I_NO_ITEM, 0}, {BYTES("\xfc"), TORPOR_I_NO_ITEM, 0}, {BYTES("\x5f"), TORPOR_I_INDEFINITE, 0},
		{BYTES("\x81\xbf"), TORPOR_I_INDEFINITE, 1}, {BYTES("\xff"), TORPOR_I_BREAK, 0}, {BYTES("\xf8\x1f"), TORPOR_I_LONG_SIMPLE, 0},
		{BYTES("\x7a\x40\x00\x00\x01"), TORPOR_I_LONG_STRING, 0}, {BYTES("\x9a\x40\x00\x00\x01"), TORPOR_I_LONG_COLLECTION, 0},
		{BYTES("\xbb\x00\x00\x00\x01\x00\x00\x00\x00"), TORPOR_I_LONG_COLLECTION, 0}, {BYTES("\x9a\x40\x00\x00\x00"), TORPOR_I_SHORT, 5},
		{BYTES("\xf8\x20"), TORPOR_I_WHOLE, 2}, {BYTES("\xa1\x01\xc1\x82\x60\xf7"), TORPOR_I_WHOLE, 6}, {BYTES("\x80"), TORPOR_I_WHOLE, 1},
		{BYTES("\xf9\x3c"), TORPOR_I_SHORT, 0}, {BYTES("\x82\xfb\x3f\xf8"), TORPOR_I_SHORT, 1}, {BYTES("\xfe\x00"), TORPOR_I_NO_ITEM, 0},
		{{deep, TORPOR_MAX_DEPTH + 1}, TORPOR_I_DEEP, TORPOR_MAX_DEPTH}, {{deep, TORPOR_MAX_DEPTH}, TORPOR_I_SHORT, TORPOR_MAX_DEPTH},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		torpor_items it = torpor_items_in(all[i].item, 100);
		const torpor_bytes item = torpor_get_item(&it);
		TORPOR_EXPECT(it.end == all[i].end && it.at == all[i].at);
		TORPOR_EXPECT(item.len == (all[i].end == TORPOR_I_WHOLE ? all[i].at : 0));
		if (it.end != TORPOR_I_WHOLE) {
			torpor_call call = {.time = 0};
			TORPOR_EXPECT(torpor_major(&it) == -1 && torpor_get_uint(&it) == 0 && torpor_get_int(&it) == 0 && torpor_get_tag(&it) == 0);
			TORPOR_EXPECT(torpor_get_text(&it).len == 0 && torpor_get_bytes(&it).len == 0 && torpor_get_item(&it).len == 0);
			TORPOR_EXPECT(torpor_get_array(&it) == 0 && torpor_get_map(&it) == 0 && !torpor_get_bool(&it) && torpor_get_float(&it) <= 0);
			TORPOR_EXPECT(it.end == all[i].end && it.at == all[i].at && torpor_fault(&it)[0] != 0);
			TORPOR_EXPECT(torpor_fail_items(&call, &it) == torpor_i_code(it.end) && call.failure.offset == 100 + all[i].at);
		}
		/* The same, a byte at a time, of which only what is asked for is kept. */
		torpor_nesting n;
		torpor_nesting_begin(&n);
		torpor_i_end end = TORPOR_I_SHORT;
		size_t from = 0;
		for (size_t to = 1; to <= all[i].item.len && end == TORPOR_I_SHORT; to++) {
			size_t p = 0;
			end = torpor_i_pass(&n, all[i].item.at + from, to - from, &p);
			from += p;
		}
		TORPOR_EXPECT(end == all[i].end && (end == TORPOR_I_SHORT || from == all[i].at));
	}
	deep[TORPOR_MAX_DEPTH - 1] = 0x80;
	torpor_items it = torpor_items_in((torpor_bytes){deep, TORPOR_MAX_DEPTH}, 0);
	TORPOR_EXPECT(torpor_get_item(&it).len == TORPOR_MAX_DEPTH);
	/* What another was expected for. */
	const torpor_bytes null = BYTES("\xf6");
#define OTHER(get, why)                                         \
	it = torpor_items_in(null, 0);                              \
	(void)get(&it);                                             \
	TORPOR_EXPECT(it.end == why && it.at == 0 && !torpor_end(&it))
	OTHER(torpor_get_uint, TORPOR_I_NO_UINT);
	OTHER(torpor_get_int, TORPOR_I_NO_INT);
	OTHER(torpor_get_text, TORPOR_I_NO_TEXT);
	OTHER(torpor_get_bytes, TORPOR_I_NO_BYTES);
	OTHER(torpor_get_array, TORPOR_I_NO_ARRAY);
	OTHER(torpor_get_map, TORPOR_I_NO_MAP);
	OTHER(torpor_get_tag, TORPOR_I_NO_TAG);
	OTHER(torpor_get_bool, TORPOR_I_NO_BOOL);
	OTHER(torpor_get_float, TORPOR_I_NO_FLOAT);
	/* What no int64_t holds, counts that the bytes cannot, text that is none. */
	it = torpor_items_in(BYTES("\x1b\x80\x00\x00\x00\x00\x00\x00\x00"), 0);
	TORPOR_EXPECT(torpor_get_int(&it) == 0 && it.end == TORPOR_I_NO_INT && it.at == 0);
	it = torpor_items_in(BYTES("\x3b\x80\x00\x00\x00\x00\x00\x00\x00"), 0);
	TORPOR_EXPECT(torpor_get_int(&it) == 0 && it.end == TORPOR_I_NO_INT);
	it = torpor_items_in(BYTES("\x83\x01\x01"), 0);
	TORPOR_EXPECT(torpor_get_array(&it) == 0 && it.end == TORPOR_I_SHORT && it.at == 0);
	it = torpor_items_in(BYTES("\xa2\x01\x01\x01"), 0);
	TORPOR_EXPECT(torpor_get_map(&it) == 0 && it.end == TORPOR_I_SHORT);
	it = torpor_items_in(BYTES("\x61\xff"), 0);
	TORPOR_EXPECT(torpor_get_text(&it).len == 0 && it.end == TORPOR_I_NOT_UTF8 && it.at == 0);
	it = torpor_items_in(BYTES("\x5b\xff\xff\xff\xff\xff\xff\xff\xff"), 0);
	TORPOR_EXPECT(torpor_get_bytes(&it).len == 0 && it.end == TORPOR_I_SHORT);
}

/* UTF-8 by decoding, for comparison. */
static bool slow_utf8(const uint8_t *s, size_t len) {
	for (size_t i = 0; i < len;) {
		uint32_t c = s[i];
		const size_t n = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
		if (n == 0 || i + n > len)
			return false;
		c = n == 1 ? c : c & (0xffu >> (n + 1));
		for (size_t k = 1; k < n; k++) {
			if (s[i + k] >> 6 != 2)
				return false;
			c = c << 6 | (s[i + k] & 0x3fu);
		}
		const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
		if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
			return false;
		i += n;
	}
	return true;
}

static void test_strings(void) {
	uint8_t s[40];
	bool same = true;
	for (uint32_t lead = 0x80; lead < 0x100; lead++)
		for (uint32_t second = 0x70; second < 0xd0; second++)
			for (uint32_t third = 0x7f; third < 0xc2; third += 1 + (third & 1) * 31)
				for (uint32_t fourth = 0x7f; fourth < 0xc2; fourth += 1 + (fourth & 1) * 31) {
					const uint8_t four[4] = {(uint8_t)lead, (uint8_t)second, (uint8_t)third, (uint8_t)fourth};
					for (size_t len = 1; len <= 4; len++)
						same = same && torpor_utf8((torpor_bytes){four, len}) == slow_utf8(four, len);
				}
	TORPOR_EXPECT(same);
	/* At every distance from the words of eight bytes that are looked at at once. */
	for (size_t before = 0; before < 20; before++)
		for (size_t after = 0; after < 12; after++) {
			memset(s, 'a', sizeof s);
			memcpy(s + before, "\xf0\x9f\x98\x80", 4);
			const torpor_bytes whole = {s, before + 4 + after};
			TORPOR_EXPECT(torpor_utf8(whole));
			TORPOR_EXPECT(torpor_find(whole, 0x98) == before + 2 && torpor_find(whole, 'b') == whole.len);
			s[before + 3] = 'a';
			TORPOR_EXPECT(!torpor_utf8(whole));
		}
	/* Every byte, with its neighbours about it, which a word of eight must not confuse. */
	for (unsigned b = 0; b < 256; b++)
		for (size_t at = 0; at < 20; at++) {
			memset(s, (int)((b + 1) & 0xff), sizeof s);
			s[at] = (uint8_t)b;
			if (at > 0)
				s[at - 1] = (uint8_t)(b ^ 0x80);
			TORPOR_EXPECT(torpor_find((torpor_bytes){s, sizeof s}, (uint8_t)b) == at);
		}
	torpor_bytes a, b;
	TORPOR_EXPECT(torpor_cut(BYTES("a=b=c"), '=', &a, &b) && torpor_is(a, "a") && torpor_is(b, "b=c"));
	TORPOR_EXPECT(torpor_cut(BYTES("="), '=', &a, &b) && a.len == 0 && b.len == 0 && !torpor_cut(BYTES(""), '=', &a, &b));
	const char *sorted[] = {"", "a", "aa", "ab", "abcdefgh", "abcdefgha", "abcdefghb", "abcdefgz", "b", "\xff"};
	for (size_t i = 0; i < 10; i++)
		for (size_t k = 0; k < 10; k++) {
			const int c = torpor_compare(torpor_string(sorted[i]), torpor_string(sorted[k]));
			TORPOR_EXPECT(i < k ? c < 0 : i == k ? c == 0 : c > 0);
		}
	TORPOR_EXPECT(torpor_string(NULL).len == 0);
	for (size_t n = 0; n <= 40; n++) {
		for (size_t i = 0; i < n; i++)
			s[i] = (uint8_t)(i + 1);
		uint8_t copied[40] = {0};
		TORPOR_EXPECT(torpor_copy(copied, 30, (torpor_bytes){s, n}).len == (n < 30 ? n : 30));
		TORPOR_EXPECT(memcmp(copied, s, n < 30 ? n : 30) == 0 && copied[n < 30 ? n : 30] == 0);
	}
	/* A text that is full is cut at a character, and stays cut. */
	torpor_text t = {.len = 0};
	for (size_t i = 0; i < TORPOR_TEXT_BYTES - 1; i++)
		torpor_text_string(&t, "a");
	torpor_text_string(&t, "\xc3\xa9");
	torpor_text_string(&t, "b");
	TORPOR_EXPECT(t.len == TORPOR_TEXT_BYTES - 1);
	t.len = 0, t.full = false;
	torpor_text_number(&t, UINT64_MAX);
	torpor_text_number(&t, 0);
	TORPOR_EXPECT(torpor_is((torpor_bytes){t.bytes, t.len}, "184467440737095516150"));
}

/* A call of every. */
static torpor_test_call one(const char *op, torpor_bytes input) { return (torpor_test_call){.op = op, .input = input}; }

static void expect_failure(int line, torpor_test_call c, int32_t code, const char *msg, const char *path, int64_t offset) {
	if (torpor_test_run(&c, &every) || c.breach != NULL || c.code != code || strcmp(c.msg, msg) != 0 || strcmp(c.path, path) != 0 ||
	    (c.has_offset ? (int64_t)c.offset : -1) != offset) {
		torpor_test_failed(__FILE__, line, "not the failure expected", &c);
	}
	torpor_test_free(&c);
}
#define FAILS(...) expect_failure(__LINE__, __VA_ARGS__)

static void test_failures(void) {
	FAILS(one("save", BYTES("size 1\nwhat\n")), 2, "no command", "", 7);
	FAILS(one("save", BYTES("size 1\nfail 64\nloop\n")), 64, "failed as told", "line 2", 7);
	FAILS(one("save", BYTES("fail 63\n")), 1, "failed as told", "line 1", 0);
	FAILS(one("save", BYTES("fail 5\n")), 5, "failed as told", "line 1", 0);
	FAILS(one("save", BYTES("fail 6\n")), 1, "failed as told", "line 1", 0);
	FAILS(one("save", BYTES("fail 0\n")), 1, "failed as told", "line 1", 0);
	FAILS(one("save", BYTES("return 3\n")), 3, "the serializer failed without saying why", "", -1);
	FAILS(one("migrate", BYTES("")), 3, "from 1 to 2 only", "", -1);
	FAILS(one("load", BYTES("\x83\x65sizes\x60\xf6")), 2, "no size", "", 0);
	/* Input that a host would not give. */
	torpor_test_call c = one("load", BYTES("\x82"));
	torpor_test_run(&c, &every);
	TORPOR_EXPECT(c.code == 1);
	/* Settings. */
	c = one("save", BYTES("every\n"));
	c.settings = BYTES("\xa1\x65" "depth\x18\x65");
	FAILS(c, 4, "a number of at most 100 is expected", "settings.depth", -1);
	c.settings = BYTES("\xa1\x65" "depth\xf6");
	FAILS(c, 4, "a number of at most 100 is expected", "settings.depth", -1);
	c.settings = BYTES("\xa2\x65" "depth\x02\x65" "wodth\x02");
	FAILS(c, 4, "unknown setting; known are: depth width", "settings.wodth", -1);
	c.settings = BYTES("\xa1\x01\x02");
	FAILS(c, 4, "a text string expected", "settings", -1);
	c.settings = BYTES("\x01");
	FAILS(c, 4, "a map expected", "settings", -1);
	c.settings = BYTES("\xa2\x65" "width\x80\x65" "depth\x03");
	TORPOR_EXPECT(torpor_test_run(&c, &every));
	TORPOR_EXPECT(c.output.len > 15 && memcmp(c.output.at, "\x83\x65" "every\x64kind\x81\x81\x81\xa4", 16) == 0);
	torpor_test_free(&c);
	c = one("save", BYTES("every\n"));
	c.settings = BYTES("\xf6"); /* none, in other words */
	TORPOR_EXPECT(torpor_test_run(&c, &every));
	torpor_test_free(&c);
	/* Every next and every emit may fail. */
	for (size_t n = 1; n <= 8; n++) {
		c = one("save", BYTES("size 1\nsize 300\nsize 5\n"));
		c.piece = 3, c.input_fails = n;
		const int64_t at = (int64_t)(3 * (n - 1));
		FAILS(c, 1, "the input cannot be read", "", at);
	}
	for (size_t n = 1; n <= 4; n++) {
		c = one("save", BYTES("size 1\nsize 3000\nloop\n"));
		c.output_bytes = 1000, c.output_fails = n;
		FAILS(c, 1, "the host refused the output", "", -1);
		TORPOR_EXPECT(c.emits == 0);
	}
	/* A line, and a record, that the buffer does not hold. */
	c = one("save", BYTES("log 1\nsize 000000000000000000000000000000000001\n"));
	c.input_bytes = 40;
	FAILS(c, 5, "longer than this serializer's buffer of 40 bytes", "", 6);
	c = one("inspect", BYTES("\x83\x60\x60\xf6\x83\x60\x60\x70" "0123456789abcdef"));
	c.input_bytes = 16;
	FAILS(c, 5, "longer than this serializer's buffer of 16 bytes", "", 4);
}

/* Unsound records, which a host does not let through: the checks are the header's own. */
static void test_unsound_records(void) {
	const struct {
		torpor_bytes records;
		int32_t code;
		uint64_t offset;
	} all[] = {
		{BYTES("\x82\x60\x60"), 2, 0}, {BYTES("\x83\x40\x60\xf6"), 2, 1}, {BYTES("\x83\x60\x01\xf6"), 2, 2}, {BYTES("\x83\x61\xff\x60\xf6"), 2, 2},
		{BYTES("\x83\x60\x61\xff\xf6"), 2, 3}, {BYTES("\x83\x79\x10\x01"), 5, 1}, {BYTES("\x83\x60\x5a\x00\x01\x00\x01"), 5, 2},
		{BYTES("\x83\x60\x60\xff"), 2, 3}, {BYTES("\x83\x60\x60"), 2, 3}, {BYTES("\x83\x60\x60\x62" "a"), 2, 5}, {BYTES("\x83\x78\x05"), 2, 1},
		{BYTES("\x83\x60\x60\xf6\x83"), 2, 5}, {BYTES("\x83\x60\x60\xf6\x83\x60\x78"), 2, 7}, {BYTES("\x83\x60\x60\xf6\x00"), 2, 4},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		for (size_t piece = 0; piece < 4; piece++)
			for (int stream = 0; stream < 2; stream++) {
				/* As native state, whose pieces mean nothing. */
				uint8_t buf[64];
				torpor_test_call given = {.op = "save", .input = all[i].records, .piece = piece};
				torpor_call call = {.time = 0};
				torpor_in in = {.call = &call, .buf = buf, .cap = sizeof buf};
				torpor_record r;
				torpor_bytes rest;
				torpor_test_current = &given;
				while (stream == 0 ? torpor_next(&in, &r) : torpor_begin(&in, &r))
					while (stream == 1 && torpor_piece(&in, &rest)) {
					}
				TORPOR_EXPECT(call.failure.code == all[i].code && call.failure.has_offset && call.failure.offset == all[i].offset);
				TORPOR_EXPECT(!torpor_next(&in, &r) && !torpor_begin(&in, &r) && !torpor_fill(&in));
			}
}

/* Records of every length, with buffers of every length, whole and in pieces. */
static void test_streams(void) {
	static const char native[] = "size 0\nsize 1\nsize 23\nsize 24\nsize 999\nsize 1000\nsize 1001\nsize 70000\nsize 0\n";
	static const size_t pieces[] = {0, 1, 5, 1000};
	torpor_test_call saved = one("save", torpor_string(native));
	TORPOR_EXPECT(torpor_test_run(&saved, &every));
	TORPOR_ROUND_TRIP(&every, torpor_string(native));
	TORPOR_ROUND_TRIP(&every, BYTES(""));
	TORPOR_ROUND_TRIP(&every, BYTES("every\nraw\nevery\nsize 5\nraw\n"));
	for (size_t piece = 0; piece < 4; piece++) {
		torpor_test_call loaded = one("load", saved.output);
		loaded.piece = pieces[piece], loaded.input_bytes = 100; /* less than most of the records */
		TORPOR_EXPECT(torpor_test_run(&loaded, &every) && torpor_is(loaded.output, native));
		torpor_test_free(&loaded);
		torpor_test_call migrated = one("migrate", saved.output);
		migrated.piece = pieces[piece], migrated.from = 1, migrated.to = 2, migrated.output_bytes = 64;
		TORPOR_EXPECT(torpor_test_run(&migrated, &every) && migrated.output.len == saved.output.len - 9 * 2);
		torpor_test_call inspected = one("inspect", saved.output);
		inspected.piece = pieces[piece];
		TORPOR_EXPECT(torpor_test_run(&inspected, &every));
		torpor_items it = torpor_items_in(inspected.output, 0);
		TORPOR_EXPECT(torpor_get_map(&it) == 2 && torpor_is(torpor_get_text(&it), "records") && torpor_get_uint(&it) == 9);
		TORPOR_EXPECT(torpor_is(torpor_get_text(&it), "bytes") && torpor_get_uint(&it) == saved.output.len && torpor_end(&it));
		torpor_test_free(&migrated);
		torpor_test_free(&inspected);
	}
	torpor_test_free(&saved);
}

/* However its input is cut, a piece of a value begins and ends where an item does: here are no strings,
 * within which it might. */
static void test_pieces(void) {
	const torpor_bytes record = BYTES("\x83\x60\x61" "k\x87\xf9\x3e\x00\xfa\x3f\xc0\x00\x00\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"
	                                  "\xf8\xff\x1b\x80\x00\x00\x00\x00\x00\x00\x00\x39\x01\x00\xf6");
	for (size_t size = 1; size <= record.len; size++)
		for (size_t room = 9; room <= 40; room++) {
			uint8_t buf[40];
			torpor_test_call given = {.op = "load", .input = record, .piece = size};
			torpor_call call = {.time = 0};
			torpor_in in = {.call = &call, .buf = buf, .cap = room};
			torpor_record r;
			torpor_bytes piece;
			size_t heads = 0, items = 0, bytes = 0;
			torpor_test_current = &given;
			TORPOR_EXPECT(torpor_begin(&in, &r) && torpor_is(r.key, "k"));
			while (torpor_piece(&in, &piece)) {
				torpor_items it = torpor_items_in(piece, 0);
				bytes += piece.len;
				if (heads == 0 && torpor_major(&it) == TORPOR_ARRAY) {
					it.at = 1;
					heads++;
				}
				while (it.end == TORPOR_I_WHOLE && it.at < it.len) {
					if (torpor_major(&it) == TORPOR_OTHER && it.data[it.at] >= 0xf9)
						TORPOR_EXPECT(torpor_get_float(&it) >= 1.5);
					else
						torpor_get_item(&it);
					items++;
				}
				TORPOR_EXPECT(torpor_end(&it));
			}
			TORPOR_EXPECT(!torpor_failed(&call) && heads == 1 && items == 7 && bytes == record.len - 4);
		}
}

/* The window: what is not consumed stays, in its place in the input. */
static void test_window(void) {
	uint8_t buf[16];
	torpor_test_call given = {.op = "save", .input = BYTES("0123456789abcdefghijklmnop"), .piece = 5};
	torpor_call call = {.time = 0};
	torpor_in in = {.call = &call, .buf = buf, .cap = sizeof buf};
	torpor_test_current = &given;
	TORPOR_EXPECT(torpor_window(&in).len == 0 && !torpor_is_full(&in));
	TORPOR_EXPECT(torpor_fill(&in) && torpor_is(torpor_window(&in), "01234"));
	torpor_consume(&in, 3);
	TORPOR_EXPECT(torpor_offset(&in) == 3 && torpor_is(torpor_window(&in), "34"));
	TORPOR_EXPECT(torpor_fill(&in) && torpor_fill(&in) && torpor_is(torpor_window(&in), "3456789abcde"));
	TORPOR_EXPECT(torpor_fill(&in) && torpor_is_full(&in) && torpor_is(torpor_window(&in), "3456789abcdefghi"));
	torpor_consume(&in, 100);
	TORPOR_EXPECT(torpor_offset(&in) == 19 && torpor_window(&in).len == 0);
	TORPOR_EXPECT(torpor_fill(&in) && torpor_fill(&in) && torpor_is(torpor_window(&in), "jklmnop"));
	TORPOR_EXPECT(!torpor_fill(&in) && in.ended && !torpor_failed(&call));
}

/* What a serializer may do wrong at the border is found. */
static int early(torpor_call *call, torpor_in *in, torpor_out *out) {
	(void)call, (void)in, (void)out;
	return 0;
}

static int open_record(torpor_call *call, torpor_in *in, torpor_out *out) {
	(void)call;
	torpor_emit(out, BYTES("\x83\x60"), true);
	while (torpor_fill(in))
		torpor_consume(in, SIZE_MAX);
	return 0;
}

static void test_breaches(void) {
	const torpor_serializer bad = {.name = "bad", .version = "1", .schema = 1, .media = "x", .save = early, .load = open_record, .inspect = open_record};
	const struct {
		const char *op;
		const torpor_serializer *s;
		torpor_bytes input;
		const char *breach;
	} all[] = {
		{"save", &bad, BYTES("x"), "it returned before its input had ended"},
		{"load", &bad, BYTES("\x83\x60\x60\xf6"), "it emitted a fragment where output has no records"},
		{"save", &every, BYTES("junk\n"), "what it emitted is no record, or not whole"},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		torpor_test_call c = one(all[i].op, all[i].input);
		TORPOR_EXPECT(!torpor_test_run(&c, all[i].s) && c.breach != NULL && strcmp(c.breach, all[i].breach) == 0);
		torpor_test_free(&c);
	}
	torpor_serializer opens = bad;
	opens.save = open_record;
	torpor_test_call c = one("save", BYTES("x"));
	TORPOR_EXPECT(!torpor_test_run(&c, &opens) && strcmp(c.breach, "it returned with a record emitted in part") == 0);
	torpor_test_free(&c);
	c = one("migrate", BYTES(""));
	TORPOR_EXPECT(!torpor_test_run(&c, &bad) && c.code == 4 && strcmp(c.msg, "this serializer does not offer that operation") == 0);
	/* A descriptor that says no more than it must. */
	c = one("describe", BYTES(""));
	TORPOR_EXPECT(torpor_test_run(&c, &bad));
	torpor_items it = torpor_items_in(c.output, 0);
	const size_t pairs = torpor_get_map(&it);
	TORPOR_EXPECT(pairs == 9);
	for (size_t i = 0; i < pairs; i++) {
		const torpor_bytes key = torpor_get_text(&it);
		if (torpor_is(key, "reads")) {
			TORPOR_EXPECT(torpor_get_array(&it) == 1 && torpor_get_uint(&it) == 1);
		} else if (torpor_is(key, "operations")) {
			TORPOR_EXPECT(torpor_get_array(&it) == 3 && torpor_is(torpor_get_text(&it), "save") && torpor_is(torpor_get_text(&it), "load"));
			TORPOR_EXPECT(torpor_is(torpor_get_text(&it), "inspect"));
		} else {
			torpor_get_item(&it);
		}
	}
	TORPOR_EXPECT(torpor_end(&it));
	torpor_test_free(&c);
}

/* A serializer that loses records is found, whether it says that it is canonical or not: a line printed
 * for either is as it must be. */
static int drop(torpor_call *call, torpor_in *records, torpor_out *native) {
	torpor_record r;
	(void)call, (void)native;
	while (torpor_next(records, &r)) {
	}
	return 0;
}

static void test_lossy(void) {
	torpor_serializer lossy = every;
	lossy.load = drop;
	for (int canonical = 0; canonical < 2; canonical++) {
		const int before = torpor_test_failures;
		lossy.canonical = canonical != 0;
		TORPOR_ROUND_TRIP(&lossy, BYTES("size 3\n"));
		const int found = torpor_test_failures - before;
		torpor_test_failures = before;
		TORPOR_EXPECT(found == 1);
	}
}

int main(void) {
	test_numbers();
	test_floats();
	test_faults();
	test_strings();
	test_failures();
	test_unsound_records();
	test_streams();
	test_pieces();
	test_window();
	test_breaches();
	test_lossy();
	return torpor_test_done();
}
