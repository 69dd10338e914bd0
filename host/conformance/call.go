package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// What calls name: a service and a part that mean nothing.
const (
	service = "conformance"
	part    = "store"
)

// callTime is the time of all calls but those that look whether the output depends on it.
func callTime() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func (s *session) call() abi.Call {
	return abi.Call{Service: service, Part: part, Time: callTime().UnixNano(), Settings: s.Settings}
}

// collector is a record.Sink that keeps the bytes.
type collector struct{ data []byte }

func (c *collector) WriteBatch(b *record.Batch) error {
	c.data = append(c.data, b.Data...)
	return nil
}

func (s *session) save(ctx context.Context, m module, native []byte) ([]byte, error) {
	return s.saveAs(ctx, m, s.call(), native)
}

func (s *session) saveAs(ctx context.Context, m module, call abi.Call, native []byte) ([]byte, error) {
	var out collector
	call.Schema = s.about.Schema
	err := m.Save(ctx, call, bytes.NewReader(native), &out)
	return out.data, err
}

func (s *session) load(ctx context.Context, m module, schema uint64, records []byte) ([]byte, error) {
	return s.loadAs(ctx, m, s.call(), schema, records)
}

func (s *session) loadAs(ctx context.Context, m module, call abi.Call, schema uint64, records []byte) ([]byte, error) {
	var out bytes.Buffer
	call.Schema = schema
	err := m.Load(ctx, call, s.source(records), &out)
	return out.Bytes(), err
}

func (s *session) migrate(ctx context.Context, m module, from uint64, records []byte) ([]byte, error) {
	var out collector
	call := s.call()
	call.From, call.To = from, s.about.Schema
	err := m.Migrate(ctx, call, s.source(records), &out)
	return out.data, err
}

func (s *session) inspect(ctx context.Context, m module, schema uint64, records []byte) ([]byte, error) {
	var out bytes.Buffer
	call := s.call()
	call.Schema = schema
	err := m.Inspect(ctx, call, s.source(records), &out)
	return out.Bytes(), err
}

func (s *session) source(records []byte) record.Source {
	return record.NewReader(bytes.NewReader(records), int(s.Limits.RecordBytes))
}

// said tells in one line what became of a call: "save trapped: unreachable".
func (s *session) said(op string, err error) string {
	var guest *host.GuestError
	if errors.As(err, &guest) {
		return fmt.Sprintf("%s failed with code %d%s: %s", op, guest.Code, codeName(guest.Code),
			strings.TrimPrefix(guest.Error(), "serializer "+guest.Module+": "+guest.Op+": "))
	}
	var breach *host.ModuleError
	if !errors.As(err, &breach) {
		return op + ": " + err.Error()
	}
	reason := strings.TrimPrefix(breach.Error(), "module "+breach.Module+": "+breach.Op+": ")
	reason = strings.Replace(reason, "wasm error: ", "", 1)
	if tail, ok := strings.CutPrefix(reason, "torpor_"+op+" "); ok {
		return op + " " + tail
	}
	return op + ": " + reason
}

func codeName(c abi.Code) string {
	switch c {
	case abi.CodeInternal:
		return " (internal)"
	case abi.CodeCorrupt:
		return " (corrupt)"
	case abi.CodeVersion:
		return " (version)"
	case abi.CodeUnsupported:
		return " (unsupported)"
	case abi.CodeTooLarge:
		return " (too large)"
	}
	return ""
}

// firstOwnCode is the first code that is a serializer's own.
const firstOwnCode = 64

// refusal judges the error of a call whose input need not be sound: a serializer refuses it by fail,
// with a code that does not say that the serializer itself is at fault. "" means that it did.
func (s *session) refusal(what, op string, err error) string {
	var guest *host.GuestError
	if !errors.As(err, &guest) {
		return fmt.Sprintf("%s, %s; a serializer must refuse damaged input by fail", what, s.said(op, err))
	}
	switch {
	case guest.Code == abi.CodeInternal:
		return fmt.Sprintf("%s, %s; damaged input is code 2 (corrupt), code 1 blames the serializer", what, s.said(op, err))
	case guest.Code < abi.CodeInternal, guest.Code > abi.CodeTooLarge && guest.Code < firstOwnCode:
		return fmt.Sprintf("%s, %s; that code means nothing: use 2 (corrupt) to 5 (too large), or 64 and up", what, s.said(op, err))
	}
	return ""
}

// soundNative judges what save makes of native state that may be damaged: it refuses it, or takes it
// for sound, and then it must come back. what says in words what was given.
func (s *session) soundNative(ctx context.Context, m module, what string, native []byte) verdict {
	records, err := s.save(ctx, m, native)
	if err != nil {
		return verdict{fault: s.refusal(what, abi.OpSave, err)}
	}
	v := s.comesBack(ctx, m, what+", save took it", native, records)
	if v.fault == "" && v.note == "" {
		if twice := firstTwice(records); twice != "" {
			v.note = fmt.Sprintf("%s, save took it and gave two records %s", what, twice)
		}
	}
	return v
}

// comesBack judges whether records that save made of native make native again.
func (s *session) comesBack(ctx context.Context, m module, what string, native, records []byte) verdict {
	back, err := s.load(ctx, m, s.about.Schema, records)
	if err != nil {
		return faulty("%s, but the records cannot be loaded: %s", what, s.said(abi.OpLoad, err))
	}
	if s.about.Canonical {
		if !bytes.Equal(back, native) {
			return faulty("%s, but load does not give back the same bytes, and the module says canonical: %s", what, differ(back, native))
		}
		return verdict{}
	}
	again, err := s.save(ctx, m, back)
	if err != nil {
		return faulty("%s, but what load makes of the records cannot be saved: %s", what, s.said(abi.OpSave, err))
	}
	if !bytes.Equal(again, records) {
		return faulty("%s, but what load makes of the records does not have the same records: %s", what, differ(again, records))
	}
	return verdict{}
}

// soundRecords judges what load makes of records that may be damaged: it refuses them, or makes a
// native state that save takes and that comes back. That save refuses it is a note: the records broke
// a promise that a host gives to load, and the loss does not go unseen.
func (s *session) soundRecords(ctx context.Context, m module, what string, schema uint64, records []byte) verdict {
	native, err := s.load(ctx, m, schema, records)
	if err != nil {
		return verdict{fault: s.refusal(what, abi.OpLoad, err)}
	}
	made, err := s.save(ctx, m, native)
	if err == nil {
		return s.comesBack(ctx, m, what+", load took it", native, made)
	}
	if fault := s.refusal(what+", load took it", abi.OpSave, err); fault != "" {
		return verdict{fault: fault}
	}
	return verdict{note: fmt.Sprintf("%s, load took it and made a state that save refuses: %s", what, s.said(abi.OpSave, err))}
}

// soundMigrated judges what migrate makes of records that may be damaged.
func (s *session) soundMigrated(ctx context.Context, m module, what string, from uint64, records []byte) verdict {
	migrated, err := s.migrate(ctx, m, from, records)
	if err != nil {
		return verdict{fault: s.refusal(what, abi.OpMigrate, err)}
	}
	return s.soundRecords(ctx, m, what+", migrate took it", s.about.Schema, migrated)
}

// differ says where got leaves want.
func differ(got, want []byte) string {
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[min(at, len(b)):min(len(b), at+16)] }
	return fmt.Sprintf("%d bytes instead of %d, the first difference is at offset %d: %q instead of %q",
		len(got), len(want), at, around(got), around(want))
}
