package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDifferences(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{`1`, `1`, ``},
		{`1`, `2`, `: 1 > 2`},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, ``},
		{`{"a":1}`, `{"a":2}`, `/a: 1 > 2`},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":3}}`, `/a/c: 2 > 3`},
		{`{"a":1}`, `{"b":1}`, `/a: 1 > |/b:  > 1`},
		{`{"a":[1]}`, `{"a":[2]}`, `/a: [1] > [2]`},
		{`{"a/b~c":1}`, `{"a/b~c":2}`, `/a~1b~0c: 1 > 2`},
		{`{"a":1}`, `[1]`, `: {"a":1} > [1]`},
		{`{"$bytes":"AA=="}`, `{"$bytes":"AQ=="}`, `: {"$bytes":"AA=="} > {"$bytes":"AQ=="}`},
		{`{"a":12345678901234567890123}`, `{"a":12345678901234567890124}`, `/a: 12345678901234567890123 > 12345678901234567890124`},
		{`{"a":null}`, `{}`, `/a: null > `},
		{`{"a":"<&>"}`, `{"a":"→"}`, `/a: "<&>" > "→"`},
	} {
		var before, after any
		if err := decode(json.RawMessage(c.before), &before); err != nil {
			t.Fatal(err)
		}
		if err := decode(json.RawMessage(c.after), &after); err != nil {
			t.Fatal(err)
		}
		var told []string
		differences("", before, after, func(path, a, b string) { told = append(told, path+": "+a+" > "+b) })
		if got := strings.Join(told, "|"); got != c.want {
			t.Errorf("%s and %s: %q, want %q", c.before, c.after, got, c.want)
		}
	}
}

func TestSideBySide(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name                string
		values              values
		width               int
		kind, before, after string
		want                []string
	}{
		{"short", valuesCut, 80, "changed", `1`, `2`, []string{`1 → 2`}},
		{"a member", valuesCut, 80, "changed", `{"a":1}`, `{"a":2}`, []string{`/a: 1 → 2`}},
		{"a new member", valuesCut, 80, "changed", `{}`, `{"a":2}`, []string{`+/a: 2`}},
		{"a member less", valuesCut, 80, "changed", `{"a":2}`, `{}`, []string{`-/a: 2`}},
		{"members are whole", valuesFull, 80, "changed", `{"a":1}`, `{"a":2}`, []string{`{"a":1} → {"a":2}`}},
		{"none", valuesNone, 80, "changed", ``, ``, []string{`(3 bytes) → (4 bytes)`}},
		{"too long to be told", valuesCut, 80, "changed", ``, `1`, []string{`(3 bytes) → 1`}},
		// What differs is shown, though it is at the end.
		{"long and alike", valuesCut, 80, "changed", `"` + long + `1"`, `"` + long + `2"`, []string{`…`, `x1" → `, `x2"`}},
		{"added", valuesCut, 80, "added", ``, `"` + long + `"`, []string{`"xxx`, `…`}},
		{"added, whole", valuesFull, 80, "added", ``, `"` + long + `"`, []string{long + `"`}},
		{"removed", valuesCut, 80, "removed", `{"a":1}`, ``, []string{`{"a":1}`}},
		{"a narrow terminal", valuesCut, 10, "changed", `"` + long + `"`, `"y` + long + `"`, []string{` → `}},
	} {
		p := printer{values: c.values, width: c.width}
		got := p.sides(change{Kind: c.kind, Before: raw(c.before), After: raw(c.after), BytesBefore: 3, BytesAfter: 4}, 12)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q in it", c.name, got, want)
			}
		}
		if n := utf8.RuneCountInString(got); c.values == valuesCut && n > max(c.width-12, minRoom) {
			t.Errorf("%s: %d columns of %d: %q", c.name, n, c.width, got)
		}
	}
}

func raw(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

func TestDifferencesWithinARecordAreBounded(t *testing.T) {
	before, after := map[string]int{}, map[string]int{}
	for i := range 10000 {
		before[strings.Repeat("k", 1+i%50)+string(rune('a'+i%26))+json.Number(strings.Repeat("1", 1+i%9)).String()] = 1
	}
	for k := range before {
		after[k] = 2
	}
	a, _ := json.Marshal(before)
	b, _ := json.Marshal(after)
	p := printer{values: valuesCut}
	if got := p.sides(change{Kind: "changed", Before: a, After: b}, 0); utf8.RuneCountInString(got) > valueWidth {
		t.Errorf("%d characters", utf8.RuneCountInString(got))
	}
}
