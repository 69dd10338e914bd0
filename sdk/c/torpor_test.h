/*
 * torpor_test.h: runs a serializer on the machine itself, without WebAssembly, by the rules of the border
 * between host and guest (host/abi/ABI.md): input comes in pieces of any size, output counts only if the
 * input was read to its end and no record is left open, what is emitted as records is checked, and each
 * buffer is memory of its own, so that a sanitizer sees who leaves it.
 *
 * A test is a program of one file that includes this header and the serializer. TORPOR_ROUND_TRIP is
 * what every serializer should have, TORPOR_REFUSES is for bad input; a torpor_test_call is one call with
 * all there is to choose. Each failure is printed; main returns torpor_test_done().
 */
#ifndef TORPOR_TEST_H
#define TORPOR_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torpor.h"

/* One call: what a serializer is given, and then what it did. */
typedef struct {
	/* What it is given. */
	const char *op;        /* save, load, migrate, inspect or describe */
	torpor_bytes input;    /* native state for save, else records */
	size_t piece;          /* the most bytes a piece of input has; 0: as many as there is room for */
	bool late_end;         /* the end of native input comes alone, after the last piece */
	torpor_bytes settings; /* a map, encoded; empty: none */
	uint64_t schema;       /* 0: that of the serializer */
	uint64_t from, to;
	int64_t time;
	size_t input_bytes;  /* size of the buffer of input; 0: TORPOR_INPUT_BYTES */
	size_t output_bytes; /* size of the buffer of output; 0: TORPOR_OUTPUT_BYTES */
	size_t input_fails;  /* n: the nth next fails */
	size_t output_fails; /* n: the nth emit is refused */

	/* What it did. */
	const char *breach;  /* the rule of the border that it broke, or NULL */
	int32_t code;        /* given to fail; 0 if it did not fail */
	char msg[TORPOR_TEXT_BYTES + 1];
	char path[TORPOR_TEXT_BYTES + 1];
	bool has_offset;
	uint64_t offset;
	torpor_bytes output; /* free it with torpor_test_free */
	size_t nexts, emits, logs;

	/* How the call stands. */
	size_t read, left, room, open;
	bool recording, ended;
} torpor_test_call;

static torpor_test_call *torpor_test_current;
static int torpor_test_failures;

static void torpor_test_broke(torpor_test_call *c, const char *rule) {
	if (c->breach == NULL)
		c->breach = rule;
}

static void *torpor_test_allocate(size_t n) {
	void *p = calloc(n > 0 ? n : 1, 1);
	if (p == NULL) {
		fputs("no memory\n", stderr);
		exit(2);
	}
	return p;
}

/* The length of the sound record at the beginning of s; 0 if there is none. */
static size_t torpor_test_record(torpor_bytes s) {
	torpor_in in;
	size_t p = 0;
	memset(&in, 0, sizeof in);
	return torpor_i_check(&in, s.at, s.len, &p) == TORPOR_I_WHOLE ? p : 0;
}

int64_t torpor_import_next(uint8_t *buf, uint32_t cap) {
	torpor_test_call *c = torpor_test_current;
	if (cap == 0)
		torpor_test_broke(c, "it called next with room for no byte");
	if (++c->nexts == c->input_fails || cap == 0)
		return -1;
	const size_t rest = c->input.len - c->read;
	const size_t room = c->piece > 0 && c->piece < cap ? c->piece : cap;
	size_t n = rest < room ? rest : room;
	bool more = false;
	const bool native = strcmp(c->op, "save") == 0;
	if (!native && n > 0) {
		/* Whole records as far as they fit; a longer one alone, in pieces. */
		const bool inside = c->left > 0;
		size_t whole = 0, next = c->left;
		if (!inside)
			next = torpor_test_record((torpor_bytes){c->input.at + c->read, rest});
		if (inside || next > room) {
			n = next < room ? next : room;
			c->left = next - n;
			more = c->left > 0;
		} else {
			while (next > 0 && whole + next <= room) {
				whole += next;
				next = torpor_test_record((torpor_bytes){c->input.at + c->read + whole, rest - whole});
			}
			n = whole;
		}
	}
	if (n > 0)
		memcpy(buf, c->input.at + c->read, n);
	c->read += n;
	/* The end of records comes alone. */
	if (c->read == c->input.len && (n == 0 || (native && !c->late_end)))
		c->ended = true;
	return (int64_t)n | (int64_t)c->ended << 32 | (int64_t)more << 33;
}

int32_t torpor_import_emit(const uint8_t *ptr, uint32_t len, uint32_t flags) {
	torpor_test_call *c = torpor_test_current;
	if (++c->emits == c->output_fails)
		return -1;
	if (c->room - c->output.len < len) {
		c->room = (c->output.len + len) * 2;
		void *grown = realloc((void *)(uintptr_t)c->output.at, c->room);
		if (grown == NULL) {
			fputs("no memory\n", stderr);
			exit(2);
		}
		c->output.at = grown;
	}
	if (len > 0)
		memcpy((uint8_t *)(uintptr_t)c->output.at + c->output.len, ptr, len);
	const size_t begin = c->recording ? c->open : c->output.len;
	c->output.len += len;
	if (flags > 1)
		torpor_test_broke(c, "it set flags of emit that mean nothing");
	if (strcmp(c->op, "save") != 0 && strcmp(c->op, "migrate") != 0) {
		if (flags != 0)
			torpor_test_broke(c, "it emitted a fragment where output has no records");
		return 0;
	}
	if (flags != 0) {
		c->recording = true;
		c->open = begin;
		return 0;
	}
	size_t at = begin, records = 0;
	while (at < c->output.len) {
		const size_t n = torpor_test_record((torpor_bytes){c->output.at + at, c->output.len - at});
		if (n == 0) {
			torpor_test_broke(c, "what it emitted is no record, or not whole");
			break;
		}
		at += n;
		records++;
	}
	if (c->recording && records != 1)
		torpor_test_broke(c, "the fragments it emitted do not make one record");
	c->recording = false;
	return 0;
}

/* Encodes the call's parameters into to and returns their length. */
static size_t torpor_test_arg(const torpor_test_call *c, uint8_t *to) {
	torpor_call call;
	memset(&call, 0, sizeof call);
	torpor_out out = {.call = &call, .buf = to, .cap = TORPOR_ARG_BYTES};
	torpor_put_map(&out, 6 + (uint64_t)(c->settings.len > 0) + 2 * (uint64_t)(c->to > 0));
	const char *texts[6] = {"op", c->op, "service", "orders", "part", "store"};
	for (size_t i = 0; i < 6; i++)
		torpor_put_text(&out, torpor_string(texts[i]));
	torpor_put_text(&out, TORPOR_STR("schema"));
	torpor_put_uint(&out, c->schema);
	torpor_put_text(&out, TORPOR_STR("time"));
	torpor_put_int(&out, c->time);
	if (c->to > 0) {
		torpor_put_text(&out, TORPOR_STR("from"));
		torpor_put_uint(&out, c->from);
		torpor_put_text(&out, TORPOR_STR("to"));
		torpor_put_uint(&out, c->to);
	}
	torpor_put_text(&out, TORPOR_STR("later")); /* what a guest must pass over */
	torpor_put_array(&out, 1);
	torpor_put_null(&out);
	if (c->settings.len > 0) {
		torpor_put_text(&out, TORPOR_STR("settings"));
		torpor_write(&out, c->settings);
	}
	return out.len;
}

int32_t torpor_import_arg(uint8_t *buf, uint32_t cap) {
	uint8_t *arg = torpor_test_allocate(TORPOR_ARG_BYTES);
	const size_t n = torpor_test_arg(torpor_test_current, arg);
	if (n <= cap)
		memcpy(buf, arg, n);
	free(arg);
	return (int32_t)n;
}

void torpor_import_fail(int32_t code, const uint8_t *ptr, uint32_t len) {
	torpor_test_call *c = torpor_test_current;
	torpor_items it = torpor_items_in((torpor_bytes){ptr, len}, 0);
	c->code = code;
	for (size_t n = torpor_get_map(&it); n > 0; n--) {
		const torpor_bytes key = torpor_get_text(&it);
		if (torpor_is(key, "offset")) {
			c->has_offset = true;
			c->offset = torpor_get_uint(&it);
			continue;
		}
		const torpor_bytes text = torpor_get_text(&it);
		torpor_copy((uint8_t *)(torpor_is(key, "msg") ? c->msg : c->path), TORPOR_TEXT_BYTES, text);
	}
	if (!torpor_end(&it) || code <= 0)
		torpor_test_broke(c, "what it gave to fail is no map of a failure");
}

void torpor_import_log(int32_t level, const uint8_t *ptr, uint32_t len) {
	torpor_test_current->logs++;
	fprintf(stderr, "log %d: %.*s\n", (int)level, (int)len, (const char *)ptr);
}

/* Runs one call. True if it succeeded: then c->output counts. */
static __attribute__((unused)) bool torpor_test_run(torpor_test_call *c, const torpor_serializer *s) {
	torpor_buffers b = {
	    .input_bytes = c->input_bytes > 0 ? c->input_bytes : TORPOR_INPUT_BYTES,
	    .output_bytes = c->output_bytes > 0 ? c->output_bytes : TORPOR_OUTPUT_BYTES,
	};
	b.arg = torpor_test_allocate(TORPOR_ARG_BYTES);
	b.input = torpor_test_allocate(b.input_bytes);
	b.output = torpor_test_allocate(b.output_bytes);
	c->schema = c->schema > 0 ? c->schema : s->schema;
	torpor_test_current = c;
	int32_t status;
	if (strcmp(c->op, "describe") == 0) {
		status = torpor_i_describe(&b, s);
		c->ended = true;
	} else {
		status = torpor_i_run(&b, s,
		                      strcmp(c->op, "save") == 0      ? s->save
		                      : strcmp(c->op, "load") == 0    ? s->load
		                      : strcmp(c->op, "migrate") == 0 ? s->migrate
		                                                      : s->inspect);
	}
	free(b.arg);
	free(b.input);
	free(b.output);
	if (status != c->code)
		torpor_test_broke(c, "it returned another code than it failed with");
	if (status == 0 && c->recording)
		torpor_test_broke(c, "it returned with a record emitted in part");
	if (status == 0 && !c->ended)
		torpor_test_broke(c, "it returned before its input had ended");
	return status == 0 && c->breach == NULL;
}

/* Frees the output of a call. */
static __attribute__((unused)) void torpor_test_free(torpor_test_call *c) {
	free((void *)(uintptr_t)c->output.at);
	c->output = (torpor_bytes){NULL, 0};
}

/* Counts and prints a failure of a test. */
static __attribute__((unused)) void torpor_test_failed(const char *file, int line, const char *what, const torpor_test_call *c) {
	torpor_test_failures++;
	fprintf(stderr, "%s:%d: %s", file, line, what);
	if (c != NULL && c->breach != NULL)
		fprintf(stderr, ": %s", c->breach);
	if (c != NULL && c->code != 0)
		fprintf(stderr, ": code %d, %s, path '%s', offset %lld", (int)c->code, c->msg, c->path, c->has_offset ? (long long)c->offset : -1LL);
	if (c != NULL)
		fprintf(stderr, " (%s in pieces of %zu, buffers of %zu and %zu)", c->op, c->piece, c->input_bytes, c->output_bytes);
	fputc('\n', stderr);
}

/* Saves a native state and loads it again, with input in pieces of every kind and output buffers of
 * every kind, and compares. Whether the serializer is canonical or not, it must give the same output
 * however its input is cut. If it is canonical, load must give the very bytes save was given, else a
 * state that has the same records. */
static __attribute__((unused)) void torpor_test_round_trip(const char *file, int line, const torpor_serializer *s, torpor_bytes native) {
	static const size_t pieces[] = {0, 1, 2, 3, 7, 64, 1000, 65536};
	static const size_t outputs[] = {0, 16, 17, 100};
	torpor_test_call saved = {.op = "save", .input = native};
	if (!torpor_test_run(&saved, s)) {
		torpor_test_failed(file, line, "the state cannot be saved", &saved);
		torpor_test_free(&saved);
		return;
	}
	torpor_test_call loaded = {.op = "load", .input = saved.output};
	if (!torpor_test_run(&loaded, s))
		torpor_test_failed(file, line, "the records cannot be loaded", &loaded);
	else if (s->canonical && torpor_compare(loaded.output, native) != 0)
		torpor_test_failed(file, line, "load gives other bytes than save was given", &loaded);
	else if (!s->canonical) {
		torpor_test_call resaved = {.op = "save", .input = loaded.output};
		if (!torpor_test_run(&resaved, s) || torpor_compare(resaved.output, saved.output) != 0)
			torpor_test_failed(file, line, "a save of what load gave has other records", &resaved);
		torpor_test_free(&resaved);
	}
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
		for (size_t k = 0; k < sizeof outputs / sizeof *outputs; k++)
			for (int late = 0; late < 2; late++) {
				torpor_test_call again = {
				    .op = "save", .input = native, .piece = pieces[i], .output_bytes = outputs[k], .late_end = late != 0};
				if (!torpor_test_run(&again, s) || torpor_compare(again.output, saved.output) != 0)
					torpor_test_failed(file, line, "save gives other records where its input is cut in another way", &again);
				torpor_test_free(&again);
				torpor_test_call back = {.op = "load", .input = saved.output, .piece = pieces[i], .output_bytes = outputs[k]};
				if (!torpor_test_run(&back, s) || torpor_compare(back.output, loaded.output) != 0)
					torpor_test_failed(file, line, "load gives another state where its input is cut in another way", &back);
				torpor_test_free(&back);
			}
	torpor_test_free(&saved);
	torpor_test_free(&loaded);
}
#define TORPOR_ROUND_TRIP(serializer, native) torpor_test_round_trip(__FILE__, __LINE__, serializer, native)

/* Expects that an operation fails with a code, at an offset of its input. */
static __attribute__((unused)) void torpor_test_refuses(const char *file, int line, const torpor_serializer *s, const char *op,
                                                        torpor_bytes input, int32_t code, uint64_t offset) {
	static const size_t pieces[] = {0, 1};
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		torpor_test_call c = {.op = op, .input = input, .piece = pieces[i]};
		if (torpor_test_run(&c, s) || c.breach != NULL || c.code != code || !c.has_offset || c.offset != offset)
			torpor_test_failed(file, line, "not the failure expected", &c);
		torpor_test_free(&c);
	}
}
#define TORPOR_REFUSES(serializer, op, input, code, offset) \
	torpor_test_refuses(__FILE__, __LINE__, serializer, op, input, code, offset)

/* Expects that something is true. */
#define TORPOR_EXPECT(condition) ((condition) ? (void)0 : torpor_test_failed(__FILE__, __LINE__, "expected: " #condition, NULL))

/* Reads a file; free its bytes with torpor_test_free_file. The program ends if it cannot be read. */
static __attribute__((unused)) torpor_bytes torpor_test_file(const char *name) {
	FILE *f = fopen(name, "rb");
	long size;
	if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0) {
		perror(name);
		exit(2);
	}
	uint8_t *at = torpor_test_allocate((size_t)size);
	if (fread(at, 1, (size_t)size, f) != (size_t)size) {
		perror(name);
		exit(2);
	}
	fclose(f);
	return (torpor_bytes){at, (size_t)size};
}

static __attribute__((unused)) void torpor_test_free_file(torpor_bytes s) { free((void *)(uintptr_t)s.at); }

/* What main returns: 0 if all was as expected. */
static __attribute__((unused)) int torpor_test_done(void) {
	if (torpor_test_failures > 0)
		fprintf(stderr, "%d failures\n", torpor_test_failures);
	else
		puts("ok");
	return torpor_test_failures > 0;
}

#endif
