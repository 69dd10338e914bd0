//go:build unix

package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestTwoProcessesOneFolder(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	first := start(t, on(data))
	first.put("/bucket/key", "content")
	before := tree(t, data)

	stderr, code := refuses(t, on(data))
	if code != 6 {
		t.Errorf("the second ended with exit code %d, want 6", code)
	}
	for _, want := range []string{fmt.Sprint("process ", first.cmd.Process.Pid), data, "use another data folder"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the second does not say %q: %s", want, stderr)
		}
	}
	sameTree(t, before, tree(t, data))
	first.save()
	first.has("/bucket/key", "content")

	// A program that is killed holds nothing.
	first.kill()
	start(t, on(data)).has("/bucket/key", "content")
}

// nobody is the user that has no rights but everybody's.
const nobody = 65534

// openTemp makes a folder that nobody can reach, which those of t.TempDir are not.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "torpor-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What a test has made read-only is made removable again.
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o700)
			}
			return err
		})
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unprivileged gives options under which permissions count: for the superuser they do not.
func unprivileged(o options) options {
	if os.Geteuid() == 0 {
		o.user = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return o
}

// own gives all that lies in a folder to the user of unprivileged.
func own(t *testing.T, root string, file, folder fs.FileMode) {
	t.Helper()
	var folders []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(path, nobody, nobody); err != nil {
				return err
			}
		}
		if d.IsDir() {
			folders = append(folders, path)
			return nil
		}
		return os.Chmod(path, file)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range slices.Backward(folders) {
		if err := os.Chmod(f, folder); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	root := openTemp(t)
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	own(t, data, 0o600, 0o700)
	// The cache lies elsewhere, so that it is the state that cannot be written.
	cache := filepath.Join(root, "cache")
	if err := os.Mkdir(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	own(t, cache, 0o600, 0o700)
	o := unprivileged(on(data, "--cache", cache))
	c := start(t, o)
	c.put("/bucket/key", "content")
	c.stop()

	own(t, data, 0o400, 0o500)
	before := tree(t, data)
	stderr, code := refuses(t, o)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{data, "can not be written", "permission denied", "another data folder"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the error does not say %q: %s", want, stderr)
		}
	}
	sameTree(t, before, tree(t, data))

	// A new folder in one that cannot be written.
	parent := filepath.Join(root, "parent")
	if err := os.Mkdir(parent, 0o500); err != nil {
		t.Fatal(err)
	}
	stderr, code = refuses(t, unprivileged(on(filepath.Join(parent, "new"), "--cache", cache)))
	if code != 1 || !strings.Contains(stderr, filepath.Join(parent, "new")) || !strings.Contains(stderr, "permission denied") || !strings.Contains(stderr, "PERSISTENCE=0") {
		t.Errorf("exit code %d: %s", code, stderr)
	}

	own(t, data, 0o600, 0o700)
	start(t, o).has("/bucket/key", "content")
}

func TestPersistenceOff(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	off := on(data).with("PERSISTENCE=0")
	c := start(t, off)
	c.put("/bucket/key", "content")
	c.has("/bucket/key", "content")
	if status, h := c.health(); status != http.StatusOK || h.Status != "ok" || h.Features["persistence"] != "disabled" || h.Services[0].Status != "running" {
		t.Errorf("health %d %+v", status, h)
	}
	if a := c.do(http.MethodGet, "/_localstack/health", ""); !strings.Contains(a.body, `"persistence":"disabled"`) {
		t.Errorf("LocalStack's health: %s", a.body)
	}
	for _, action := range []string{"save", "load"} {
		if a := c.do(http.MethodPost, "/_localstack/state/s3/"+action, ""); a.status != http.StatusInternalServerError || !strings.Contains(a.body, "persistence is disabled") {
			t.Errorf("%s: %d %s", action, a.status, a.body)
		}
	}
	c.stop()
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("the data folder was made: %v", err)
	}

	// A state that is there is neither read nor changed.
	c = start(t, on(data))
	c.put("/bucket/key", "content")
	c.stop()
	before := tree(t, data)
	c = start(t, off)
	c.lacks("/bucket/key")
	c.put("/bucket/other", "x")
	c.do(http.MethodPost, "/_localstack/state/reset", "")
	c.stop()
	sameTree(t, before, tree(t, data))
	start(t, on(data)).has("/bucket/key", "content")
}

// TestResetIsSaved: an emptied service stays empty, and the generation before is kept.
func TestResetIsSaved(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data))
	c.put("/bucket/key", "content")
	c.save()
	if a := c.do(http.MethodPost, "/_localstack/state/s3/reset", ""); a.status != http.StatusOK {
		t.Fatalf("reset: %d %s", a.status, a.body)
	}
	c.lacks("/bucket/key")
	c.kill()
	c = start(t, on(data))
	c.lacks("/bucket/key")
	if got := files(t, data); len(got) != 2 {
		t.Errorf("the generation before is not kept: %v", got)
	}
}

// TestLoadGivesUpWhatIsNotSaved: a load by hand is the state saved last.
func TestLoadGivesUpWhatIsNotSaved(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data"), "--save-strategy", "MANUAL"))
	if a := c.do(http.MethodPost, "/_localstack/state/s3/load", ""); a.status != http.StatusOK || !strings.Contains(a.body, "nothing is saved") {
		t.Errorf("with nothing saved: %d %s", a.status, a.body)
	}
	c.put("/bucket/key", "saved")
	c.save()
	c.put("/bucket/key", "changed")
	c.put("/bucket/more", "x")
	if a := c.do(http.MethodPost, "/_localstack/state/load", ""); a.status != http.StatusOK || a.body != `{"service":"s3","status":"ok"}`+"\n" {
		t.Errorf("load: %d %s", a.status, a.body)
	}
	c.has("/bucket/key", "saved")
	c.lacks("/bucket/more")
}

// TestLoadStrategies: when a state comes back.
func TestLoadStrategies(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data))
	c.put("/bucket/key", "content")
	c.stop()
	for strategy, status := range map[string]string{"ON_REQUEST": "available", "ON_STARTUP": "running", "MANUAL": "running"} {
		t.Run(strategy, func(t *testing.T) {
			c := start(t, on(data).with("SNAPSHOT_LOAD_STRATEGY="+strategy))
			if a := c.do(http.MethodGet, "/_localstack/health", ""); !strings.Contains(a.body, `"s3":"`+status+`"`) {
				t.Errorf("before the first request: %s", a.body)
			}
			if strategy == "MANUAL" {
				c.lacks("/bucket/key")
				if a := c.do(http.MethodPost, "/_localstack/state/s3/load", ""); a.status != http.StatusOK {
					t.Errorf("load: %d %s", a.status, a.body)
				}
			}
			c.has("/bucket/key", "content")
			if a := c.do(http.MethodGet, "/_localstack/health", ""); !strings.Contains(a.body, `"s3":"running"`) {
				t.Errorf("after it: %s", a.body)
			}
			c.stop()
		})
	}
	// A state that was not loaded is not saved over by a stop, and the stop says so.
	c = start(t, on(data).with("SNAPSHOT_LOAD_STRATEGY=MANUAL"))
	c.put("/other/key", "new")
	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 1 || !c.log.Contains("has not been loaded") {
		t.Errorf("exit code %d: %s", code, c.log)
	}
	start(t, on(data)).has("/bucket/key", "content")
}
