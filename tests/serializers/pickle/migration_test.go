package pickle_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/host"
)

// TestMigration: version 2 of a service loads, by a table in the part's configuration, what version 1 has
// pickled and version 2 cannot unpickle: a class in another module, of another name, without an attribute,
// with a new one.
func TestMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	original, result := filepath.Join(dir, "v1"), filepath.Join(dir, "v2")
	mustPython(t, "migration.py", "v1", original)
	m := compile(t, host.Limits{}, nil)
	upgraded := m.with(map[string]any{
		"rename": map[string]any{
			"localstack.services.sqs.models":            "localstack.services.sqs.core.queue",
			"localstack.services.sqs.models.SqsStore":   "localstack.services.sqs.store.Store",
			"localstack.services.sqs.models.SqsQueue":   "localstack.services.sqs.core.queue.Queue",
			"localstack.services.sqs.models.FifoQueue":  "localstack.services.sqs.core.queue.Fifo",
			"localstack.services.sqs.models.Permission": "localstack.services.sqs.core.queue.Grant",
			"localstack.utils.tagging":                  "localstack.aws.tags",
		},
		"drop": []any{
			"localstack.services.sqs.core.queue.Queue.lock", "localstack.services.sqs.core.queue.Fifo.lock",
			"localstack.services.sqs.core.queue.Message.deprecated", "localstack.services.sqs.store.Store.legacy_cache",
		},
		"default": map[string]any{
			"localstack.services.sqs.core.queue.Queue.encrypted": false,
			"localstack.services.sqs.core.queue.Queue.policy":    nil,
			"localstack.services.sqs.core.queue.Queue.limit":     120_000,
			"localstack.services.sqs.core.queue.Queue.ratio":     -1.5,
			"localstack.services.sqs.core.queue.Fifo": map[string]any{
				"encrypted": false, "policy": nil, "limit": 120_000, "ratio": -1.5,
				"visibility": 99, // is there: it stays what it is
			},
			"localstack.services.sqs.core.queue.Message.trace": "none",
		},
	})
	out := newArchive(t, result)
	entries(t, original, func(e entry) {
		records, err := m.save(e.data)
		if err != nil {
			t.Fatal(err)
		}
		native, err := upgraded.load(records)
		if err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		out.add(t, entry{name: e.name, data: native})
	})
	out.close(t)
	t.Log(mustPython(t, "migration.py", "v2", original, result))
}

// TestMigratedState: with the table still configured every later save proves, as the runtime does it: of
// what was loaded by the table, of objects without the attributes that have defaults or with those that
// are dropped, and of pickles from before the upgrade. The records are those of the new layout.
func TestMigratedState(t *testing.T) {
	t.Parallel()
	original := filepath.Join(t.TempDir(), "v1")
	mustPython(t, "migration.py", "v1", original)
	m := compile(t, host.Limits{}, nil)
	for _, rename := range []map[string]any{
		{"localstack.services.sqs.models": "localstack.services.sqs.models.queue"}, // the module is a package now
		{"localstack.services.sqs.models": "localstack.models", "localstack.services.sqs.models.SqsQueue": "localstack.queues.Queue"},
		{"localstack.utils": "localstack.other"}, // no class's module, but above one: it is not meant
	} {
		upgraded := m.with(map[string]any{"rename": rename, "drop": []any{"localstack.models.SqsStore.legacy_cache"}, "default": map[string]any{"localstack.queues.Queue.new": "ü"}})
		entries(t, original, func(e entry) {
			records, err := m.save(e.data)
			if err != nil {
				t.Fatal(err)
			}
			native, err := upgraded.load(records)
			if err != nil {
				t.Errorf("%v, %s: %v", rename, e.name, err)
				return
			}
			if _, _, err := upgraded.roundTrip(native); err != nil {
				t.Errorf("%v, %s: after the upgrade: %v", rename, e.name, err)
			}
			if early, _, err := upgraded.roundTrip(e.data); err != nil {
				t.Errorf("%v, %s: a pickle from before the upgrade: %v", rename, e.name, err)
			} else if late, err := upgraded.save(native); err != nil || !bytes.Equal(early, late) {
				t.Errorf("%v, %s: before and after the upgrade there are other records (%v)", rename, e.name, err)
			}
		})
	}
}
