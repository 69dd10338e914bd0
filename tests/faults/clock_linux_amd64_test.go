package faults

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/tests/need"
)

// A Go program asks the kernel's vDSO for the time and no library, so that what replaces functions of libraries
// (libfaketime) does not reach it; and the machine's clock is not the tests' to set. So the runtime's own copy of
// the vDSO is written over, before its first instruction: there the wall clock is the machine's plus a number, the
// monotonic clock is the machine's, as where somebody sets the clock.

// clock is the wall clock of one process.
type clock struct {
	memory *os.File
	at     int64 // of the number
}

// wallClock is what stands where __vdso_clock_gettime was: clock_gettime(2), and for CLOCK_REALTIME, which is 0, the
// seconds in the last eight bytes are added.
func wallClock() []byte {
	return []byte{
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x0a, // jne to ret
		0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [rip+6]
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0xc3,       // ret
		0xcc, 0xcc, // the number is aligned
		0, 0, 0, 0, 0, 0, 0, 0,
	}
}

// begin starts a process that has the clock.
func (c *clock) begin(cmd *exec.Cmd) error {
	goruntime.LockOSThread() // only the thread that has begun it may let it go
	defer goruntime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("the process has not stopped at its beginning: %v", status)
	}
	if err := c.replace(cmd.Process.Pid); err != nil {
		return err
	}
	return syscall.PtraceDetach(cmd.Process.Pid)
}

func (c *clock) replace(pid int) error {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	var start, end int64
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, "[vdso]\n") {
			if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
				return err
			}
		}
	}
	if c.memory, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0); err != nil {
		return err
	}
	image := make([]byte, end-start)
	if _, err := c.memory.ReadAt(image, start); err != nil && err != io.EOF {
		return err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return fmt.Errorf("the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return fmt.Errorf("the vDSO: %w", err)
	}
	code := wallClock()
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" && s.Size >= uint64(len(code)) {
			c.at = start + int64(s.Value) + int64(len(code)) - 8
			_, err := c.memory.WriteAt(code, start+int64(s.Value))
			return err
		}
	}
	return fmt.Errorf("the vDSO has no __vdso_clock_gettime of %d bytes", len(code))
}

// set sets the wall clock off by d from the machine's.
func (c *clock) set(t testing.TB, d time.Duration) {
	t.Helper()
	if _, err := c.memory.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(d/time.Second))), c.at); err != nil {
		t.Fatal(err)
	}
}

// TestClockJumps: the wall clock of the machine is set while the runtime runs. What is saved when, what is idle, which
// generation is the newest and what health says do not follow it.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, k, func(_ *world, service tree) {
				service["flush_interval"] = "200ms"
				service["idle"] = "1s"
			})
			c := &clock{}
			h := w.start(func(cmd *exec.Cmd) error {
				err := c.begin(cmd)
				if err != nil {
					if cmd.Process != nil {
						_ = cmd.Process.Kill()
					}
					need.Missing(t, fmt.Sprintf("the right to trace a process and write over its vDSO (%v)", err))
				}
				return err
			})
			defer c.memory.Close()
			jumped := func(d time.Duration) {
				t.Helper()
				c.set(t, d)
				before := h.health().Parts
				h.put("at", d.String())
				var saved time.Time
				eventually(t, "it is saved by schedule", func() bool {
					for i, p := range h.health().Parts {
						if p.DirtySeconds < 0 || p.DirtySeconds > patience.Seconds() {
							t.Errorf("unsaved for %v seconds", p.DirtySeconds)
						}
						if p.Generation <= before[i].Generation || p.Status != "saved" {
							return false
						}
						saved = *p.LastGoodSave
					}
					return true
				})
				if off := time.Until(saved) - d; off.Abs() > 10*patience {
					t.Fatalf("saved at %v: the clock has not jumped by %v, and the test shows nothing", saved, d)
				}
				h.sync()
				eventually(t, "it is put to sleep as nobody uses it", func() bool { return h.health().Asleep })
				h.gone()
				h.has()
				h.is("running", "ok")
			}
			jumped(0)
			jumped(-time.Hour)
			jumped(24 * time.Hour)
			jumped(-48 * time.Hour)
			jumped(0)
			jumped(36 * time.Hour)
			h.put("last", "unsaved")
			h.sync()
			h.kill()

			// The next one's clock is a day and a half behind that of the newest generation.
			h = w.next()
			h.has()
			h.put("later", "and before")
			h.sync()
			h.stop()
			h = w.next()
			h.has()
			h.stop()
		})
	}
}
