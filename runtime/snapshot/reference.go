package snapshot

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// ReferenceKind is where a Reference points to.
type ReferenceKind string

// Where a snapshot can be.
const (
	ReferenceLive    ReferenceKind = "live"     // the state of the running services
	ReferenceSaved   ReferenceKind = "saved"    // generations in the state directory
	ReferenceNamed   ReferenceKind = "snapshot" // a version in the repository
	ReferenceArchive ReferenceKind = "archive"  // an exported file
	ReferenceState   ReferenceKind = "state"    // one state file
)

// MaxBack is how many generations before the newest a reference may name.
const MaxBack = 1 << 20

// Reference is where a snapshot is, as a person writes it:
//
//	live                       the state of the running services, now
//	saved, saved~N             the newest generation of every part, and the N-th before it
//	snapshot:NAME[@VERSION]    a named snapshot; pod:NAME[:VERSION] is the same
//	PATH                       an exported file: a path with a "/" in it, or one that ends in .snapshot
//	PATH.state                 a state file; also one kept from before, PATH.state.g000000000017
//
// A file called as one of the words is named with its folder: ./live.
type Reference struct {
	Kind    ReferenceKind
	Back    int    // of ReferenceSaved: how many generations before the newest
	Name    string // of ReferenceNamed; whether it can be one the repository says
	Version uint64 // of ReferenceNamed; 0: the newest
	Path    string // of ReferenceArchive and ReferenceState
}

// ParseReference reads a reference. The error says what can be written.
func ParseReference(text string) (Reference, error) {
	wrong := func(why string) (Reference, error) {
		return Reference{}, fmt.Errorf("%q: %s; write live, saved, saved~N, snapshot:NAME, snapshot:NAME@VERSION, or the path of a .snapshot or .state file", text, why)
	}
	for prefix, separators := range map[string]string{"snapshot:": "@", "pod:": "@:"} {
		name, ok := strings.CutPrefix(text, prefix)
		if !ok {
			continue
		}
		r := Reference{Kind: ReferenceNamed, Name: name}
		if at := strings.IndexAny(name, separators); at >= 0 {
			version, err := strconv.ParseUint(name[at+1:], 10, 64)
			if err != nil || version == 0 {
				return wrong(fmt.Sprintf("%q is no version, which is a number from 1", name[at+1:]))
			}
			r.Name, r.Version = name[:at], version
		}
		if r.Name == "" || strings.ContainsAny(r.Name, `/\:@`) {
			return wrong("this is no name of a snapshot")
		}
		return r, nil
	}
	if back, ok := strings.CutPrefix(text, "saved~"); ok {
		n, err := strconv.ParseUint(back, 10, 32)
		if err != nil || n > MaxBack {
			return wrong(fmt.Sprintf("%q is no number of generations before the newest", back))
		}
		return Reference{Kind: ReferenceSaved, Back: int(n)}, nil
	}
	switch text {
	case string(ReferenceLive):
		return Reference{Kind: ReferenceLive}, nil
	case string(ReferenceSaved):
		return Reference{Kind: ReferenceSaved}, nil
	}
	name := text[strings.LastIndexByte(filepath.ToSlash(text), '/')+1:]
	switch {
	case isStateFile(name):
		return Reference{Kind: ReferenceState, Path: text}, nil
	case len(name) < len(text), strings.HasSuffix(name, ".snapshot"):
		if name == "" {
			return wrong("this is a folder")
		}
		return Reference{Kind: ReferenceArchive, Path: text}, nil
	}
	return wrong("this is no place of a snapshot")
}

// isStateFile reports whether a file is called as the state directory calls those it keeps.
func isStateFile(name string) bool {
	if at := strings.LastIndex(name, ".g"); at > 0 && strings.Trim(name[at+len(".g"):], "0123456789") == "" {
		name = name[:at]
	}
	return len(name) > len(".state") && strings.HasSuffix(name, ".state")
}

// String is the reference as ParseReference reads it.
func (r Reference) String() string {
	switch r.Kind {
	case ReferenceNamed:
		if r.Version > 0 {
			return fmt.Sprintf("snapshot:%s@%d", r.Name, r.Version)
		}
		return "snapshot:" + r.Name
	case ReferenceSaved:
		if r.Back > 0 {
			return fmt.Sprintf("saved~%d", r.Back)
		}
	case ReferenceArchive, ReferenceState:
		return r.Path
	}
	return string(r.Kind)
}
