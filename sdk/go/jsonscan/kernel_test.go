package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
)

// oddities is what is in strings beside plain ASCII, as it stands in a document, and whether it may.
func oddities() map[string]bool {
	return map[string]bool{`\"`: true, `\\`: true, `\/`: true, `\b`: true, `\f`: true, `\n`: true, `\r`: true, `\t`: true, `\u00e9`: true, `\x`: false,
		"\x7f": true, "\n": false, "\u0080": true, "\u07ff": true, "\u0800": true, "\ud7ff": true, "\ue000": true, "\uffff": true, "\U00010000": true, "\U0010ffff": true,
		"\x80": false, "\xc1\xbf": false, "\xe0\x9f\xbf": false, "\xed\xa0\x80": false, "\xf0\x8f\xbf\xbf": false, "\xf4\x90\x80\x80": false, "\xf8\x88\x80\x80": false,
		"\xc3": false, "\xe2\x82": false, "\xf0\x9f\x98": false}
}

// Strings of every length around those where a head or a word ends, with something odd at every place that
// matters, are read alike by the kernel and without it, and come back.
func TestOddStrings(t *testing.T) {
	for odd, sound := range oddities() {
		for _, size := range []int{0, 1, 6, 7, 8, 21, 22, 23, 24, 31, 252, 253, 254, 255} {
			for _, at := range []int{0, 1, 7, 8, 16, size - 1, size} {
				if at < 0 || at > size {
					continue
				}
				for _, twice := range []string{"", odd} {
					document := `"` + strings.Repeat("a", at) + odd + strings.Repeat("b", size-at) + twice + `"`
					var items [3][]byte
					for i, d := range []string{document, "[" + document + `,"` + strings.Repeat("x", 100) + `"]`, "[" + document + strings.Repeat(" ", 100) + "]"} {
						err := read([]byte(d), 0, func(s *jsonscan.Scanner) error {
							if i > 0 {
								s.Array()
								s.More()
							}
							if items[i] = s.AppendItem(make([]byte, 0, 1<<10)); i > 0 { // with room, which the kernel needs
								for s.Err() == nil && s.More() {
									s.Skip()
								}
							}
							return s.End()
						})
						if (err == nil) != sound || sound && !bytes.Equal(items[i], items[0]) {
							t.Fatalf("%.300q: %v", d, err)
						}
					}
					if !sound {
						continue
					}
					var text string
					if err := json.Unmarshal([]byte(document), &text); err != nil || !bytes.Equal(items[0], record.AppendText(nil, text)) {
						t.Fatalf("%.300q became %x, %v", document, items[0], err)
					}
					for _, html := range []bool{false, true} {
						if got, err := writtenItem(html, items[0]); err != nil || string(got) != marshal(t, html, text) {
							t.Fatalf("%.300q came back as %.300q, %v", document, got, err)
						}
					}
				}
			}
		}
	}
}

// A text of an item that is not UTF-8 is refused wherever that is, whatever is behind the text.
func TestItemsThatAreNotUTF8(t *testing.T) {
	for odd, sound := range oddities() {
		if sound || utf8.ValidString(odd) {
			continue
		}
		for size := range 40 {
			for _, behind := range []string{"", "é", "\x80\x80"} {
				// Behind the text are empty arrays, which look like the rest of a character.
				item := record.AppendText(record.AppendArray(nil, 5), strings.Repeat("a", size)+odd+behind)
				item = record.AppendText(append(item, 0x80, 0x80, 0x80), strings.Repeat("x", 100))
				if got, err := writtenItem(false, item); err == nil {
					t.Fatalf("%x became %q", item, got)
				}
			}
		}
	}
}

// Which bytes are UTF-8 is what package utf8 says.
func TestWhatIsUTF8(t *testing.T) {
	for lead := 0x80; lead < 0x100; lead++ {
		for _, second := range []byte{0, 'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff} {
			for _, rest := range []string{"", "\x80", "\x80\xbf", "\xbf\xc0", "a"} {
				text := "0123\"456789" + string([]byte{byte(lead), second}) + rest + "abcdefgh"
				_, err := written(false, func(w *jsonscan.Writer) error { w.Text(text); return w.Err() })
				if (err == nil) != utf8.ValidString(text) {
					t.Fatalf("%q: %v", text, err)
				}
			}
		}
	}
}

// Numbers that keep their spelling take more room in an item than in a document: so many of them, of all
// lengths, at the end of all there is room for, come back, and those that are no numbers do not.
func TestSpelledNumbers(t *testing.T) {
	numbers := []string{"0.5", "-0.0", "1.50", "1e5", "1E+5", "-1e-05", "123456789.5", "0.12345678", "0.123456789012345", "0.1234567890123456", "0.12345678901234567",
		"-12345678.12345678", "123456789012345.1234567", "12345678901234.12345678", "1.12345678901234567890123", "1.123456789012345678901", "1.12345678901234567890e1",
		"1e12345678", "1e1234567", "1.5e-1234567", "1234567890123456.5", "0e0"}
	for _, sound := range numbers {
		for _, count := range []int{1, 2, 30, 3000} {
			document := "[" + strings.Repeat(sound+",", count) + "1]"
			var item []byte
			if err := read([]byte(document), 0, func(s *jsonscan.Scanner) error {
				item = s.AppendItem(nil)
				return s.End()
			}); err != nil {
				t.Fatalf("%s, %d times: %v", sound, count, err)
			}
			want := record.AppendArray(nil, count+1)
			for range count {
				want = record.AppendBytes(record.AppendTag(want, 262), []byte(sound))
			}
			if want = append(want, 1); !bytes.Equal(item, want) {
				t.Fatalf("%s, %d times, became %.100x", sound, count, item)
			}
			if got, err := writtenItem(true, item); err != nil || string(got) != document {
				t.Fatalf("%s, %d times, came back as %.100s, %v", sound, count, got, err)
			}
		}
	}
	for _, bad := range []string{"01.5", "1.", "1.e5", ".5", "1e", "1e+", "1.5.5", "1e5.5", "1e5e5", "1.5x", "-.5", "00", "1.5-"} {
		document := fmt.Sprintf(`[%s,"%s"]`, bad, strings.Repeat("x", 100))
		if err := read([]byte(document), 0, func(s *jsonscan.Scanner) error { s.AppendItem(nil); return s.End() }); err == nil {
			t.Errorf("%s is taken for a number", bad)
		}
		item := record.AppendText(record.AppendBytes(record.AppendTag(record.AppendArray(nil, 2), 262), []byte(bad)), strings.Repeat("x", 100))
		if got, err := writtenItem(false, item); err == nil {
			t.Errorf("an item that spells %s became %s", bad, got)
		}
	}
	// A byte that looks like a digit behind a number is an item of its own.
	item := append(record.AppendBytes(record.AppendTag(record.AppendArray(nil, 2), 262), []byte("1.5")), '5')
	if got, err := writtenItem(false, item); err != nil || string(got) != "[1.5,-22]" {
		t.Errorf("%s, %v", got, err)
	}
}
