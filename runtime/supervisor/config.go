package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Defaults and bounds of [Config].
const (
	MinReadyTimeout     = 100 * time.Millisecond
	DefaultReadyTimeout = time.Minute
	MaxReadyTimeout     = time.Hour

	MinStopTimeout     = 10 * time.Millisecond
	DefaultStopTimeout = 10 * time.Second
	MaxStopTimeout     = time.Hour

	MinPause          = time.Millisecond
	DefaultFirstPause = 500 * time.Millisecond
	DefaultMostPause  = 30 * time.Second
	MaxPause          = time.Hour

	MinSound     = time.Millisecond
	DefaultSound = time.Minute
	MaxSound     = 24 * time.Hour

	DefaultRestarts = 10
	MaxRestarts     = 10_000
	MinWithin       = 10 * time.Millisecond
	DefaultWithin   = 10 * time.Minute
	MaxWithin       = 24 * time.Hour

	MinLineBytes     = 80
	DefaultLineBytes = 8 << 10
	MaxLineBytes     = 1 << 20

	DefaultLinesPerSecond = 1000
	MaxLinesPerSecond     = 1_000_000
)

// maxPort is the highest TCP port.
const maxPort = 1<<16 - 1

// Config is what a [Supervisor] is made of. Zero fields mean the defaults, where they are not required.
type Config struct {
	Service string // for messages, and the name before each line of the log; required
	// Command is the program with its arguments; no shell reads it. A name without a slash is looked for in the
	// PATH of Env, one with a slash from Folder on. {port}, {address} and {folder} are replaced. Required.
	Command []string
	// Env is NAME=VALUE, all that the program gets; nothing is inherited. {port}, {address} and {folder} are
	// replaced in values.
	Env    []string
	Folder string // where it runs; "" is the runtime's own
	Port   int    // where it listens; 0: a free one is chosen, and kept while nobody else takes it
	// Ports keeps supervisors of one process from choosing the same port. Give all of them the same.
	Ports *Ports

	Ready        Ready
	ReadyTimeout time.Duration // from the start until it must be ready
	StopTimeout  time.Duration // between asking it to end (SIGTERM) and ending it (SIGKILL)
	Backoff      Backoff
	Restarts     Restarts
	Output       Output

	// Prepare is called each time the service is found ready, before Start returns and before it counts as
	// running: it gives a restarted service its state back. An error ends the service and fails the start. ctx
	// ends with Stop; address is where the service listens. May be nil.
	Prepare func(ctx context.Context, address string) error
	// Exited is called when the service, once running, is not any more without having been stopped, after all of
	// it has been cleared away and before it is started again; and again for each restart that fails. Calls come
	// one after the other. It must not call Start or Stop itself, which wait for it. May be nil.
	Exited func(Exit)

	Logger *slog.Logger // required; the service's output goes there too, at level Info
}

// Ready says how it is known that a service can be used. The zero value: something accepts connections on
// its port. At most one of HTTP, Line and None may be set.
type Ready struct {
	HTTP   string // a GET of this path of it is answered with Status
	Status int    // 0: any from 200 to 299
	Line   string // a line of its output, standard or error, matches this regular expression
	None   bool   // it is ready when it has been started
}

// Backoff says how long to wait after the service died or could not be started: First, then twice that, and
// so on up to Most; First again after it has run for Sound.
type Backoff struct{ First, Most, Sound time.Duration }

// Restarts says how often a service that dies is started again: Most times Within a time, then it is given up.
// A negative Most means never.
type Restarts struct {
	Most   int
	Within time.Duration
}

// Output bounds what of the service's output goes to the log. What passes is counted and told; the service
// is never made to wait.
type Output struct {
	LineBytes      int // longer lines are cut
	LinesPerSecond int // and as many at once
}

// Check gives the configuration with its defaults, or an error that names what is wrong with it.
func (c Config) Check() (Config, error) {
	fail := func(format string, args ...any) (Config, error) {
		return c, fmt.Errorf("supervisor of service %q: %w", c.Service, fmt.Errorf(format, args...))
	}
	switch {
	case c.Service == "":
		return fail("Service is required")
	case c.Logger == nil:
		return fail("Logger is required")
	case len(c.Command) == 0 || c.Command[0] == "":
		return fail("Command names no program")
	case c.Port < 0 || c.Port > maxPort:
		return fail("Port is %d; it may be 1 to %d, or 0 for a free one", c.Port, maxPort)
	}
	path := false
	for _, v := range c.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return fail("%q in Env is not NAME=VALUE", v)
		}
		path = path || name == "PATH"
	}
	if !path && !strings.Contains(c.Command[0], "/") {
		return fail("%s has no folder and Env no PATH to find it by; nothing is inherited, so give one of them", c.Command[0])
	}
	for _, v := range append(append([]string{c.Folder, c.Service}, c.Command...), c.Env...) {
		if strings.ContainsRune(v, 0) {
			return fail("%q has a zero byte, which no program can be given", v)
		}
	}
	if c.Folder == "" {
		c.Folder = "."
	}
	var err error
	if c.Folder, err = filepath.Abs(c.Folder); err != nil {
		return fail("Folder: %w", err)
	}
	if err := c.Ready.check(); err != nil {
		return fail("Ready: %w", err)
	}
	for _, d := range []struct {
		name               string
		value              *time.Duration
		least, usual, most time.Duration
	}{
		{"ReadyTimeout", &c.ReadyTimeout, MinReadyTimeout, DefaultReadyTimeout, MaxReadyTimeout},
		{"StopTimeout", &c.StopTimeout, MinStopTimeout, DefaultStopTimeout, MaxStopTimeout},
		{"Backoff.First", &c.Backoff.First, MinPause, DefaultFirstPause, MaxPause},
		{"Backoff.Most", &c.Backoff.Most, MinPause, max(DefaultMostPause, c.Backoff.First), MaxPause},
		{"Backoff.Sound", &c.Backoff.Sound, MinSound, DefaultSound, MaxSound},
		{"Restarts.Within", &c.Restarts.Within, MinWithin, DefaultWithin, MaxWithin},
	} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		if *d.value < d.least || *d.value > d.most {
			return fail("%s is %v; it may be %v to %v", d.name, *d.value, d.least, d.most)
		}
	}
	if c.Backoff.Most < c.Backoff.First {
		return fail("Backoff.Most, %v, is less than Backoff.First, %v", c.Backoff.Most, c.Backoff.First)
	}
	if c.Restarts.Most < 0 {
		c.Restarts.Most = -1
	}
	if err := number("Restarts.Most", &c.Restarts.Most, -1, DefaultRestarts, MaxRestarts); err != nil {
		return fail("%w", err)
	}
	if c.Output, err = c.Output.Check(); err != nil {
		return fail("%w", err)
	}
	return c, nil
}

// Check gives the bounds with their defaults, or an error that names what is wrong with them.
func (o Output) Check() (Output, error) {
	err := errors.Join(number("Output.LineBytes", &o.LineBytes, MinLineBytes, DefaultLineBytes, MaxLineBytes),
		number("Output.LinesPerSecond", &o.LinesPerSecond, 1, DefaultLinesPerSecond, MaxLinesPerSecond))
	return o, err
}

// number puts the usual value in for 0.
func number(name string, value *int, least, usual, most int) error {
	if *value == 0 {
		*value = usual
	}
	if *value < least || *value > most {
		return fmt.Errorf("%s is %d; it may be %d to %d", name, *value, least, most)
	}
	return nil
}

func (r Ready) check() error {
	ways := 0
	for _, set := range []bool{r.HTTP != "", r.Line != "", r.None} {
		if set {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("only one of HTTP, Line and None may be set")
	case r.HTTP != "" && !strings.HasPrefix(r.HTTP, "/"):
		return fmt.Errorf("HTTP is %q; it is a path and begins with /", r.HTTP)
	case r.Status != 0 && r.HTTP == "":
		return errors.New("Status is of use with HTTP only")
	case r.Status != 0 && (r.Status < http.StatusOK || r.Status > 599):
		return fmt.Errorf("Status is %d; it may be 200 to 599", r.Status)
	}
	if r.HTTP != "" {
		if _, err := http.NewRequest(http.MethodGet, "http://127.0.0.1"+r.HTTP, nil); err != nil {
			return fmt.Errorf("HTTP: %w", err)
		}
	}
	if _, err := regexp.Compile(r.Line); err != nil {
		return fmt.Errorf("in Line: %w", err)
	}
	return nil
}

// filled gives the command and the environment with their placeholders replaced.
func (c Config) filled(port int) (command, env []string) {
	fill := strings.NewReplacer("{port}", fmt.Sprint(port), "{address}", loopback(ipv4, port), "{folder}", c.Folder)
	for _, arg := range c.Command {
		command = append(command, fill.Replace(arg))
	}
	for _, v := range c.Env {
		name, value, _ := strings.Cut(v, "=")
		env = append(env, name+"="+fill.Replace(value))
	}
	return command, env
}
