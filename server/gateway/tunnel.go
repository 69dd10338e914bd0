package gateway

import (
	"io"
	"sync"
	"time"
)

// tunnel is a connection to a service that is no longer HTTP.
type tunnel struct {
	io.ReadWriteCloser
	pass *passage
	done chan struct{}

	mu      sync.Mutex
	told    time.Time   // when Written was called last
	pending *time.Timer // calls it again
	ended   bool
}

// writtenEvery is how often Written is called at most.
const writtenEvery = time.Second

func newTunnel(conn io.ReadWriteCloser, pass *passage) *tunnel {
	t := &tunnel{ReadWriteCloser: conn, pass: pass, done: make(chan struct{}), told: time.Now()}
	v := pass.visit
	if v.Switched != nil {
		v.Switched()
	}
	if v.Release {
		pass.leave()
		if v.Active != nil && v.Every > 0 {
			go t.keepActive()
		}
	}
	return t
}

// keepActive says that the service is in use, until the connection ends.
func (t *tunnel) keepActive() {
	tick := time.NewTicker(t.pass.visit.Every)
	defer tick.Stop()
	for {
		t.pass.visit.Active()
		select {
		case <-tick.C:
		case <-t.done:
			return
		}
	}
}

// Write brings something to the service.
func (t *tunnel) Write(b []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(b)
	if n > 0 {
		t.wrote()
	}
	return n, err
}

// CloseWrite says to the service that nothing more comes.
func (t *tunnel) CloseWrite() error { return closeWrite(t.ReadWriteCloser) }

// wrote has it told that something was written, when a second is over since it was told last. It does not wait
// for that: bytes go on.
func (t *tunnel) wrote() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending != nil || t.ended {
		return
	}
	t.pending = time.AfterFunc(time.Until(t.told.Add(writtenEvery)), func() {
		t.mu.Lock()
		t.pending = nil
		ended := t.ended
		t.mu.Unlock()
		if !ended {
			t.tell()
		}
	})
}

func (t *tunnel) tell() {
	t.mu.Lock()
	t.told = time.Now()
	t.mu.Unlock()
	if t.pass.visit.Written != nil {
		t.pass.visit.Written()
	}
}

func (t *tunnel) end() {
	close(t.done)
	t.mu.Lock()
	t.ended = true
	if t.pending != nil {
		t.pending.Stop()
	}
	t.mu.Unlock()
	t.tell()
}
