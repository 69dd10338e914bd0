package snapshot_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func TestGenerations(t *testing.T) {
	disk := vfs.NewMem()
	dir, err := statedir.Open(disk, statedir.Options{Keep: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	save := func(service, part, value string) {
		t.Helper()
		p, err := dir.Begin(service, part)
		if err != nil {
			t.Fatal(err)
		}
		w, err := statefile.NewWriter(p, statefile.Header{Service: service, Part: part, Generation: p.Generation(), Created: time.Unix(int64(p.Generation()), 0),
			Serializer: statefile.Serializer{Name: "json", Version: "1", Schema: 1}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, []row{{"", "k", value}})
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	look := func(s *snapshot.Snapshot) (all []string) {
		for _, p := range s.Parts {
			var got collected
			b, err := p.File.Records().ReadBatch()
			if err == nil {
				err = got.WriteBatch(b)
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p.String()+"="+got.rows[0].value)
		}
		return all
	}
	if s, err := snapshot.Generations(dir, 0); err != nil || len(s.Parts) > 0 {
		t.Errorf("of nothing: %v", err)
	}
	save("s3", "store", "1")
	save("s3", "store", "2")
	save("s3", "assets", "a")
	save("s3", "assets", "b")
	save("s3", "store", "3")
	save("sqs", "store", "x")
	for _, c := range []struct {
		back     int
		services []string
		want     []string
		err      string
	}{
		{0, nil, []string{"s3/assets=b", "s3/store=3", "sqs/store=x"}, ""},
		{0, []string{"sqs"}, []string{"sqs/store=x"}, ""},
		{1, []string{"s3"}, []string{"s3/assets=a", "s3/store=2"}, ""},
		{1, nil, nil, "sqs/store"},
		{2, []string{"s3"}, nil, "s3/assets"},
		{0, []string{"s3", "sns"}, nil, `"sns"`},
	} {
		s, err := snapshot.Generations(dir, c.back, c.services...)
		if c.err != "" {
			if !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%d of %q: %v, want one about %s", c.back, c.services, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := look(s); !slices.Equal(got, c.want) {
			t.Errorf("%d of %q: %q, want %q", c.back, c.services, got, c.want)
		}
		if _, err := s.Module(t.Context(), [32]byte{1}); !errors.Is(err, abi.ErrNotFound) {
			t.Errorf("a module that is not kept: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}

	// A damaged newest generation is not counted, and stays where it is.
	name := "state/api_states/sqs/store.state"
	save("sqs", "store", "y")
	if err := disk.Remove(name); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenFile(name, vfs.Create)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Generations(dir, 0, "sqs")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := look(s); !slices.Equal(got, []string{"sqs/store=x"}) {
		t.Errorf("with a damaged newest generation: %q", got)
	}
	if !s.Created.Equal(time.Unix(1, 0)) {
		t.Errorf("created %v", s.Created)
	}
}
