package runtime

import (
	"fmt"
	"testing"
)

func TestDirty(t *testing.T) {
	var d Dirty
	if _, dirty := d.Since(); dirty {
		t.Error("the zero value is dirty")
	}
	d.Mark("a")
	d.Mark("a", "b")
	first, _ := d.Since()
	if n, all := d.Keys(); n != 2 || all {
		t.Errorf("%d keys, all %v", n, all)
	}
	saved := d.take()
	if _, dirty := d.Since(); dirty {
		t.Error("dirty after it was taken")
	}
	d.Mark("b", "c")
	if since, n, all := d.with(saved); !since.Equal(first) || n != 3 || all {
		t.Errorf("with a save under way: %d keys since %v, all %v", n, since, all)
	}
	d.putBack(saved) // the save failed: both are unsaved, since the first
	if since, dirty := d.Since(); !dirty || !since.Equal(first) {
		t.Errorf("dirty since %v, want %v", since, first)
	}
	if n, all := d.Keys(); n != 3 || all {
		t.Errorf("%d keys, all %v, want a, b and c", n, all)
	}
	d.putBack(changes{})
	d.Mark()
	if n, all := d.Keys(); n != 0 || !all {
		t.Errorf("after a change without a key: %d keys, all %v", n, all)
	}
	d.putBack(saved)
	if _, all := d.Keys(); !all {
		t.Error("putting keys back has made the unknown known")
	}
}

func TestDirtyForgetsKeysBeyondItsLimit(t *testing.T) {
	var d Dirty
	for i := range MaxDirtyKeys + 1 {
		d.Mark(fmt.Sprint(i))
	}
	if n, all := d.Keys(); n != 0 || !all || len(d.taken.keys) != 0 {
		t.Errorf("%d keys, all %v", n, all)
	}
}
