"""Compares what two pickles give: the same structure, and the same identities.

    compare.py ORIGINAL RESULT       loads each pair of entries of two archives; 1 if any of them differ
    compare.py --self-test           shows that a difference of each kind is found

Two graphs are walked side by side, without recursion. Equal are two objects of the same type whose parts
are equal, in the same order, floats bit by bit; and wherever one object was met on the left, the same one
must be met on the right, and the other way round. What is in a set has no order: it is told apart by how
it looks, and graphs.py sees to it that it looks different.
"""
import collections
import datetime
import decimal
import fractions
import functools
import io
import os
import pickle
import pickletools
import re
import struct
import sys
import threading
import types
import uuid

import archive
import graph_classes as gc


class Difference(Exception):
    pass


EXTERNALS = {}


class Loader(pickle.Unpickler):
    def persistent_load(self, pid):
        """The same object for the same id: it lives outside."""
        return EXTERNALS.setdefault((type(pid), pid), gc.External(pid))


def load_all(data):
    """Loads every pickle of a file."""
    file = io.BytesIO(data)
    loaded = []
    while file.tell() < len(data):
        loaded.append(Loader(file).load())
    return loaded


# Of these there is one object for each value, or it means nothing which one it is.
WITHOUT_IDENTITY = frozenset({type(None), bool, int, float, complex, type(...), type(NotImplemented)})
# These are what they are by name.
BY_NAME = (type, types.FunctionType, types.MethodDescriptorType, types.ModuleType, gc.External, gc.ByName, gc.Colour, gc.Access, gc.Level)
# These are without parts: equal if they say the same.
SAID = (datetime.date, datetime.time, datetime.timedelta, datetime.timezone, decimal.Decimal, fractions.Fraction, uuid.UUID, range, slice)

# These have no attributes, and are what they hold.
PLAIN = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset})


def bits(value):
    return struct.pack("<d", value)


def looks(value, depth=0):
    """How an element of a set looks, wherever it is."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, gc.Numbered):
        return f"{kind} {value.__dict__.get('serial')}"
    if isinstance(value, float):
        return f"{kind} {bits(value).hex()}"
    if isinstance(value, complex):
        return f"{kind} {bits(value.real).hex()} {bits(value.imag).hex()}"
    if isinstance(value, tuple):
        return f"{kind} ({','.join(looks(v, depth + 1) for v in value)})" if depth < 20 else kind
    if isinstance(value, frozenset):
        return f"{kind} {{{','.join(sorted(looks(v, depth + 1) for v in value))}}}" if depth < 20 else kind
    if isinstance(value, int):
        return f"{kind} {value:x}"
    if isinstance(value, (str, bytes)) or isinstance(value, BY_NAME) or isinstance(value, SAID):
        return f"{kind} {value!r}"
    return kind


@functools.cache
def slots(kind):
    return [name for cls in kind.__mro__ for name in cls.__dict__.get("__slots__", ()) if name not in ("__dict__", "__weakref__")]


def attributes(o):
    """The attributes of an object, those of its __dict__ in order, then its slots."""
    found = list(o.__dict__.items()) if hasattr(o, "__dict__") else []
    for name in slots(type(o)):
        if hasattr(o, name):
            found.append((name, getattr(o, name)))
    return found


class Comparer:
    def __init__(self):
        self.there = {}  # by id on the left, what it is on the right
        self.back = {}
        self.kept = []  # ids are of objects that live
        self.todo = []
        self.compared = 0

    def compare(self, a, b):
        """Raises Difference unless a and b are the same graph."""
        self.kept += [a, b]
        self.todo.append((a, b, ()))
        while self.todo:
            a, b, path = self.todo.pop()
            self.compared += 1
            self.pair(a, b, path)

    def differ(self, path, what):
        steps = []
        while path:
            path, step = path
            steps.append(step)
        steps.reverse()
        if len(steps) > 20:
            steps[10:-10] = ["..."]
        raise Difference(f"{' / '.join(steps) or 'the whole'}: {what}")

    def sequence(self, a, b, path, what="elements"):
        if len(a) != len(b):
            self.differ(path, f"{len(a)} {what}, not {len(b)}")
        self.todo.extend([(x, y, (path, str(i))) for i, (x, y) in enumerate(zip(a, b))][::-1])

    def pair(self, a, b, path):
        kind = type(a)
        if kind is not type(b):
            self.differ(path, f"{kind.__name__} became {type(b).__name__}")
        if kind in WITHOUT_IDENTITY:
            if kind is float:
                same = bits(a) == bits(b)
            elif kind is complex:
                same = bits(a.real) == bits(b.real) and bits(a.imag) == bits(b.imag)
            else:
                same = a == b
            if not same:
                self.differ(path, f"{looks(a):.200} became {looks(b):.200}")
            return
        if kind not in PLAIN and isinstance(a, BY_NAME):
            if a is not b:
                self.differ(path, f"{a!r:.200} became {b!r:.200}")
            return
        known, other = self.there.get(id(a)), self.back.get(id(b))
        if known is not None or other is not None:
            if known != id(b) or other != id(a):
                self.differ(path, f"the identity of this {kind.__name__} ({looks(a):.60}): " + (
                    "there are two now" if other is None else "two are one now" if known is None else "it is another one now"))
            return
        self.there[id(a)], self.back[id(b)] = id(b), id(a)
        self.parts(a, b, path)

    def parts(self, a, b, path):
        kind = type(a)
        if kind is str:
            if a != b:
                self.differ(path, f"{a!r:.200} became {b!r:.200}")
            return
        if isinstance(a, (str, bytes, bytearray)):
            base = str if isinstance(a, str) else bytes if isinstance(a, bytes) else bytearray
            if base.__ne__(a, b):
                self.differ(path, f"{a!r:.200} became {b!r:.200}")
        elif isinstance(a, int):
            if int.__ne__(a, b):
                self.differ(path, "another number")
        elif isinstance(a, float):
            if bits(a) != bits(b):
                self.differ(path, f"{bits(a).hex()} became {bits(b).hex()}")
        elif isinstance(a, (list, tuple)):
            base = list if isinstance(a, list) else tuple
            self.sequence(list(base.__iter__(a)), list(base.__iter__(b)), path)
        elif isinstance(a, collections.deque):
            if a.maxlen != b.maxlen:
                self.differ(path, "another maxlen")
            self.sequence(list(a), list(b), path)
        elif isinstance(a, dict):
            base = collections.OrderedDict if isinstance(a, collections.OrderedDict) else dict
            left, right = list(base.items(a)), list(base.items(b))
            if len(left) != len(right):
                self.differ(path, f"{len(left)} entries became {len(right)}")
            for (k, v), (l, w) in reversed(list(zip(left, right))):
                name = f"{k!r:.40}"
                self.todo.append((v, w, (path, name)))
                self.todo.append((k, l, (path, f"key {name}")))
            if isinstance(a, collections.defaultdict) and a.default_factory is not b.default_factory:
                self.differ(path, "another default_factory")
        elif isinstance(a, (set, frozenset)):
            left, right = sorted(a, key=looks), sorted(b, key=looks)
            for x, y in zip(left, left[1:]):
                if looks(x) == looks(y):
                    self.differ(path, f"two elements that cannot be told apart: {looks(x):.100}")
            self.sequence(left, right, path)
        elif isinstance(a, types.MethodType):
            self.todo += [(a.__self__, b.__self__, (path, "__self__")), (a.__func__, b.__func__, (path, "__func__"))]
            return
        elif isinstance(a, SAID):
            if repr(a) != repr(b):
                self.differ(path, f"{a!r:.200} became {b!r:.200}")
            if isinstance(a, (datetime.datetime, datetime.time)):
                self.todo.append((a.tzinfo, b.tzinfo, (path, "tzinfo")))
            return
        elif isinstance(a, types.BuiltinMethodType):
            if a.__qualname__ != b.__qualname__:
                self.differ(path, f"{a!r} became {b!r}")
            self.todo.append((a.__self__, b.__self__, (path, "__self__")))
            return
        elif isinstance(a, BaseException):
            self.kept += [a.args, b.args]
            self.sequence(a.args, b.args, path)
        elif type(a).__module__ not in ("graph_classes", "state_classes"):
            self.differ(path, f"{kind} is of a kind that this program does not know how to compare")
        if kind in PLAIN:
            return
        left, right = attributes(a), attributes(b)
        if [n for n, _ in left] != [n for n, _ in right]:
            self.differ(path, f"attributes {[n for n, _ in left]} became {[n for n, _ in right]}")
        self.todo.extend([(v, w, (path, f".{n}")) for (n, v), (_, w) in zip(left, right)][::-1])


def compare(a, b):
    comparer = Comparer()
    comparer.compare(a, b)
    return comparer.compared


def protocol_of(data):
    """The protocol that each pickle of a file begins with, and the highest that its opcodes need."""
    found, file = [], io.BytesIO(data)
    while file.tell() < len(data):
        declared, needed, begin = None, 0, file.tell()
        for op, arg, at in pickletools.genops(file):
            if op.name == "PROTO":
                declared = arg if at == begin and arg > 1 else declared
            elif op.proto > needed:
                needed = op.proto
        found.append((declared, needed))
    return found


def check_protocol(before, after):
    """The result must be of the protocols of the original, by its words and by its opcodes."""
    left, right = protocol_of(before), protocol_of(after)
    if [d for d, _ in left] != [d for d, _ in right]:
        raise Difference(f"protocols {left} became {right}")
    for (declared, most), (_, needed) in zip(left, right):
        if needed > max(declared or 0, most):
            raise Difference(f"opcodes of protocol {needed} in a pickle of protocol {declared or most}")


def check(name, before, after, thorough):
    compared = compare(load_all(before), load_all(after))
    if thorough:
        check_protocol(before, after)
        out = io.StringIO()
        file = io.BytesIO(after)
        while file.tell() < len(after):
            pickletools.dis(file, out)
    return compared


def intern_names():
    """Attribute names are one string each for the interpreter, from the first time on that it meets one:
    from before the first comparison, so that it treats both sides alike."""
    kept = []
    for program in ("graphs.py", "graph_classes.py", "state.py"):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), program), encoding="utf-8") as file:
            kept += [sys.intern(word) for word in re.findall(r"\w+", file.read())]
    return kept


def main(original, result):
    names = intern_names()
    results = archive.read(result)
    failed = compared = pickles = 0
    for name, _, before in archive.read(original):
        other, meta, after = next(results, ("nothing", {}, b""))
        if name != other:
            sys.exit(f"{name} is {other} in the results")
        if meta.get("error"):
            continue  # the other side has said so
        pickles += 1
        try:
            compared += check(name, before, after, pickles % 16 == 0 and len(before) < 20_000)
        except Exception as err:
            failed += 1
            if failed <= 20:
                shown = f"\n    was {before.hex()}\n    is  {after.hex()}" if len(before) <= 400 else ""
                print(f"{name}: {type(err).__name__}: {err}{shown}")
    del names
    print(f"{pickles} pickles compared, {compared} objects, {failed} differ")
    sys.exit(1 if failed else 0)


def self_test():
    """Damages that must be found. Each is what a serializer could do wrong."""

    def graph():
        shared, same = [1.5, "x"], "".join(["a ", "name"])
        o, child, slots, numbered = gc.Plain(), gc.Plain(), gc.Slots(), gc.Numbered()
        numbered.serial = 1
        o.name, o.other, o.kept, child.up, slots.a, slots.b = same, shared, child, o, same, shared
        return {"o": o, "shared": shared, "again": shared, "equal": [1.5, "x"], "t": (shared, (1, 2)), "d": {"a": 1, "b": 2.0, 3: None},
                "set": {1, "e", numbered, (1, "t")}, "numbered": numbered, "slots": slots, "same": same, "float": 0.0, "nan": float("nan"), "int": 1,
                "q": collections.deque([1], 3), "dd": collections.defaultdict(list), "bytes": b"bytes", "ba": bytearray(b"x"), "method": child, "dt": datetime.datetime(2000, 1, 1),
                "child": gc.ListChild([shared]), "range": range(3), "dec": decimal.Decimal("1.0"), "err": KeyError(shared), "c": complex(0.0, -0.0)}

    def swap(g):
        g["again"], g["equal"] = g["equal"], g["again"]

    def turn(g):
        a = g["d"].pop("a")
        g["d"]["a"] = a

    def turn_attributes(g):
        name = g["o"].name
        del g["o"].name
        g["o"].name = name

    def swap_in_set(g):
        other = gc.Numbered()
        other.serial = 1
        g["set"].discard(g["numbered"])
        g["set"].add(other)

    damages = {
        "nothing": lambda g: None,
        "a swapped reference": swap,
        "a lost identity": lambda g: g.update(again=[1.5, "x"]),
        "an identity too many": lambda g: g.update(equal=g["shared"]),
        "a lost identity of a string": lambda g: g.update(same="".join(["a ", "name"])),
        "a lost identity in a tuple": lambda g: g.update(t=([1.5, "x"], (1, 2))),
        "a lost cycle": lambda g: setattr(g["o"].kept, "up", gc.Plain()),
        "another order of keys": turn,
        "another order of attributes": turn_attributes,
        "another order of elements": lambda g: g["shared"].reverse(),
        "the sign of a zero": lambda g: g.update(float=-0.0),
        "the bits of a nan": lambda g: g.update(nan=struct.unpack("<d", b"\1\0\0\0\0\0\xf8\x7f")[0]),
        "an integer that is a float": lambda g: g.update(int=1.0),
        "an integer that is a bool": lambda g: g.update(int=True),
        "a key that is another's": lambda g: g["d"].update({4: g["d"].pop(3)}),
        "a missing key": lambda g: g["d"].pop(3),
        "an element of a set": lambda g: (g["set"].discard("e"), g["set"].add("f")),
        "the identity of an element of a set": swap_in_set,
        "a slot": lambda g: setattr(g["slots"], "a", "another"),
        "a lost slot": lambda g: delattr(g["slots"], "a"),
        "an attribute too many": lambda g: setattr(g["o"], "more", None),
        "another class": lambda g: g.update(o=gc.Stateful()),
        "a deque's bound": lambda g: g.update(q=collections.deque([1], 4)),
        "a factory": lambda g: g.update(dd=collections.defaultdict(dict)),
        "a byte": lambda g: g.update(bytes=b"bytez"),
        "a byte of a bytearray": lambda g: g["ba"].append(0),
        "a time": lambda g: g.update(dt=datetime.datetime(2000, 1, 1, 0, 0, 0, 1)),
        "a list for its child": lambda g: g.update(child=[g["shared"]]),
        "an end of a range": lambda g: g.update(range=range(4)),
        "a decimal's exponent": lambda g: g.update(dec=decimal.Decimal("1.00")),
        "an exception's argument": lambda g: g.update(err=KeyError(list(g["shared"]))),
        "a sign in a complex": lambda g: g.update(c=complex(0.0, 0.0)),
    }
    for name, damage in damages.items():
        a, b = graph(), graph()
        b["numbered"] = next(e for e in b["set"] if type(e) is gc.Numbered)
        damage(b)
        try:
            compare(a, b)
            found = None
        except Difference as err:
            found = str(err)
        if (found is None) != (name == "nothing"):
            sys.exit(f"{name}: {found or 'not found'}")
    deep_a, deep_b = [1], [2]
    for _ in range(100_000):
        deep_a, deep_b = [deep_a], [deep_b]
    try:
        compare(deep_a, deep_b)
        sys.exit("a difference 100,000 deep: not found")
    except Difference:
        pass
    try:
        check_protocol(pickle.dumps(["é", b"x"], 2), b"\x80\x02" + pickle.dumps(["é", b"x"], 4)[2:])
        sys.exit("opcodes of protocol 4 in a pickle of protocol 2: not found")
    except Difference:
        pass
    print(f"{len(damages) + 1} damages found")


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(10**7)
    threading.stack_size(512 << 20)
    status = []

    def run():
        try:
            self_test() if sys.argv[1] == "--self-test" else main(*sys.argv[1:])
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code)
            status.append(1 if end.code else 0)
            return
        status.append(0)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    sys.exit(status[0] if status else 1)
