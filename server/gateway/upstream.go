package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
)

// spliceFrom is the length from which on the body of an answer goes from one connection to the other in the
// kernel, where it can (Linux). The connection to the service cannot be used again afterwards, which costs as much
// as copying some hundred KiB.
const spliceFrom = 1 << 20

// upstreamConn is a connection to a service that can be taken from net/http while it reads the body of an answer.
type upstreamConn struct {
	*net.TCPConn
	taken   atomic.Bool
	buffers *sync.Pool // of *[sendBuffer]byte, shared by the connections of a proxy
}

// errTaken is what net/http reads from a connection that was taken from it.
var errTaken = errors.New("the connection was taken")

func (c *upstreamConn) Read(b []byte) (int, error) {
	if c.taken.Load() {
		return 0, errTaken
	}
	return c.TCPConn.Read(b)
}

// Close does nothing once the connection is taken: who took it closes it.
func (c *upstreamConn) Close() error {
	if c.taken.Load() {
		return nil
	}
	return c.TCPConn.Close()
}

// ReadFrom sends the body of a request, in larger pieces than net/http would.
func (c *upstreamConn) ReadFrom(r io.Reader) (int64, error) {
	buf, _ := c.buffers.Get().(*[sendBuffer]byte)
	if buf == nil {
		buf = new([sendBuffer]byte)
	}
	defer c.buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c.TCPConn}, r, buf[:])
}

const sendBuffer = 256 << 10

// dial connects to the service.
func dial(dialer *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	buffers := new(sync.Pool)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			return &upstreamConn{TCPConn: tcp, buffers: buffers}, nil
		}
		return conn, err
	}
}

// watchConn has the passage know which connection it got, where its answer may be spliced.
func (p *passage) watchConn(out *http.Request) *http.Request {
	if p.visit.Changed != nil || out.Method != http.MethodGet || p.in.ProtoMajor != 1 || p.proxy.config.Protocol == H2C {
		return out
	}
	return out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { p.conn, _ = got.Conn.(*upstreamConn) },
	}))
}

// splicing is a body that writes itself: the first Read passes all of it on.
type splicing struct {
	io.ReadCloser
	conn   *upstreamConn
	pass   *passage
	to     *answer
	length int64
}

// splice gives the body of an answer, which passes itself on past this process where that is possible and pays.
func (p *passage) splice(res *http.Response) io.ReadCloser {
	if p.conn == nil || res.ContentLength < spliceFrom || p.answer.holds {
		return res.Body
	}
	if readerFrom(p.answer.ResponseWriter) == nil {
		return res.Body
	}
	p.answer.spliced = true
	return &splicing{ReadCloser: res.Body, conn: p.conn, pass: p, to: p.answer, length: res.ContentLength}
}

func (s *splicing) Read(b []byte) (int, error) {
	out := readerFrom(s.to.ResponseWriter)
	// What net/http has read ahead comes first; from the connection itself it gets nothing any more.
	s.conn.taken.Store(true)
	end := func() { _ = s.conn.TCPConn.Close() }
	defer end()
	defer context.AfterFunc(s.pass.in.Context(), end)()
	rest := &io.LimitedReader{R: s.conn.TCPConn, N: s.length}
	for {
		n, err := s.ReadCloser.Read(b)
		rest.N -= int64(n)
		if n > 0 {
			if _, writeErr := s.to.Write(b[:n]); writeErr != nil {
				return 0, writeErr
			}
		}
		if errors.Is(err, errTaken) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	// The server would wait for more before it writes the header.
	_ = http.NewResponseController(s.to.ResponseWriter).Flush()
	_, err := out.ReadFrom(rest)
	if err == nil && rest.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = io.EOF
	}
	return 0, err
}

// readerFrom finds in a chain of writers the one that can take a body from a connection.
func readerFrom(w http.ResponseWriter) io.ReaderFrom {
	for {
		if from, ok := w.(io.ReaderFrom); ok {
			return from
		}
		under, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = under.Unwrap()
	}
}
