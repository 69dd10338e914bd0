package pickle_test

import (
	"errors"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// TestConformance runs the conformance kit with the fixtures beside the module.
func TestConformance(t *testing.T) {
	t.Parallel()
	through.Conforms(t, "pickle", modules.Pickle(), "../../../modules/pickle/fixtures")
}

// TestUnit runs the unit tests of the module's source on the machine itself.
func TestUnit(t *testing.T) {
	t.Parallel()
	through.Unit(t, "pickle")
}

// TestDescriptor: what the module says of itself, and how much it can ever take.
func TestDescriptor(t *testing.T) {
	t.Parallel()
	m := compile(t, host.Limits{}, nil)
	d := m.Descriptor()
	if d.Name != "pickle" || d.Schema != 1 || d.Canonical || len(d.Operations) != 4 {
		t.Errorf("descriptor %+v", d)
	}
	shape := m.Shape()
	if shape.MemoryMax == 0 || shape.MemoryMax > host.DefaultMemoryBytes || shape.Size > 384<<10 {
		t.Errorf("%d bytes of module, %d of memory at most", shape.Size, shape.MemoryMax)
	}
	for _, i := range shape.Imports {
		if i.Module != abi.Namespace {
			t.Errorf("it imports %s of %s", i.Name, i.Module)
		}
	}
}

// TestSettings: what is no setting, or not of its kind, is refused by its name, by save and by load.
func TestSettings(t *testing.T) {
	t.Parallel()
	m := compile(t, host.Limits{}, nil)
	records, err := m.save([]byte("N."))
	if err != nil {
		t.Fatal(err)
	}
	for _, settings := range []map[string]any{
		{"dept": 2}, {"depth": "2"}, {"depth": -1}, {"rename": "x"}, {"rename": map[string]any{"a": 1}}, {"drop": "x"}, {"drop": []any{1}}, {"default": []any{}}, {"depth": 1.5},
	} {
		for _, err := range []error{second(m.with(settings).save([]byte("N."))), second(m.with(settings).load(records))} {
			var refused *host.GuestError
			if !errors.As(err, &refused) || refused.Code != abi.CodeUnsupported || refused.Failure.Path == "" {
				t.Errorf("%v: %v; want code %d and a path", settings, err, abi.CodeUnsupported)
			}
		}
	}
}

func second(_ []byte, err error) error { return err }
