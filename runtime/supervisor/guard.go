package supervisor

import "time"

// The runtime begins the guard as "<program> guard-service <service>", with only guardMark in its environment,
// and two pipes: on fd controlFD it sends a JSON line, an order, and later perhaps askByte; that pipe stays
// open while the runtime lives. On fd reportFD the guard answers with reports, JSON lines. Both ends are
// always the same program.
const (
	guardWord    = "guard-service"
	guardMark    = "TORPOR_GUARD"
	guardVersion = 1
	controlFD    = 3
	reportFD     = 4
	askByte      = 's'
)

// order is what a guard is to run.
type order struct {
	Program []byte        `json:"program"` // to be executed; bytes, as none of these need be UTF-8
	Args    [][]byte      `json:"args"`    // the name it is called by, and its arguments
	Env     [][]byte      `json:"env"`
	Folder  []byte        `json:"folder"`
	Grace   time.Duration `json:"grace"` // between SIGTERM and SIGKILL
}

func toBytes(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

func toStrings(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

// report is what a guard tells; one of its fields is set.
type report struct {
	Guard   int    `json:"guard,omitempty"`   // it is there: its version
	Started int    `json:"started,omitempty"` // the program runs: its process id
	Refused string `json:"refused,omitempty"` // the program cannot be run: why
	Errno   int    `json:"errno,omitempty"`   // with Refused
	Ended   *ended `json:"ended,omitempty"`   // the program has ended
	Killed  bool   `json:"killed,omitempty"`  // the grace is over: what is left is being killed
	Left    []int  `json:"left,omitempty"`    // what could not be killed; the guard gives up
}

// ended is how a program ended: with an exit code, or by a signal if that is not 0.
type ended struct {
	Code   int `json:"code"`
	Signal int `json:"signal"`
}
