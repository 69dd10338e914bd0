package files

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/source/sourcetest"
)

// TestSource holds the source to what the runtime asks of every one.
func TestSource(t *testing.T) {
	for name, prepare := range map[string]func(*Source){
		"in one step": func(*Source) {},
		"in a mount point": func(s *Source) {
			s.inside = true
			s.work = filepath.Join(s.cfg.Root, insideWork)
		},
	} {
		t.Run(name, func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
				s := open(t, Config{})
				prepare(s)
				must(t, os.MkdirAll(s.work, 0o700))
				return sourcetest.Fixture{
					Source: s,
					Put: func(n int) {
						put(t, s, "a/file", fmt.Sprint("state ", n))
						put(t, s, fmt.Sprint("b/file", n%3), strings.Repeat("x", n))
						must(t, os.Chmod(filepath.Join(s.cfg.Root, "a"), os.FileMode(0o700+n%8)))
					},
					State: func() string {
						// The folder's own time is that of its last change, which Put does not set.
						lines := strings.Split(picture(t, s.cfg.Root), "\n")
						for i, line := range lines {
							fields := strings.Fields(line)
							lines[i] = strings.Join(append(fields[:2], fields[3:]...), " ")
						}
						return strings.Join(lines, "\n")
					},
					Left: func() []string { return left(t, s) },
				}
			})
		})
	}
}
