package file

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
)

// TestJSONChecker: what it takes is what package encoding/json takes, but for a byte order mark and the depth, however
// the bytes are cut.
func TestJSONChecker(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	same := func(text string) {
		t.Helper()
		c := newChecker(JSON)
		var err error
		for rest := text; rest != "" && err == nil; {
			n := min(len(rest), r.IntN(4))
			_, err = c.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		if err == nil {
			err = c.end()
		}
		whole := checked(JSON, []byte(text))
		if want := json.Valid([]byte(text)); (err == nil) != want || (whole == nil) != want {
			t.Errorf("%q: in pieces %v, at once %v, valid is %v", text, err, whole, want)
		}
		if err != nil && whole != nil && err.Error() != whole.Error() {
			t.Errorf("%q: in pieces %v, at once %v", text, err, whole)
		}
		var offset *json.SyntaxError
		var form *formError
		if err := json.Unmarshal([]byte(text), new(any)); errors.As(err, &offset) && !errors.As(whole, &form) {
			t.Errorf("%q: no place is told: %v", text, whole)
		} else if form != nil && offset != nil && !strings.HasPrefix(text, "\xEF") && form.offset != offset.Offset-1 && form.offset != offset.Offset {
			t.Errorf("%q: byte %d, package json says %d", text, form.offset, offset.Offset-1)
		}
	}
	texts := []string{
		`{"a":[1,-0,2.5,1e5,1E+5,0e-0,-12.30e01,true,false,null,"x\"\\\/\b\f\n\r\tA\uD800é",{},[],[[]],{"":{"b":1}}]}`,
		" \t\r\n1 ", `"x"`, "0", "-0", "-1", "10", "1.0", "true", "null", "[]", "{}", `[{"a":1},{"b":2}]`, ` [ 1 , 2 ] `, ` { "a" : 1 , "b" : 2 } `,
		"", " ", "-", "01", "1.", ".1", "1e", "1e+", "+1", "tru", "truex", "nul", "[1,]", "[,1]", "[1 2]", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{1:2}`,
		`{"a":1]`, `[1}`, "]", "}", `"\x"`, `"\u12g4"`, "\"\n\"", "\"\x00\"", `"`, "[1][2]", "1 2", "{}x", "[[1]", "NaN", "/**/1", "'a'", "\xff", "\"\xff\"", "\xEF", "\xEF\xBB", "-x", "1.x", "1ex", "1e+x",
	}
	const letters = `{}[]:,"\ue1-+.0tfn ax` + "\n\x01\xff"
	for _, text := range texts {
		same(text)
		for cut := range len(text) {
			same(text[:cut])
			for range 20 {
				b := []byte(text)
				b[cut] = letters[r.IntN(len(letters))]
				same(string(b))
			}
		}
	}
	for range 20_000 {
		b := make([]byte, r.IntN(12))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		same(string(b))
	}
	for text, want := range map[string]bool{
		"\xEF\xBB\xBF{}": true, "\xEF\xBB\xBF": false, "\xEF\xBB\xBF\xEF\xBB\xBF1": false, "{}\xEF\xBB\xBF": false, "\xEF\xBB{}": false,
	} {
		if err := checked(JSON, []byte(text)); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := checked(JSON, []byte(strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth))); err != nil {
		t.Error(err)
	}
	nest := strings.Repeat(`{"a":[`, maxDepth/2)
	if err := checked(JSON, []byte(nest+strings.Repeat("]}", maxDepth/2))); err != nil {
		t.Error(err)
	}
	if err := checked(JSON, []byte(nest+"["+"]"+strings.Repeat("]}", maxDepth/2))); !errors.Is(err, abi.ErrTooLarge) {
		t.Error(err)
	}
}

func BenchmarkJSONChecker(b *testing.B) {
	text := []byte("[" + strings.Repeat(`{"id":"49657","data":"aGVsbG8gd29ybGQ=","at":1700000000.123,"ok":true},`, 100_000) + "0]")
	b.Run("this", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			must(b, checked(JSON, text))
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if !json.Valid(text) {
				b.Fatal("not valid")
			}
		}
	})
}
