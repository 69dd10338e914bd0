package config

import (
	"time"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/exec"
	"github.com/torpor-run/torpor/runtime/source/file"
	"github.com/torpor-run/torpor/runtime/source/files"
	"github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/source/push"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/runtime/supervisor"
)

// Bounds and defaults of [Service]; those of a program are the supervisor's, those of sources their own.
const (
	MinIdle = 100 * time.Millisecond
	MaxIdle = 30 * 24 * time.Hour

	MinWakeTimeout     = 100 * time.Millisecond
	DefaultWakeTimeout = time.Minute
	MaxWakeTimeout     = time.Hour

	MinHoldTimeout = time.Millisecond
	MaxHoldTimeout = time.Hour

	MaxLag = time.Hour
)

// Service is the configuration of one service, checked and with its defaults. Texts may hold {data}, which
// [Service.InData] replaces, and {port}, {address} and {folder}, which are known when the service runs; where
// there is an Upstream, address and port are the upstream's and replaced already.
type Service struct {
	Name   string // [a-z][a-z0-9_-]*
	Preset string // what the file's words were merged into, or ""

	// Exactly one of the three says where the service is.
	Embedded bool   // in this process
	Run      *Run   // a program that the runtime starts and stops
	Upstream string // somebody else runs it: http://host:port, no path

	Ready supervisor.Ready // of Run; zero: the port accepts connections
	Match Match
	Reads Reads
	// Changed is the command that tells whether anything has changed, where requests do not go through the gateway;
	// none: it is told by the requests. It gets what Run gets; of an Upstream, PATH.
	Changed []string

	Idle        time.Duration // without requests for so long it is put to sleep; 0: never, as with Upstream
	WakeTimeout time.Duration // how long a request waits for a service that wakes
	Upgraded    Upgraded      // whether connections such as WebSockets hold saves up

	Strategies
	Parts []Part // ordered by name; none: nothing of it is kept
}

// Strategies say when and how state is saved and loaded: of a service, or of all that say nothing else.
type Strategies struct {
	Save          runtime.SaveStrategy
	Load          runtime.LoadStrategy
	FlushInterval time.Duration
	HoldTimeout   time.Duration
	Proof         runtime.Proof
	Compression   string
}

// Run says how a service's program is run.
type Run struct {
	Command []string // the program and its arguments; no shell reads them
	// Env is all that the program gets, NAME=VALUE in order of names: PATH, what Inherit names and the runtime
	// has, and what the file gives, the last winning.
	Env     []string
	Inherit []string // names of the runtime's environment that are passed on
	Folder  string   // where it runs, absolute or beginning with {data}; "": the folder of the file
	Port    int      // 0: a free one
	// Times and restarts as the supervisor has them; Restarts.Most is negative for never.
	ReadyTimeout, StopTimeout time.Duration
	Restarts                  supervisor.Restarts
}

// Match says which requests are a service's: those that meet one value of each kind given. Without any, an
// embedded service takes what nobody else does, and another the host NAME.localhost.
type Match struct {
	Hosts   []string          // in lower case, without port; "*.orders.localhost" is every host below that one
	Paths   []string          // prefixes on segment borders, without "/" at the end but for "/" itself
	Strip   bool              // the prefix is taken away before the request goes on
	Headers map[string]string // by canonical name; "*" is any value
	AWS     []string          // names of AWS services
	None    bool              // no requests are: clients speak to the service directly
}

// Reads says which requests change nothing that a state would have to keep.
type Reads struct {
	Methods    []string // in upper case
	Paths      []string // prefixes under which nothing changes, whatever the method
	Operations []string // of AWS, more than are known anyway
	Writes     []string // operations, and prefixes of paths (with "/" in front), that change though they look like reading
}

// Upgraded says what a save does about connections that have left HTTP, such as WebSockets.
type Upgraded string

// The ways of Upgraded.
const (
	UpgradedRelease Upgraded = "release" // they count as finished once they are upgraded
	UpgradedHold    Upgraded = "hold"    // they are requests under way until they are closed
)

// Part is one part of a service's state.
type Part struct {
	Name        string         // store, backend, assets or another [a-z][a-z0-9_-]*
	Serializer  string         // its name: built in or pinned
	Settings    map[string]any // for the serializer: texts, bools, int64, float64, []any, map[string]any
	Lag         time.Duration  // how long the service may take until the source finds a change it has acknowledged
	Proof       runtime.Proof  // the part's own, or the service's
	Compression string         // the part's own, or the service's
	Source      Source
}

// Source says where a part's native state comes from and goes to: exactly one is not nil. Fields that the file
// does not give are zero, which means the source's default. Service and Part, and Dirty of Push, are the
// caller's to set; the configurations may be changed.
type Source struct {
	File   *file.Config
	Files  *files.Config
	SQLite *sqlite.Config
	HTTP   *http.Config
	Exec   *exec.Config // Env as in [Run]; Folder "": the folder of the file
	Push   *push.Config
}

// Kind is the key of the source: file, files, sqlite, http, exec or push.
func (s Source) Kind() string {
	switch {
	case s.File != nil:
		return sourceFile
	case s.Files != nil:
		return sourceFiles
	case s.SQLite != nil:
		return sourceSQLite
	case s.HTTP != nil:
		return sourceHTTP
	case s.Exec != nil:
		return sourceExec
	case s.Push != nil:
		return sourcePush
	}
	return ""
}

// The keys of sources.
const (
	sourceFile   = "file"
	sourceFiles  = "files"
	sourceSQLite = "sqlite"
	sourceHTTP   = "http"
	sourceExec   = "exec"
	sourcePush   = "push"
)
