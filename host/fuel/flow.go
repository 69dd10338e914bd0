package fuel

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/torpor-run/torpor/host/abi"
)

// function is what one function's code looks like: blocks of instructions that run one after the
// other, what may run after each, and the places at which code is put in. It is used for one function
// after the other.
type function struct {
	m     *module
	index int // of the function, the imported ones counted
	sig   signature

	locals     int    // parameters and declared locals
	localsAt   int    // where the declarations of locals begin
	localsSets uint32 // how many declarations there are
	codeAt     int    // where the instructions begin

	blocks []block
	edges  []edge
	frames []frame
	marks  []mark
	cur    int // the block that is being read; -1 where nothing can run
	loops  int // how many loops enclose the place that is being read
	labels int // how many blocks, loops and ifs there are
	burden int // what its instructions add to that: wazero makes blocks, or as much as some, of those too

	lengths bool // an instruction is charged by its length
	ahead   bool // the local may be ahead of the global at the end of the function
}

// block is a run of instructions with one way in, at its beginning, and out, at its end.
type block struct {
	weight  int64 // what its instructions cost
	prepaid int64 // what has been paid of it, and of what follows, whenever it begins
	charge  int64 // what is paid at its beginning
	first   int   // its edges are edges[first:last]
	last    int
	depth   int    // how many loops enclose it
	repeats uint64 // bit d-1: the d-th of the loops that enclose it may be repeated from here
	head    bool   // a loop comes back to it
	dead    bool   // whatever runs from here ends in a trap
	mark    int    // its first mark
	called  bool   // something may have been called since the counter was last looked at
	check   bool   // the counter is looked at when it is charged
	ahead   bool   // the local may be ahead of the global when it begins
	needs   bool   // the local is read in it or behind it
}

// Special targets of an edge.
const (
	leaves  = -1 // the end of the function
	pending = -2 // not known yet: the end of something that is open
)

// edge leads from a block to one that may run next.
type edge struct {
	to   int
	next int // of those that are pending for the same end; -1 for none
}

// frame is something that end closes.
type frame struct {
	op      byte // of the instruction that opened it; 0 for the function itself
	sig     signature
	waiting int // the first pending edge to its end; -1 for none
	other   int // of an if: the pending edge to its else or, if there is none, its end; -1 for none
	head    int // of a loop: its head; -1 if nothing can run there
}

// What is to be done at a place in the code.
const (
	markCharge = iota // a block begins: charge for it, if it has a charge
	markCall          // this instruction is a call
	markLeave         // this instruction ends the function
	markSize          // charge for a length in bytes that is on the stack
	markItems         // charge for a number of references that is on the stack
	markPages         // this instruction grows the memory
	markGrow          // this instruction grows a table
)

// mark is a place in the code at which the new code differs.
type mark struct {
	kind  byte
	at    int  // offset
	end   int  // of a call and an instruction that grows something: where it ends
	n     int  // of a charge: the block
	depth int  // how many frames there are
	store bool // the global must be set before it
	load  bool // the local must be set behind it
}

// Opcodes that are looked at.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opI32Load      = 0x28
	opI64Store32   = 0x3e
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Eqz       = 0x45
	opI32Ne        = 0x47
	opI64LtS       = 0x53
	opI32Add       = 0x6a
	opI32Mul       = 0x6c
	opI32DivS      = 0x6d
	opI32RemU      = 0x70
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Mul       = 0x7e
	opI64DivS      = 0x7f
	opI64RemU      = 0x82
	opF32Sqrt      = 0x91
	opF32Div       = 0x95
	opF64Sqrt      = 0x9f
	opF64Div       = 0xa3
	opI32TruncF32S = 0xa8
	opI32TruncF64U = 0xab
	opI64TruncF32S = 0xae
	opI64TruncF64U = 0xb1
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opI64ExtendU   = 0xad
	opExtend32     = 0xc4
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd
	opDrop         = 0x1a
	opSelect       = 0x1b
)

// Opcodes behind the prefix opMisc; those before miscMemoryInit have no immediates.
const (
	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17
)

// Opcodes behind the prefix opVector.
const (
	vectorConst   = 0x0c
	vectorF32Sqrt = 0xe3
	vectorF32Div  = 0xe7
	vectorF64Sqrt = 0xef
	vectorF64Div  = 0xf3
)

// scan reads the code of the module's i-th own function.
func (f *function) scan(m *module, i int) error {
	b := m.bodies[i]
	*f = function{
		m: m, index: m.imported + i, sig: m.types[m.funcs[m.imported+i]],
		blocks: f.blocks[:0], edges: f.edges[:0], frames: f.frames[:0], marks: f.marks[:0],
	}
	r := reader{b: m.wasm, at: b.start, end: b.end}
	f.localsSets = uint32(r.count())
	f.localsAt = r.at
	locals := uint64(0)
	for n := f.localsSets; n > 0 && !r.bad(); n-- {
		locals += uint64(r.u32())
		r.valueType()
		if locals > MaxLocals {
			return tooLarge(f.name()+": locals", int(min(locals, math.MaxInt32)), MaxLocals)
		}
	}
	f.locals = f.sig.params + int(locals)
	f.codeAt = r.at
	f.frames = append(f.frames, frame{sig: f.sig, waiting: -1, other: -1})
	f.begin(r.at)
	f.blocks[0].weight = 1 + int64(locals)/valuesPerUnit
	for len(f.frames) > 0 && !r.bad() {
		if err := f.instruction(&r); err != nil {
			return err
		}
	}
	if r.left() > 0 {
		r.fail("the code goes on past its end")
	}
	if r.bad() {
		return corrupt(f.name(), r.off, r.why)
	}
	if n := f.complexity(); n > MaxComplexity {
		return tooLarge(f.name()+": complexity", n, MaxComplexity)
	}
	return nil
}

// complexity tells how hard the function is to compile: wazero needs time and memory that grow with the
// number of blocks times that of locals, and with the square of the number of blocks.
func (f *function) complexity() int {
	blocks := max(len(f.blocks), f.labels) + f.burden
	return blocks * (f.locals + blocks/blocksPerLocal)
}

func (f *function) name() string { return fmt.Sprintf("function %d", f.index) }

// begin begins a block at at.
func (f *function) begin(at int) {
	f.cur = len(f.blocks)
	f.blocks = append(f.blocks, block{first: len(f.edges), depth: f.loops, mark: len(f.marks)})
	f.marks = append(f.marks, mark{kind: markCharge, at: at, n: f.cur, depth: len(f.frames)})
}

// finish ends the block that is being read.
func (f *function) finish() {
	if f.cur >= 0 {
		f.blocks[f.cur].last = len(f.edges)
		f.cur = -1
	}
}

// cost adds to the block that is being read.
func (f *function) cost(n int) {
	if f.cur >= 0 {
		f.blocks[f.cur].weight += int64(n)
	}
}

// values is what moving n values costs above the instruction that moves them.
func values(n int) int { return n / valuesPerUnit }

// lead adds an edge from the block that is being read to what follows it; the next block begun must be
// that one.
func (f *function) lead() {
	if f.cur >= 0 {
		f.edges = append(f.edges, edge{to: len(f.blocks), next: -1})
	}
}

// wait adds an edge to the end of a frame.
func (f *function) wait(to *frame) {
	if f.cur >= 0 {
		f.edges = append(f.edges, edge{to: pending, next: to.waiting})
		to.waiting = len(f.edges) - 1
	}
}

// arrive lets the edges that wait for the end of a frame lead to the next block.
func (f *function) arrive(from *frame) {
	for e := from.waiting; e >= 0; {
		e, f.edges[e].to = f.edges[e].next, len(f.blocks)
	}
}

// label reads a label and adds the edge to it. It gives how many values go there.
func (f *function) label(r *reader) int {
	l := int(r.u32())
	if r.bad() {
		return 0
	}
	if l >= len(f.frames) {
		r.fail(fmt.Sprintf("there is no label %d", l))
		return 0
	}
	to := &f.frames[len(f.frames)-1-l]
	switch {
	case to.op == 0:
		f.leaves()
	case to.op == opLoop:
		if f.cur >= 0 {
			f.edges = append(f.edges, edge{to: to.head, next: -1})
		}
		return to.sig.params
	default:
		f.wait(to)
	}
	return to.sig.results
}

// leaves adds an edge to the end of the function.
func (f *function) leaves() {
	if f.cur >= 0 {
		f.edges = append(f.edges, edge{to: leaves, next: -1})
	}
}

// leaving notes that the instruction at start ends the function, not by going to its end.
func (f *function) leaving(start int) {
	if f.cur >= 0 {
		f.marks = append(f.marks, mark{kind: markLeave, at: start})
	}
}

// jumps reads n labels.
func (f *function) jumps(r *reader, n int) {
	carried := 0
	for i := 0; i < n && !r.bad(); i++ {
		carried = f.label(r)
		f.burden += values(carried)
	}
	f.burden += n / labelsPerBlock
	f.cost(1 + values(carried))
}

// blockType reads the type of a block.
func (f *function) blockType(r *reader) signature {
	switch t := r.sint(33); {
	case t >= 0:
		if !r.bad() && t >= int64(len(f.m.types)) {
			r.fail(fmt.Sprintf("there is no type %d", t))
		}
		if r.bad() {
			return signature{}
		}
		return f.m.types[t]
	case t == -0x40: // nothing
		return signature{}
	case t == refNull-0x80 || t == ref-0x80:
		r.sint(33)
	}
	return signature{results: 1}
}

// instruction reads one instruction.
func (f *function) instruction(r *reader) error {
	start := r.at
	op := r.byte()
	if r.bad() {
		return nil
	}
	switch {
	case op == opUnreachable:
		f.cost(1)
		f.leaving(start)
		if f.cur >= 0 {
			f.blocks[f.cur].dead = true
		}
		f.finish()
	case op == opNop:
	case op == opBlock, op == opLoop, op == opIf:
		return f.open(r, op)
	case op == opElse:
		f.otherwise(r, start)
	case op == opEnd:
		f.close(r)
	case op == opBr:
		f.jumps(r, 1)
		f.finish()
	case op == opBrIf:
		f.jumps(r, 1)
		f.branch(r)
	case op == opBrTable:
		f.jumps(r, r.count()+1)
		f.finish()
	case op == opReturn:
		f.cost(1 + values(f.sig.results))
		f.leaving(start)
		f.finish()
	case op == opCall:
		i := r.u32()
		if !r.bad() && uint64(i) >= uint64(len(f.m.funcs)) {
			r.fail(fmt.Sprintf("there is no function %d", i))
		}
		if r.bad() {
			return nil
		}
		f.called(start, r.at, f.m.funcs[i])
	case op == opCallIndirect:
		t := f.m.typeIndex(r)
		r.u32()
		if r.bad() {
			return nil
		}
		f.called(start, r.at, t)
	case op == opSelectTyped:
		if r.byte() != 1 {
			r.fail("select has not one type")
		}
		r.valueType()
		f.cost(1)
	case op >= opLocalGet && op <= opLocalTee:
		// A guest must not reach the locals that are added.
		if i := r.u32(); !r.bad() && uint64(i) >= uint64(f.locals) {
			r.fail(fmt.Sprintf("there is no local %d", i))
		}
		f.cost(1)
	case op == opGlobalGet || op == opGlobalSet:
		// Nor the counter.
		if i := r.u32(); !r.bad() && i >= f.m.globals {
			r.fail(fmt.Sprintf("there is no global %d", i))
		}
		f.cost(1)
	case op == opTableGet || op == opTableSet || op == opRefFunc:
		f.m.keeps = f.m.keeps || op == opTableSet
		f.m.refers = f.m.refers || op == opRefFunc
		r.u32()
		f.cost(1)
	case op >= opI32Load && op <= opI64Store32:
		r.memory()
		f.cost(1)
	case op == opMemorySize:
		r.zero()
		f.cost(1)
	case op == opMemoryGrow:
		r.zero()
		f.measured(markPages, start, r.at, growCost)
	case op == opI32Const:
		r.sint(32)
		f.cost(1)
	case op == opI64Const:
		r.sint(64)
		f.cost(1)
	case op == opF32Const:
		r.bytes(4)
		f.cost(1)
	case op == opF64Const:
		r.bytes(8)
		f.cost(1)
	case op == opRefNull:
		r.sint(33) // a heap type
		f.cost(1)
	case op >= opI32DivS && op <= opI32RemU || op >= opI64DivS && op <= opI64RemU:
		f.cost(divideCost)
	case op == opF32Sqrt || op == opF32Div || op == opF64Sqrt || op == opF64Div:
		f.cost(rootCost)
	case op >= opI32TruncF32S && op <= opI32TruncF64U || op >= opI64TruncF32S && op <= opI64TruncF64U:
		f.burden++
		f.cost(1)
	case op == opDrop, op == opSelect, op == opRefIsNull, op >= opI32Eqz && op <= opExtend32:
		f.cost(1)
	case op == opMisc:
		return f.misc(r, start)
	case op == opVector:
		return f.vector(r, start)
	default:
		return f.unknown(start, fmt.Sprintf("%#x", op))
	}
	return nil
}

// unknown is an error about an instruction.
func (f *function) unknown(at int, op string) error {
	return fmt.Errorf("fuel: %s, offset %#x: the instruction %s is not known: %w", f.name(), at, op, abi.ErrVersion)
}

// memory reads past the alignment and the offset of a memory access.
func (r *reader) memory() {
	if r.u32() >= 32 {
		r.fail("an alignment is too large") // or one of many memories is meant
	}
	r.uint(64)
}

// called notes a call of a function of type t.
func (f *function) called(start, end int, t uint32) {
	s := f.m.types[t]
	f.burden += values(s.params + s.results)
	f.cost(1 + values(s.params+s.results))
	if f.cur >= 0 {
		f.marks = append(f.marks, mark{kind: markCall, at: start, end: end})
	}
}

// measured notes an instruction that is charged by a length.
func (f *function) measured(kind byte, start, end, flat int) {
	f.burden += 2
	f.cost(flat)
	if f.cur >= 0 {
		f.lengths = true
		f.marks = append(f.marks, mark{kind: kind, at: start, end: end, depth: len(f.frames)})
	}
}

// branch ends a block behind which another begins if it is not left.
func (f *function) branch(r *reader) {
	if f.cur >= 0 {
		f.lead()
		f.finish()
		f.begin(r.at)
	}
}

// open reads the rest of block, loop or if.
func (f *function) open(r *reader, op byte) error {
	fr := frame{op: op, sig: f.blockType(r), waiting: -1, other: -1, head: -1}
	f.labels++
	if r.bad() {
		return nil
	}
	if len(f.frames) > MaxNesting {
		return tooLarge(f.name()+": nesting", len(f.frames), MaxNesting)
	}
	reached := f.cur >= 0
	switch op {
	case opLoop:
		f.loops++
		if reached {
			f.lead()
			f.finish()
			fr.head = len(f.blocks)
		}
	case opIf:
		f.cost(1)
		if reached {
			fr.other = len(f.edges)
			f.edges = append(f.edges, edge{to: pending, next: -1})
			f.lead()
			f.finish()
		}
	}
	f.frames = append(f.frames, fr)
	if reached && op != opBlock {
		f.begin(r.at)
		if op == opLoop {
			f.blocks[f.cur].head = true
			f.cost(1) // each round, so that each is charged at its beginning
		}
	}
	return nil
}

// otherwise is else.
func (f *function) otherwise(r *reader, start int) {
	fr := &f.frames[len(f.frames)-1]
	if fr.op != opIf {
		r.at = start
		r.fail("else without if")
		return
	}
	f.cost(values(fr.sig.results))
	f.wait(fr)
	f.finish()
	fr.op = opElse
	if fr.other >= 0 {
		f.edges[fr.other].to = len(f.blocks)
		fr.other = -1
		f.begin(r.at)
	}
}

// close is end.
func (f *function) close(r *reader) {
	fr := f.frames[len(f.frames)-1]
	f.cost(values(fr.sig.results))
	f.frames = f.frames[:len(f.frames)-1]
	if len(f.frames) == 0 {
		f.leaves()
		f.finish()
		return
	}
	reached := f.cur >= 0
	if fr.op == opLoop {
		f.loops--
	} else if fr.waiting < 0 && fr.other < 0 {
		return // nothing but what comes from above
	}
	if fr.other >= 0 {
		f.edges[fr.other].next, fr.waiting = fr.waiting, fr.other
	}
	if !reached && fr.waiting < 0 {
		return
	}
	f.arrive(&fr)
	f.lead()
	f.finish()
	f.begin(r.at)
}

// misc reads an instruction behind the prefix opMisc.
func (f *function) misc(r *reader, start int) error {
	op := r.u32()
	if r.bad() {
		return nil
	}
	switch op {
	case miscMemoryInit:
		f.m.segments = true
		r.u32()
		r.zero()
		f.measured(markSize, start, r.at, bulkCost)
	case miscMemoryCopy:
		r.zero()
		r.zero()
		f.measured(markSize, start, r.at, bulkCost)
	case miscMemoryFill:
		r.zero()
		f.measured(markSize, start, r.at, bulkCost)
	case miscTableInit, miscTableCopy:
		f.m.keeps = true
		r.u32()
		r.u32()
		f.measured(markItems, start, r.at, bulkCost)
	case miscTableFill:
		f.m.keeps = true
		r.u32()
		f.measured(markItems, start, r.at, bulkCost)
	case miscTableGrow:
		f.m.keeps, f.m.grows = true, true
		r.u32()
		f.measured(markGrow, start, r.at, growCost)
	case miscDataDrop, miscElemDrop, miscTableSize:
		f.m.keeps = f.m.keeps || op != miscTableSize
		f.m.segments = f.m.segments || op == miscDataDrop
		r.u32()
		f.cost(1)
	default: // conversions of floats
		if op >= miscMemoryInit {
			return f.unknown(start, fmt.Sprintf("%#x %d", opMisc, op))
		}
		f.burden++
		f.cost(1)
	}
	return nil
}

// vector reads an instruction behind the prefix opVector.
func (f *function) vector(r *reader, start int) error {
	// The specification has a LEB128 number here, wazero a byte. So what is 0x80 or above is followed by
	// 0x01, which wazero takes for nop; where the two would differ the code is refused.
	op := r.byte()
	if op >= 0x80 && r.byte() != 1 && !r.bad() {
		return f.unknown(start, fmt.Sprintf("% x", f.m.wasm[start:r.at]))
	}
	switch {
	case op <= 0x0b || op == 0x5c || op == 0x5d: // load and store
		r.memory()
	case op == vectorConst || op == 0x0d: // v128.const, i8x16.shuffle
		r.bytes(16)
	case op >= 0x15 && op <= 0x22: // lanes
		r.byte()
	case op >= 0x54 && op <= 0x5b: // loads and stores of lanes
		r.memory()
		r.byte()
	case op == 0x9a || op == 0xa2 || op == 0xa5 || op == 0xa6 || op == 0xaf || op == 0xb0 || op == 0xb2 || op == 0xb3 || op == 0xb4 ||
		op == 0xbb || op == 0xc2 || op == 0xc5 || op == 0xc6 || op == 0xcf || op == 0xd0 || op == 0xd2 || op == 0xd3 || op == 0xd4 ||
		op == 0xe2 || op == 0xee:
		return f.unknown(start, fmt.Sprintf("%#x %#x", opVector, op))
	}
	switch op {
	case vectorF32Sqrt, vectorF32Div, vectorF64Sqrt, vectorF64Div:
		f.cost(rootCost)
		return nil
	}
	f.cost(1)
	return nil
}

// distribute decides where to pay for what. Slack is what may be paid too much at a branch.
//
// Every block's weight has to be paid before it runs. Paying at each block would do, and be exact; but
// it is cheaper to pay at a block for what follows it as well, as far as that surely follows. So each
// block has prepaid, the part of the cost from there on that has been paid on every way that leads
// there. It pays the rest of its weight, and of what those that may follow it take as prepaid.
//
// What is prepaid is a matter of how much too much a block may pay if the cheapest way is taken: what
// its successors take as prepaid must not differ by more than slack, or they take no more than the
// cheapest of them. The head of a loop takes nothing, as the loop comes back to it; nor does what a loop
// is left for, or each round would pay for it. Ways that end in unreachable count for nothing here.
func (f *function) distribute(slack int64) {
	for i := len(f.blocks) - 1; i >= 0; i-- {
		f.trace(&f.blocks[i], i)
	}
	for range maxRounds {
		if !f.lower(slack) {
			f.settle()
			return
		}
	}
	// Code made to be hard. Paying at each block is right for any.
	for i := range f.blocks {
		f.blocks[i].prepaid = 0
	}
	f.settle()
}

// trace finds what can be reached from a block, when that is known of all behind it.
func (f *function) trace(b *block, i int) {
	b.prepaid = unbounded
	if b.head || i == 0 {
		b.prepaid = 0
	}
	if b.depth > 64 {
		b.repeats = 1 << 63 // more than can be kept: all of those count as one
	}
	dead := b.first < b.last || b.dead // but not one that returns
	for _, e := range f.edges[b.first:b.last] {
		switch {
		case e.to == leaves:
			dead = false
		case e.to <= i: // a round
			dead = false
			b.repeats |= 1 << (min(f.blocks[e.to].depth, 64) - 1)
		default:
			dead = dead && f.blocks[e.to].dead
			b.repeats |= f.reaches(b, e.to)
		}
	}
	b.dead = dead
}

// reaches tells which of the loops around b may be repeated by way of block to.
func (f *function) reaches(b *block, to int) uint64 {
	return f.blocks[to].repeats & (1<<min(b.depth, 64) - 1)
}

// level is how many loops a block is part of: a loop that cannot be repeated from it is none.
func level(repeats uint64) int { return bits.Len64(repeats) }

// lower goes once through all blocks and lowers what they take as prepaid where it is too much. It
// tells whether it lowered any.
func (f *function) lower(slack int64) (lowered bool) {
	for i := len(f.blocks) - 1; i >= 0; i-- {
		b := &f.blocks[i]
		own := level(b.repeats)
		cheapest, dearest := int64(unbounded), int64(0)
		for _, e := range f.edges[b.first:b.last] {
			if e.to > i {
				s := &f.blocks[e.to]
				if level(f.reaches(b, e.to)) < own && s.prepaid > 0 {
					s.prepaid = 0
					lowered = true
				}
				if s.dead && !b.dead {
					continue
				}
			}
			cheapest = min(cheapest, f.taken(i, e))
		}
		for _, e := range f.edges[b.first:b.last] {
			v := f.taken(i, e)
			if e.to > i && f.blocks[e.to].dead && !b.dead {
				continue
			}
			if v > cheapest+slack {
				f.blocks[e.to].prepaid = cheapest
				lowered = true
				v = cheapest
			}
			dearest = max(dearest, v)
		}
		for _, e := range f.edges[b.first:b.last] {
			if v := f.taken(i, e); v > dearest {
				f.blocks[e.to].prepaid = dearest
				lowered = true
			}
		}
		if cost := b.weight + dearest; cost < b.prepaid {
			lowered = lowered || b.prepaid < unbounded
			b.prepaid = cost
		}
	}
	return lowered
}

// taken is what is prepaid at the end of an edge from block from.
func (f *function) taken(from int, e edge) int64 {
	if e.to <= from {
		return 0 // the function or a round of a loop ends
	}
	return f.blocks[e.to].prepaid
}

// settle computes the charges. Whatever blocks take as prepaid, every path pays for all that runs on it.
func (f *function) settle() {
	for i := len(f.blocks) - 1; i >= 0; i-- {
		b := &f.blocks[i]
		cost := b.weight
		for _, e := range f.edges[b.first:b.last] {
			cost = max(cost, b.weight+f.taken(i, e))
		}
		b.prepaid = min(b.prepaid, cost)
		b.charge = cost - b.prepaid
	}
}

// keep decides where the counter goes from the local that holds it to the global, and back. The local
// is right everywhere; the global need only be where something else may look: at calls, and where the
// function ends.
//
// It also decides which charges look at what is left: those at the beginning of the function and of
// rounds, and the first behind a call. For without these, what all the functions on a deep stack have
// still to do would be done on credit.
func (f *function) keep() {
	for i := range f.blocks {
		f.blocks[i].ahead = f.blocks[i].head
	}
	for i := range f.blocks {
		b := &f.blocks[i]
		b.check = b.charge > 0 && (i == 0 || b.head || b.called)
		called := b.called && !b.check
		ahead := b.ahead
		f.marked(i, func(k *mark) {
			switch k.kind {
			case markCharge:
				ahead = ahead || b.charge > 0
			case markSize, markItems, markPages, markGrow:
				ahead = true
			case markCall, markLeave:
				k.store = ahead
				ahead = false
				called = called || k.kind == markCall
			}
		})
		for _, e := range f.edges[b.first:b.last] {
			if e.to == leaves {
				f.ahead = f.ahead || ahead
			} else if e.to > i {
				f.blocks[e.to].ahead = f.blocks[e.to].ahead || ahead
				f.blocks[e.to].called = f.blocks[e.to].called || called
			}
		}
	}
	for i := len(f.blocks) - 1; i >= 0; i-- {
		b := &f.blocks[i]
		for _, e := range f.edges[b.first:b.last] {
			// Every round of a loop is charged.
			b.needs = b.needs || (e.to == leaves && f.ahead) || (e.to >= 0 && (e.to <= i || f.blocks[e.to].needs))
		}
		for m := f.lastMark(i); m >= b.mark; m-- {
			switch k := &f.marks[m]; k.kind {
			case markCharge:
				b.needs = b.needs || b.charge > 0
			case markSize, markItems, markPages, markGrow:
				b.needs = true
			case markCall:
				k.load = b.needs
				b.needs = k.store
			case markLeave:
				b.needs = b.needs || k.store
			}
		}
	}
}

// lastMark is the last mark of block i.
func (f *function) lastMark(i int) int {
	if i+1 < len(f.blocks) {
		return f.blocks[i+1].mark - 1
	}
	return len(f.marks) - 1
}

// marked calls do with each mark of block i.
func (f *function) marked(i int, do func(k *mark)) {
	for m := f.blocks[i].mark; m <= f.lastMark(i); m++ {
		do(&f.marks[m])
	}
}
