package snapshot

import (
	"bytes"
	"errors"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// TestIndexLimit: more records than may be remembered are refused before they are.
func TestIndexLimit(t *testing.T) {
	var data []byte
	for _, key := range []string{"a", "b", "c"} {
		data = record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(data), ""), key), "v")
	}
	for most, want := range map[int]error{2: abi.ErrTooLarge, 3: nil} {
		x := newIndex("", t.TempDir())
		x.most = most
		if err := x.read(t.Context(), record.NewReader(bytes.NewReader(data), 0)); !errors.Is(err, want) || len(x.entries) != most {
			t.Errorf("%d of 3 records: %v, %d entries", most, err, len(x.entries))
		}
		x.close()
	}
}

// TestInside: which records are inside of others, as ABI.md has it.
func TestInside(t *testing.T) {
	for _, c := range []struct {
		nesting                          nesting
		outer, container, partition, key string
		want                             bool
	}{
		{"/", "", "", "", "/a", true},
		{"/", "", "/a", "", "/a/b", true},
		{"/", "", "/a", "1/us", "/a/b", true},
		{"/", "1/us", "/a", "", "/a/b", true},
		{"/", "", "/a", "", "/a", false},
		{"/", "", "/a", "", "/ab", false},
		{"/", "", "/a", "", "/b/a", false},
		{"/", "", "/a/", "", "/a/b", false},
		{"", "", "", "", "/a", false},
		{"", "", "a", "1/us", "$", false},
		{".[!", "", "$", "", ".a", true},
		{".[!", "", "$", "", `["a"]`, true},
		{".[!", "", "$", "", "$!", true},
		{".[!", "", "$", "", "!", false},
		{".[!", "", "$", "", "$2", false},
		{".[!", "", "$", "", "$2.a", false},
		{".[!", "", "$2", "", "$2.a", true},
		{".[!", "", "$2", "", "$2!~2", true},
		{".[!", "", "$2", "", ".a", false},
		{".[!", "", "$2", "", "$22.a", false},
		{".[!", "1/us", "$", "1/us", ".a", true},
		{".[!", "1/us", "$", "", ".a", false},
		{".[!", "1/us", "$", "2/us", ".a", false},
		{".[!", "1/us", "$", "2/us", "$", false},
		{".[!", "", `["1"]`, "1/us", "$", true},
		{".[!", "", `["1"]`, "", "$", false},
		{".[!", "", ".a", "", `.a["b"]`, true},
		{".[!", "", ".a", "", ".a~2", false},
	} {
		if got := c.nesting.inside([]byte(c.outer), []byte(c.container), []byte(c.partition), []byte(c.key)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestNumber(t *testing.T) {
	for key, want := range map[string]int64{"/a/0": 0, "/a/7": 7, "/a/18446744073709551615": -2, "/a/12": 12, "/a/": -1, "/a": -1, "/a/07": -1, "/a/000000000000": -1,
		"/a/1/2": -1, "/a/+1": -1, "/a/-1": -1, "/a/id=7": -1, "/a/1_0": -1, "/a/99999999999999999999": -1, "/b/1": -1} {
		n, ok := nesting("/").number([]byte("/a"), []byte(key))
		if ok != (want != -1) || ok && want >= 0 && n != uint64(want) {
			t.Errorf("%s: %d, %v", key, n, ok)
		}
	}
}
