package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

var updateMan = flag.Bool("update-man", false, "write man/ anew")

const manFolder = "../man"

// manPages makes the manual pages of all commands, by file name. They have no date but that of the manual, so that the same
// commands have the same pages.
func manPages(t *testing.T) map[string][]byte {
	t.Helper()
	root := (&program{}).root()
	root.InitDefaultCompletionCmd()
	plain(root)
	folder := t.TempDir()
	date := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "torpor", Manual: "Torpor"}, folder); err != nil {
		t.Fatal(err)
	}
	return pagesIn(t, folder)
}

func pagesIn(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string][]byte{}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(path)] = b
	}
	return pages
}

// plain makes Markdown of the texts of a command and those below it, as which they are read for the pages: they are
// meant to be shown as they are.
func plain(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	cmd.Long = markdown(cmd.Long)
	cmd.Short = escape(cmd.Short)
	cmd.InitDefaultHelpFlag()
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = escape(f.Usage) })
	for _, c := range cmd.Commands() {
		plain(c)
	}
}

// markdown leaves lines that are indented as they are, and lets others flow.
func markdown(text string) string {
	var b strings.Builder
	fenced := false
	fence := func(on bool) {
		if on != fenced {
			b.WriteString("```\n")
		}
		fenced = on
	}
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "  "), strings.HasPrefix(line, "\t"):
			if !fenced {
				b.WriteString("\n")
			}
			fence(true)
			b.WriteString(line)
			continue
		case strings.TrimSpace(line) == "" && fenced: // it may go on
			fence(false)
		default:
			fence(false)
		}
		b.WriteString(escape(line))
	}
	if fenced && !strings.HasSuffix(text, "\n") {
		b.WriteString("\n")
	}
	fence(false)
	return b.String()
}

func escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "`", "\\`", "<", `\<`, "[", `\[`, "~", `\~`, "#", `\#`).Replace(text)
}

// TestManPages: the pages in man/ are those of the commands there are.
func TestManPages(t *testing.T) {
	want := manPages(t)
	if *updateMan {
		for name := range pagesIn(t, manFolder) {
			if want[name] == nil {
				if err := os.Remove(filepath.Join(manFolder, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.MkdirAll(manFolder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, page := range want {
			if err := os.WriteFile(filepath.Join(manFolder, name), page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	is := pagesIn(t, manFolder)
	for name, page := range want {
		if !bytes.Equal(is[name], page) {
			t.Errorf("man/%s is not as torpor %s --help; write it anew with: make man", name, strings.ReplaceAll(strings.TrimSuffix(name, ".1"), "-", " "))
		}
	}
	for name := range is {
		if want[name] == nil {
			t.Errorf("man/%s is of a command that there is not; remove it with: make man", name)
		}
	}
}

// TestHelpTexts: every command says what it is for, and shows how it is called.
func TestHelpTexts(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			walk(c)
		}
		group := cmd.HasSubCommands() && cmd.HasParent()
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" && !group {
			t.Errorf("%s has no short text, no long text or no example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len(strings.TrimRight(line, "\n")) > 115 {
				t.Errorf("%s: a line of %d characters in its help: %s", cmd.CommandPath(), len(line), line)
			}
			if strings.HasPrefix(line, "  torpor ") && strings.Contains(cmd.Example, line) && !strings.Contains(line, strings.TrimPrefix(cmd.CommandPath(), "torpor ")) && cmd.HasParent() {
				t.Errorf("%s: an example of another command: %s", cmd.CommandPath(), line)
			}
		}
	}
	walk((&program{}).root())
}
