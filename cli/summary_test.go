package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/statefile"
)

func TestInspectSummary(t *testing.T) {
	path := sample(t)
	out, errs, code := torpor(t, nil, "inspect", path)
	if code != exitOK || errs != "" || !regexp.MustCompile(`(?m)^largest +\d+ bytes: "stream/b\\nc" in 000000000000/us-east-1$`).MatchString(out) {
		t.Errorf("exit code %d: %s\n%s", code, errs, out)
	}
	out, _, code = torpor(t, nil, "inspect", "--summary=false", path)
	if code != exitOK || strings.Contains(out, "largest") {
		t.Errorf("--summary=false: exit code %d:\n%s", code, out)
	}
	out, errs, code = torpor(t, nil, "inspect", "--json", path)
	var head struct {
		Summary struct {
			Schema, Records int
			Partitions      map[string]struct{ Records int }
			Largest         struct{ Key string }
		}
	}
	if err := json.Unmarshal([]byte(out), &head); err != nil || code != exitOK || errs != "" {
		t.Fatalf("--json: exit code %d: %s%v", code, errs, err)
	}
	if s := head.Summary; s.Schema != 3 || s.Records != 3 || s.Partitions["000000000000/us-east-1"].Records != 2 || s.Largest.Key != "stream/b\nc" {
		t.Errorf("--json: %+v", s)
	}
	out, _, code = torpor(t, nil, "inspect", "--partition", "", path)
	if code != exitOK || !strings.Contains(out, "h'00ff'") {
		t.Errorf("--partition '': exit code %d, the largest is another's:\n%s", code, out)
	}
}

// TestInspectSummaryOfKeptModule: a state is told of by the module that wrote it, which lies in the data
// folder around it; where there is no module the rest is shown, and that is said.
func TestInspectSummaryOfKeptModule(t *testing.T) {
	// The built-in records with a section that means nothing: another digest, and a name of its own.
	wasm := append(bytes.Clone(modules.Records()), 0, 3, 1, 'x', 'y')
	by := statefile.Serializer{Name: "orders", Version: "2", Digest: sha256.Sum256(wasm), Schema: 1}
	data := t.TempDir()
	folder := filepath.Join(data, "state", "api_states", "kinesis")
	for _, dir := range []string{folder, filepath.Join(data, "modules")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(folder, "store.state")
	writeStateBy(t, path, by, entry{"", "a", text("first")})

	out, errs, code := torpor(t, nil, "inspect", path)
	if code != exitOK || !strings.Contains(errs, "no summary: module orders") || !strings.Contains(out, "orders 2, schema 1") || strings.Contains(out, "largest") {
		t.Errorf("without the module: exit code %d: %s\n%s", code, errs, out)
	}
	kept := filepath.Join(data, "modules", fmt.Sprintf("%x.wasm", by.Digest))
	if err := os.WriteFile(kept, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code = torpor(t, nil, "inspect", path)
	if code != exitOK || errs != "" || !strings.Contains(out, "largest") {
		t.Errorf("with the module: exit code %d: %s\n%s", code, errs, out)
	}
	// A module that lies there damaged is not run.
	wasm[len(wasm)-1]++
	if err := os.WriteFile(kept, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code = torpor(t, nil, "inspect", path); code != exitOK || !strings.Contains(errs, "no summary") {
		t.Errorf("with a damaged module: exit code %d: %s\n%s", code, errs, out)
	}
}

func TestInspectSummaryOfDamage(t *testing.T) {
	path := sample(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("first"))] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := torpor(t, nil, "inspect", path)
	if code != exitOK || !strings.Contains(errs, "no summary") || !strings.Contains(out, "kinesis") {
		t.Errorf("exit code %d: %s\n%s", code, errs, out)
	}
}

func TestPrintSummary(t *testing.T) {
	n, err := notation.New()
	if err != nil {
		t.Fatal(err)
	}
	m := func(pairs ...any) []byte {
		b := record.AppendMap(nil, len(pairs)/2)
		for _, p := range pairs {
			switch p := p.(type) {
			case string:
				b = record.AppendText(b, p)
			case int:
				b = record.AppendInt(b, int64(p))
			case []byte:
				b = append(b, p...)
			}
		}
		return b
	}
	var many []any
	for i := range 40 {
		many = append(many, fmt.Sprintf("kind%02d", i), m("count", 1, "bytes", i))
	}
	for _, c := range []struct {
		name string
		map_ []byte
		want string
	}{
		{"nothing", m(), "\n"},
		{"all", m("records", 3, "schema", 1, "classes", 2, "protocol", "four", "a\nb", m("c", -1), "largest", m("partition", "", "key", "k", "bytes", 9),
			"kinds", m("row", m("count", 2, "bytes", 5), "page\t", m("count", 1, "bytes", 70, "more", "x"))),
			"\nclasses   2\nprotocol  four\n\"a\\nb\"    {\"c\": -1}\nlargest   9 bytes: k in \"\"\n\nKIND      COUNT  BYTES\n\"page\\t\"  1      70\nrow       2      5\n"},
		{"not what it should be", m("kinds", "none", "largest", 7), "\nlargest   bytes: \"\" in \"\"\n"},
		{"counts that are none", m("kinds", m("a", 1, "b", m("count", "x", "bytes", m()))), "\n\nKIND  COUNT  BYTES\na     0      0\nb     0      0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := wellFormedMap(c.map_); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := printSummary(&out, n, c.map_); err != nil || out.String() != c.want {
				t.Errorf("%v\n%s\n%q, want\n%q", err, out.String(), out.String(), c.want)
			}
		})
	}
	var out bytes.Buffer
	if err := printSummary(&out, n, m("kinds", m(many...))); err != nil || strings.Count(out.String(), "\n") != maxKindsShown+4 || !strings.Contains(out.String(), "10 more kinds") {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, bad := range [][]byte{nil, {0x01}, {0xa1, 0x01}, {0xbf, 0xff}, append(m(), 0x00)} {
		if wellFormedMap(bad) == nil {
			t.Errorf("%x passes for a map", bad)
		}
	}
}
