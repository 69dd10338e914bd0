package statefile

import (
	"io"

	"github.com/torpor-run/torpor/host/abi/record"
)

// mergeCacheBytes bounds the chunks of deltas that a merge keeps in memory; others are read again when
// a record of theirs is wanted.
const mergeCacheBytes = 16 << 20

// merge applies a file's deltas to the records of its full save as they are read. In memory it has one
// entry for each changed key, and some chunks of deltas; what the full save holds streams through.
type merge struct {
	r       *RecordReader
	changes []placed // chunks of the deltas, oldest first
	loaded  bool

	parts map[string]*changedPartition
	order []*changedPartition // as they first appear in the deltas
	left  map[string]int      // chunks of the full save still to come, by partition

	cache      map[int]*cachedChunk // by place in changes
	cacheBytes int                  // mergeCacheBytes
	cacheSize  int
	clock      uint64

	adding *changedPartition // whose new records come next
	added  int               // how many of adding.news have been looked at
	out    record.Batch      // room for a merged chunk
}

// changedPartition is what the deltas change in one partition.
type changedPartition struct {
	keys    map[string]int // by encoded key: place in changes
	changes []change
	news    []int // changes in the order their keys were added, each perhaps more than once
	done    bool  // its new records have been given
}

// change is what the deltas make of one key.
type change struct {
	chunk, record int  // where the newest record of it is
	gone          bool // the newest is a tombstone
	replaces      bool // it takes the place of the record in the full save
	placed        bool // that place has come
	new           int  // where in news it counts
}

type cachedChunk struct {
	batch record.Batch
	used  uint64
}

func newMerge(r *RecordReader, changes []placed) *merge {
	r.scan.Tombstones = false
	m := &merge{r: r, changes: changes, parts: map[string]*changedPartition{}, left: map[string]int{},
		cache: map[int]*cachedChunk{}, cacheBytes: mergeCacheBytes}
	for _, c := range r.chunks {
		m.left[c.partition]++
	}
	return m
}

// load reads the deltas and takes down what they make of each key.
func (m *merge) load() error {
	m.loaded = true
	for i, c := range m.changes {
		b, err := m.chunk(i)
		if err != nil {
			return err
		}
		p := m.parts[c.partition]
		if p == nil {
			p = &changedPartition{keys: map[string]int{}}
			m.parts[c.partition] = p
			m.order = append(m.order, p)
		}
		for j := range b.Refs {
			p.apply(b, i, j)
		}
	}
	return nil
}

// apply takes down record j of the chunk.
func (p *changedPartition) apply(b *record.Batch, chunk, j int) {
	at, known := p.keys[string(b.KeyItem(j))]
	if !known {
		at = len(p.changes)
		p.keys[string(b.KeyItem(j))] = at
		p.changes = append(p.changes, change{replaces: true, new: len(p.news)})
		p.news = append(p.news, at)
	}
	c := &p.changes[at]
	c.chunk, c.record = chunk, j
	if b.Tombstone(j) {
		c.gone, c.replaces = true, false
		return
	}
	if c.gone { // it was removed, so it is a new one now
		c.gone, c.new = false, len(p.news)
		p.news = append(p.news, at)
	}
}

// chunk returns a chunk of a delta, from memory if it is there. It is valid until the next call.
func (m *merge) chunk(i int) (*record.Batch, error) {
	m.clock++
	if c := m.cache[i]; c != nil {
		c.used = m.clock
		return &c.batch, nil
	}
	for m.cacheSize+int(m.changes[i].Raw) > m.cacheBytes && len(m.cache) > 0 {
		oldest, used := 0, m.clock
		for at, c := range m.cache {
			if c.used < used {
				oldest, used = at, c.used
			}
		}
		m.cacheSize -= len(m.cache[oldest].batch.Data)
		delete(m.cache, oldest)
	}
	c := &cachedChunk{used: m.clock}
	m.r.scan.Tombstones = true
	err := m.r.read(m.changes[i], &c.batch)
	m.r.scan.Tombstones = false
	if err != nil {
		return nil, err
	}
	m.cache[i] = c
	m.cacheSize += len(c.batch.Data)
	return &c.batch, nil
}

// readNext is RecordReader.readNext with the deltas applied.
func (m *merge) readNext(b *record.Batch) error {
	if !m.loaded {
		if err := m.load(); err != nil {
			return err
		}
	}
	for {
		var err error
		switch r := m.r; {
		case m.adding != nil:
			err = m.addNew(b)
		case r.next < len(r.chunks):
			c := r.chunks[r.next]
			r.next++
			if err = r.read(c, b); err == nil {
				err = m.replace(c.partition, b)
			}
		default:
			if !m.nextPartition() {
				return io.EOF
			}
			continue
		}
		if err != nil || len(b.Refs) > 0 {
			return err
		}
	}
}

// nextPartition goes to the new records of a partition that the full save has not.
func (m *merge) nextPartition() bool {
	for _, p := range m.order {
		if !p.done {
			m.begin(p)
			return true
		}
	}
	return false
}

// begin makes the new records of p come next.
func (m *merge) begin(p *changedPartition) { m.adding, m.added, p.done = p, 0, true }

// replace puts into b, a chunk of the full save, what the deltas make of its records.
func (m *merge) replace(partition string, b *record.Batch) error {
	p := m.parts[partition]
	if p == nil {
		return nil
	}
	if m.left[partition]--; m.left[partition] == 0 {
		m.begin(p)
	}
	out := &m.out
	out.Data, out.Refs = out.Data[:0], out.Refs[:0]
	same := 0 // records before it are in out
	for i := range b.Refs {
		at, changed := p.keys[string(b.KeyItem(i))]
		if !changed {
			continue
		}
		appendRecords(out, b, same, i)
		same = i + 1
		c := &p.changes[at]
		if !c.replaces || c.placed {
			continue
		}
		c.placed = true
		from, err := m.chunk(c.chunk)
		if err != nil {
			return err
		}
		appendRecords(out, from, c.record, c.record+1)
	}
	if same == 0 {
		return nil
	}
	appendRecords(out, b, same, len(b.Refs))
	*b, *out = *out, *b
	return nil
}

// addNew puts new records of the partition into b, about a chunk of them.
func (m *merge) addNew(b *record.Batch) error {
	p := m.adding
	b.Data, b.Refs = b.Data[:0], b.Refs[:0]
	for ; m.added < len(p.news); m.added++ {
		if len(b.Data) >= targetChunk {
			return nil
		}
		c := &p.changes[p.news[m.added]]
		if c.gone || c.placed || c.new != m.added {
			continue
		}
		from, err := m.chunk(c.chunk)
		if err != nil {
			return err
		}
		appendRecords(b, from, c.record, c.record+1)
	}
	m.adding = nil
	return nil
}

// appendRecords copies records i to j of from to the end of to.
func appendRecords(to, from *record.Batch, i, j int) {
	if i == j {
		return
	}
	start := from.Refs[i].Start
	shift := len(to.Data) - start
	to.Data = append(to.Data, from.Data[start:from.Refs[j-1].End]...)
	for _, r := range from.Refs[i:j] {
		to.Refs = append(to.Refs, record.Ref{Start: r.Start + shift, Partition: r.Partition + shift,
			Key: r.Key + shift, Value: r.Value + shift, End: r.End + shift})
	}
}
