#!/usr/bin/env python3
"""Reads Torpor state files with nothing but Python's standard library.

This is the second reader of the format, written from runtime/statefile/FORMAT.md alone and sharing no
code with the first, so that a test can hold the two against each other. It is meant to be read beside
that page: the steps it names are those of the section "Reading".

    read_state.py FILE...             a JSON object for each file: header, index, saves, records
    read_state.py --raw FILE...       records as the hexadecimal of their CBOR
    read_state.py --recover FILE...   where the last whole state file in a damaged one ends ("Recovery")

CBOR that JSON does not have is {"$bytes": base64}, {"$tag": [number, item]}, {"$simple": number},
{"$float": "nan"} or {"$map": [[key, value], ...]}. Chunks of zstd are not decompressed: their records are
null and "needs" says "zstd".

A file that cannot be read gives {"file", "error": {"kind", "offset", "message"}}; kind is "corrupt",
"version", "too_large" or, of --recover, "not_found". The exit code is that of the first such file (3, 4, 7
or 5), otherwise 0.
"""

import base64
import datetime
import hashlib
import json
import math
import os
import re
import struct
import sys

VERSION = 1
TRAILER_SIZE = 30
MAX_HEADER = 64 << 10
MAX_INDEX = 256 << 20
MAX_ELEMENTS = 4 << 20
MAX_PAIRS = 1 << 10
MAX_NESTING = 8
MAX_RUNS = 1 << 20
MAX_DELTAS = 64 << 10
MAX_CHANGES = 1 << 20
MAX_DELTA_BYTES = 1 << 30
MAX_PARTITION = 4 << 10
MAX_KEY = 64 << 10
MAX_RECORD = 64 << 20
MAX_VALUE_NESTING = 64
MIN_CUT, CUT_ODDS, MAX_CUT = 16 << 10, 48 << 10, 256 << 10
MAX_CHUNK = MAX_CUT + MAX_RECORD


class Refused(Exception):
    """A file that is not read: why, and at which offset that was noticed."""

    def __init__(self, kind, offset, message):
        super().__init__(message)
        self.kind, self.offset, self.message = kind, offset, message


def corrupt(offset, message):
    return Refused("corrupt", offset, message)


# CBOR (RFC 8949).

UINT, NINT, BYTES, TEXT, ARRAY, MAP, TAG, OTHER = range(8)


class Tag:
    def __init__(self, number, item):
        self.number, self.item = number, item


class Simple:
    def __init__(self, number):
        self.number = number


class Pairs(list):
    """A map, as its pairs in order: keys of CBOR need not be hashable."""


class Decoder:
    """Decodes items from data; offsets in errors count from base."""

    def __init__(self, data, base, nesting, shortest, utf8, limits, beyond="corrupt"):
        self.data, self.base, self.at = data, base, 0
        self.beyond = beyond  # the kind of error when a limit of an item is passed
        self.nesting, self.shortest, self.utf8, self.limits = nesting, shortest, utf8, limits

    def error(self, message):
        return corrupt(self.base + self.at, message)

    def limit(self, message):
        return Refused(self.beyond, self.base + self.at, message)

    def take(self, size):
        if size > len(self.data) - self.at:
            raise self.error("the bytes end inside an item")
        part = self.data[self.at:self.at + size]
        self.at += size
        return part

    def head(self):
        """Reads a head: major type, additional information, argument."""
        start = self.at
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        if info > 27:
            self.at = start
            raise self.error("an indefinite length, or no CBOR head: 0x%02x" % first)
        size = 1 << (info - 24)
        argument = int.from_bytes(self.take(size), "big")
        if self.shortest and major != OTHER and argument < (24 if size == 1 else 1 << (4 * size)):
            self.at = start
            raise self.error("a head that is not of the shortest form")
        return major, info, argument

    def text(self, size, check):
        raw = bytes(self.take(size))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            if check:
                raise self.error("text that is not UTF-8") from None
            return raw.decode("utf-8", "backslashreplace")

    def item(self, depth=0):
        start = self.at
        major, info, argument = self.head()
        if major in (ARRAY, MAP, TAG):
            depth += 1
            if depth > self.nesting:
                self.at = start
                raise self.limit("nested deeper than %d" % self.nesting)
        if major == UINT:
            return argument
        if major == NINT:
            return -1 - argument
        if major == BYTES:
            return bytes(self.take(argument))
        if major == TEXT:
            return self.text(argument, self.utf8)
        if major == ARRAY:
            if argument > min(len(self.data) - self.at, self.limits[0]):
                raise self.error("an array of %d elements" % argument)
            return [self.item(depth) for _ in range(argument)]
        if major == MAP:
            if argument > min((len(self.data) - self.at) // 2, self.limits[1]):
                raise self.error("a map of %d pairs" % argument)
            return Pairs((self.item(depth), self.item(depth)) for _ in range(argument))
        if major == TAG:
            return Tag(argument, self.item(depth))
        if info == 24 and argument < 32:
            raise self.error("a simple value below 32 in two bytes")
        if info in (25, 26, 27):
            return struct.unpack({25: ">e", 26: ">f", 27: ">d"}[info], argument.to_bytes(1 << (info - 24), "big"))[0]
        return {20: False, 21: True, 22: None}.get(argument, Simple(argument))


def fields(decoder, pairs, types):
    """Makes a dict of a map's pairs; types names the keys known and their types. Others, and null, are
    ignored."""
    if not isinstance(pairs, Pairs):
        raise decoder.error("a map is expected")
    out, seen = {}, []
    for key, value in pairs:
        if not isinstance(key, str):
            raise decoder.error("a map key that is not text")
        if key in seen:
            raise decoder.error("the key %r twice in a map" % key)
        seen.append(key)
        if key not in types or value is None:
            continue
        if types[key] is int:
            ok = type(value) is int and value >= 0
        else:
            ok = isinstance(value, types[key])
        if not ok:
            raise decoder.error("%r is of the wrong type" % key)
        out[key] = value
    return out


# Checksums and the cutting rule.

def crc32c_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


def crc32c(data, table=tuple(crc32c_table())):
    c = 0xFFFFFFFF
    for byte in data:
        c = table[(c ^ byte) & 0xFF] ^ c >> 8
    return c ^ 0xFFFFFFFF


def cuts(raw_size, record_size, key):
    """Whether a chunk of raw_size ends behind a record ("Cutting chunks")."""
    if raw_size < MIN_CUT:
        return False
    if raw_size >= MAX_CUT:
        return True
    h = crc32c(key) * 0x9E3779B1 % (1 << 32)
    return h * CUT_ODDS < record_size << 32


RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def time(pairs):
    """The time "created" says, or None."""
    created = pairs.get("created")
    if created is None:
        return None
    if created.number != 0 or not isinstance(created.item, str) or not RFC3339.fullmatch(created.item):
        raise corrupt(0, "created is no time")
    try:
        datetime.datetime.fromisoformat(created.item)
    except ValueError:
        raise corrupt(0, "created is no time") from None
    return created.item


class Chunk:
    def __init__(self, delta, partition, offset, length, count, raw, digest):
        self.delta, self.partition = delta, partition
        self.offset, self.length, self.count, self.raw, self.digest = offset, length, count, raw, digest


class Save:
    """A save: its decoded index, which lies at "at", and what step 11 makes of it."""

    def __init__(self, index, runs, at, end):
        self.index, self.runs, self.at, self.end = index, runs, at, end
        self.delta = index.get("previous", 0) != 0
        self.chunks = []


class StateFile:
    """An open state file, or what the first size bytes of one are: the checks of steps 1 to 11 have passed."""

    def __init__(self, file, size):
        self.file, self.size = file, size
        front = self.read(0, min(self.size, MAX_HEADER))
        if front[:3] != b"\xd9\xd9\xf7":  # step 1
            raise corrupt(0, "not a state file")
        if self.size < TRAILER_SIZE:
            raise corrupt(self.size, "shorter than a trailer")
        version = self.header_version(front)
        self.saves = []
        end, indexes, header = self.size, 0, None
        while True:
            index, at = self.index_bytes(end, version, MAX_INDEX - indexes)
            if header is None:
                header = front[:self.decode_header(front)]
            save = self.decode_index(index, at, end, header)
            self.saves.insert(0, save)
            previous = save.index.get("previous", 0)
            if previous == 0:
                break
            if previous > at or previous < len(header) + TRAILER_SIZE:  # step 10
                raise corrupt(at, "previous is no place where a save may end")
            if len(self.saves) > MAX_DELTAS:
                raise Refused("too_large", at, "more than %d deltas" % MAX_DELTAS)
            indexes += len(index)
            end = previous
        start, root, generation, changes, delta_bytes = len(header), b"", self.header["generation"], 0, 0
        for save in self.saves:
            root = self.place(save, start, root, generation)
            start = save.end
            if save.delta:
                generation = save.index["generation"]
                changes += save.index.get("records", 0)
                if changes > MAX_CHANGES:
                    raise Refused("too_large", save.at, "more than %d changes" % MAX_CHANGES)
                delta_bytes += save.index.get("raw", 0)
                if delta_bytes > MAX_DELTA_BYTES:
                    raise Refused("too_large", save.at, "more than %d bytes in deltas" % MAX_DELTA_BYTES)
                self.header["generation"], self.header["created"] = generation, time(save.index)
            save.generation, save.created = generation, self.header["created"]
        last = self.saves[-1]
        self.live = last.index["live"] if last.delta else last.index.get("records", 0)
        self.chunks = [c for save in self.saves for c in save.chunks]
        self.index = {"records": self.live, "raw": sum(c.raw for c in self.chunks), "root": root.hex(),
                      "chunks": len(self.chunks), "deltas": len(self.saves) - 1, "changes": changes}

    def read(self, offset, size):
        self.file.seek(offset)
        data = self.file.read(size)
        if len(data) != size:
            raise corrupt(offset + len(data), "the file ends here")
        return data

    def header_version(self, front):  # step 2
        d = Decoder(front[3:], 3, MAX_NESTING, True, True, (MAX_ELEMENTS, MAX_PAIRS))
        major, _, pairs = d.head()
        if major != MAP or pairs == 0 or d.item() != "torpor":
            raise corrupt(3, "the header does not begin with the format version")
        version = d.item()
        if type(version) is not int or version < 0:
            raise corrupt(11, "the format version is no number")
        return version

    def index_bytes(self, end, version, limit):
        """The index of the save that ends at end, and where it lies."""
        trailer_at = end - TRAILER_SIZE
        trailer = self.read(trailer_at, TRAILER_SIZE)
        if trailer[22:28] != b"torpor":  # step 3
            raise corrupt(trailer_at + 22, "no trailer")
        if version != struct.unpack(">H", trailer[28:])[0]:  # step 4
            raise corrupt(trailer_at + 28, "header and trailer are of different versions")
        if version != VERSION:
            raise Refused("version", 0, "format version %d" % version)
        index_at, index_size, crc = struct.unpack(">QQI", trailer[2:22])
        if trailer[:2] != b"\x58\x1c" or index_at + index_size != trailer_at:  # step 5
            raise corrupt(trailer_at, "the trailer does not place the index before it")
        if index_size > limit:
            raise Refused("too_large", index_at, "an index of %d bytes" % index_size)
        index = self.read(index_at, index_size)
        if crc32c(index + trailer[:18]) != crc:  # step 6
            raise corrupt(index_at, "the CRC32C differs")
        return index, index_at

    def decode_header(self, front):  # step 7
        d = Decoder(front[3:], 3, MAX_NESTING, False, True, (MAX_ELEMENTS, MAX_PAIRS))
        h = fields(d, d.item(), {"torpor": int, "service": str, "part": str, "generation": int, "created": Tag,
                                 "serializer": Pairs, "compression": str})
        s = fields(d, h.get("serializer"), {"name": str, "version": str, "sha256": bytes, "schema": int})
        created = time(h)
        if not h.get("service") or not h.get("part") or not s.get("name") or not h.get("generation"):
            raise corrupt(0, "the header lacks service, part, generation or the serializer's name")
        if len(s.get("sha256", b"")) != 32:
            raise corrupt(0, "the serializer's digest is not of 32 bytes")
        if not h.get("compression"):
            raise corrupt(0, "the header lacks the compression")
        self.compression = h["compression"]
        self.header = {"format": h["torpor"], "service": h["service"], "part": h["part"], "generation": h["generation"],
                       "created": created, "compression": self.compression,
                       "serializer": {"name": s["name"], "version": s.get("version", ""), "sha256": s["sha256"].hex(),
                                      "schema": s.get("schema", 0)}}
        return 3 + d.at

    def decode_index(self, index, at, end, header):
        d = Decoder(index, at, MAX_NESTING, False, True, (MAX_ELEMENTS, MAX_PAIRS))
        x = fields(d, d.item(), {"previous": int, "generation": int, "created": Tag, "header": bytes, "root": bytes,
                                 "records": int, "raw": int, "live": int, "runs": list})
        if d.at != len(index):
            raise d.error("bytes after the index")
        time(x)
        runs = []
        for item in x.get("runs", []):  # step 8: all of it must decode before any of it is judged
            run = fields(d, item, {"kind": str, "partition": str, "chunks": list})
            for c in run.get("chunks", []):
                if not isinstance(c, list) or len(c) != 5 or not all(type(n) is int and n >= 0 for n in c[:4]) or not isinstance(c[4], bytes):
                    raise corrupt(at, "a chunk is not an array of four numbers and bytes")
            runs.append(run)
        if hashlib.sha256(header).digest() != x.get("header"):
            raise corrupt(0, "the header's SHA-256 differs")
        if self.compression not in ("none", "zstd"):  # step 9
            raise Refused("version", 0, "compression %r" % self.compression)
        return Save(x, runs, at, end)

    def place(self, save, start, before, generation):
        """Step 11 of one save, which begins at start; returns its root."""
        x, at, kind = save.index, save.at, "full"
        if save.delta:
            kind = "delta"
            if x.get("generation", 0) <= generation or "live" not in x:
                raise corrupt(at, "the delta's generation is not above %d, or live is absent" % generation)
        end, records, raw, root = start, 0, 0, hashlib.sha256(before)
        for run in save.runs:
            if run.get("kind") != kind:
                if run.get("kind") in ("full", "delta"):
                    raise corrupt(at, "a run of kind %r among those of kind %r" % (run["kind"], kind))
                raise Refused("version", at, "a run of kind %r" % run.get("kind"))
            partition = run.get("partition", "").encode()
            if not run.get("chunks") or len(partition) > MAX_PARTITION:
                raise corrupt(at, "a run without chunks, or with too long a partition")
            for offset, length, count, raw_size, digest in run["chunks"]:
                if offset != end or len(digest) != 32:
                    raise corrupt(at, "a chunk does not follow the one before it")
                save.chunks.append(Chunk(save.delta, partition, offset, length, count, raw_size, digest))
                end, records, raw = end + length, records + count, raw + raw_size
                root.update(struct.pack(">I", len(partition)) + partition + digest)
        if end != at:
            raise corrupt(at, "the chunks do not end where the index begins")
        if len(save.runs) > MAX_RUNS or len(save.chunks) > MAX_ELEMENTS:
            raise Refused("too_large", at, "%d runs of %d chunks" % (len(save.runs), len(save.chunks)))
        if root.digest() != x.get("root") or records != x.get("records", 0) or raw != x.get("raw", 0):
            raise corrupt(at, "root digest or counts differ")
        return root.digest()

    def content(self, chunk):
        """What the byte string of a chunk holds: step 12, and of 13 what concerns the head."""
        if chunk.raw > MAX_CHUNK or chunk.length > MAX_CHUNK + MAX_CHUNK // 128 + 1024:
            raise Refused("too_large", chunk.offset, "a chunk of %d bytes" % max(chunk.length, chunk.raw))
        item = self.read(chunk.offset, chunk.length)
        d = Decoder(item, chunk.offset, 1, True, True, (0, 0))
        if self.compression == "none" and d.take(2) != b"\xd8\x3f":
            raise corrupt(chunk.offset, "a chunk that does not begin with tag 63")
        major, _, size = d.head()
        if major != BYTES or size != chunk.length - d.at:
            raise corrupt(chunk.offset, "a chunk that is not one byte string")
        return item[d.at:]

    def records(self, chunk):
        """The records of a chunk, each with its partition, key, value and bytes: steps 12 to 14."""
        raw = self.content(chunk)
        if self.compression != "none":
            return None
        at = chunk.offset + chunk.length - len(raw)
        if len(raw) != chunk.raw or hashlib.sha256(raw).digest() != chunk.digest:
            raise corrupt(chunk.offset, "the chunk is not what the index says")
        out = self.split(raw, at, chunk.delta)
        if len(out) != chunk.count or any(r.partition != chunk.partition for r in out):
            raise corrupt(chunk.offset, "the chunk's records are not those of its run")
        return out

    def split(self, raw, at, delta):
        d = Decoder(raw, at, MAX_VALUE_NESTING, True, False, (MAX_RECORD, MAX_RECORD), "too_large")
        out = []
        while d.at < len(raw):
            start = d.at
            head = d.take(1)
            gone = delta and head == b"\x82"
            if head != b"\x83" and not gone:
                raise d.error("a record is an array of three")
            partition, _ = self.string(d, "partition", (TEXT,), MAX_PARTITION)
            key_at = d.at
            key, major = self.string(d, "key", (BYTES, TEXT), MAX_KEY)
            key_end = d.at
            value = None if gone else d.item()
            if d.at - start > MAX_RECORD:
                raise d.limit("a record of %d bytes" % (d.at - start))
            out.append(Record(gone, partition, key.decode() if major == TEXT else key, value, raw[start:d.at], raw[key_at:key_end]))
        return out

    def string(self, d, what, majors, limit):
        major, _, size = d.head()
        if major not in majors:
            raise d.error("no %s" % what)
        if size > limit:
            raise d.limit("a %s of %d bytes" % (what, size))
        content = bytes(d.take(size))
        if major == TEXT:
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                raise d.error("the %s is not UTF-8" % what) from None
        return content, major

    def cut_by_rule(self, chunks):
        """Whether the chunks of a save end where "Cutting chunks" says; chunks are lists of records."""
        for i, records in enumerate(chunks):
            size = 0
            for j, r in enumerate(records):
                size += len(r.whole)
                last = j == len(records) - 1
                run_ends = last and (i + 1 == len(chunks) or chunks[i + 1][0].partition != r.partition)
                if cuts(size, len(r.whole), r.key_item) != last and not run_ends:
                    return False
        return True


class Record:
    """A record or, if it is gone, a tombstone."""

    def __init__(self, gone, partition, key, value, whole, key_item):
        self.gone, self.partition, self.key, self.value = gone, partition, key, value
        self.whole, self.key_item = whole, key_item


def merge(saves):
    """Applies deltas ("Applying deltas"); saves are lists of chunks, these lists of records. A dict of
    Python does what is asked of a run: a key that is there keeps its place, one that comes back is last."""
    if len(saves) == 1:
        return [r for records in saves[0] for r in records]
    runs, places = [], {}  # a run is its partition and records by key; places are a partition's runs
    for number, chunks in enumerate(saves):
        for records in chunks:
            partition = records[0].partition
            there = places.setdefault(partition, [])
            if number == 0 and (not runs or runs[-1][0] != partition) or not there:
                there.append({})
                runs.append((partition, there[-1]))
            for r in records:
                run = next((run for run in there if r.key_item in run), there[-1])
                if not r.gone:
                    run[r.key_item] = r
                else:
                    run.pop(r.key_item, None)
    return [r for _, run in runs for r in run.values()]


def to_json(v):
    if isinstance(v, bytes):
        return {"$bytes": base64.b64encode(v).decode()}
    if isinstance(v, Tag):
        return {"$tag": [v.number, to_json(v.item)]}
    if isinstance(v, Simple):
        return {"$simple": v.number}
    if isinstance(v, float) and not math.isfinite(v):
        return {"$float": str(v)}
    if isinstance(v, Pairs):
        if all(isinstance(k, str) for k, _ in v) and len({k for k, _ in v}) == len(v):
            return {k: to_json(e) for k, e in v}
        return {"$map": [[to_json(k), to_json(e)] for k, e in v]}
    if isinstance(v, list):
        return [to_json(e) for e in v]
    return v


def describe(path, raw):
    with open(path, "rb") as file:
        state = StateFile(file, os.fstat(file.fileno()).st_size)
        out = {"file": path, "header": state.header, "index": state.index,
               "saves": [{"generation": s.generation, "created": s.created, "end": s.end, "delta": s.delta} for s in state.saves]}
        saves = [[state.records(c) for c in save.chunks] for save in state.saves]
    if state.compression != "none":
        return {**out, "records": None, "needs": state.compression}
    out["cut_by_rule"] = all(state.cut_by_rule(chunks) for chunks in saves)
    records = merge(saves)
    if len(saves) > 1 and len(records) != state.live:  # step 15
        raise corrupt(state.size, "%d records, live says %d" % (len(records), state.live))
    if raw:
        out["records"] = [r.whole.hex() for r in records]
    else:
        out["records"] = [{"partition": r.partition.decode(), "key": to_json(r.key), "value": to_json(r.value)} for r in records]
    return out


def whole(file, end, deep):
    """Whether the first end bytes are a whole state file, as "Recovery" asks; deep: all of its chunks."""
    state = StateFile(file, end)
    for chunk in state.saves[0].chunks:
        state.content(chunk)
    saves = [[state.records(c) for c in save.chunks] for save in state.saves if save.delta or deep]
    if deep and state.compression == "none" and len(merge(saves)) != state.live:
        raise corrupt(end, "live is wrong")


def recover(path):
    with open(path, "rb") as file:
        data = file.read()
        last = data[-TRAILER_SIZE:]
        signed = last[22:] == b"torpor" + struct.pack(">H", VERSION)
        placed = len(last) == TRAILER_SIZE and last[:2] == b"\x58\x1c" and sum(struct.unpack(">QQ", last[2:18])) == len(data) - TRAILER_SIZE
        torn, deep, limit = not (signed or placed), False, len(data)
        while True:
            at = data.rfind(b"torpor" + struct.pack(">H", VERSION), 0, limit)
            if at < 0:
                raise Refused("not_found", 0, "no whole state file")
            end, limit = at + 8, at + 7
            trailer = data[max(0, end - TRAILER_SIZE):end]
            if len(trailer) < TRAILER_SIZE or trailer[:2] != b"\x58\x1c" or sum(struct.unpack(">QQ", trailer[2:18])) != end - TRAILER_SIZE:
                continue
            try:
                whole(file, end, deep)
                if end < len(data):
                    return {"file": path, "end": end, "torn": torn}
                deep = True  # the damage is further inside
            except Refused as e:
                if e.kind != "corrupt":
                    raise
            torn = False


def main(arguments):
    mode = arguments[0] if arguments[:1] in (["--raw"], ["--recover"]) else ""
    paths = arguments[1:] if mode else arguments
    if not paths or any(p.startswith("-") for p in paths):
        print(__doc__, file=sys.stderr)
        return 2
    code = 0
    for path in paths:
        try:
            out = recover(path) if mode == "--recover" else describe(path, mode == "--raw")
        except Refused as e:
            out = {"file": path, "error": {"kind": e.kind, "offset": e.offset, "message": e.message}}
            code = code or {"corrupt": 3, "version": 4, "too_large": 7, "not_found": 5}[e.kind]
        print(json.dumps(out))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
