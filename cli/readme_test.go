package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// readme gives README.md.
func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rows gives the rows of the README's table whose first column is called first: cells by column, without
// what marks code and footnotes.
func rows(t *testing.T, text, first string) []map[string]string {
	t.Helper()
	cells := func(line string) []string {
		line = strings.ReplaceAll(strings.TrimSpace(line), `\|`, "\x00")
		all := strings.Split(strings.Trim(line, "|"), "|")
		for i, c := range all {
			all[i] = strings.ReplaceAll(strings.Trim(c, " `¹²"), "\x00", "|")
		}
		return all
	}
	var columns []string
	var found []map[string]string
	for line := range strings.Lines(text) {
		switch {
		case columns == nil && strings.HasPrefix(line, "| "+first+" |"):
			columns = cells(line)
		case columns == nil || strings.HasPrefix(line, "|---"):
		case !strings.HasPrefix(line, "|"):
			return found
		default:
			row := map[string]string{}
			for i, c := range cells(line) {
				row[columns[i]] = c
			}
			found = append(found, row)
		}
	}
	t.Fatalf("README.md has no table whose first column is %s, or nothing follows it", first)
	return nil
}

// TestREADMESettingsTable: the README tells of every setting, of no other, and as it is.
func TestREADMESettingsTable(t *testing.T) {
	told := rows(t, readme(t), "flag")
	table := settingsTable()
	for i, s := range table {
		at := slices.IndexFunc(told, func(row map[string]string) bool { return row["flag"] == "--"+s.flag() })
		if at < 0 {
			t.Errorf("README.md does not tell of --%s", s.flag())
			continue
		}
		if at != i {
			t.Errorf("--%s is row %d in README.md, and %d in settingsTable", s.flag(), at+1, i+1)
		}
		inFile := s.key
		if s.key == configKey { // a file does not name files
			inFile = ""
		}
		for column, want := range map[string]string{"environment": s.env(), "LocalStack's name": s.localstack, "in the file": inFile, "default": s.def} {
			if got := told[at][column]; got != want {
				t.Errorf("--%s: README.md has %q as its %s, want %q", s.flag(), got, column, want)
			}
		}
		if told[at]["meaning"] == "" {
			t.Errorf("--%s: README.md does not say what it means", s.flag())
		}
	}
	if len(told) != len(table) {
		t.Errorf("README.md tells of %d settings, there are %d", len(told), len(table))
	}
	// What may stand under a service, or a module, is marked.
	for _, s := range table {
		for mark, is := range map[string]bool{"¹": s.perService, "²": s.perModule} {
			if marked := strings.Contains(readme(t), fmt.Sprintf("| `%s` %s |", s.key, mark)); marked != is {
				t.Errorf("%s may stand under a service or module: %v, README.md says %v", s.key, is, marked)
			}
		}
	}
}

// TestREADMEExitCodes: the README and --help tell of the exit codes there are.
func TestREADMEExitCodes(t *testing.T) {
	var told []string
	for _, row := range rows(t, readme(t), "exit code") {
		told = append(told, row["exit code"]+" "+strings.ToLower(strings.ReplaceAll(row["meaning"], "`", "")))
	}
	var want []string
	for code, meaning := range exitMeanings() {
		want = append(want, fmt.Sprintf("%d %s", code, meaning))
	}
	if !slices.Equal(told, want) {
		t.Errorf("README.md tells of the exit codes\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
}
