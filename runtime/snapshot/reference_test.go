package snapshot_test

import (
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/snapshot"
)

func TestParseReference(t *testing.T) {
	for text, want := range map[string]snapshot.Reference{
		"live":                      {Kind: snapshot.ReferenceLive},
		"saved":                     {Kind: snapshot.ReferenceSaved},
		"saved~0":                   {Kind: snapshot.ReferenceSaved},
		"saved~12":                  {Kind: snapshot.ReferenceSaved, Back: 12},
		"snapshot:orders":           {Kind: snapshot.ReferenceNamed, Name: "orders"},
		"snapshot:Orders.v-2@7":     {Kind: snapshot.ReferenceNamed, Name: "Orders.v-2", Version: 7},
		"pod:orders":                {Kind: snapshot.ReferenceNamed, Name: "orders"},
		"pod:orders:3":              {Kind: snapshot.ReferenceNamed, Name: "orders", Version: 3},
		"pod:orders@3":              {Kind: snapshot.ReferenceNamed, Name: "orders", Version: 3},
		"a.snapshot":                {Kind: snapshot.ReferenceArchive, Path: "a.snapshot"},
		"./live":                    {Kind: snapshot.ReferenceArchive, Path: "./live"},
		"/var/lib/a.zip":            {Kind: snapshot.ReferenceArchive, Path: "/var/lib/a.zip"},
		"store.state":               {Kind: snapshot.ReferenceState, Path: "store.state"},
		"a/store.state":             {Kind: snapshot.ReferenceState, Path: "a/store.state"},
		"a/store.state.g0000000017": {Kind: snapshot.ReferenceState, Path: "a/store.state.g0000000017"},
		"a.state/b":                 {Kind: snapshot.ReferenceArchive, Path: "a.state/b"},
	} {
		got, err := snapshot.ParseReference(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
			continue
		}
		if again, err := snapshot.ParseReference(got.String()); err != nil || again != got {
			t.Errorf("%s is written %s, which is %+v (%v)", text, got, again, err)
		}
	}
	for _, text := range []string{"", "orders", "Live", "saved~", "saved~-1", "saved~x", "saved~99999999", "snapshot:", "snapshot:@1", "snapshot:a@", "snapshot:a@0", "snapshot:a@-1",
		"snapshot:a@1@2", "snapshot:a:1", "snapshot:a/b", "pod:", "pod:a:b", "a/", ".state"} {
		if got, err := snapshot.ParseReference(text); err == nil || !strings.Contains(err.Error(), "saved~N") {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
