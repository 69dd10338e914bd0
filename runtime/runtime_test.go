package runtime_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func TestStateSurvives(t *testing.T) {
	fsys := vfs.NewMem()
	want := map[string]string{}
	l := begin(t, fsys, nil)
	for i := range 5000 {
		k := fmt.Sprintf("key-%d", i)
		want[k] = strings.Repeat("v", i%300)
		l.table.put(k, want[k])
	}
	if l.part().DirtySince.IsZero() || l.part().Generation != 0 {
		t.Fatalf("before the save: %+v", l.part())
	}
	l.save(t)
	p := l.part()
	if p.Generation != 1 || p.Records != 5000 || !p.DirtySince.IsZero() || p.SavedAt.IsZero() || p.Err != nil {
		t.Fatalf("after the save: %+v", p)
	}
	l.end(t)

	// A process that dies, and a power cut, are no different: what Save has returned for is there.
	for name, disk := range map[string]*vfs.Mem{"restart": fsys, "kill": fsys.Kill()} {
		t.Run(name, func(t *testing.T) {
			l := begin(t, disk, nil)
			l.wants(t, want)
			if p := l.part(); p.Generation != 1 || !p.DirtySince.IsZero() || p.Records != 5000 {
				t.Errorf("after the restart: %+v", p)
			}
			if e := l.seen.restores[0]; e.Err != nil || e.Records != 5000 || e.Total <= 0 || e.Read <= 0 || e.Decode <= 0 || e.Deliver <= 0 || e.Read > e.Total {
				t.Errorf("restore event %+v", e)
			}
			l.end(t)
		})
	}
}

func TestSaveWhenNothingChangedWritesNothing(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.table.put("a", "1")
	l.save(t)
	l.save(t)
	if g := l.part().Generation; g != 1 {
		t.Errorf("generation %d after a save without changes", g)
	}
}

func TestFailedSaveKeepsTheLastGoodOne(t *testing.T) {
	boom := errors.New("boom")
	for name, break_ := range map[string]func(*life){
		"serializer fails":  func(l *life) { l.ser.saveErr = boom },
		"proof fails":       func(l *life) { l.ser.loadErr = boom },
		"serializer loses":  func(l *life) { l.ser.lossy = true },
		"capture fails":     func(l *life) { l.table.capErr = boom },
		"schema not loaded": func(l *life) { l.ser.loadErr = fmt.Errorf("%w: boom", abi.ErrVersion) },
	} {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMem()
			l := begin(t, fsys, nil)
			l.table.put("a", "1")
			l.save(t)
			l.table.put("a", "2")
			since := l.part().DirtySince
			break_(l)
			err := l.svc.Save(context.Background())
			if err == nil || !strings.Contains(err.Error(), "svc") {
				t.Fatalf("error %v", err)
			}
			p := l.part()
			if p.Generation != 1 || p.Err == nil || !p.DirtySince.Equal(since) {
				t.Errorf("after the failure: %+v, dirty since %v before", p, since)
			}
			if e := l.seen.saves[len(l.seen.saves)-1]; e.Err == nil {
				t.Error("the observer was told of no failure")
			}
			l.end(t)
			after := begin(t, fsys, nil)
			after.wants(t, map[string]string{"a": "1"})
			// And saving goes on where it was.
			after.table.put("a", "3")
			after.save(t)
			if p := after.part(); p.Generation < 2 || p.Err != nil {
				t.Errorf("the next save: %+v", p)
			}
			after.end(t)
		})
	}
}

func TestProofOfANonCanonicalSerializer(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		l := begin(t, vfs.NewMem(), func(l *life, _ *runtime.Config) { l.ser.shuffle, l.ser.lossy = true, lossy })
		l.table.put("a", "1")
		l.table.put("b", "2")
		if err := l.svc.Save(context.Background()); (err != nil) != lossy {
			t.Errorf("lossy %v: %v", lossy, err)
		}
		l.end(t)
	}
}

func TestProofModes(t *testing.T) {
	for proof, want := range map[runtime.Proof]int64{runtime.ProofFull: 12, runtime.ProofSampled: 2, runtime.ProofOff: 0} {
		l := begin(t, vfs.NewMem(), func(_ *life, c *runtime.Config) { c.Services[0].Parts[0].Proof = proof })
		for i := range 12 {
			l.table.put("a", fmt.Sprint(i))
			l.save(t)
		}
		if got := l.ser.loads.Load(); got != want {
			t.Errorf("%s: %d of 12 saves proved, want %d", proof, got, want)
		}
		l.end(t)
	}
}

// A full disk or a failing one, at every operation of a save: the service goes on, the last good
// generation stays, and the next save succeeds.
func TestFaultAtEveryOperation(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EIO} {
		for k := 1; ; k++ {
			disk := vfs.NewMem()
			fsys := vfs.Faulty(disk, vfs.Fault{})
			l := begin(t, fsys, nil)
			l.table.put("a", "1")
			l.save(t)
			l.table.put("a", "2")
			fsys.Inject(vfs.Fault{At: k, Err: errno})
			err := l.svc.Save(context.Background())
			fired := fsys.Fired()
			fsys.Inject(vfs.Fault{})
			if err != nil && (!errors.Is(err, errno) || l.part().DirtySince.IsZero() || l.part().Err == nil) {
				t.Fatalf("%v at operation %d: error %v, %+v", errno, k, err, l.part())
			}
			l.save(t)
			if p := l.part(); p.Err != nil || !p.DirtySince.IsZero() {
				t.Fatalf("%v at operation %d: the next save left %+v", errno, k, p)
			}
			l.end(t)
			after := begin(t, disk.Kill(), nil)
			after.wants(t, map[string]string{"a": "2"})
			after.end(t)
			if !fired {
				if k < 5 {
					t.Fatalf("only %d operations in a save", k)
				}
				break
			}
		}
	}
}

func TestDamagedNewestGenerationFallsBack(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"cut short":     func(b []byte) []byte { return b[:len(b)/2] },
		"chunk flipped": func(b []byte) []byte { b[bytes.Index(b, []byte("newest"))] ^= 1; return b },
		"empty":         func([]byte) []byte { return nil },
		"garbage":       func([]byte) []byte { return []byte("this is no state file") },
	} {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMem()
			l := begin(t, fsys, nil)
			l.table.put("a", "before")
			l.save(t)
			l.table.put("a", "newest")
			l.save(t)
			l.end(t)
			damage(t, fsys, change)

			l = begin(t, fsys, nil)
			l.wants(t, map[string]string{"a": "before"})
			p := l.part()
			if l.svc.Status().Status != runtime.StatusRunning || p.Generation != 1 || !errors.Is(p.Err, abi.ErrCorrupt) {
				t.Errorf("status %v, %+v", l.svc.Status().Status, p)
			}
			if l.seen.quarantined != 1 || !strings.Contains(l.log.String(), "damaged") {
				t.Errorf("%d quarantined; log:\n%s", l.seen.quarantined, l.log)
			}
			// The damaged file is kept, and its number is not used again.
			entries, err := fsys.ReadDir("state/api_states/svc")
			if err != nil || !strings.Contains(fmt.Sprint(entries), "corrupt-") {
				t.Errorf("files %v, error %v", entries, err)
			}
			l.table.put("a", "after")
			l.save(t)
			if g := l.part().Generation; g != 3 || l.part().Err != nil {
				t.Errorf("the next save is generation %d, error %v", g, l.part().Err)
			}
			l.end(t)
		})
	}
}

func TestNothingSoundLeftStartsEmptyAndSaysSo(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	damage(t, fsys, func(b []byte) []byte { return b[:10] })
	l = begin(t, fsys, nil)
	defer l.end(t)
	l.wants(t, map[string]string{})
	if st := l.svc.Status(); st.Status != runtime.StatusRunning || !errors.Is(st.Parts[0].Err, abi.ErrCorrupt) {
		t.Errorf("status %+v", st)
	}
}

// What cannot be read but is not damaged is neither served over, nor saved over, nor moved.
func TestUnreadableStateIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		disk  func([]byte) []byte
		next  func(*life, *runtime.Config)
		wants error
	}{
		"newer format": {disk: newerFormat, wants: abi.ErrVersion},
		"other serializer, module missing": {next: func(l *life, c *runtime.Config) {
			l.ser.name = "other"
			c.Compile = func(context.Context, string, []byte) (runtime.Serializer, error) { panic("nothing to compile") }
		}, wants: abi.ErrNotFound},
		"other serializer, no compiler": {next: func(l *life, c *runtime.Config) { l.ser.name = "other" }, wants: abi.ErrVersion},
		"serializer refuses":            {next: func(l *life, c *runtime.Config) { l.ser.loadErr = fmt.Errorf("%w: no", abi.ErrCorrupt) }, wants: abi.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMem()
			l := begin(t, fsys, nil)
			l.table.put("a", "1")
			l.save(t)
			l.end(t)
			if c.disk != nil {
				damage(t, fsys, c.disk)
			}
			if strings.Contains(name, "module missing") {
				removeModules(t, fsys)
			}
			before := readFile(t, fsys, newestFile)

			l = begin(t, fsys, c.next)
			st := l.svc.Status()
			if st.Status != runtime.StatusError || !errors.Is(st.Err, c.wants) {
				t.Errorf("status %+v, want an error that is %v", st, c.wants)
			}
			if _, err := l.svc.Enter(context.Background()); !errors.Is(err, c.wants) {
				t.Errorf("a request: %v", err)
			}
			l.table.put("b", "2")
			if err := l.svc.Save(context.Background()); err == nil {
				t.Error("saved over a state that could not be loaded")
			}
			l.end(t)
			if after := readFile(t, fsys, newestFile); !bytes.Equal(before, after) {
				t.Error("the file on disk has changed")
			}
		})
	}
}

// newerFormat makes a sound file say format version 2.
func newerFormat(b []byte) []byte {
	b[bytes.Index(b, []byte("torpor"))+len("torpor")] = 2
	binary.BigEndian.PutUint16(b[len(b)-2:], 2)
	return b
}

func removeModules(t *testing.T, fsys vfs.FS) {
	t.Helper()
	entries, err := fsys.ReadDir("modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := fsys.Remove("modules/" + e.Name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResetEndsAnError(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	l = begin(t, fsys, func(l *life, c *runtime.Config) {
		l.ser.loadErr = errors.New("no")
		c.Services[0].Save = runtime.SaveScheduled
		c.Services[0].Parts[0].Proof = runtime.ProofOff
	})
	if l.svc.Status().Status != runtime.StatusError {
		t.Fatal("no error to end")
	}
	if err := l.svc.Reset(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st := l.svc.Status(); st.Status != runtime.StatusRunning || st.Parts[0].Generation != 2 {
		t.Errorf("after the reset: %+v", st)
	}
	if _, err := l.svc.Enter(context.Background()); err != nil {
		t.Error(err)
	}
	l.end(t)
	// What was there before the reset is kept beside it.
	if _, err := fsys.ReadDir("state/api_states/svc"); err != nil {
		t.Error(err)
	}
	readFile(t, fsys, newestFile+".g000000000001")
}

// While a save is under way nothing of it is saved yet, and status must not say so.
func TestCapturedIsUnsavedUntilCommitted(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.table.put("a", "1")
	since := l.part().DirtySince
	reached, goOn := make(chan struct{}), make(chan struct{})
	l.ser.pause = func() { close(reached); <-goOn }
	saved := make(chan error, 1)
	go func() { saved <- l.svc.Save(context.Background()) }()
	<-reached
	l.table.put("b", "2")
	if p := l.part(); !p.DirtySince.Equal(since) || p.DirtyKeys != 2 || p.Generation != 0 {
		t.Errorf("during the save: %+v, dirty since %v before", p, since)
	}
	close(goOn)
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if p := l.part(); p.DirtySince.Equal(since) || p.DirtyKeys != 1 || p.Generation != 1 {
		t.Errorf("after the save: %+v", p)
	}
}

// A reset that could not be saved must leave what is live and what is on disk.
func TestResetOverANewerFormatDoesNothing(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	damage(t, fsys, newerFormat)
	before := readFile(t, fsys, newestFile)
	l = begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Save = runtime.SaveScheduled })
	defer l.end(t)
	if err := l.svc.Reset(context.Background()); !errors.Is(err, abi.ErrVersion) {
		t.Errorf("reset: %v", err)
	}
	if st := l.svc.Status().Status; st != runtime.StatusError {
		t.Errorf("status %v after a reset that was not done", st)
	}
	if !bytes.Equal(before, readFile(t, fsys, newestFile)) {
		t.Error("the file on disk has changed")
	}
}

func TestOldStateIsMigrated(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.table.put("b", "2")
	l.save(t)
	l.end(t)
	l = begin(t, fsys, func(l *life, _ *runtime.Config) {
		l.ser.schema, l.ser.reads, l.ser.version = 2, []uint64{2}, "2"
		l.ser.ops = append(l.ser.ops, abi.OpMigrate)
		l.ser.migrate = func(b *record.Batch) []byte {
			var out []byte
			for i := range b.Len() {
				key, _ := b.Key(i)
				out = appendRecord(out, "new/"+string(key), string(record.NewPull(b.Value(i)).Text()))
			}
			return out
		}
	})
	defer l.end(t)
	l.wants(t, map[string]string{"new/a": "1", "new/b": "2"})
}

func TestOldStateIsReadByTheModuleThatWroteIt(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	var compiled string
	l = begin(t, fsys, func(l *life, c *runtime.Config) {
		l.ser.name, l.ser.version = "successor", "9"
		c.Compile = func(_ context.Context, _ string, wasm []byte) (runtime.Serializer, error) {
			compiled = string(wasm)
			return newPassThrough(), nil
		}
	})
	defer l.end(t)
	l.wants(t, map[string]string{"a": "1"})
	if compiled != "pass 1" {
		t.Errorf("compiled %q", compiled)
	}
}

func TestFileOfAnotherServiceIsRefused(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	damage(t, fsys, func([]byte) []byte {
		var b bytes.Buffer
		w, err := statefile.NewWriter(&b, statefile.Header{Service: "other", Part: "store", Generation: 1, Serializer: statefile.Serializer{Name: "pass", Schema: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	})
	l = begin(t, fsys, nil)
	defer l.end(t)
	if st := l.svc.Status(); st.Status != runtime.StatusError && st.Parts[0].Err == nil {
		t.Errorf("status %+v", st)
	} else if err := errors.Join(st.Err, st.Parts[0].Err); !strings.Contains(err.Error(), "other") {
		t.Errorf("the error does not name the service the file is of: %v", err)
	}
	l.wants(t, map[string]string{})
}

func TestScheduledSave(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, func(_ *life, c *runtime.Config) {
		c.Services[0].Save, c.Services[0].FlushInterval = runtime.SaveScheduled, runtime.MinFlushInterval
	})
	l.table.put("a", "1")
	eventually(t, "saved by schedule", func() bool { return l.part().Generation == 1 })
	l.table.put("a", "2")
	eventually(t, "saved again", func() bool { return l.part().Generation == 2 && l.part().DirtySince.IsZero() })
	l.table.put("a", "3") // and the rest at shutdown
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	l = begin(t, fsys, nil)
	defer l.end(t)
	l.wants(t, map[string]string{"a": "3"})
}

func TestSaveOnRequest(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Save = runtime.SaveOnRequest })
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			leave, err := l.svc.Enter(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			key := fmt.Sprint(i)
			l.table.put(key, "1")
			leave()
			// The request is answered: what it wrote must survive a crash from here on.
			if _, err := l.dir.Generations("svc", "store"); err != nil {
				t.Error(err)
			}
			if got := savedKeys(t, fsys); !got[key] {
				t.Errorf("answered, but %s is not saved", key)
			}
		})
	}
	wg.Wait()
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// savedKeys reads what a crash now would leave.
func savedKeys(t *testing.T, disk *vfs.Mem) map[string]bool {
	l := begin(t, disk.Kill(), nil)
	defer l.end(t)
	keys := map[string]bool{}
	for k := range l.table.all() {
		keys[k] = true
	}
	return keys
}

func TestManualAndShutdownStrategies(t *testing.T) {
	for strategy, want := range map[runtime.SaveStrategy]map[string]string{
		runtime.SaveManual: {}, runtime.SaveOnShutdown: {"a": "1"}, runtime.SaveScheduled: {"a": "1"}, runtime.SaveOnRequest: {"a": "1"},
	} {
		fsys := vfs.NewMem()
		l := begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Save = strategy })
		l.table.put("a", "1")
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		l = begin(t, fsys, nil)
		l.wants(t, want)
		l.end(t)
	}
}

func TestFirstRequestLoadsOnce(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	l = begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Load = runtime.LoadOnRequest })
	defer l.end(t)
	if st := l.svc.Status(); st.Status != runtime.StatusAvailable || st.Parts[0].Generation != 1 {
		t.Errorf("before the first request: %+v", st)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			leave, err := l.svc.Enter(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			l.wants(t, map[string]string{"a": "1"})
			leave()
		})
	}
	wg.Wait()
	if n := l.table.restores.Load(); n != 1 {
		t.Errorf("restored %d times", n)
	}
}

func TestManualLoadIsNotSavedOver(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.end(t)
	manual := func(_ *life, c *runtime.Config) {
		c.Services[0].Load, c.Services[0].Save = runtime.LoadManual, runtime.SaveOnShutdown
	}
	l = begin(t, fsys, manual)
	if st := l.svc.Status().Status; st != runtime.StatusRunning {
		t.Errorf("status %v", st)
	}
	l.table.put("b", "2")
	if err := l.end(t); err == nil {
		t.Error("saved over a state that was not loaded")
	}
	l = begin(t, fsys, manual)
	if found, err := l.svc.Load(context.Background()); !found || err != nil {
		t.Fatalf("load: %v, %v", found, err)
	}
	l.wants(t, map[string]string{"a": "1"})
	l.table.put("b", "2")
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	l = begin(t, fsys, nil)
	defer l.end(t)
	l.wants(t, map[string]string{"a": "1", "b": "2"})
}

func TestFailedLoadKeepsWhatIsLive(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.table.put("a", "1")
	l.save(t)
	l.table.put("a", "2")
	l.ser.loadErr = errors.New("no")
	if _, err := l.svc.Load(context.Background()); err == nil {
		t.Fatal("a load that failed reports success")
	}
	l.wants(t, map[string]string{"a": "2"})
	st := l.svc.Status()
	if st.Status != runtime.StatusRunning || st.Parts[0].Err == nil || st.Parts[0].DirtySince.IsZero() {
		t.Errorf("status %+v", st)
	}
	l.ser.loadErr = nil
	l.save(t)
}

func TestLoadWithoutStateKeepsWhatIsLive(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.table.put("a", "1")
	if found, err := l.svc.Load(context.Background()); found || err != nil {
		t.Errorf("load: %v, %v", found, err)
	}
	l.wants(t, map[string]string{"a": "1"})
	if l.part().DirtySince.IsZero() {
		t.Error("an unsaved change counts as saved")
	}
}

// A source that cannot capture by itself is captured only while no request is under way.
func TestRequestsAreHeldForTheCapture(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(l *life, _ *runtime.Config) { l.table.atomic = false })
	defer l.end(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				leave, err := l.svc.Enter(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				l.table.inside.Add(1)
				l.table.put(fmt.Sprint(i), fmt.Sprint(n))
				l.table.inside.Add(-1)
				leave()
			}
		})
	}
	for range 20 {
		if err := l.svc.Save(context.Background()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if l.table.torn.Load() {
		t.Error("captured with requests under way")
	}
}

func TestServiceThatCannotBeHeldIsNotSaved(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(l *life, c *runtime.Config) {
		l.table.atomic = false
		c.Services[0].HoldTimeout = 20 * time.Millisecond
	})
	defer l.end(t)
	leave, err := l.svc.Enter(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	l.table.put("a", "1")
	if err := l.svc.Save(context.Background()); !errors.Is(err, runtime.ErrBusy) {
		t.Fatalf("save with a request under way: %v", err)
	}
	if p := l.part(); p.Generation != 0 || p.DirtySince.IsZero() || !errors.Is(p.Err, runtime.ErrBusy) {
		t.Errorf("after it: %+v", p)
	}
	if len(l.seen.holds) != 1 || l.seen.holds[0] == nil {
		t.Errorf("holds %v", l.seen.holds)
	}
	// Requests go on meanwhile, and once this one is over so do saves.
	second, err := l.svc.Enter(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	second()
	leave()
	l.save(t)
}

func TestCancelledSaveLeavesTheLastGoodOne(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.table.put("a", "2")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.svc.Save(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	l.end(t)
	l = begin(t, fsys, nil)
	defer l.end(t)
	l.wants(t, map[string]string{"a": "1"})
}

func TestWithoutPersistence(t *testing.T) {
	l := &life{table: newTable()}
	rt, err := runtime.New(runtime.Config{Services: []runtime.ServiceConfig{{Name: "svc",
		Parts: []runtime.PartConfig{{Name: "store", Source: l.table, Dirty: &l.table.dirty}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	svc := rt.Services()[0]
	leave, err := svc.Enter(context.Background())
	if err != nil || rt.Persistent() || svc.Status().Status != runtime.StatusRunning {
		t.Fatalf("enter %v, status %+v", err, svc.Status())
	}
	l.table.put("a", "1")
	leave()
	if err := svc.Save(context.Background()); err == nil {
		t.Error("a save that does nothing reports success")
	}
	if err := svc.Reset(context.Background()); err != nil || len(l.table.all()) != 0 {
		t.Errorf("reset: %v, state %v", err, l.table.all())
	}
	if err := rt.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	for name, sc := range map[string]runtime.ServiceConfig{
		"save strategy":  {Name: "svc", Save: "SOMETIMES"},
		"load strategy":  {Name: "svc", Load: "NEVER"},
		"flush interval": {Name: "svc", FlushInterval: time.Nanosecond},
		"proof":          {Name: "svc", Parts: []runtime.PartConfig{{Name: "store", Proof: "maybe"}}},
	} {
		_, err := runtime.New(runtime.Config{Services: []runtime.ServiceConfig{sc}})
		if err == nil || !strings.Contains(err.Error(), "svc") {
			t.Errorf("%s: %v", name, err)
		}
	}
	rt, err := runtime.New(runtime.Config{Services: []runtime.ServiceConfig{{Name: "svc"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Service("nope"); !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), "svc") {
		t.Errorf("an unknown service: %v", err)
	}
	rt.Close(context.Background())
}
