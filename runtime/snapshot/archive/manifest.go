package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// What is where in the archive.
const (
	manifestName  = "manifest.json"
	sumsName      = "SHA256SUMS"
	statesFolder  = "state/api_states/"
	modulesFolder = "modules/"
	foreignName   = "metadata.yaml" // LocalStack's own command line adds it to what it exports; it is never unpacked
)

func statePath(service, part string) string { return statesFolder + service + "/" + part + ".state" }

func modulePath(digest string) string { return modulesFolder + digest + ".wasm" }

// format is what a manifest calls its format.
const format = "torpor-snapshot"

// manifest is manifest.json; FORMAT.md says what its fields are.
type manifest struct {
	Format          string            `json:"format"`
	Version         uint64            `json:"version"`
	Created         time.Time         `json:"created"`
	Torpor          string            `json:"torpor"`
	Name            string            `json:"name"`
	SnapshotVersion uint64            `json:"snapshot_version"`
	Description     string            `json:"description"`
	Parts           list[partEntry]   `json:"parts"`
	Modules         list[moduleEntry] `json:"modules"`
}

// partEntry is a part in a manifest. Two are the same if they are equal.
type partEntry struct {
	Service    string          `json:"service"`
	Part       string          `json:"part"`
	Path       string          `json:"path"`
	Size       int64           `json:"size"`
	SHA256     string          `json:"sha256"`
	Records    uint64          `json:"records"`
	Generation uint64          `json:"generation"`
	Created    string          `json:"created"`
	Serializer serializerEntry `json:"serializer"`
}

type serializerEntry struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Schema  uint64 `json:"schema"`
}

type moduleEntry struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// describePart is what a manifest says of a state file with those bytes.
func describePart(h statefile.Header, info statefile.Info, size int64, digest [sha256.Size]byte) partEntry {
	return partEntry{
		Service: h.Service, Part: h.Part, Path: statePath(h.Service, h.Part),
		Size: size, SHA256: hex.EncodeToString(digest[:]),
		Records: info.Records, Generation: h.Generation, Created: h.Created.UTC().Format(time.RFC3339Nano),
		Serializer: serializerEntry{
			Name: h.Serializer.Name, Version: h.Serializer.Version,
			SHA256: hex.EncodeToString(h.Serializer.Digest[:]), Schema: h.Serializer.Schema,
		},
	}
}

// list is an array of JSON that may not be longer than the parts of a snapshot, whose elements take more memory than
// what they may be written in.
type list[T any] []T

// UnmarshalJSON is for package json.
func (l *list[T]) UnmarshalJSON(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("an array is wanted where %.20q stands", text)
	}
	*l = list[T]{}
	for dec.More() {
		if len(*l) == snapshot.MaxParts {
			return fmt.Errorf("%w: there may be %d parts, and as many modules", abi.ErrTooLarge, snapshot.MaxParts)
		}
		var element T
		if err := dec.Decode(&element); err != nil {
			return err
		}
		*l = append(*l, element)
	}
	return nil
}

// encode gives manifest.json.
func (m manifest) encode() ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	return text.Bytes(), nil
}

// parseManifest reads manifest.json, whose bytes have been checked. It says nothing yet of whether it is true.
func parseManifest(text []byte) (manifest, error) {
	// The version first: of another one nothing else is known.
	var head struct {
		Format  string          `json:"format"`
		Version uint64          `json:"version"`
		Torpor  json.RawMessage `json:"torpor"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return manifest{}, fmt.Errorf("%s: %w: %w", manifestName, abi.ErrCorrupt, err)
	}
	switch {
	case head.Format != format:
		return manifest{}, fmt.Errorf("%s: %w: its format is %.40q and not %q: it is no snapshot of Torpor", manifestName, abi.ErrCorrupt, head.Format, format)
	case head.Version == 0:
		return manifest{}, fmt.Errorf("%s: %w: it has no version", manifestName, abi.ErrCorrupt)
	case head.Version > Version:
		return manifest{}, fmt.Errorf("a snapshot file of format version %d: %w: it was written by a newer Torpor (%.40s); this one reads versions up to %d: take that Torpor, or export the snapshot with this one",
			head.Version, abi.ErrVersion, bytes.Trim(head.Torpor, `"`), Version)
	}
	var m manifest
	switch err := json.Unmarshal(text, &m); {
	case errors.Is(err, abi.ErrTooLarge):
		return manifest{}, fmt.Errorf("%s: %w", manifestName, err)
	case err != nil:
		return manifest{}, fmt.Errorf("%s: %w: %w", manifestName, abi.ErrCorrupt, err)
	}
	return m, nil
}

// sum is one line of SHA256SUMS.
type sum struct {
	path   string
	digest [sha256.Size]byte
}

// encodeSums gives SHA256SUMS, as sha256sum writes it.
func encodeSums(sums []sum) []byte {
	var text bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&text, "%x  %s\n", s.digest, s.path)
	}
	return text.Bytes()
}

// parseSums reads SHA256SUMS: the digests by path.
func parseSums(text []byte) (map[string][sha256.Size]byte, error) {
	sums := map[string][sha256.Size]byte{}
	for line := range strings.Lines(string(text)) {
		digest, path, ok := strings.Cut(line, "  ")
		path, whole := strings.CutSuffix(path, "\n")
		b, err := hex.DecodeString(digest)
		_, twice := sums[path]
		if !ok || !whole || err != nil || len(b) != sha256.Size || twice {
			return nil, fmt.Errorf("%s: %w: %.120q is no line of it, or stands in it twice", sumsName, abi.ErrCorrupt, line)
		}
		sums[path] = [sha256.Size]byte(b)
	}
	return sums, nil
}
