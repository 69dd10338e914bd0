/* Runs on the machine itself: README.md beside this file says how. */
#ifndef __wasm__ /* no part of the module */
#include "settings.c"

#include "torpor_test.h"

int main(void) {
	const char *fixtures[] = {"fixtures/empty.txt", "fixtures/small.txt", "fixtures/unicode.txt", "fixtures/long.txt"};
	for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
		const torpor_bytes native = torpor_test_file(fixtures[i]);
		TORPOR_ROUND_TRIP(&lines, native);
		/* Cut anywhere but behind a line, it is refused, and the last line named. */
		size_t line = 0;
		for (size_t cut = 1; cut < native.len && cut < 1000; cut++) {
			if (native.at[cut - 1] == '\n')
				line = cut;
			else
				TORPOR_REFUSES(&lines, "save", ((torpor_bytes){native.at, cut}), TORPOR_CORRUPT, line);
		}
		torpor_test_free_file(native);
	}

	TORPOR_ROUND_TRIP(&lines, TORPOR_STR("=a name may be empty\na==\nb=\n"));
	TORPOR_REFUSES(&lines, "save", TORPOR_STR("a=1\nno line\n"), TORPOR_CORRUPT, 4);
	TORPOR_REFUSES(&lines, "save", TORPOR_STR("b=1\na=2\n"), TORPOR_CORRUPT, 4);
	TORPOR_REFUSES(&lines, "save", TORPOR_STR("a=1\na=2\n"), TORPOR_CORRUPT, 4);
	TORPOR_REFUSES(&lines, "save", TORPOR_STR("a=1\nb=\xff\n"), TORPOR_CORRUPT, 4);

	/* Records that save never writes: a value that is a number, a key of bytes, names out of order and twice. */
	TORPOR_REFUSES(&lines, "load", TORPOR_STR("\x83\x60\x61" "a\x61" "1\x83\x60\x61" "b\x01"), TORPOR_CORRUPT, 6);
	TORPOR_REFUSES(&lines, "load", TORPOR_STR("\x83\x60\x41" "a\x61" "1"), TORPOR_CORRUPT, 0);
	TORPOR_REFUSES(&lines, "load", TORPOR_STR("\x83\x60\x61" "b\x60\x83\x60\x61" "a\x60"), TORPOR_CORRUPT, 5);
	TORPOR_REFUSES(&lines, "load", TORPOR_STR("\x83\x60\x61" "a\x60\x83\x60\x61" "a\x60"), TORPOR_CORRUPT, 5);
	TORPOR_REFUSES(&lines, "load", TORPOR_STR("\x83\x60\x60\x60\x83\x60\x60\x60"), TORPOR_CORRUPT, 4);
	return torpor_test_done();
}
#endif
