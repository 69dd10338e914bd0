package torpor

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Code is the kind of an error (ABI.md, "Errors"). From 64 up codes are a serializer's own.
type Code = abi.Code

// The kinds of error. Damage and version must not be confused: state of an unknown version is kept
// for a newer serializer, damaged state is set aside.
const (
	CodeInternal    = abi.CodeInternal    // a fault of the serializer itself
	CodeCorrupt     = abi.CodeCorrupt     // the input is not what it claims to be
	CodeVersion     = abi.CodeVersion     // the input is of a schema or version that is not read
	CodeUnsupported = abi.CodeUnsupported // the input is sound but holds what can not be kept
	CodeTooLarge    = abi.CodeTooLarge    // the input passes a limit
)

// Error is how a serializer says what went wrong. Any other error is reported as [CodeInternal],
// unless it wraps a sentinel of package abi or io.ErrUnexpectedEOF, which is [CodeCorrupt].
type Error struct {
	Code   Code   // 0 means CodeInternal
	Msg    string // what happened, to what, and what to do
	Path   string // where in the state, for people; may be empty
	Offset uint64 // byte offset in the call's input; 0 if there is none to tell
}

func (e *Error) Error() string {
	s := e.Msg
	if e.Path != "" {
		s += " at " + e.Path
	}
	if e.Offset != 0 {
		s += " (offset " + strconv.FormatUint(e.Offset, 10) + ")"
	}
	return s
}

// Unwrap gives the sentinel of package abi that fits the code, or nil.
func (e *Error) Unwrap() error {
	switch e.Code {
	case CodeCorrupt:
		return abi.ErrCorrupt
	case CodeVersion:
		return abi.ErrVersion
	case CodeTooLarge:
		return abi.ErrTooLarge
	default:
		return nil
	}
}

// firstOwnCode is the first code that is a serializer's own.
const firstOwnCode = 64

// Bounds, in bytes, on the texts of a failure, together well below what fail takes. The beginning of
// a text is kept.
const (
	maxMsgBytes  = 4 << 10
	maxPathBytes = 1 << 10
)

// asError makes any error one that can be told to the host.
func asError(err error) Error {
	var own *Error
	if errors.As(err, &own) {
		e := *own
		if prefix, ok := strings.CutSuffix(err.Error(), own.Error()); ok {
			e.Msg = prefix + e.Msg // what wraps it, without saying the place twice
		} else {
			e.Msg = err.Error()
		}
		if e.Code < firstOwnCode && (e.Code < CodeInternal || e.Code > CodeTooLarge) {
			e.Code = CodeInternal
		}
		return e
	}
	e := Error{Code: CodeInternal, Msg: err.Error()}
	switch {
	case errors.Is(err, abi.ErrCorrupt), errors.Is(err, io.ErrUnexpectedEOF):
		e.Code = CodeCorrupt
	case errors.Is(err, abi.ErrVersion):
		e.Code = CodeVersion
	case errors.Is(err, abi.ErrTooLarge):
		e.Code = CodeTooLarge
	}
	return e
}

// report tells the host of an error and returns what the export is to return.
func report(h Host, err error) int32 {
	e := asError(err)
	pairs := 1
	if e.Path != "" {
		pairs++
	}
	if e.Offset != 0 || e.Code == CodeCorrupt {
		pairs++
	}
	b := record.AppendMap(nil, pairs)
	b = record.AppendText(b, "msg")
	b = record.AppendText(b, clip(e.Msg, maxMsgBytes))
	if e.Path != "" {
		b = record.AppendText(b, "path")
		b = record.AppendText(b, clip(e.Path, maxPathBytes))
	}
	if e.Offset != 0 || e.Code == CodeCorrupt {
		b = record.AppendText(b, "offset")
		b = record.AppendUint(b, e.Offset)
	}
	h.Fail(e.Code, b)
	return int32(e.Code)
}

// clip cuts s to at most limit bytes, at a character, and makes it valid UTF-8, which may double it.
func clip(s string, limit int) string {
	if len(s) > limit {
		for range utf8.UTFMax - 1 {
			if !utf8.RuneStart(s[limit]) {
				limit--
			}
		}
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// reason is an error of package record in words, without the offset, which counts from somewhere else
// than the call's input.
func reason(err error) string {
	var fe *record.FormatError
	if errors.As(err, &fe) {
		return fe.Reason
	}
	return err.Error()
}

// panicked is the error for a recovered panic. It must be called by the deferred function itself.
func panicked(v any) error {
	msg := "the serializer panicked"
	switch v := v.(type) {
	case error:
		msg += ": " + v.Error()
	case string:
		msg += ": " + v
	}
	msg += place()
	return &Error{Code: CodeInternal, Msg: msg}
}
