package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// sources are those of the repository, which the program has with it.
func sources() fs.FS { return os.DirFS("..") }

// torpor runs the command line and gives what it wrote and its exit code.
func torpor(t *testing.T, environ []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), sources(), Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, environ, args)
	return out.String(), errs.String(), code
}

// entry is one record to be written; value is an encoded item.
type entry struct {
	partition string
	key       any // string or []byte
	value     []byte
}

// writeState writes a state file of those records.
func writeState(t *testing.T, entries ...entry) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.state")
	writeStateBy(t, path, statefile.Serializer{Name: "records", Version: "1.2.3", Digest: sha256.Sum256([]byte("module")), Schema: 3}, entries...)
	return path
}

// writeStateBy writes a state file of those records, as of that serializer.
func writeStateBy(t *testing.T, path string, by statefile.Serializer, entries ...entry) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := statefile.NewWriter(f, statefile.Header{Service: "kinesis", Part: "store", Generation: 7,
		Created: time.Date(2026, 4, 1, 12, 0, 0, 5, time.UTC), Serializer: by})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b := record.AppendText(record.AppendRecord(nil), e.partition)
		switch key := e.key.(type) {
		case string:
			b = record.AppendText(b, key)
		case []byte:
			b = record.AppendBytes(b, key)
		}
		b = append(b, e.value...)
		var scan record.Scanner
		refs, err := scan.Scan(b, nil)
		if err != nil {
			t.Fatalf("record %v: %v", e, err)
		}
		if err := w.WriteBatch(&record.Batch{Data: b, Refs: refs}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func text(s string) []byte { return record.AppendText(nil, s) }

// deep is an item nested as deep as a record's value may be.
func deep() []byte {
	return append(bytes.Repeat([]byte{0x81}, record.MaxDepth), 0xf6)
}

func sample(t *testing.T) string {
	return writeState(t,
		entry{"000000000000/us-east-1", "stream/a", text("first")},
		entry{"000000000000/us-east-1", "stream/b\nc", text(strings.Repeat("x", 300))},
		entry{"", []byte{0, 0xff}, deep()})
}

func TestInspectText(t *testing.T) {
	path := sample(t)
	out, errs, code := torpor(t, nil, "inspect", path)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"version 1\n", "kinesis\n", "2026-04-01T12:00:00.000000005Z\n", "records 1.2.3, schema 3\n",
		fmt.Sprintf("%x\n", sha256.Sum256([]byte("module"))), "000000000000/us-east-1  2", "\"\"                      1"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "stream/a") {
		t.Errorf("records without being asked:\n%s", out)
	}

	out, errs, code = torpor(t, nil, "inspect", "--records", path)
	if code != exitOK || errs != "" {
		t.Fatalf("--records: exit code %d: %s", code, errs)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	got := lines[len(lines)-3:]
	want := []string{
		"000000000000/us-east-1\tstream/a\t\"first\"",
		"000000000000/us-east-1\t\"stream/b\\nc\"\t" + `"` + strings.Repeat("x", 199) + "… (302 characters)",
		"\"\"\th'00ff'\t" + strings.Repeat("[", 64) + "null" + strings.Repeat("]", 64),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("records\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	out, _, code = torpor(t, nil, "inspect", "--records", "--partition", "", path)
	if code != exitOK || strings.Contains(out, "stream/a") || !strings.Contains(out, "h'00ff'") {
		t.Errorf("--partition '': exit code %d:\n%s", code, out)
	}
}

func TestInspectJSON(t *testing.T) {
	path := sample(t)
	out, errs, code := torpor(t, nil, "inspect", "--json", path)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var head struct {
		Format, Generation, Records int
		Service, Part, Created      string
		Serializer                  struct {
			Name, Version, SHA256 string
			Schema                int
		}
		Partitions []struct {
			Name    string
			Records int
		}
	}
	if err := json.Unmarshal([]byte(out), &head); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if head.Format != 1 || head.Generation != 7 || head.Records != 3 || head.Service != "kinesis" || head.Part != "store" ||
		head.Created != "2026-04-01T12:00:00.000000005Z" || head.Serializer.Name != "records" || head.Serializer.Schema != 3 ||
		len(head.Serializer.SHA256) != 64 || len(head.Partitions) != 2 || head.Partitions[0].Records != 2 {
		t.Errorf("header %+v", head)
	}

	out, errs, code = torpor(t, nil, "inspect", "--json", "--records", path)
	if code != exitOK || errs != "" {
		t.Fatalf("--records: exit code %d: %s", code, errs)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, want the header's and one for each record:\n%s", len(lines), out)
	}
	for i, want := range []string{
		`{"key":"stream/a","partition":"000000000000/us-east-1","value":"first"}`,
		`{"key":"stream/b\nc","partition":"000000000000/us-east-1","value":"` + strings.Repeat("x", 300) + `"}`,
		`{"key":{"$bytes":"AP8="},"partition":"","value":` + strings.Repeat("[", 64) + "null" + strings.Repeat("]", 64) + `}`,
	} {
		if lines[i+1] != want {
			t.Errorf("record %d is\n%s, want\n%s", i, lines[i+1], want)
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	good := sample(t)
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	newer := bytes.Clone(data)
	at := bytes.Index(newer, []byte("\x66torpor\x01")) + 7 // the key "torpor" and the format version
	newer[at] = 2
	binary.BigEndian.PutUint16(newer[len(newer)-2:], 2)
	rotten := bytes.Clone(data)
	rotten[bytes.Index(rotten, []byte("first"))] ^= 1

	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"truncated", []string{write("truncated", data[:len(data)-40])}, exitCorrupt, "cut short"},
		{"empty", []string{write("empty", nil)}, exitCorrupt, "empty"},
		{"other", []string{write("other", []byte("PK\x03\x04 and so on, long enough for a trailer"))}, exitCorrupt, "no Torpor state file"},
		{"rotten record", []string{"--records", write("rotten", rotten)}, exitCorrupt, "rotten"},
		{"rotten record, JSON", []string{"--records", "--json", filepath.Join(dir, "rotten")}, exitCorrupt, "rotten"},
		{"newer", []string{write("newer", newer)}, exitVersion, "format version 2"},
		{"missing", []string{filepath.Join(dir, "missing")}, exitNotFound, "missing"},
		{"missing partition", []string{"--records", "--partition", "nowhere", good}, exitNotFound, `"nowhere"`},
		{"folder", []string{dir}, exitUsage, dir},
		{"no file", nil, exitUsage, "1 arg"},
		{"unknown flag", []string{"--record", good}, exitUsage, "--records"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errs, code := torpor(t, nil, append([]string{"inspect"}, c.args...)...)
			if code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, want %d; %q should say %q", code, c.code, errs, c.want)
			}
		})
	}
}
