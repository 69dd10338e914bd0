/* A serializer that uses all there is: native state is lines of commands, and what each does is tested in
 * c_test.go through package host, and in unit.c on the machine itself. */
#include "torpor.h"

/* The number behind a command: "size 17\n" has 17. */
static uint64_t number(torpor_bytes line, size_t from) {
	uint64_t n = 0;
	for (size_t i = from; i < line.len && line.at[i] >= '0' && line.at[i] <= '9'; i++)
		n = n * 10 + (uint64_t)(line.at[i] - '0');
	return n;
}

static bool begins(torpor_bytes line, const char *with) {
	const torpor_bytes w = torpor_string(with);
	return line.len >= w.len && torpor_compare((torpor_bytes){line.at, w.len}, w) == 0;
}

static int save(torpor_call *call, torpor_in *native, torpor_out *records) {
	torpor_bytes line;
	uint64_t depth = 1, n = 0;
	torpor_items value;
	if (torpor_setting(call, "depth", &value)) {
		depth = torpor_get_uint(&value);
		if (!torpor_end(&value) || depth > 100)
			return torpor_wrong_setting(call, TORPOR_STR("depth"), "a number of at most 100 is expected");
	}
	for (;;) {
		const uint64_t at = torpor_offset(native);
		if (!torpor_until(native, '\n', &line))
			return 0;
		uint8_t key[8];
		for (size_t i = 0; i < sizeof key; i++)
			key[i] = (uint8_t)(n >> (56 - 8 * i));
		n++;
		if (begins(line, "size ")) { /* a value of so many bytes, written in pieces */
			const uint64_t size = number(line, 5);
			static const uint8_t piece[1000] = {[0] = 's', [999] = 'e'};
			torpor_put_record_bytes(records, TORPOR_STR("sizes"), (torpor_bytes){key, sizeof key});
			torpor_put_bytes_head(records, size);
			for (uint64_t i = 0; i < size; i += sizeof piece)
				torpor_write(records, (torpor_bytes){piece, size - i < sizeof piece ? (size_t)(size - i) : sizeof piece});
		} else if (begins(line, "every")) { /* one of every kind, in as many arrays as the setting says */
			torpor_put_record(records, TORPOR_STR("every"), TORPOR_STR("kind"));
			for (uint64_t i = 0; i < depth; i++)
				torpor_put_array(records, 1);
			torpor_put_map(records, 4);
			torpor_put_uint(records, UINT64_MAX);
			torpor_put_int(records, INT64_MIN);
			torpor_put_int(records, INT64_MAX);
			torpor_put_float(records, -1.5);
			torpor_put_bool(records, true);
			torpor_put_null(records);
			torpor_put_text_head(records, 5);
			torpor_write(records, TORPOR_STR("gr\xc3\xbc"));
			torpor_write_byte(records, 'n');
			torpor_put_tag(records, 1000);
			torpor_put_int(records, call->time);
		} else if (begins(line, "junk")) {
			torpor_write_byte(records, 0xff);
		} else if (begins(line, "raw")) { /* a record without the detour over the buffer, in fragments */
			torpor_emit(records, TORPOR_STR("\x83\x60\x63"), true);
			torpor_emit(records, TORPOR_STR("raw\xf6"), false);
		} else if (begins(line, "fail ")) {
			torpor_failure f = {.code = (int32_t)number(line, 5), .has_offset = true, .offset = at};
			torpor_text_string(&f.msg, "failed as told");
			torpor_text_string(&f.path, "line ");
			torpor_text_number(&f.path, n);
			torpor_fail_with(call, &f);
			torpor_fail(call, 99, "only the first counts");
		} else if (begins(line, "return ")) {
			return (int)number(line, 7);
		} else if (begins(line, "log ")) {
			torpor_log(TORPOR_LOG_WARN, (torpor_bytes){line.at + 4, line.len - 5});
		} else if (begins(line, "loop")) { /* goes on after failures: nothing may come of it */
			for (int i = 0; i < 1000000; i++)
				torpor_put_record(records, TORPOR_STR(""), TORPOR_STR("again"));
		} else if (begins(line, "trap")) {
			__builtin_trap();
		} else {
			return torpor_corrupt(call, at, "no command");
		}
	}
}

/* Gives the commands again: the sizes of values of any length, and what the others need no value for. */
static int load(torpor_call *call, torpor_in *records, torpor_out *native) {
	torpor_record r;
	torpor_bytes piece;
	while (torpor_begin(records, &r)) {
		if (torpor_is(r.partition, "every"))
			torpor_write(native, TORPOR_STR("every\n"));
		else if (torpor_is(r.key, "raw"))
			torpor_write(native, TORPOR_STR("raw\n"));
		if (!torpor_is(r.partition, "sizes"))
			continue;
		if (!torpor_piece(records, &piece))
			break;
		torpor_items it = torpor_items_in(piece, r.offset);
		if (torpor_major(&it) != TORPOR_BYTES)
			return torpor_corrupt(call, r.offset, "no size");
		const size_t head = piece.at[0] < 0x58 ? 1 : (size_t)1 + ((size_t)1 << (piece.at[0] - 0x58));
		uint64_t n = piece.len - head;
		while (torpor_piece(records, &piece))
			n += piece.len;
		torpor_text t = {.len = 0};
		torpor_text_number(&t, n);
		torpor_write(native, TORPOR_STR("size "));
		torpor_write(native, (torpor_bytes){t.bytes, t.len});
		torpor_write_byte(native, '\n');
	}
	return 0;
}

/* Records of schema 1 have no partition of their own: gives each that of schema 2. */
static int migrate(torpor_call *call, torpor_in *records, torpor_out *out) {
	torpor_record r;
	if (call->from != 1 || call->to != 2)
		return torpor_fail(call, TORPOR_VERSION, "from 1 to 2 only");
	while (torpor_next(records, &r)) {
		if (r.key_is_text)
			torpor_put_record(out, TORPOR_STR("two"), r.key);
		else
			torpor_put_record_bytes(out, TORPOR_STR("two"), r.key);
		torpor_write(out, r.value);
	}
	return 0;
}

static int inspect(torpor_call *call, torpor_in *records, torpor_out *summary) {
	torpor_record r;
	uint64_t n = 0, bytes = 0;
	(void)call;
	for (; torpor_next(records, &r); n++)
		bytes += r.encoded.len;
	torpor_put_map(summary, 2);
	torpor_put_text(summary, TORPOR_STR("records"));
	torpor_put_uint(summary, n);
	torpor_put_text(summary, TORPOR_STR("bytes"));
	torpor_put_uint(summary, bytes);
	return 0;
}

static const torpor_serializer every = {
	.name = "every",
	.version = "2.1",
	.schema = 2,
	.reads = {2, 1},
	.media = "text/x-commands",
	.ordered = true,
	.known = {"depth", "width"},
	.save = save,
	.load = load,
	.migrate = migrate,
	.inspect = inspect,
};

TORPOR_SERIALIZER(every);
