package modules_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/modules"
)

// scene is one call of the transcript in ABI.md: what crossed the border, line by line.
type scene struct {
	export string
	lines  []string
}

// transcript reads the scenes of ABI.md's fenced blocks.
func transcript(t *testing.T) []scene {
	t.Helper()
	doc, err := os.ReadFile("../host/abi/ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	var scenes []scene
	for _, block := range regexp.MustCompile("(?s)```transcript\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, ";")
			text := strings.TrimSpace(line)
			bytes := strings.ReplaceAll(text, " ", "")
			_, notHex := hex.DecodeString(bytes)
			switch {
			case text == "":
			case !strings.HasPrefix(line, " "):
				scenes = append(scenes, scene{export: text})
			case notHex == nil: // it goes on with the line before
				lines := scenes[len(scenes)-1].lines
				lines[len(lines)-1] += bytes
			default:
				s := &scenes[len(scenes)-1]
				if name, rest, ok := strings.Cut(text, ":"); ok {
					text = name + ": " + strings.ReplaceAll(rest, " ", "")
				}
				s.lines = append(s.lines, text)
			}
		}
	}
	return scenes
}

// given collects what the host side of a scene says: the bytes of all lines of one import.
func (s scene) given(t *testing.T, name string) (all []byte, last int) {
	t.Helper()
	for _, line := range s.lines {
		if strings.HasPrefix(line, name+"(") {
			_, digits, _ := strings.Cut(line, ": ")
			b, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			all, last = append(all, b...), len(b)
		}
	}
	return all, last
}

// TestTranscript plays the host's side of the transcript in ABI.md and compares all that happens.
func TestTranscript(t *testing.T) {
	scenes := transcript(t)
	if len(scenes) < 4 {
		t.Fatalf("%d scenes in ABI.md", len(scenes))
	}
	g := newGuest(t, modules.Records())
	for _, s := range scenes {
		var got []string
		c := &call{native: s.export == "torpor_save", records: s.export == "torpor_save",
			trace: func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }}
		c.arg, _ = s.given(t, "arg")
		input, last := s.given(t, "next")
		c.input, c.late = input, last == 0
		g.run(s.export, c)
		if c.trap != nil {
			t.Fatalf("%s: %v", s.export, c)
		}
		got = append(got, fmt.Sprintf("return %d", c.status))
		if want := strings.Join(s.lines, "\n"); strings.Join(got, "\n") != want {
			t.Errorf("%s:\n%s\nABI.md has\n%s", s.export, strings.Join(got, "\n"), want)
		}
	}
}
