package runtime

import (
	"cmp"
	"time"
)

// ServiceStatus is what a service is doing now.
type ServiceStatus struct {
	Name   string
	Status Status
	Err    error // of [StatusError], or why the service is not running though it should
	Asleep bool  // of [StatusAvailable]: it has been put to sleep
	Parts  []PartStatus
}

// PartStatus is what is saved of a part and what is not.
type PartStatus struct {
	Name       string
	Serializer string    // name and version; "" when persistence is disabled
	Generation uint64    // newest committed or found; 0: none
	SavedAt    time.Time // of that generation; zero: none
	Records    uint64    // of that generation
	Bytes      uint64    // of the records in its file, uncompressed, those that deltas replace included; likewise
	FileBytes  int64     // of its file
	Deltas     int       // in its file: saves of what had changed since the full one
	DirtySince time.Time // when the oldest unsaved change was made; zero: all is saved
	DirtyKeys  int       // how many keys have unsaved changes
	DirtyAll   bool      // more keys than are counted, or changes not known by key
	Err        error     // of the last save, load or damage found, nil once a later one went well; or [ErrLost]
}

// Status tells the service's status and, in one moment, that of its parts.
func (s *Service) Status() ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := ServiceStatus{Name: s.name, Status: s.status, Err: s.err, Asleep: s.asleep && s.status == StatusAvailable}
	for _, p := range s.parts {
		ps := PartStatus{Name: p.Name, Generation: p.generation, SavedAt: p.savedAt, Records: p.records,
			Bytes: p.bytes, FileBytes: p.fileBytes, Deltas: p.deltas, Err: cmp.Or(p.lastErr, p.lost)}
		if p.Serializer != nil {
			d := p.Serializer.Descriptor()
			ps.Serializer = d.Name + " " + d.Version
		}
		if s.rt.Persistent() { // without, nothing is ever saved and so nothing unsaved
			ps.DirtySince, ps.DirtyKeys, ps.DirtyAll = p.Dirty.with(p.captured)
		}
		out.Parts = append(out.Parts, ps)
	}
	return out
}
