/* A serializer for files of lines "name=value", sorted by name: one record a line. */
#include "torpor.h"

static uint8_t last_name[TORPOR_MAX_KEY_BYTES];

static int save(torpor_call *call, torpor_in *native, torpor_out *records) {
	torpor_bytes line, name, value, last = {last_name, 0};
	for (bool first = true;; first = false) {
		const uint64_t at = torpor_offset(native);
		if (!torpor_until(native, '\n', &line))
			return 0;
		if (line.at[line.len - 1] != '\n' || !torpor_cut(line, '=', &name, &value) ||
		    (!first && torpor_compare(name, last) <= 0) || !torpor_utf8(line))
			return torpor_corrupt(call, at, "not a line of name=value in UTF-8, sorted by name");
		if (name.len > sizeof last_name)
			return torpor_fail_at(call, TORPOR_TOO_LARGE, at, "a name of more than 65536 bytes");
		last = torpor_copy(last_name, sizeof last_name, name);
		value.len--; /* the newline */
		torpor_put_record(records, TORPOR_STR(""), name);
		torpor_put_text(records, value);
	}
}

static int load(torpor_call *call, torpor_in *records, torpor_out *native) {
	torpor_record r;
	torpor_bytes last = {last_name, 0};
	for (bool first = true; torpor_next(records, &r); first = false) {
		torpor_items items = torpor_value(&r);
		const torpor_bytes value = torpor_get_text(&items);
		if (!r.key_is_text || !torpor_end(&items) || (!first && torpor_compare(r.key, last) <= 0))
			return torpor_corrupt(call, r.offset, "not a record of a name and a value in text, sorted by name");
		last = torpor_copy(last_name, sizeof last_name, r.key);
		torpor_write(native, r.key);
		torpor_write_byte(native, '=');
		torpor_write(native, value);
		torpor_write_byte(native, '\n');
	}
	return 0;
}

static const torpor_serializer lines = {
	.name = "settings",
	.version = "1.0.0",
	.schema = 1,
	.media = "text/plain",
	.canonical = true, /* load gives back the very bytes save was given */
	.save = save,
	.load = load,
};

TORPOR_SERIALIZER(lines);
