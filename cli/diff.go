package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/server"
)

// change is a record that is not alike, as the native API tells it, and as diff --json prints it.
type change struct {
	Service     string          `json:"service"`
	Part        string          `json:"part"`
	Partition   string          `json:"partition"`
	Key         json.RawMessage `json:"key"`
	Kind        string          `json:"kind"`
	BytesBefore int             `json:"bytes_before"`
	BytesAfter  int             `json:"bytes_after"`
	Before      json.RawMessage `json:"before,omitempty"`
	After       json.RawMessage `json:"after,omitempty"`
}

type diffOptions struct {
	services             []string
	values               string
	stat, json, exitCode bool
	secrets              secrets
}

func (p *program) diff() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff [FROM [TO]]",
		Short: "Show what differs between two states: additions, changes, deletions",
		Long: `Diff compares the state of services at two places, record by record, and shows what was added (+),
removed (-) and changed (~) between FROM and TO, by service, part, partition and key. A place is

  live                the state of the running services, now
  saved               the newest generation of every part; saved~N is the N-th before it
  snapshot:NAME[@V]   a named snapshot, its newest version or version V; pod:NAME[:V] is the same
  FILE                an exported file (.snapshot), or a state file (.state)

FROM is saved and TO is live, unless they are given. Values are written as JSON. Of a record that was
changed only what differs is shown, old → new, cut to the width of the terminal; --values=full shows both
values whole, --values=none neither. With --json each line is one object: {"change": …}, and the last one
{"summary": …}.

What is live needs a running torpor. The rest is read from the data folder where none answers, and it is
said so. The exit code is 0 whether there is a difference or not; with --exit-code it is 1 if there is
one.`,
		Example: `  torpor diff
  torpor diff saved~1 saved --stat
  torpor diff snapshot:before-upgrade live --service orders
  torpor diff ours.snapshot theirs.snapshot --json | jq 'select(.change.kind == "removed")'
  torpor diff snapshot:expected live --exit-code --values=none`,
		Args: args(cobra.MaximumNArgs(2)),
	}
	f := cmd.Flags()
	addPlaceFlags(f)
	f.StringSliceVar(&o.services, "service", nil, "only this service; may be given more than once")
	f.StringVar(&o.values, "values", string(valuesCut), "how much of values to show: "+names(allValues()))
	f.BoolVar(&o.stat, "stat", false, "only count, by service and part")
	f.BoolVar(&o.json, "json", false, "print JSON, a line for each change")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 1 if there is a difference")
	o.secrets.addKey(f)
	fixed(cmd, "values", words(allValues()))
	cmd.RunE = func(cmd *cobra.Command, a []string) (err error) {
		show, err := oneOf("--values", o.values, allValues())
		if err != nil {
			return err
		}
		var refs [2]snapshot.Reference
		for i, usual := range []string{"saved", "live"} {
			if i < len(a) {
				usual = a[i]
			}
			if refs[i], err = reference(usual); err != nil {
				return err
			}
		}
		out := bufio.NewWriter(p.Out)
		defer func() { err = errors.Join(err, out.Flush()) }()
		told := printer{w: out, paint: p.paint(), values: show, width: p.width(), json: o.json, stat: o.stat}
		stats, err := p.runDiff(cmd, o, refs[0], refs[1], told.change)
		if err == nil {
			err = told.summary(stats)
		}
		if err == nil && o.exitCode && slices.ContainsFunc(stats, func(s snapshot.Stat) bool { return !s.Equal() }) {
			return errDifferent
		}
		return err
	}
	return cmd
}

// runDiff tells each of every change, and sums up.
func (p *program) runDiff(cmd *cobra.Command, o diffOptions, from, to snapshot.Reference, each func(change) error) (stats []snapshot.Stat, err error) {
	ctx := cmd.Context()
	at := &place{}
	if !isFile(from) || !isFile(to) {
		if at, err = p.place(cmd); err != nil {
			return nil, err
		}
		if from.Kind == snapshot.ReferenceLive || to.Kind == snapshot.ReferenceLive {
			if err := at.needed("what is live"); err != nil {
				return nil, err
			}
		}
		if !at.running {
			p.offline(at)
		}
	}
	if at.running && !isFile(from) && !isFile(to) {
		err = p.opening(&o.secrets, func(k seal.Key) error {
			stats, err = askDiff(ctx, at, o, from, to, k, each)
			return err
		})
		return stats, err
	}
	open := opener{program: p, place: at, secrets: &o.secrets, services: o.services}
	older, err := open.open(ctx, from)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, older.Close()) }()
	newer, err := open.open(ctx, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, newer.Close()) }()
	n, err := notation.New()
	if err != nil {
		return nil, err
	}
	var tell func(snapshot.Change) error
	if !o.stat {
		tell = func(c snapshot.Change) error {
			told, err := changeOf(c, n, o.values != string(valuesNone))
			if err != nil {
				return err
			}
			return each(told)
		}
	}
	return snapshot.Diff(ctx, older, newer, tell)
}

// askDiff asks the running torpor.
func askDiff(ctx context.Context, at *place, o diffOptions, from, to snapshot.Reference, k seal.Key, each func(change) error) (stats []snapshot.Stat, err error) {
	query := url.Values{"from": {from.String()}, "to": {to.String()}, "service": o.services}
	if o.stat {
		query.Set("stat", "true")
	}
	if o.values == string(valuesNone) {
		query.Set("values", "false")
	}
	ended := false
	r := request{what: fmt.Sprintf("diff of %s and %s", from, to), method: http.MethodGet, path: "/_torpor/diff", query: query, header: keyHeader(k)}
	err = at.lines(ctx, r, func(line []byte) error {
		var told struct {
			Change  *change
			Summary *[]snapshot.Stat
		}
		if err := understand(r.what, line, &told); err != nil {
			return err
		}
		if told.Summary != nil {
			ended, stats = true, *told.Summary
		}
		if told.Change != nil {
			return each(*told.Change)
		}
		return nil
	})
	if err == nil && !ended {
		err = fmt.Errorf("%s: the answer broke off", r.what)
	}
	return stats, err
}

// changeOf is a change as the native API tells it.
func changeOf(c snapshot.Change, n notation.Notation, values bool) (out change, err error) {
	out = change{Service: c.Service, Part: c.Part, Partition: c.Partition, Kind: c.Kind(), BytesBefore: len(c.Before), BytesAfter: len(c.After)}
	out.Key, err = jsonOf(n.JSON(c.Key))
	for _, side := range []struct {
		item []byte
		to   *json.RawMessage
	}{{c.Before, &out.Before}, {c.After, &out.After}} {
		if err == nil && values && side.item != nil && len(side.item) <= server.MaxValueBytes {
			*side.to, err = jsonOf(n.JSON(side.item))
		}
	}
	return out, err
}

// printer prints changes.
type printer struct {
	w          io.Writer
	paint      func(colour, string) string
	values     values
	width      int // of the terminal; 0: it is none
	json, stat bool
	group      string // of the change before
}

// arrow stands between old and new.
const arrow = " → "

func (p *printer) change(c change) error {
	if p.json {
		return writeLine(p.w, map[string]change{"change": c})
	}
	if group := c.Service + "/" + c.Part + "  " + notation.OneWord(c.Partition); group != p.group {
		p.group = group
		fmt.Fprintln(p.w, p.paint(bold, group))
	}
	sign, tint := "+", green
	switch c.Kind {
	case snapshot.Removed:
		sign, tint = "-", red
	case snapshot.Changed:
		sign, tint = "~", yellow
	}
	line := "  " + sign + " " + keyWord(c.Key)
	if text := p.sides(c, utf8.RuneCountInString(line)+2); text != "" {
		line += "  " + text
	}
	_, err := fmt.Fprintln(p.w, p.paint(tint, line))
	return err
}

// sides are the values of a change behind the first so many columns.
func (p *printer) sides(c change, column int) string {
	before, after := sideText(c.Before, c.BytesBefore), sideText(c.After, c.BytesAfter)
	if p.values == valuesNone {
		before, after = fmt.Sprintf("(%d bytes)", c.BytesBefore), fmt.Sprintf("(%d bytes)", c.BytesAfter)
	}
	room := cmp.Or(p.width, valueWidth+column) - column
	switch {
	case c.Kind == snapshot.Added && p.values != valuesCut:
		return after
	case c.Kind == snapshot.Added:
		return cut(after, max(room, minRoom))
	case c.Kind == snapshot.Removed && p.values != valuesCut:
		return before
	case c.Kind == snapshot.Removed:
		return cut(before, max(room, minRoom))
	case p.values != valuesCut || c.Before == nil || c.After == nil:
		return before + arrow + after
	}
	var old, updated any
	if decode(c.Before, &old) != nil || decode(c.After, &updated) != nil {
		return beside(before, after, room)
	}
	var parts []string
	differences("", old, updated, func(path, before, after string) {
		// What is cut off again is not worth being put together.
		if len(parts) <= maxDifferences {
			parts = append(parts, difference(path, before, after, room))
		}
	})
	return cut(strings.Join(parts, ", "), max(room, minRoom))
}

const (
	minRoom        = 40  // columns that a value gets on the narrowest terminal
	maxDifferences = 100 // within a record that are shown
)

// sideText is a value, or how long one is that is not told.
func sideText(value json.RawMessage, bytes int) string {
	if value == nil {
		return fmt.Sprintf("(%d bytes)", bytes)
	}
	return string(value)
}

func decode(value json.RawMessage, v *any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	return d.Decode(v)
}

// differences tells of everything that is not alike in two JSON values, by its JSON pointer. "" stands for what is not
// there.
func differences(path string, before, after any, tell func(path, before, after string)) {
	if reflect.DeepEqual(before, after) {
		return
	}
	text := func(v any) string {
		b, err := jsonOf(v)
		if err != nil { // of what was JSON before
			return err.Error()
		}
		return string(b)
	}
	old, isObject := before.(map[string]any)
	updated, areObjects := after.(map[string]any)
	if !isObject || !areObjects || stands(old) || stands(updated) {
		tell(path, text(before), text(after))
		return
	}
	all := slices.Sorted(maps.Keys(old))
	for key := range updated {
		if _, there := old[key]; !there {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	for _, key := range all {
		a, inOld := old[key]
		b, inNew := updated[key]
		at := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
		switch {
		case !inOld:
			tell(at, "", text(b))
		case !inNew:
			tell(at, text(a), "")
		default:
			differences(at, a, b, tell)
		}
	}
}

// stands tells whether an object stands for something that JSON does not have, such as {"$bytes": …}: see package notation.
func stands(object map[string]any) bool {
	for key := range object {
		return len(object) == 1 && strings.HasPrefix(key, "$")
	}
	return false
}

// difference is one of them in words.
func difference(path, before, after string, room int) string {
	path = notation.OneWord(path)
	switch {
	case path == `""`:
		return beside(before, after, room)
	case before == "":
		return "+" + path + ": " + after
	case after == "":
		return "-" + path + ": " + before
	}
	return path + ": " + beside(before, after, room-utf8.RuneCountInString(path))
}

// beside puts two values side by side, each cut to its half of the room. Where they begin alike, what is the same is left
// out of the middle.
func beside(before, after string, room int) string {
	half := (max(room, minRoom) - utf8.RuneCountInString(arrow)) / 2
	a, b := []rune(before), []rune(after)
	if len(a) <= half && len(b) <= half {
		return before + arrow + after
	}
	same := 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	const context = 8
	if skip := same - context; skip > 0 && same > half/2 {
		a, b = append([]rune("…"), a[skip:]...), append([]rune("…"), b[skip:]...)
	}
	return cut(string(a), half) + arrow + cut(string(b), half)
}

// cut is a text of so many characters at most.
func cut(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

func (p *printer) summary(stats []snapshot.Stat) error {
	if p.json {
		return writeLine(p.w, map[string][]snapshot.Stat{"summary": append([]snapshot.Stat{}, stats...)})
	}
	if p.stat {
		tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "SERVICE\tPART\tADDED\tCHANGED\tREMOVED\tSAME\tBYTES ADDED\tBYTES REMOVED")
		for _, s := range stats {
			fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", s.Service, s.Part, s.Added, s.Changed, s.Removed, s.Same, s.BytesAdded, s.BytesRemoved)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	equal := true
	for _, s := range stats {
		equal = equal && s.Equal()
		switch {
		case s.Incomparable != "":
			fmt.Fprintf(p.w, "%s/%s cannot be compared: %s\n", s.Service, s.Part, s.Incomparable)
		case !p.stat && !s.Equal():
			fmt.Fprintf(p.w, "%s/%s: %d added, %d changed, %d removed, %d the same\n", s.Service, s.Part, s.Added, s.Changed, s.Removed, s.Same)
		}
	}
	var err error
	if equal && !p.stat {
		_, err = fmt.Fprintln(p.w, "there is no difference")
	}
	return err
}
