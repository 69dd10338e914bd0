package pickle_test

import (
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/host"
)

// large makes backends with one thing in them of more than save holds at once.
const large = `
import collections, pickle, sys
sys.path.insert(0, ".")
import archive, state_classes
def items():
    return {f"key-{i}": list(range(256)) for i in range(5000)}
def instance():
    o = state_classes.Instance()
    o.keys, o.name = items(), "n"
    return o
with open(sys.argv[1], "wb") as out:
    for name, value in {
        "one entry": {"bucket": items()}, "one entry that is no name": {"my-bucket": items()}, "one object": {"bucket": instance()},
        "one in one": {"bucket": {"inner": items()}}, "one in an OrderedDict": collections.OrderedDict(bucket=items()), "one in a list": [items()],
    }.items():
        backend = state_classes.Backend()
        backend.region, backend.empty, backend.buckets, backend.more, backend.last = "us-east-1", {}, value, {"a": 1}, [{}]
        archive.write(out, name, pickle.dumps({"000000000000": {"us-east-1": backend}}, 4))
`

// TestLarge: what lies in a container of one entry is written while it is read, however much it is, and
// comes back where it was.
func TestLarge(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it is large")
	}
	dir := t.TempDir()
	original, result := filepath.Join(dir, "original"), filepath.Join(dir, "result")
	if out, err := python(t, "-c", large, original); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	takeThrough(t, compile(t, host.Limits{}, nil), original, result)
	t.Log(mustPython(t, "compare.py", original, result))
}
