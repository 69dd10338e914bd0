package files

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// appendName adds a string as text if it is UTF-8, and as bytes otherwise.
func appendName(b []byte, name string) []byte {
	if utf8.ValidString(name) {
		return record.AppendText(b, name)
	}
	return record.AppendBytes(b, name)
}

// Major types of CBOR.
const (
	majorUint     = 0
	majorNegative = 1
	majorBytes    = 2
	majorText     = 3
	majorArray    = 4
	majorMap      = 5
)

// decoder reads a native state. Its errors wrap abi.ErrCorrupt or abi.ErrTooLarge, or are the reader's or ctx's.
type decoder struct {
	r      *bufio.Reader
	cfg    Config
	offset int64
	path   string // of the entry under way, for messages

	before  string // the path of the entry before
	isDir   bool   // which is a folder
	entries int64
	total   int64 // bytes of content
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // of the one call it is made for
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func newDecoder(ctx context.Context, r io.Reader, cfg Config) *decoder {
	return &decoder{r: bufio.NewReaderSize(contextReader{ctx, r}, 64<<10), cfg: cfg}
}

func (d *decoder) wrap(sentinel error, format string, args ...any) error {
	where := fmt.Sprintf("offset %d", d.offset)
	if d.path != "" {
		where = fmt.Sprintf("%.300q, %s", d.path, where)
	}
	return fmt.Errorf("%w: %s: %s", sentinel, where, fmt.Sprintf(format, args...))
}

func (d *decoder) corrupt(format string, args ...any) error {
	return d.wrap(abi.ErrCorrupt, format, args...)
}

// failed tells the end of the input, which is damage, from other errors of it.
func (d *decoder) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return d.corrupt("the state is cut")
	}
	return err
}

func (d *decoder) byte() (byte, error) {
	b, err := d.r.ReadByte()
	if err != nil {
		return 0, d.failed(err)
	}
	d.offset++
	return b, nil
}

// head reads a head of the shortest form.
func (d *decoder) head() (major byte, n uint64, err error) {
	first, err := d.byte()
	if err != nil {
		return 0, 0, err
	}
	major, info := first>>5, first&31
	if info < 24 {
		return major, uint64(info), nil
	}
	if info > 27 || major > majorMap {
		return 0, 0, d.corrupt("byte %#x begins nothing that belongs here", first)
	}
	for range 1 << (info - 24) {
		b, err := d.byte()
		if err != nil {
			return 0, 0, err
		}
		n = n<<8 | uint64(b)
	}
	if least := []uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]; n < least {
		return 0, 0, d.corrupt("a head that is not of the shortest form")
	}
	return major, n, nil
}

func (d *decoder) expect(want byte, what string) (uint64, error) {
	major, n, err := d.head()
	if err == nil && major != want {
		err = d.corrupt("%s expected", what)
	}
	return n, err
}

func (d *decoder) string(n uint64, most int64, what, limit string) (string, error) {
	if n > uint64(most) {
		return "", d.wrap(abi.ErrTooLarge, "a %s of %d bytes; the limit is %d%s", what, n, most, limit)
	}
	b := make([]byte, n)
	got, err := io.ReadFull(d.r, b)
	d.offset += int64(got)
	if err != nil {
		return "", d.failed(err)
	}
	return string(b), nil
}

// name reads a string that is text if it is UTF-8, and bytes otherwise.
func (d *decoder) name(most int64, what, limit string) (string, error) {
	major, n, err := d.head()
	if err != nil {
		return "", err
	}
	if major != majorText && major != majorBytes {
		return "", d.corrupt("a %s expected", what)
	}
	s, err := d.string(n, most, what, limit)
	if err == nil && utf8.ValidString(s) != (major == majorText) {
		err = d.corrupt("a %s is text if it is UTF-8, and bytes otherwise", what)
	}
	return s, err
}

// key reads the key of an attribute.
func (d *decoder) key() (string, error) {
	n, err := d.expect(majorText, "the name of an attribute")
	if err != nil {
		return "", err
	}
	if n > 16 {
		return "", d.corrupt("an attribute that is unknown")
	}
	return d.string(n, 16, "name", "")
}

func (d *decoder) int() (int64, error) {
	major, n, err := d.head()
	switch {
	case err != nil:
		return 0, err
	case major == majorUint && n <= math.MaxInt64:
		return int64(n), nil
	case major == majorNegative && n <= math.MaxInt64:
		return -1 - int64(n), nil
	}
	return 0, d.corrupt("an integer of 64 bits expected")
}

func (d *decoder) uint(most uint64, what string) (uint64, error) {
	n, err := d.expect(majorUint, what)
	if err == nil && n > most {
		err = d.corrupt("%s cannot be %d", what, n)
	}
	return n, err
}

// header reads what every native state begins with.
func (d *decoder) header() error {
	n, err := d.expect(majorArray, "the beginning of a folder's state")
	if err != nil {
		return err
	}
	name, err := d.name(int64(len(headerName)), "the beginning of a folder's state", "")
	if errors.Is(err, abi.ErrTooLarge) || err == nil && (n != 2 || name != headerName) {
		return d.corrupt("no state of a folder: it does not begin with [%q, %d]", headerName, headerVersion)
	}
	if err != nil {
		return err
	}
	version, err := d.expect(majorUint, "the version")
	if err == nil && version != headerVersion {
		err = d.wrap(abi.ErrVersion, "the state is of version %d; this is for version %d", version, headerVersion)
	}
	return err
}

// next gives the next entry, whose content is next in d.r, or nil at the end of the state, behind which nothing
// comes.
func (d *decoder) next() (*entry, error) {
	d.path = ""
	major, items, err := d.head()
	if err != nil {
		return nil, err
	}
	if major == majorUint {
		if int64(items) != d.entries || items == 0 {
			return nil, d.corrupt("the state says that it has %d entries, and has %d", items, d.entries)
		}
		if _, err := d.r.ReadByte(); err == nil {
			return nil, d.corrupt("bytes behind the end of the state")
		} else if !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, nil
	}
	if major != majorArray || items < 2 || items > 3 {
		return nil, d.corrupt("neither an entry nor a number of entries")
	}
	e := new(entry)
	if e.path, err = d.name(d.cfg.MaxPath, "path", " (MaxPath)"); err != nil {
		return nil, err
	}
	d.path = e.path
	if err := d.attributes(e); err != nil {
		return nil, err
	}
	if (items == 3) != (e.kind == file) {
		return nil, d.corrupt("a file has content, and nothing else has")
	}
	if err := d.follows(e); err != nil {
		return nil, err
	}
	if e.kind == file {
		n, err := d.expect(majorBytes, "the content of a file")
		if err != nil {
			return nil, err
		}
		if n != uint64(e.content()) {
			return nil, d.corrupt("%d bytes of content; the attributes say %d", n, e.content())
		}
		if e.content() > d.cfg.MaxBytes-d.total {
			return nil, d.wrap(abi.ErrTooLarge, "more than %d bytes of content (MaxBytes)", d.cfg.MaxBytes)
		}
		d.total += e.content()
	}
	return e, nil
}

// follows checks that an entry comes behind the one before, so that none comes twice, in a folder that came
// before. All names below a folder follow it at once, so the path before tells.
func (d *decoder) follows(e *entry) error {
	p := e.path
	if err := checkPath(p); err != nil {
		return d.corrupt("%v", err)
	}
	switch {
	case d.entries == 0 && (p != rootPath || e.kind != folder):
		return d.corrupt("the first entry is not the folder itself")
	case d.entries > 0 && p == rootPath:
		return d.corrupt("the folder itself a second time")
	case d.entries > 1 && comparePaths(d.before, p) >= 0:
		return d.corrupt("the paths are not in order, or one comes twice")
	case p == insideWork || strings.HasPrefix(p, insideWork+"/"):
		return d.corrupt("the name is one that Restore uses itself")
	}
	if slash := strings.LastIndexByte(p, '/'); slash >= 0 {
		parent := p[:slash]
		if !strings.HasPrefix(d.before, parent+"/") && (d.before != parent || !d.isDir) {
			return d.corrupt("the folder that it lies in is missing, or is none")
		}
	}
	if d.entries == d.cfg.MaxFiles {
		return d.wrap(abi.ErrTooLarge, "more than %d entries (MaxFiles)", d.cfg.MaxFiles)
	}
	d.before, d.isDir = p, e.kind == folder
	d.entries++
	return nil
}

// attributes reads the map of an entry: its keys in their one order.
func (d *decoder) attributes(e *entry) error {
	left, err := d.expect(majorMap, "the attributes")
	if err != nil {
		return err
	}
	if left == 0 || left > 9 {
		return d.corrupt("no entry has %d attributes", left)
	}
	key := ""
	// is tells whether the next key is that, and passes over it.
	is := func(want string) (bool, error) {
		if key == "" && left > 0 {
			var err error
			if key, err = d.key(); err != nil {
				return false, err
			}
			left--
		}
		if key != want {
			return false, nil
		}
		key = ""
		return true, nil
	}
	must := func(want string) error {
		ok, err := is(want)
		if err == nil && !ok {
			err = d.corrupt("the attribute %q is missing, or not in its order", want)
		}
		return err
	}
	if err := must("type"); err != nil {
		return err
	}
	k, err := d.name(16, "type", "")
	if err != nil && !errors.Is(err, abi.ErrTooLarge) {
		return err
	}
	switch e.kind = kind(k); e.kind {
	case file, folder, link, hardlink:
	default:
		return d.corrupt("the type is none of file, folder, link and hardlink")
	}
	if e.kind == file || e.kind == folder {
		if err := must("mode"); err != nil {
			return err
		}
		mode, err := d.uint(0o7777, "a mode")
		if err != nil {
			return err
		}
		e.mode = uint32(mode)
		if e.kind == file && mode&0o6000 != 0 && !d.cfg.SetID {
			return d.corrupt("a file that runs with the rights of its owner or group (SetID allows them)")
		}
	}
	if e.path == rootPath && e.mode&0o500 != 0o500 && !superuser() {
		return d.corrupt("the folder is one that its owner cannot read")
	}
	if e.kind != hardlink {
		if err := must("mtime"); err != nil {
			return err
		}
		if e.mtime, err = d.int(); err != nil {
			return err
		}
		owned, err := is("uid")
		if err != nil {
			return err
		}
		if owned {
			uid, err := d.uint(math.MaxUint32, "an owner")
			if err != nil {
				return err
			}
			if err := must("gid"); err != nil {
				return err
			}
			gid, err := d.uint(math.MaxUint32, "a group")
			if err != nil {
				return err
			}
			e.owner = &owner{uint32(uid), uint32(gid)}
		}
	}
	if e.kind == file {
		if err := must("size"); err != nil {
			return err
		}
		size, err := d.uint(math.MaxInt64, "a size")
		if err != nil {
			return err
		}
		e.size = int64(size)
		if ok, err := is("data"); err != nil {
			return err
		} else if ok {
			if e.runs, err = d.runs(e.size); err != nil {
				return err
			}
		}
	}
	if e.kind == link || e.kind == hardlink {
		if err := must("target"); err != nil {
			return err
		}
		if e.target, err = d.name(d.cfg.MaxPath, "target", " (MaxPath)"); err != nil {
			return err
		}
		if e.target == "" || strings.ContainsRune(e.target, 0) {
			return d.corrupt("no link can have this target")
		}
		if e.kind == link && !d.cfg.OutsideLinks {
			if err := checkTarget(d.cfg.Root, e.path, e.target); err != nil {
				return d.corrupt("%v", err)
			}
		}
		if e.kind == hardlink {
			if err := checkPath(e.target); err != nil || e.target == rootPath {
				return d.corrupt("a hard link to what is no path of a file here")
			}
		}
	}
	if e.kind == file || e.kind == folder {
		if ok, err := is("xattrs"); err != nil {
			return err
		} else if ok {
			if e.xattrs, err = d.xattrs(); err != nil {
				return err
			}
		}
	}
	if left > 0 || key != "" {
		return d.corrupt("an attribute that is unknown, or not in its order")
	}
	return nil
}

// runs reads pairs of how many bytes of hole come first and how many of data follow.
func (d *decoder) runs(size int64) ([]run, error) {
	n, err := d.expect(majorArray, "runs of data")
	if err != nil {
		return nil, err
	}
	if n%2 != 0 || n > 2*maxRuns {
		return nil, d.corrupt("runs of data come in pairs, of which a file has %d at most", maxRuns)
	}
	runs := []run{}
	var end, content int64
	for i := range n / 2 {
		skip, err := d.uint(uint64(size-end), "a hole")
		if err != nil {
			return nil, err
		}
		at := end + int64(skip)
		length, err := d.uint(uint64(size-at), "a run")
		if err != nil {
			return nil, err
		}
		if length == 0 || skip == 0 && i > 0 {
			return nil, d.corrupt("runs of data without a hole between them, or of no data")
		}
		end = at + int64(length)
		content += end - at
		runs = append(runs, run{at, end - at})
	}
	if content == size {
		return nil, d.corrupt("runs of data of a file without holes")
	}
	return runs, nil
}

// xattrs reads extended attributes, sorted by name.
func (d *decoder) xattrs() ([]xattr, error) {
	n, err := d.expect(majorMap, "extended attributes")
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, d.corrupt("no extended attributes are written as none")
	}
	left := d.cfg.MaxXattrBytes
	var all []xattr
	last := ""
	for range n {
		length, err := d.expect(majorText, "the name of an extended attribute")
		if err != nil {
			return nil, err
		}
		var x xattr
		if x.name, err = d.string(length, left, "name of an extended attribute", " (MaxXattrBytes)"); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(x.name, "user.") || !utf8.ValidString(x.name) || strings.ContainsRune(x.name, 0) || x.name <= last {
			return nil, d.corrupt("names of extended attributes begin with user. and are in order")
		}
		last = x.name
		left -= int64(len(x.name))
		length, err = d.expect(majorBytes, "the value of an extended attribute")
		if err != nil {
			return nil, err
		}
		if x.value, err = d.string(length, left, "value of an extended attribute", " (MaxXattrBytes)"); err != nil {
			return nil, err
		}
		left -= int64(len(x.value))
		all = append(all, x)
	}
	return all, nil
}

// content copies the content of the entry under way.
func (d *decoder) content(e *entry, w io.WriterAt, buf []byte) error {
	for _, r := range e.data() {
		at, left := r.at, r.size
		for left > 0 {
			n := int(min(left, int64(len(buf))))
			got, err := io.ReadFull(d.r, buf[:n])
			d.offset += int64(got)
			if err != nil {
				return d.failed(err)
			}
			if _, err := w.WriteAt(buf[:n], at); err != nil {
				return err
			}
			at, left = at+int64(n), left-int64(n)
		}
	}
	return nil
}
