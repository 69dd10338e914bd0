package fuel

// Value and block types.
const (
	typeI32   = 0x7f
	typeI64   = 0x7e
	typeF64   = 0x7c // f32 stands between
	typeEmpty = 0x40
)

// emitter appends the new code of a function.
type emitter struct {
	out     []byte
	global  uint64 // the counter
	local   uint64 // the added local that holds it; behind it, if there are lengths, two for those
	charges int

	added map[string]uint64 // types of blocks that give several values, which are added to the module
	types []byte            // the same, in the order of their indices
	next  uint64            // index of the next
}

// blockType is the type of a block that takes nothing and gives what the function does.
func (e *emitter) blockType(f *function) []byte {
	results := f.m.wasm[f.sig.from:f.sig.to]
	switch f.sig.results {
	case 0:
		return []byte{typeEmpty}
	case 1:
		return results
	}
	i, ok := e.added[string(results)]
	if !ok {
		i = e.next
		e.next++
		e.added[string(results)] = i
		e.types = append(e.types, typeFunction, 0)
		e.types = append(appendUint(e.types, uint64(f.sig.results)), results...)
	}
	return appendInt(nil, int64(i))
}

// emit appends the function's new code, without its size.
func (e *emitter) emit(f *function) {
	wasm := f.m.wasm
	end := f.m.bodies[f.index-f.m.imported].end
	e.local = uint64(f.locals)
	added := uint64(1)
	if f.lengths {
		added++
	}
	e.out = appendUint(e.out, uint64(f.localsSets)+added)
	e.out = append(e.out, wasm[f.localsAt:f.codeAt]...)
	e.out = append(e.out, 1, typeI64)
	if f.lengths {
		e.out = append(e.out, 2, typeI32)
	}
	// Checks leave the outer of two blocks when there is nothing left. The inner one takes the place of
	// the function: labels stay, and values that are left over are refused as they were.
	e.out = append(e.out, opBlock, typeEmpty, opBlock)
	e.out = append(e.out, e.blockType(f)...)
	at := f.codeAt
	for i := range f.marks {
		k := &f.marks[i]
		e.out = append(e.out, wasm[at:k.at]...)
		at = k.at
		switch k.kind {
		case markCharge:
			if b := &f.blocks[k.n]; b.charge > 0 {
				if k.n == 0 {
					e.op(opGlobalGet, e.global)
				} else {
					e.op(opLocalGet, e.local)
				}
				e.out = appendInt(append(e.out, opI64Const), b.charge)
				e.charge()
				if b.check {
					e.check(k.depth)
				}
			}
		case markCall, markLeave:
			if k.store {
				e.op(opLocalGet, e.local)
				e.op(opGlobalSet, e.global)
			}
			if k.load {
				e.out = append(e.out, wasm[at:k.end]...)
				at = k.end
				e.op(opGlobalGet, e.global)
				e.op(opLocalSet, e.local)
			}
		case markSize:
			e.length(unitBits, k.depth)
		case markItems:
			e.length(unitBits-itemBits, k.depth)
		case markPages, markGrow:
			e.op(opLocalTee, e.local+1)
			e.out = append(e.out, wasm[k.at:k.end]...)
			at = k.end
			e.grown(k)
		}
	}
	e.out = append(e.out, wasm[at:end]...)
	if f.ahead {
		e.op(opLocalGet, e.local)
		e.op(opGlobalSet, e.global)
	}
	e.out = append(e.out, opReturn, opEnd)
	e.out = append(e.out, opI64Const, 0x7f)
	e.op(opGlobalSet, e.global)
	e.out = append(e.out, opUnreachable, opEnd)
}

// op appends an instruction with an index.
func (e *emitter) op(op byte, index uint64) {
	e.out = appendUint(append(e.out, op), index)
}

// charge appends what takes the upper of two numbers on the stack from the lower, which is the counter.
func (e *emitter) charge() {
	e.out = append(e.out, opI64Sub)
	e.op(opLocalSet, e.local)
	e.charges++
}

// check appends what ends the run if nothing is left.
func (e *emitter) check(depth int) {
	e.op(opLocalGet, e.local)
	e.out = append(e.out, opI64Const, 0, opI64LtS)
	e.op(opBrIf, uint64(depth))
}

// length appends the charge for the length on the stack, which stays there.
func (e *emitter) length(shift byte, depth int) {
	e.op(opLocalTee, e.local+1)
	e.op(opLocalGet, e.local)
	e.op(opLocalGet, e.local+1)
	e.out = append(e.out, opI64ExtendU, opI64Const, shift, opI64ShrU)
	e.charge()
	e.check(depth)
}

// grown appends the charge for what was added to a memory or a table: nothing if its old size, which is
// on the stack and stays there, is -1.
func (e *emitter) grown(k *mark) {
	e.op(opLocalTee, e.local+2)
	e.op(opLocalGet, e.local)
	e.op(opLocalGet, e.local+1)
	e.out = append(e.out, opI64ExtendU, opI64Const, 0)
	e.op(opLocalGet, e.local+2)
	e.out = append(e.out, opI32Const, 0x7f, opI32Ne, opSelect, opI64Const)
	if k.kind == markPages {
		e.out = append(e.out, pageBits-unitBits, opI64Shl)
	} else {
		e.out = append(e.out, unitBits-itemBits, opI64ShrU)
	}
	e.charge()
	e.check(k.depth)
}
