package archive

import "fmt"

// Defaults and bounds of [Limits].
const (
	MinFileBytes     = 1 << 10
	DefaultFileBytes = 64 << 30
	MaxFileBytes     = 1 << 42

	MinEntries     = 2
	DefaultEntries = 16 << 10
	MaxEntries     = 64 << 10

	MinManifestBytes     = 1 << 10
	DefaultManifestBytes = 16 << 20
	MaxManifestBytes     = 256 << 20

	MinModuleBytes     = 1 << 10
	DefaultModuleBytes = 64 << 20
	MaxModuleBytes     = 1 << 30

	MinTotalBytes     = 1 << 10
	DefaultTotalBytes = 64 << 30
	MaxTotalBytes     = 1 << 42

	MinRatio     = 10
	DefaultRatio = 100
	MaxRatio     = 1100 // deflate has no more than 1032
)

// Limits that are not to be configured.
const (
	// FreeBytes is what the files of an archive may have, uncompressed, whatever the ratio.
	FreeBytes = 256 << 20
	// MaxNameBytes is how long the name of a file in an archive may be. The longest that there is has 152.
	MaxNameBytes = 256
	// MaxChunks is how many chunks all states together may have: what is kept in memory of an open snapshot follows them.
	MaxChunks = 8 << 20
)

// Limits are what Open holds a file to before it allocates or writes anything by what the file says. Zero fields mean
// the defaults; what passes one is refused with abi.ErrTooLarge.
type Limits struct {
	FileBytes     int64 // of the file
	Entries       int64 // files in the archive
	ManifestBytes int64 // of manifest.json, and as much of SHA256SUMS
	ModuleBytes   int64 // of one serializer module
	TotalBytes    int64 // of all files in the archive, uncompressed: so much may be written to the folder for temporary files
	Ratio         int64 // of the files in the archive, uncompressed, to the archive, beyond FreeBytes
}

// Check fills in the defaults; the error names the field that is out of bounds.
func (l Limits) Check() (Limits, error) {
	for _, f := range []struct {
		name               string
		value              *int64
		least, usual, most int64
	}{
		{"FileBytes", &l.FileBytes, MinFileBytes, DefaultFileBytes, MaxFileBytes},
		{"Entries", &l.Entries, MinEntries, DefaultEntries, MaxEntries},
		{"ManifestBytes", &l.ManifestBytes, MinManifestBytes, DefaultManifestBytes, MaxManifestBytes},
		{"ModuleBytes", &l.ModuleBytes, MinModuleBytes, DefaultModuleBytes, MaxModuleBytes},
		{"TotalBytes", &l.TotalBytes, MinTotalBytes, DefaultTotalBytes, MaxTotalBytes},
		{"Ratio", &l.Ratio, MinRatio, DefaultRatio, MaxRatio},
	} {
		if *f.value == 0 {
			*f.value = f.usual
		}
		if *f.value < f.least || *f.value > f.most {
			return l, fmt.Errorf("archive: limit %s is %d; it may be %d to %d", f.name, *f.value, f.least, f.most)
		}
	}
	return l, nil
}
