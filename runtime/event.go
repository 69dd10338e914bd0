package runtime

import "time"

// Observer is told what the runtime does. Its methods are called in the course of the work and should
// return at once; they must be safe for concurrent use.
type Observer interface {
	// RestoreFinished: a part was restored, or not (Err).
	RestoreFinished(RestoreEvent)
	// SaveFinished: a part was saved, or not (Err).
	SaveFinished(SaveEvent)
	// RequestsHeld: requests to a service were held this long for a capture, a load or a reset. Err
	// says that they could not be held in time, and so nothing was done.
	RequestsHeld(service string, d time.Duration, err error)
	// GenerationQuarantined: a damaged generation was moved aside.
	GenerationQuarantined(service, part string)
}

// RestoreEvent is one restore of a part. The phases overlap in time: each is how long that stage was
// at work itself, not waiting for the others. Total is by the clock on the wall.
type RestoreEvent struct {
	Service, Part string
	Generation    uint64
	Records       uint64
	Bytes         uint64        // of records, uncompressed
	Read          time.Duration // reading and checking the state file
	Decode        time.Duration // the serializer
	Deliver       time.Duration // the source, putting native state into the service
	Total         time.Duration
	Err           error
}

// SaveEvent is one save of a part. Capture is the time the source took to fix its state, during which
// requests wait; the other phases follow one another.
type SaveEvent struct {
	Service, Part string
	Generation    uint64
	Created       time.Time     // as in the state file's header
	Delta         bool          // only what has changed was written
	Deltas        int           // in the state file now
	Records       uint64        // in the state
	Bytes         uint64        // of records in the file, uncompressed, those that deltas replace included
	FileBytes     int64         // of the state file
	Written       int64         // bytes of it that this save wrote
	Capture       time.Duration // fixing the state
	Serialize     time.Duration // native state to records to the file, proof alongside
	Prove         time.Duration // what the proof was at work itself, within Serialize
	Commit        time.Duration // making it durable
	Total         time.Duration
	Err           error
}

// LifeObserver is what an [Observer] may be besides: it is told how services come and go.
type LifeObserver interface {
	// ServiceWoken: a service was made ready for requests, or not (Err).
	ServiceWoken(WakeEvent)
	// ServiceSlept: a service was put to sleep, or not (Err).
	ServiceSlept(SleepEvent)
	// ProcessExited: a service's process ended by itself.
	ProcessExited(service string)
}

// WakeEvent is one wake of a service; the phases follow one another.
type WakeEvent struct {
	Service string
	Restore time.Duration // giving the state back, before and after the start
	Start   time.Duration // until the process was ready
	Total   time.Duration
	Err     error
}

// SleepEvent is one time that a service was put to sleep.
type SleepEvent struct {
	Service string
	Stop    time.Duration // until nothing of the process was left
	Total   time.Duration // saving included
	Err     error
}

// Observers tells several observers of everything, one after the other.
func Observers(all ...Observer) Observer { return observers(all) }

type observers []Observer

func (o observers) RestoreFinished(e RestoreEvent) {
	for _, x := range o {
		x.RestoreFinished(e)
	}
}

func (o observers) SaveFinished(e SaveEvent) {
	for _, x := range o {
		x.SaveFinished(e)
	}
}

func (o observers) RequestsHeld(service string, d time.Duration, err error) {
	for _, x := range o {
		x.RequestsHeld(service, d, err)
	}
}

func (o observers) GenerationQuarantined(service, part string) {
	for _, x := range o {
		x.GenerationQuarantined(service, part)
	}
}

func (o observers) lives(tell func(LifeObserver)) {
	for _, x := range o {
		if l, ok := x.(LifeObserver); ok {
			tell(l)
		}
	}
}

func (o observers) ServiceWoken(e WakeEvent)  { o.lives(func(l LifeObserver) { l.ServiceWoken(e) }) }
func (o observers) ServiceSlept(e SleepEvent) { o.lives(func(l LifeObserver) { l.ServiceSlept(e) }) }
func (o observers) ProcessExited(service string) {
	o.lives(func(l LifeObserver) { l.ProcessExited(service) })
}

// noObserver lets the runtime call an observer that may be absent.
type noObserver struct{}

func (noObserver) RestoreFinished(RestoreEvent)              {}
func (noObserver) SaveFinished(SaveEvent)                    {}
func (noObserver) RequestsHeld(string, time.Duration, error) {}
func (noObserver) GenerationQuarantined(string, string)      {}

func (noObserver) ServiceWoken(WakeEvent)  {}
func (noObserver) ServiceSlept(SleepEvent) {}
func (noObserver) ProcessExited(string)    {}
