package torpor

// For tests of what does not depend on how long the buffers are.

func NewInput(h Host, size int) *Input {
	in := newInput(h)
	in.buf = make([]byte, size)
	return in
}

func NewOutput(h Host, size int) *Output {
	return &Output{host: h, buf: make([]byte, size)}
}

func (out *Output) Finish() error { return out.finish() }

const (
	InputBytes   = inputBytes
	MaxHeadBytes = maxHeadBytes
	MaxMsgBytes  = maxMsgBytes
)

func Clip(s string, limit int) string { return clip(s, limit) }

// Unexport undoes Export.
func Unexport() { exported = nil }
