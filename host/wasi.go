package host

import (
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/abi"
)

// wasiNamespace is the import module of WASI preview 1, of which guests may use what their languages'
// runtimes need to start (ABI.md, "WASI"). None of it reaches a file, a socket or the environment, and
// nothing a guest does with it is left for the next call: so it is not wazero's.
const wasiNamespace = "wasi_snapshot_preview1"

// Error numbers of WASI (wasi_snapshot_preview1.witx, errno).
const (
	wasiOK       = 0
	wasiBadFile  = 8  // badf
	wasiFault    = 21 // fault
	wasiInvalid  = 28 // inval
	wasiNoSupply = 52 // nosys
	wasiNoSeek   = 70 // spipe
)

const (
	wasiOutput = 1 // file descriptors
	wasiErrors = 2

	wasiRealtime  = 0 // clocks
	wasiMonotonic = 1

	monotonicStep = 1000 // nanoseconds at each reading

	maxVectors       = 1024 // of one fd_write or fd_read, and subscriptions of one poll_oneoff
	vectorBytes      = 8
	statBytes        = 24
	subscribeBytes   = 48
	eventBytes       = 32
	randomPieceBytes = 64 << 10 // between two looks at the deadline
	randomUnitBytes  = 8        // for a unit of fuel
)

// wasiImports are the functions of WASI. Their results are error numbers.
func wasiImports() []hostFunc {
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	of := func(name string, f func(*running, []uint64) uint32, params ...api.ValueType) hostFunc {
		return hostFunc{name, params, []api.ValueType{i32}, on(func(r *running, stack []uint64) {
			r.come(name)
			stack[0] = uint64(f(r, stack))
		})}
	}
	noFile := func(_ *running, stack []uint64) uint32 {
		if uint32(stack[0]) > wasiErrors {
			return wasiBadFile
		}
		return wasiOK
	}
	return []hostFunc{
		of("args_sizes_get", (*running).wasiNothing, i32, i32),
		of("args_get", func(*running, []uint64) uint32 { return wasiOK }, i32, i32),
		of("environ_sizes_get", (*running).wasiNothing, i32, i32),
		of("environ_get", func(*running, []uint64) uint32 { return wasiOK }, i32, i32),
		of("clock_time_get", (*running).wasiClock, i32, i64, i32),
		of("random_get", (*running).wasiRandom, i32, i32),
		of("fd_write", (*running).wasiWrite, i32, i32, i32, i32),
		of("fd_read", (*running).wasiRead, i32, i32, i32, i32),
		of("fd_close", noFile, i32),
		of("fd_seek", func(r *running, stack []uint64) uint32 {
			if err := noFile(r, stack); err != wasiOK {
				return err
			}
			return wasiNoSeek
		}, i32, i64, i32, i32),
		of("fd_fdstat_get", (*running).wasiStat, i32, i32),
		of("fd_fdstat_set_flags", noFile, i32, i32),
		of("fd_prestat_get", func(*running, []uint64) uint32 { return wasiBadFile }, i32, i32),
		of("fd_prestat_dir_name", func(*running, []uint64) uint32 { return wasiBadFile }, i32, i32, i32),
		of("poll_oneoff", (*running).wasiPoll, i32, i32, i32, i32),
		of("sched_yield", func(*running, []uint64) uint32 { return wasiOK }),
		{"proc_exit", []api.ValueType{i32}, nil, on((*running).wasiExit)},
	}
}

// wasiPut writes b into the guest's memory and gives the error number.
func (r *running) wasiPut(at uint64, b []byte) uint32 {
	if !r.inst.memory.Write(uint32(at), b) {
		return wasiFault
	}
	return wasiOK
}

// wasiNothing tells that there are no arguments or variables, of no bytes.
func (r *running) wasiNothing(stack []uint64) uint32 {
	var zero [4]byte
	return max(r.wasiPut(stack[0], zero[:]), r.wasiPut(stack[1], zero[:]))
}

func (r *running) wasiClock(stack []uint64) uint32 {
	var now int64
	switch uint32(stack[0]) {
	case wasiRealtime:
		now = r.time
	case wasiMonotonic:
		r.inst.monotonic += monotonicStep
		now = r.inst.monotonic
	default:
		return wasiInvalid
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(now))
	return r.wasiPut(stack[2], b[:])
}

func (r *running) wasiRandom(stack []uint64) uint32 {
	b, ok := r.inst.memory.Read(uint32(stack[0]), uint32(stack[1]))
	if !ok {
		return wasiFault
	}
	for len(b) > 0 {
		r.come("random_get")
		// What the host computes for the guest is the guest's to pay for.
		r.inst.counter.Set(r.inst.counter.Get() - uint64(min(len(b), randomPieceBytes))/randomUnitBytes)
		n, _ := r.inst.random.Read(b[:min(len(b), randomPieceBytes)]) // never fails
		b = b[n:]
	}
	return wasiOK
}

// wasiVectors gives the pieces of memory that an array of addresses and lengths names; err says why they
// cannot be read.
func (r *running) wasiVectors(at, count uint64, each func(p []byte)) (err uint32) {
	if uint32(count) > maxVectors {
		return wasiInvalid
	}
	list, ok := r.inst.memory.Read(uint32(at), uint32(count)*vectorBytes)
	if !ok {
		return wasiFault
	}
	for ; len(list) > 0; list = list[vectorBytes:] {
		p, ok := r.inst.memory.Read(binary.LittleEndian.Uint32(list), binary.LittleEndian.Uint32(list[4:]))
		if !ok {
			return wasiFault
		}
		each(p)
	}
	return wasiOK
}

// wasiWrite logs what is written to standard output and error, a call a line.
func (r *running) wasiWrite(stack []uint64) uint32 {
	level := int32(abi.LogInfo)
	switch uint32(stack[0]) {
	case wasiOutput:
	case wasiErrors:
		level = abi.LogWarn
	default:
		return wasiBadFile
	}
	var line []byte
	total := uint64(0)
	if err := r.wasiVectors(stack[1], stack[2], func(p []byte) {
		total += uint64(len(p))
		line = append(line, p[:min(len(p), abi.MaxLogBytes-len(line))]...)
	}); err != wasiOK {
		return err
	}
	if total > 1<<32-1 {
		return wasiInvalid
	}
	if total > 0 {
		r.write(level, line)
	}
	return r.wasiPut(stack[3], binary.LittleEndian.AppendUint32(nil, uint32(total)))
}

// wasiRead reads from standard input, which is empty.
func (r *running) wasiRead(stack []uint64) uint32 {
	if uint32(stack[0]) != 0 {
		return wasiBadFile
	}
	if err := r.wasiVectors(stack[1], stack[2], func([]byte) {}); err != wasiOK {
		return err
	}
	return r.wasiPut(stack[3], make([]byte, 4))
}

// wasiStat tells that standard input, output and errors are character devices that can do nothing but
// be read and written.
func (r *running) wasiStat(stack []uint64) uint32 {
	const characterDevice, rightRead, rightWrite = 2, 1 << 1, 1 << 6
	var b [statBytes]byte
	switch uint32(stack[0]) {
	case 0:
		binary.LittleEndian.PutUint64(b[8:], rightRead)
	case wasiOutput, wasiErrors:
		binary.LittleEndian.PutUint64(b[8:], rightWrite)
	default:
		return wasiBadFile
	}
	b[0] = characterDevice
	return r.wasiPut(stack[1], b[:])
}

// wasiPoll returns at once, as if all that was waited for had come: time does not pass in a guest.
func (r *running) wasiPoll(stack []uint64) uint32 {
	count := uint32(stack[2])
	if count == 0 || count > maxVectors {
		return wasiInvalid
	}
	in, ok := r.inst.memory.Read(uint32(stack[0]), count*subscribeBytes)
	if !ok {
		return wasiFault
	}
	events := make([]byte, 0, count*eventBytes)
	for ; len(in) > 0; in = in[subscribeBytes:] {
		const clock = 0
		var e [eventBytes]byte
		copy(e[:8], in) // what the guest knows it by
		e[10] = in[8]
		if in[8] != clock && binary.LittleEndian.Uint32(in[16:]) > wasiErrors {
			binary.LittleEndian.PutUint16(e[8:], wasiBadFile)
		} else if in[8] > 2 {
			binary.LittleEndian.PutUint16(e[8:], wasiNoSupply)
		}
		events = append(events, e[:]...)
	}
	return max(r.wasiPut(stack[1], events), r.wasiPut(stack[3], binary.LittleEndian.AppendUint32(nil, count)))
}

// wasiExit ends the call as failed, whatever the number.
func (r *running) wasiExit(stack []uint64) {
	r.come("proc_exit")
	if r.failure != nil { // it has said why
		r.abort(r.failure)
	}
	r.abort(r.breach(fmt.Sprintf("%s ended the process with exit code %d", r.export, uint32(stack[0])), nil))
}
