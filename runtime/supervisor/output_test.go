package supervisor

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"plain, \ttabbed":              "plain, \ttabbed",
		"grüße 你好":                     "grüße 你好",
		"\x1b[1;32mgreen\x1b[0m":       "green",
		"\x1b[2Kgone\x1b[":             "gone",
		"\x1b[12\x01x":                 "\uFFFDx",
		"\x1bc":                        "\uFFFDc",
		"a\rb\x00\x7f":                 "a\uFFFDb\uFFFD\uFFFD",
		"\xff\xc3":                     "\uFFFD\uFFFD",
		"right\u202eleft":              "right\uFFFDleft",
		"no\u00a0break\u0085next line": "no\u00a0break\uFFFDnext line",
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add([]byte("\x1b[1;32mgreen\x1b[0m \xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text := printable(b)
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\r\n\x00\x7f") {
			t.Errorf("%q is %q", b, text)
		}
		if again := printable([]byte(text)); again != text {
			t.Errorf("%q is %q, and that %q", b, text, again)
		}
	})
}

// TestOutputInPieces: a line is one however it arrives, and the end of the output is the end of the last.
func TestOutputInPieces(t *testing.T) {
	const text = "one\n\ntwo\r\n" + "three, which is longer than the others and longer than a line may be, so that it is cut somewhere in it\nfour"
	for size := 1; size < len(text); size++ {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		o := newOutput("s", Output{LineBytes: MinLineBytes, LinesPerSecond: 100}, nil, slog.New(slog.DiscardHandler))
		go o.read(r)
		for b := []byte(text); len(b) > 0; b = b[min(size, len(b)):] {
			if _, err := w.Write(b[:min(size, len(b))]); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		<-o.done
		got := strings.Join(o.tail(), "|")
		if want := "one||two|three, which is longer than the others and longer than a line may be, so that it… (23 bytes more)|four"; got != want {
			t.Fatalf("in pieces of %d: %q", size, got)
		}
	}
}

func TestSaid(t *testing.T) {
	if s := said(nil) + said([]string{"", " "}); s != "" {
		t.Errorf("nothing is %q", s)
	}
	if s := said([]string{"a", "b"}); s != `; it said "a\nb"` {
		t.Errorf("%s", s)
	}
	long := said([]string{strings.Repeat("ä", maxSaid), "end"})
	if !strings.HasPrefix(long, `; it said … "ä`) || !strings.HasSuffix(long, `end"`) || len(long) > maxSaid+50 {
		t.Errorf("%s", long)
	}
	if s := cut(strings.Repeat("ä", 10), 5); s != "ää…" {
		t.Errorf("%s", s)
	}
}

func BenchmarkOutput(b *testing.B) {
	line := []byte(strings.Repeat("a line of the log ", 5) + "\n")
	o := newOutput("s", Output{LineBytes: DefaultLineBytes, LinesPerSecond: DefaultLinesPerSecond}, nil, slog.New(slog.DiscardHandler))
	much := bytes.Repeat(line, readBytes/len(line))
	b.SetBytes(int64(len(much)))
	for b.Loop() {
		o.take(much)
	}
}
