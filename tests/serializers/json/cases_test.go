package json_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

const bom = "\xef\xbb\xbf"

// accepted are texts that RFC 8259 allows, and those that it lets an implementation choose and this one
// accepts: a byte order mark, numbers of any size, half of a surrogate pair, names that are not unique.
func accepted() map[string]string {
	m := map[string]string{
		"array arrays with spaces":          `[[]   ]`,
		"array empty string":                `[""]`,
		"array empty":                       `[]`,
		"array ending with newline":         `["a"]` + "\n",
		"array false":                       `[false]`,
		"array heterogeneous":               `[null, 1, "1", {}]`,
		"array null":                        `[null]`,
		"array with 1 and newline":          "[1\n]",
		"array with leading space":          ` [1]`,
		"array with several null":           `[1,null,null,null,2]`,
		"array with trailing space":         `[2] `,
		"array space inside":                `[ ]`,
		"array newline inside":              "[\n]",
		"array of arrays":                   `[[[[[[1],2],3],[]],[[]]],{}]`,
		"number 0e+1":                       `[0e+1]`,
		"number 0e1":                        `[0e1]`,
		"number after space":                `[ 4]`,
		"number double close to zero":       `[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]`,
		"number int with exp":               `[20e1]`,
		"number minus zero":                 `[-0]`,
		"number negative int":               `[-123]`,
		"number negative one":               `[-1]`,
		"number negative zero":              `[-0.0]`,
		"number real capital e":             `[1E22]`,
		"number real capital e neg exp":     `[1E-2]`,
		"number real capital e pos exp":     `[1E+2]`,
		"number real exponent":              `[123e45]`,
		"number real fraction exponent":     `[123.456e78]`,
		"number real neg exp":               `[1e-2]`,
		"number real pos exponent":          `[1e+2]`,
		"number simple int":                 `[123]`,
		"number simple real":                `[123.456789]`,
		"number 1.0":                        `[1.0]`,
		"number 1.00":                       `[1.00]`,
		"number 0.0":                        `[0.0]`,
		"number 0.00":                       `[0.00]`,
		"number of 40 digits":               `[1234567890123456789012345678901234567890]`,
		"number of 400 digits":              `[` + strings.Repeat("9", 400) + `]`,
		"number of 9000 digits":             `{"a":` + strings.Repeat("1", 9000) + `}`,
		"number of 40 places":               `[0.1234567890123456789012345678901234567890]`,
		"number 2^53":                       `[9007199254740993]`,
		"number 2^63":                       `[9223372036854775807,9223372036854775808,-9223372036854775808,-9223372036854775809]`,
		"number 2^64":                       `[18446744073709551615,18446744073709551616,-18446744073709551615,-18446744073709551616,-18446744073709551617]`,
		"number 5e-324":                     `[5e-324]`,
		"number largest float":              `[1.7976931348623157e308,179769313486231570000000000000000000000.5]`,
		"number 0.1+0.2":                    `[0.30000000000000004]`,
		"number seconds":                    `[1700000000.1234567,1700000000.123456,1700000000.12]`,
		"number integer powers":             `[10,100,1000,10000,100000,1000000,10000000,100000000,1000000000,10000000000,100000000000]`,
		"number at heads":                   `[23,24,255,256,65535,65536,4294967295,4294967296,-24,-25,-256,-257,-65536,-65537,-4294967296,-4294967297]`,
		"number exponent of 0":              `[1e0,1e00,1e-0,0e0,-0e0,0.0e0]`,
		"number huge exponent":              `[0.4e00669999999999999999999999999999999999999999999999999999999999999969999999006]`,
		"number neg int huge exp":           `[-1e+9999]`,
		"number pos double huge exp":        `[1.5e+9999]`,
		"number real overflow":              `[123123e100000,-123123e100000]`,
		"number real underflow":             `[123e-10000000]`,
		"number too big neg int":            `[-123123123123123123123123123123]`,
		"number 15 and 16 and 17 digits":    `[123456789012345,1234567890123456,12345678901234567,0.123456789012345,0.1234567890123456,0.12345678901234567]`,
		"object basic":                      `{"asd":"sdf"}`,
		"object duplicated key":             `{"a":"b","a":"c"}`,
		"object duplicated key and value":   `{"a":"b","a":"b"}`,
		"object duplicated key further in":  `{"a":{"b":{"c":1,"c":2,"c":{"c":1,"c":1}}}}`,
		"object duplicated objects":         `{"a":{"b":1},"a":{"b":1},"a":{},"a":3}`,
		"object key like a told one":        `{"a":1,"a":2,"a~#2":3,"a~#2":4,"a~0#2":5}`,
		"object empty":                      `{}`,
		"object empty key":                  `{"":0}`,
		"object empty keys":                 `{"":{"":{"":0}},"":1}`,
		"object escaped null in key":        `{"foo\u0000bar":42}`,
		"object extreme numbers":            `{"min":-1.0e+28,"max":1.0e+28}`,
		"object long strings":               `{"x":[{"id":"` + strings.Repeat("x", 40) + `"}],"id":"` + strings.Repeat("x", 40) + `"}`,
		"object simple":                     `{"a":[]}`,
		"object string unicode":             `{"title":"\u041f\u043e\u043b\u0442\u043e\u0440\u0430 \u0417\u0435\u043c\u043b\u0435\u043a\u043e\u043f\u0430" }`,
		"object with newlines":              "{\n\"a\":\"b\"\n}",
		"object keys with slashes":          `{"a/b":{"c~d":{"~1":1},"~0":2,"/":3,"//":4,"~end":5,"~\"a\"":6},"~end":7}`,
		"object keys that are numbers":      `{"0":{"1":2},"1":[3]}`,
		"object keys with escapes":          `{"\u0041":1,"A":2,"\u0041":3,"\n":4,"\u000a":5,"\/":6,"/":7,"\"":8,"\\":9}`,
		"object keys with lone surrogates":  `{"\ud800":{"\udc00":1},"\uD800":2}`,
		"object members in any order":       `{"b":1,"a":2,"c":{"z":1,"y":2,"x":3}}`,
		"object keys with 24 and 256 bytes": `{"` + strings.Repeat("k", 24) + `":{"` + strings.Repeat("l", 256) + `":{"` + strings.Repeat("m", 300) + `":1}}}`,
		"string 1 2 3 byte sequences":       `["\u0060\u012a\u12AB"]`,
		"string surrogate pair":             `["\uD801\udc37"]`,
		"string surrogate pairs":            `["\ud83d\ude39\ud83d\udc8d"]`,
		"string allowed escapes":            `["\"\\\/\b\f\n\r\t"]`,
		"string backslash and u quotes":     `["\\u0000"]`,
		"string backslash doublequotes":     `["\""]`,
		"string comments":                   `["a/*b*/c/*d//e"]`,
		"string double escape a":            `["\\a"]`,
		"string double escape n":            `["\\n"]`,
		"string escaped control character":  `["\u0012"]`,
		"string escaped noncharacter":       `["\uFFFF"]`,
		"string in array":                   `["asd"]`,
		"string last surrogates 1 and 2":    `["\uDBFF\uDFFF"]`,
		"string nbsp uescaped":              `["new\u00A0line"]`,
		"string noncharacter U+10FFFF":      "[\"\U0010ffff\"]",
		"string noncharacter U+FFFF":        "[\"\uffff\"]",
		"string null escape":                `["\u0000"]`,
		"string one byte utf-8":             `["\u002c"]`,
		"string pi":                         `["π"]`,
		"string reserved character":         "[\"\U0001bfff\"]",
		"string simple ascii":               `["asd "]`,
		"string space":                      `" "`,
		"string three byte utf-8":           `["\u0821"]`,
		"string two byte utf-8":             `["\u0123"]`,
		"string u+2028 line sep":            "[\"\u2028\"]",
		"string u+2029 par sep":             "[\"\u2029\"]",
		"string uescape":                    `["\u0061\u30af\u30EA\u30b9"]`,
		"string uescaped newline":           `["new\u000Aline"]`,
		"string unescaped char delete":      "[\"\x7f\"]",
		"string escaped delete":             `["\u007f"]`,
		"string unicode":                    `["\uA66D"]`,
		"string unicode escaped backslash":  `["\u005C"]`,
		"string unicode 2":                  `["⍂㈴⍂"]`,
		"string unicode U+10FFFE":           `["\uDBFF\uDFFE"]`,
		"string unicode U+1FFFE":            `["\uD83F\uDFFE"]`,
		"string unicode U+200B":             `["\u200B"]`,
		"string unicode U+2064":             `["\u2064"]`,
		"string unicode U+FDD0":             `["\uFDD0"]`,
		"string unicode U+FFFE":             `["\uFFFE"]`,
		"string escaped doublequote":        `["\u0022"]`,
		"string utf8":                       `["€𝄞"]`,
		"string with del character":         "[\"a\x7fa\"]",
		"string first surrogate alone":      `["\uDADA"]`,
		"string second surrogate alone":     `["\uDd1e\uDd1e"]`,
		"string incomplete surrogate":       `["\uD800\n"]`,
		"string incomplete and escape":      `["\uD800\u0061"]`,
		"string inverted surrogates":        `["\uDd1e\uD834"]`,
		"string lone second surrogate":      `["\uDFAA"]`,
		"string surrogate at the end":       `"\ud83d"`,
		"string pair in capitals":           `["\uD83D\uDE39","é"]`,
		"string python ascii":               `{"a":{"b":"caf\u00e9 \ud83d\ude39","\u00e9":1}}`,
		"string python ascii, one not":      `{"a":"caf\u00e9","b":"caf\u00E9","c":"\u007f","d":"\u000b\b"}`,
		"string mixed unicode":              `{"a":"caf\u00e9","b":"café"}`,
		"string one over 16 bits":           `["` + strings.Repeat("ß", 40_000) + `"]`,
		"string all control characters":     `["\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f"]`,
		"string control long forms":         `["\u0008\u0009\u000a\u000c\u000d","\u000B\u001F"]`,
		"structure lonely false":            `false`,
		"structure lonely int":              `42`,
		"structure lonely negative real":    `-0.1`,
		"structure lonely null":             `null`,
		"structure lonely string":           `"asd"`,
		"structure lonely true":             `true`,
		"structure lonely zero":             `0`,
		"structure lonely huge":             strings.Repeat("8", 1000),
		"structure lonely string empty":     `""`,
		"structure trailing newline":        `["a"]` + "\n",
		"structure true in array":           `[true]`,
		"structure whitespace array":        ` [] `,
		"structure whitespace everywhere":   "\t\r\n {\t\r\n \"a\"\t\r\n :\t\r\n [\t\r\n 1\t\r\n ,\t\r\n {\t\r\n }\t\r\n ]\t\r\n ,\"b\":{\"c\" : {\"d\" :1 , \"e\" :[ ]}} } \n\n",
		"structure byte order mark":         bom + `{}`,
		"structure byte order mark, scalar": bom + `1`,
		"structure byte order mark, spaces": bom + "\n [1, 2]\n",
		"structure 500 nested arrays":       strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"structure 10000 nested arrays":     strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		"structure 10000 nested objects":    strings.Repeat(`{"":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		"structure around the inner limit":  deep(58) + "",
	}
	for _, n := range []int{59, 60, 61, 62, 63, 64, 65, 66, 100} {
		m[fmt.Sprintf("structure %d deep", n)] = deep(n)
		m[fmt.Sprintf("structure %d deep, spaced", n)] = strings.ReplaceAll(deep(n), ":", ": ")
	}
	for _, n := range []int{22, 23, 24, 25, 255, 256, 257, 65535, 65536, 65537} {
		m[fmt.Sprintf("array of %d", n)] = "[[" + strings.Repeat("1,", n-1) + "1]]"
		m[fmt.Sprintf("string of %d", n)] = `{"a":{"b":["` + strings.Repeat("s", n) + `","` + strings.Repeat("t", n-2) + `\n","` + strings.Repeat("t", n-2) + `é"]}}`
		if n < 1000 {
			m[fmt.Sprintf("key of %d", n)] = `{"a":{"` + strings.Repeat("s", n) + `":{"` + strings.Repeat("t", n) + `":1}}}`
			m[fmt.Sprintf("object of %d", n)] = `{"x":{"y":{` + strings.Repeat(`"k":{},`, n-1) + `"k":[]}}}`
		}
	}
	for _, style := range styles() {
		m["style "+style.name] = style.write(sample)
	}
	// White space of every kind at every place, alone.
	tokens := []string{"", "{", `"a"`, ":", "{", `"b"`, ":", "[", "1", ",", "{", `"id"`, ":", "2", "}", ",", "[", "]", "]", ",", `"c"`, ":", "{", "}", "}", "}"}
	for _, space := range []string{" ", "\n", "\t", "\r\n", "    "} {
		for at := range tokens {
			m[fmt.Sprintf("space %q behind token %d", space, at)] = strings.Join(tokens[:at+1], "") + space + strings.Join(tokens[at+1:], "")
		}
	}
	return m
}

func deep(n int) string {
	return strings.Repeat(`{"d":[`, n/2) + strings.Repeat("[", n%2) + "7" + strings.Repeat("]", n%2) + strings.Repeat("]}", n/2)
}

// refused are texts that are no JSON, each with the offset of what is wrong.
func refused() []struct {
	text   string
	offset uint64
} {
	return []struct {
		text   string
		offset uint64
	}{
		{``, 0}, {` `, 1}, {"\n", 1}, {bom, 3}, {"\xef\xbb{}", 0}, {"\xef\xbb", 0}, {bom + bom + "1", 3},
		{`[1 true]`, 3}, {"[a\xe5]", 1}, {`["": 1]`, 3}, {`[""],`, 4}, {`[,1]`, 1}, {`[1,,2]`, 3}, {`["x",,]`, 5},
		{`["x"]]`, 5}, {`["",]`, 4}, {`["x"`, 4}, {`[x`, 1}, {`[3[4]]`, 2}, {`[` + "\xff]", 1}, {`[1:2]`, 2}, {`[,]`, 1},
		{`[-]`, 2}, {`[   , ""]`, 4}, {"[\"a\",\n4\n,1,", 11}, {`[1,]`, 3}, {`[1,,]`, 3}, {"[\"\va\"\\f]", 2}, {`[*]`, 1},
		{`[""`, 3}, {`[1,`, 3}, {"[1,\n1\n,1", 8}, {`[{}`, 3}, {`[fals]`, 5}, {`[nul]`, 4}, {`[tru]`, 4}, {`[True]`, 1},
		{`[++1234]`, 1}, {`[+1]`, 1}, {`[+Inf]`, 1}, {`[-01]`, 3}, {`[-1.0.]`, 5}, {`[-2.]`, 4}, {`[-NaN]`, 2}, {`[.-1]`, 1},
		{`[.2e-3]`, 1}, {`[0.1.2]`, 4}, {`[0.3e+]`, 6}, {`[0.3e]`, 5}, {`[0.e1]`, 3}, {`[0E+]`, 4}, {`[0E]`, 3}, {`[0e+]`, 4},
		{`[0e]`, 3}, {`[1.0e+]`, 6}, {`[1.0e-]`, 6}, {`[1.0e]`, 5}, {`[1 000.0]`, 3}, {`[1eE2]`, 3}, {`[2.e+3]`, 3}, {`[2.e-3]`, 3},
		{`[2.e3]`, 3}, {`[9.e+]`, 3}, {`[Inf]`, 1}, {`[NaN]`, 1}, {"[\uff11]", 1}, {`[1+2]`, 2}, {`[0x1]`, 2}, {`[0x42]`, 2},
		{`[Infinity]`, 1}, {`[-Infinity]`, 2}, {`[0e+-1]`, 4}, {`[-foo]`, 2}, {`[- 1]`, 2}, {`[-012]`, 3}, {`[-.123]`, 2}, {`[-1x]`, 3},
		{`[1ea]`, 3}, {"[1e1\xe5]", 4}, {`[1.]`, 3}, {`[.123]`, 1}, {`[1.2a-3]`, 4}, {`[1.8011670033376514H-308]`, 19}, {`[012]`, 2}, {`[00]`, 2},
		{`00`, 1}, {`01`, 1}, {`-`, 1}, {`1.`, 2}, {`1e`, 2}, {`0.`, 2}, {`1x`, 1}, {`-0x`, 2},
		{`["x", truth]`, 9}, {`{[: "x"}`, 1}, {`{"x", null}`, 4}, {`{"x"::"b"}`, 5}, {`{"a":"a" 123}`, 9}, {`{key: 'value'}`, 1},
		{"{\"\xb9\":\"0\",}", 2}, {`{"a" b}`, 5}, {`{:"b"}`, 1}, {`{"a" "b"}`, 5}, {`{"a":`, 5}, {`{"a"`, 4}, {`{1:1}`, 1},
		{`{9999E9999:1}`, 1}, {`{null:null,null:null}`, 1}, {`{"id":0,,,,,}`, 8}, {`{'a':0}`, 1}, {`{"id":0,}`, 8}, {`{"a":"b"}/**/`, 9},
		{`{"a":"b"}/**//`, 9}, {`{"a":"b"}//`, 9}, {`{"a":"b"}/`, 9}, {`{"a":"b",,"c":"d"}`, 9}, {`{a: "b"}`, 1}, {`{"a":"a`, 7},
		{`{ "foo" : "bar", "a" }`, 21}, {`{"a":"b"}#`, 9}, {`{"a":{"b":{"c":1,}}}`, 17}, {`{"a":{"b":{"c":[1,]}}}`, 18},
		{` `, 1}, {`["\uD800\"]`, 11}, {`["\uD800\u"]`, 10}, {`["\uD800\u1"]`, 11}, {`["\uD800\u1x"]`, 11}, {`[é]`, 1},
		{"[\"\\x00\"]", 3}, {"[\"\\\x00\"]", 3}, {`["\\\"]`, 7}, {"[\"\\\t\"]", 3}, {"[\"\\🌀\"]", 3}, {`["\"]`, 5}, {`["\u00A"]`, 7},
		{`["\uD834\uDd"]`, 12}, {`["\uD800\uD800\x"]`, 15}, {"[\"\\u\xe5\"]", 4}, {`["\a"]`, 3}, {`["\uqqqq"]`, 4}, {"[\"\\\xe5\"]", 3},
		{`[\u0020"asd"]`, 1}, {`[\n]`, 1}, {`"`, 1}, {`['single quote']`, 1}, {`abc`, 0}, {`["\`, 3}, {"[\"a\x00a\"]", 3},
		{"[\"new\nline\"]", 5}, {"[\"\t\"]", 2}, {`"\UA66D"`, 2}, {`""x`, 2}, {"[\"a\x1fa\"]", 3},
		{"<\u2060>", 0}, {`<null>`, 0}, {`[1]x`, 3}, {`[1]]`, 3}, {`["asd]`, 6}, {"a\u00e5", 0}, {`[True]`, 1}, {`1]`, 1}, {`{"x":true,`, 10},
		{`[][]`, 2}, {`]`, 0}, {`}`, 0}, {"\xef\xbb{}", 0}, {"\xe5", 0}, {`[`, 1}, {"\x00", 0}, {"1\x00", 1}, {`2@`, 1}, {`{}}`, 2}, {`{"":`, 4},
		{`{"a":/*comment*/"b"}`, 5}, {`{"a": true} "x"`, 12}, {`['`, 1}, {`[,`, 1}, {`[{`, 2}, {`["a`, 3}, {`["a"`, 4}, {`{`, 1}, {`{]`, 1}, {`{,`, 1},
		{`{[`, 1}, {`{"a`, 3}, {`{'a'`, 1}, {`["\{["\{["\{["\{`, 3}, {`*`, 0}, {`{"a":"b"}#{}`, 9}, {"[\u2060]", 1}, {"\u2060{}", 0}, {`[\u000A""]`, 1},
		{`[1`, 2}, {`[ false, nul`, 12}, {`[ true, fals`, 12}, {`[ false, tru`, 12}, {`{"asd":"asd"`, 12}, {`å`, 0}, {"[\u00a0]", 1}, {"[\f]", 1}, {"[\v]", 1},
		{"{} {}", 3}, {"1 2", 2}, {"{}\n{}\n", 3}, {"{} // end", 3}, {"/* begin */ {}", 0}, {"# x\n1", 0}, {"{\n  // c\n  \"a\": 1\n}", 4},
		// UTF-8 that is none: overlong, surrogates, beyond the last character, cut, alone.
		{"[\"\xc0\xaf\"]", 2}, {"[\"\xe0\x80\xaf\"]", 2}, {"[\"\xed\xa0\x80\"]", 2}, {"[\"\xf4\x90\x80\x80\"]", 2}, {"[\"a\xe2\x82\"]", 3}, {"[\"\x80\"]", 2},
		{"[\"0123456789012345678901234567890\xff\"]", 33}, {"{\"a\xff\":1}", 3}, {"{\"a\":{\"b\":{\"\xff\":1}}}", 12}, {"\"\xf0\x9f\x98\"", 1}, {"{\"a\":{\"b\":\"\\n\xfc\"}}", 13},
	}
}

// tooDeep nest more than 10,000 deep.
func tooDeep() []string {
	return []string{
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
		strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001),
		strings.Repeat("[", 100_000),
		strings.Repeat(`[{"":`, 50_000),
		`{"a": ` + strings.Repeat("[ ", 20_000),
	}
}

// settings under which every case is tried: the form of the records changes, what is accepted does not.
func settings() []map[string]any {
	return []map[string]any{
		nil,
		{"records": ""},
		{"records": "/*"},
		{"records": []any{"/a/*/*", "/*/*/*/*"}, "partition": "{1}", "id": []any{"x", "id"}},
		{"partition": "fixed", "id": ""},
	}
}

func TestAccepted(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	for name, text := range accepted() {
		if !utf8.ValidString(text) || !json.Valid([]byte(strings.TrimPrefix(text, bom))) && len(text) < 10_000 {
			t.Errorf("%s is a case that is none", name)
		}
		for _, s := range settings() {
			m.Settings = s
			records, err := m.Records(t, []byte(text))
			if err != nil {
				t.Errorf("%s, %v: %v", name, s, err)
				continue
			}
			got, err := m.Native(t, records)
			if err != nil || string(got) != text {
				t.Errorf("%s, %v: %.200q comes back as %.200q (%v)", name, s, text, got, err)
			}
			keys := map[string]bool{}
			for _, key := range names(t, records) {
				if keys[key] {
					t.Errorf("%s, %v: two records of key %q", name, s, key)
				}
				keys[key] = true
			}
		}
	}
}

func TestRefused(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	for _, c := range refused() {
		if len(c.text) > 0 && utf8.ValidString(c.text) && json.Valid([]byte(c.text)) {
			t.Errorf("%q is a case that is none", c.text)
		}
		for _, s := range settings() {
			m.Settings = s
			_, err := m.Records(t, []byte(c.text))
			var e *host.GuestError
			if !errors.As(err, &e) || !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("%q, %v: %v", c.text, s, err)
			} else if e.Failure.Offset != c.offset {
				t.Errorf("%q, %v: offset %d, want %d: %v", c.text, s, e.Failure.Offset, c.offset, err)
			}
		}
	}
	for _, text := range tooDeep() {
		for _, s := range settings() {
			m.Settings = s
			if _, err := m.Records(t, []byte(text)); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "nested deeper than 10000") {
				t.Errorf("%.20q, %v: %v", text, s, err)
			}
		}
	}
}

// TestTruncated: a text that is cut anywhere is refused, unless what is left is a text.
func TestTruncated(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	for name, text := range accepted() {
		if len(text) > 300 {
			continue
		}
		for cut := range len(text) {
			_, err := m.Records(t, []byte(text[:cut]))
			sound := json.Valid([]byte(strings.TrimPrefix(text[:cut], bom)))
			if sound != (err == nil) || err != nil && !errors.Is(err, abi.ErrCorrupt) {
				t.Fatalf("%s cut to %q: %v", name, text[:cut], err)
			}
		}
	}
}
