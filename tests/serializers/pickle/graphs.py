"""Makes object graphs from a seed and pickles each of them by every protocol:

    graphs.py SEED FIRST COUNT ARCHIVE

The same arguments give the same archive; graph N of a seed is always the same. Each graph is pickled by
the pickler in C by every protocol, and by one protocol in another way: by the pickler in Python (on which
dill is built), in a file with another pickle, through pickletools.optimize, or as dill does. Graphs of
given shapes come first, some of them from a pickler without a memo.
"""
import collections
import copyreg
import datetime
import decimal
import fractions
import io
import pickle
import pickletools
import random
import struct
import sys
import threading
import uuid

import archive
import graph_classes as gc

# What the interpreter says of objects that only later protocols can keep.
REFUSED = ("a class that defines __slots__ without defining __getstate__ cannot be pickled", "persistent IDs in protocol 0 must be")

WORDS = ["name", "arn", "tags", "state", "a", "b", "", "x" * 255, "y" * 256, "é", "line\nbreak", "\\u0041", "back\\slash", "\0",
         "\U0001F600", "\ud800", "\udfff\ud800", "quote'\"", "\r\n", "\x1a", "\u2028", "us-east-1", "000000000000"]


class Maker:
    """Makes one graph. What may take children later is in pool from the beginning, so that children can
    refer to it: cycles; what may not goes there when it is done."""

    def __init__(self, rng, budget):
        self.rng, self.left = rng, budget
        self.pool = []
        self.hashables = []
        self.serial = 0
        self.persistent = rng.random() < 0.3
        self.sharing = rng.choice([0.05, 0.2, 0.5])

    def graph(self):
        root = self.rng.choice(CONTAINERS)(self, 1)
        if self.rng.random() < 0.7:
            root = {"kept": root, **{f"entry-{i}": self.value(1) for i in range(self.rng.randrange(6))}}
        return root

    def integer(self):
        r = self.rng
        return r.choice([
            lambda: r.randrange(-3, 300), lambda: r.choice([2**k + d for k in (7, 8, 15, 16, 31, 32, 63, 64, 255 * 8 - 1, 255 * 8) for d in (-1, 0, 1)]),
            lambda: -r.choice([2**k + d for k in (7, 8, 15, 16, 31, 32, 63, 64, 255 * 8 - 1) for d in (-1, 0, 1)]), lambda: r.getrandbits(r.randrange(1, 600)) - 2**300,
        ])()

    def floating(self):
        r = self.rng
        return r.choice([
            lambda: r.random(), lambda: r.choice([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308, 1e16, 0.1]),
            lambda: struct.unpack("<d", struct.pack("<Q", r.getrandbits(64)))[0],
        ])()

    def string(self):
        r = self.rng
        if r.random() < 0.6:
            return r.choice(WORDS) + (str(r.randrange(10)) if r.random() < 0.5 else "")
        top = r.choice([0x7F, 0xFF, 0xFFFF, 0x10FFFF])
        return "".join(chr(r.randrange(top + 1)) for _ in range(r.randrange(12)))

    def octets(self):
        r = self.rng
        return r.randbytes(r.choice([0, 1, 2, 7, 255, 256, 300]))

    def atom(self):
        r = self.rng
        return r.choice([
            lambda: None, lambda: True, lambda: False, self.integer, self.integer, self.floating, self.string, self.string, self.string, self.octets,
            lambda: complex(self.floating(), self.floating()), lambda: Ellipsis, lambda: NotImplemented, lambda: range(r.randrange(9), self.integer(), r.choice([1, -1, 7])),
            lambda: r.choice([int, str, type(None), type(...), gc.Plain, gc.Outer.Inner, collections.OrderedDict, Exception, object, type]),
            lambda: r.choice([len, gc.build, gc.Outer.make, decimal.Decimal.from_float, str.join, "a b".split, print]),
            lambda: r.choice([gc.Colour.RED, gc.Colour.GREEN, gc.Access.READ, gc.Access.READ | gc.Access.WRITE, gc.Level.HIGH]),
            lambda: datetime.datetime(2000 + r.randrange(99), 1, 1 + r.randrange(28), 3, 4, 5, r.randrange(10**6), r.choice([None, datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=5, minutes=45), "X")])),
            lambda: datetime.date(1 + r.randrange(9998), 2, 3), lambda: datetime.time(1, 2, 3, fold=1), lambda: datetime.timedelta(r.randrange(-99, 99), 3, 5),
            lambda: decimal.Decimal(r.choice(["1.10", "-0", "NaN", "Infinity", "1E+999", str(r.random())])), lambda: fractions.Fraction(r.randrange(99), 7),
            lambda: uuid.UUID(int=r.getrandbits(128)), lambda: gc.THE_ONE,
            lambda: r.choice([gc.StrChild, str])(self.string()), lambda: gc.IntChild(self.integer()), lambda: gc.FloatChild(self.floating()), lambda: gc.BytesChild(self.octets()),
            lambda: gc.Point(self.integer(), self.string()),
        ])()

    def hashable(self, depth):
        """What can be in a set or a key. Two of them look the same only if they are."""
        r = self.rng
        pick = r.randrange(10)
        if self.hashables and pick < 2:
            return r.choice(self.hashables)
        if pick < 6 or depth > 6:
            value = r.choice([self.integer, self.string, self.octets, lambda: r.random()])()
        elif pick == 6:
            value = tuple(self.hashable(depth + 1) for _ in range(r.randrange(5)))
        elif pick == 7:
            value = frozenset(self.hashable(depth + 1) for _ in range(r.randrange(4)))
        elif pick == 8:
            value = gc.Numbered()
            self.serial += 1
            value.serial = self.serial
            self.hashables.append(value)
            self.fill(value, depth + 1)
        else:
            value = r.choice([gc.Colour.RED, int, gc.Level.LOW, gc.Point(1, self.serial), uuid.UUID(int=r.getrandbits(128))])
        self.hashables.append(value)
        return value

    def fill(self, o, depth):
        for _ in range(self.rng.randrange(4)):
            setattr(o, self.rng.choice(["name", "owner", "parent", "é", "x", "a"]), self.value(depth + 1))

    def value(self, depth):
        r = self.rng
        self.left -= 1
        if self.pool and r.random() < self.sharing:
            return r.choice(self.pool)
        if self.left < 0 or depth > 12 or r.random() < 0.3:
            atom = self.atom()
            if r.random() < 0.3:
                self.pool.append(atom)
            return atom
        return r.choice(CONTAINERS)(self, depth + 1)

    def many(self, depth, most=6):
        return [self.value(depth) for _ in range(self.rng.randrange(most))]

    def a_list(self, depth, kind=list):
        made = kind()
        self.pool.append(made)
        made.extend(self.many(depth))
        return made

    def a_list_child(self, depth):
        made = self.a_list(depth, gc.ListChild)
        self.fill(made, depth)
        return made

    def a_tuple(self, depth):
        made = tuple(self.many(depth))
        self.pool.append(made)
        return made

    def a_tuple_child(self, depth):
        made = gc.TupleChild(self.many(depth))
        self.pool.append(made)
        self.fill(made, depth)
        return made

    def a_tuple_in_itself(self, depth):
        hole = []
        made = (self.value(depth), hole, self.value(depth))[:: self.rng.choice([1, -1])]
        made = self.rng.choice([made, made * 2])
        self.pool += [made, hole]
        hole.append(made)
        return self.rng.choice([made, hole])

    def a_dict(self, depth, kind=dict):
        made = kind()
        self.pool.append(made)
        for _ in range(self.rng.randrange(6)):
            key = self.hashable(depth)
            made[key] = self.value(depth)
        return made

    def a_dict_child(self, depth):
        made = self.a_dict(depth, self.rng.choice([gc.DictChild, gc.OrderedChild, collections.OrderedDict]))
        if type(made) is not collections.OrderedDict:
            self.fill(made, depth)
        return made

    def a_defaultdict(self, depth):
        return self.a_dict(depth, lambda: collections.defaultdict(self.rng.choice([list, dict, None, gc.Plain])))

    def a_counter(self, depth):
        made = collections.Counter([self.hashable(depth + 5) for _ in range(self.rng.randrange(5))])
        self.pool.append(made)
        return made

    def a_deque(self, depth):
        made = self.rng.choice([collections.deque, gc.DequeChild])([], self.rng.choice([None, 20]))
        self.pool.append(made)
        made.extend(self.many(depth))
        return made

    def a_set(self, depth):
        made = self.rng.choice([set, gc.SetChild])()
        self.pool.append(made)
        for _ in range(self.rng.randrange(6)):
            made.add(self.hashable(depth))
        if type(made) is gc.SetChild:
            self.fill(made, depth)
        return made

    def a_frozenset(self, depth):
        made = self.rng.choice([frozenset, gc.FrozenSetChild])(self.hashable(depth) for _ in range(self.rng.randrange(6)))
        self.pool.append(made)
        return made

    def a_set_in_itself(self, depth):
        inside = gc.Numbered()
        self.serial += 1
        inside.serial = self.serial
        made = self.rng.choice([set, frozenset])([inside, self.rng.randrange(1000)])
        inside.around = made
        self.pool += [made, inside]
        self.hashables.append(inside)
        return self.rng.choice([made, inside])

    def a_bytearray(self, _):
        made = self.rng.choice([bytearray, gc.ByteArrayChild])(self.octets())
        self.pool.append(made)
        return made

    def an_object(self, depth):
        made = self.rng.choice([gc.Plain, gc.Plain, gc.Stateful, gc.Registered, gc.Outer.Inner, gc.Extended1, gc.Extended2, gc.Extended4])()
        if not isinstance(made, gc.Registered):  # its state is an argument: it cannot be in itself
            self.pool.append(made)
        self.fill(made, depth)
        if self.rng.random() < 0.2:
            made.itself = made if not isinstance(made, gc.Registered) else None
        return made

    def a_bare(self, _):
        made = gc.Bare()
        self.pool.append(made)
        return made

    def a_slotted(self, depth):
        made = self.rng.choice([gc.Slots, gc.SlotsAndDict, gc.SlotsKept])()
        self.pool.append(made)
        made.a = self.value(depth)
        if self.rng.random() < 0.5:
            made.b = self.value(depth)
        if type(made) is gc.SlotsAndDict:
            self.fill(made, depth)
        return made

    def a_new_args(self, depth):
        if self.rng.random() < 0.5:
            made = gc.NewArgs(*self.many(depth))
        else:
            made = gc.NewArgsEx(*self.many(depth), **{k: self.value(depth) for k in self.rng.sample(["é", "key", "region"], self.rng.randrange(3))})
        self.pool.append(made)
        self.fill(made, depth)
        return made

    def a_reduced(self, depth):
        made = gc.build(*self.many(depth))
        self.pool.append(made)
        made.length = self.rng.randrange(2, 7)
        if made.length in (3, 4, 5):
            self.fill(made, depth)
        if made.length >= 4:
            made.extend(self.many(depth))
        if made.length >= 5:
            for _ in range(self.rng.randrange(4)):
                made[self.hashable(depth)] = self.value(depth)
        if made.length == 6:
            made.set_by = self.value(depth)
        return made

    def an_append_only(self, depth):
        made = gc.AppendOnly()
        self.pool.append(made)
        made.elements.extend(self.many(depth))
        return made

    def an_exception(self, depth):
        made = self.rng.choice([ValueError, OSError, KeyError])(*self.many(depth + 9))
        self.pool.append(made)
        return made

    def a_slice(self, _):
        return slice(None, self.rng.randrange(9), 2)

    def a_method(self, _):
        inner = gc.Outer.Inner()
        self.pool.append(inner)
        return inner.method

    def an_external(self, depth):
        if not self.persistent:
            return self.a_list(depth)
        made = gc.External(self.rng.choice(["id-1", "id-2", "id 3", ("bucket", 12), 77]))
        self.pool.append(made)
        return made


CONTAINERS = [
    Maker.a_list, Maker.a_list, Maker.a_list_child, Maker.a_tuple, Maker.a_tuple, Maker.a_tuple_child, Maker.a_tuple_in_itself, Maker.a_dict, Maker.a_dict,
    Maker.a_dict, Maker.a_dict_child, Maker.a_defaultdict, Maker.a_counter, Maker.a_deque, Maker.a_set, Maker.a_frozenset, Maker.a_set_in_itself, Maker.a_bytearray,
    Maker.an_object, Maker.an_object, Maker.an_object, Maker.an_object, Maker.a_bare, Maker.a_slotted, Maker.a_new_args, Maker.a_reduced, Maker.a_reduced,
    Maker.an_append_only, Maker.an_exception, Maker.a_slice, Maker.a_method, Maker.an_external,
]


def persistent_id(o):
    return o.pid if type(o) is gc.External else None


class CPickler(pickle.Pickler):
    def persistent_id(self, o):
        return persistent_id(o)


class PyPickler(pickle._Pickler):
    def persistent_id(self, o):
        return persistent_id(o)


def by_value(a, b=(1, "two", None)):
    return a, b, 3.5


class DillLike(PyPickler):
    """Keeps functions by value, as dill does, and dicts that are in the making by calls whose results it
    throws away."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_function(self, f):
        if f is not by_value:
            self.save_global(f)
            return
        names = {"f": f.__name__}
        self.save_reduce(gc.code_of, (f.__code__.co_argcount, f.__code__.co_code, f.__code__.co_consts, names, f.__code__.co_name), obj=f)
        self.save_reduce(gc.set_item, (names, "globals", {"f": f, "names": names}))
        self.write(pickle.POP)

    dispatch[type(lambda: None)] = save_function


def dumps(pickler, o, protocol, fast=False):
    out = io.BytesIO()
    p = pickler(out, protocol)
    p.fast = fast
    p.dump(o)
    return out.getvalue()


def external(pid):
    raise AssertionError


class Loader(pickle.Unpickler):
    def persistent_load(self, pid):
        return gc.External(pid)


def is_sound(data):
    """Whether the interpreter can load what it has pickled: it cannot where a cycle goes through what a
    constructor is given."""
    try:
        Loader(io.BytesIO(data)).load()
    except Exception:
        return False
    return True


def write_graph(out, seed, number):
    rng = random.Random(f"{seed}/{number}")
    maker = Maker(rng, rng.choice([5, 50, 100, 300]))
    graph = maker.graph()
    chosen, other = rng.randrange(6), rng.choice(["python", "twice", "optimized", "dill"])
    wrote = 0
    for protocol in range(6):
        ways = [("c", lambda: dumps(CPickler, graph, protocol))]
        if protocol == chosen:
            ways.append((other, {
                "python": lambda: dumps(PyPickler, graph, protocol),
                "twice": lambda: dumps(CPickler, graph, protocol) + dumps(CPickler, [graph], (protocol + 1) % 6),
                "optimized": lambda: pickletools.optimize(dumps(CPickler, graph, protocol)),
                "dill": lambda: dumps(DillLike, {"f": by_value, "graph": graph, "again": by_value}, max(protocol, 2)),
            }[other]))
        for way, dump in ways:
            try:
                data = dump()
            except (TypeError, pickle.PicklingError, UnicodeEncodeError, RecursionError, struct.error) as err:
                if isinstance(err, RecursionError) or str(err).startswith(REFUSED):
                    continue
                raise
            if is_sound(data):
                archive.write(out, f"graph {seed}/{number} protocol {protocol} {way}", data)
                wrote += 1
    return wrote


def deep(kind, depth):
    """A graph of a depth that nothing may recurse through."""
    if kind == "list":
        o = []
        for _ in range(depth):
            o = [o]
    elif kind == "tuple":
        o = ()
        for i in range(depth):
            o = (o, i)
    elif kind == "dict":
        o = {}
        for i in range(depth):
            o = {i: o}
    elif kind == "object":
        o = gc.Plain()
        for _ in range(depth):
            p = gc.Plain()
            p.next, o = o, p
    elif kind == "reduce":
        o = None
        for i in range(depth):
            o = gc.build(o)
    elif kind == "mixed":
        o = None
        for i in range(depth):
            p = gc.Slots()
            p.a, p.b = (o, [i]), {"up": o}
            o = p
    elif kind == "chain back":
        first = o = gc.Plain()
        for _ in range(depth):
            p = gc.Plain()
            p.next, p.first = o, first
            o = p
        first.next = o
    return o


def shapes(seed):
    """Graphs of shapes that chance does not give."""
    r = random.Random(seed)
    for n in (0, 1, 2, 1000, 1001, 2500):
        yield f"dict of {n}", {f"key-{i}": i for i in range(n)}
        yield f"list of {n}", list(range(n))
        yield f"set of {n}", {f"e{i}" for i in range(n)}
        shared = gc.Plain()
        if n <= 1001:
            yield f"dict of {n} objects", {i: shared if i % 3 else gc.build(i) for i in range(n)}
    yield "ten thousand digits", [10**10000 - 1, -(10**10000), 1 << 33000, {-(7**9000): 7**9000}]
    yield "256 and more in the memo", [[str(i), [i]] for i in range(400)] * 2
    yield "long strings", ["x" * 255, "x" * 256, "x" * 66000, "é" * 33000, b"b" * 255, b"b" * 256, b"b" * 66000, bytearray(b"q" * 300), "\ud800" * 300, "\U0001F600" * 9000]
    yield "long keys", {"k" * 66000: 1, ("t", "k" * 300): 2, b"b" * 66000: 3, 10**5000: 4}
    same = "a string in many places"
    yield "one string", [same] * 50 + [{same: same}]
    yield "equal strings", ["".join(["equal ", "strings"]) for _ in range(50)]
    yield "equal lists", [[] for _ in range(50)] + [[1]] * 50
    yield "one tuple", [(same, 1)] * 9
    yield "equal tuples", [(same, i, ) for i in (1, 1, 1) for _ in range(3)]
    d = {}
    d["self"] = d
    yield "dict in itself", d
    l = []
    l += [l, l, [l]]
    yield "list in itself", l
    t = ([],)
    t[0].append(t)
    yield "tuple in itself", t
    big = ([], 1, 2, 3, 4)
    big[0].append(big)
    yield "long tuple in itself", big
    inside = gc.Numbered()
    inside.serial = 1
    inside.around = frozenset([inside, 1])
    yield "frozenset in itself", inside.around
    yield "object in a frozenset in itself", inside
    state = gc.Stateful()
    state.me, state.all = state, [state]
    yield "object in its own state", state
    ring = [gc.Plain() for _ in range(100)]
    for i, o in enumerate(ring):
        o.next, o.ring = ring[i - 1], ring
    yield "ring", {f"o{i}": o for i, o in enumerate(ring)}
    backend = gc.Plain()
    backend.things = {}
    for i in range(300):
        o = gc.Plain()
        o.backend, o.id, o.peers = backend, f"i-{i:08x}", [backend.things.get(f"i-{i // 2:08x}")]
        backend.things[o.id] = o
    yield "backend", {"000000000000": {"us-east-1": backend, "eu-west-1": backend}}
    yield "accounts", gc.OrderedChild((f"{a:012}", gc.DictChild({x: {"things": {i: [i] for i in range(5)}, "peer": backend} for x in ("us-east-1", "aws")})) for a in range(3))
    for top in (None, True, 0, -1, 1.5, "text", b"bytes", (), [], {}, set(), frozenset(), bytearray(), int, gc.Colour.RED, gc.THE_ONE, gc.Bare(), ..., 1j):
        yield f"alone {top!r:.30}", top
    mixed = {None: 1, True: 2, 1.5: 3, "": 4, b"": 5, (): 6, (1, (2, "x")): 7, frozenset([1]): 8, int: 9, ...: 10, gc.Colour.RED: 11, gc.Numbered(): 12, -5: 13, 2**70: 14, float("nan"): 15, float("inf"): 16, -0.5: 17}
    yield "keys of every kind", mixed
    yield "keys of every kind below", {"a": {"b": {"c": dict(mixed)}}}
    yield "keys that look alike", {"1": 1, 1: 2, b"1": 3, (1,): 4, ("1",): 5, "(1,)": 6, "b'1'": 7, "~1": 8, "/1": 9, "a/b": 10, "a~1b": 11, "None": 12, None: 13, "": 14}
    yield "random order", dict(sorted(((f"{r.random()}", i) for i in range(100)), key=lambda p: p[1]))


def write_shapes(out, seed):
    for name, graph in shapes(seed):
        for protocol in (0, 1, 2, 3, 4, 5) if len(data5 := dumps(CPickler, graph, 5)) < 10_000 else (0, 2, 5):
            data = data5 if protocol == 5 else dumps(CPickler, graph, protocol)
            if is_sound(data):
                archive.write(out, f"{name} protocol {protocol} c", data)
        archive.write(out, f"{name} protocol 4 python", dumps(PyPickler, graph, 4))
        if name in ("one string", "equal lists", "dict of 1001 objects", "equal tuples", "keys of every kind", "keys that look alike"):
            for protocol in (0, 2, 4):
                archive.write(out, f"{name} protocol {protocol} without memo", dumps(CPickler, graph, protocol, fast=True))


def write_deep(out, depth, pickler, way, protocols):
    """Each kind by one of the protocols in turn, and by 4."""
    for i, kind in enumerate(("list", "tuple", "dict", "object", "reduce", "mixed", "chain back")):
        graph = deep(kind, depth)
        for protocol in sorted({4, protocols[i % len(protocols)]}):
            archive.write(out, f"{depth} deep {kind} protocol {protocol} {way}", dumps(pickler, graph, protocol))


def main():
    seed, first, count, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    sys.set_int_max_str_digits(0)
    with open(path, "wb") as out:
        if first == 0:
            write_shapes(out, seed)
        wrote = sum(write_graph(out, seed, n) for n in range(first, first + count))
        if wrote < 4 * count:  # most graphs can be pickled by most protocols, or nothing is tested
            sys.exit(f"only {wrote} pickles of {count} graphs")
        sys.setrecursionlimit(10**7)
        if first == 0:
            write_deep(out, 10000, CPickler, "c", (0, 1, 3, 0, 1, 2, 5))
            write_deep(out, 1000, PyPickler, "python", (1, 0, 2, 1, 0, 5, 3))
        sys.setrecursionlimit(1000)


if __name__ == "__main__":
    threading.stack_size(512 << 20)
    failure = []

    def run():
        try:
            main()
        except BaseException as err:
            failure.append(err)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    sys.exit(1 if failure else 0)
