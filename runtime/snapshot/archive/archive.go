package archive

// Extension is what the name of an exported snapshot ends in, an encrypted one's too.
const Extension = ".snapshot"

// MediaType is that of an exported snapshot, SealedMediaType that of an encrypted one.
const (
	MediaType       = "application/zip"
	SealedMediaType = "application/vnd.age"
)

// Version is the version of the format that this package writes and the only one that it reads.
const Version = 1
