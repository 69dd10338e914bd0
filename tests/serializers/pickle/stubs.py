"""Compares what two pickles say, without the classes they name: nothing of them is imported or run.

    stubs.py ORIGINAL RESULT         compares each pair of entries of two archives; 1 if any of them differ
    stubs.py --self-test             shows that a difference of each kind is found

Each pickle is evaluated twice: opcode by opcode, by pickletools, into nodes that remember everything that
was done to them and in what order; and by the interpreter's own Unpickler with classes that only remember
how they were called. A call whose result is thrown away counts, too: what it did to its arguments is all
that there is of it.
"""
import codecs
import io
import pickle
import pickletools
import sys

import archive
import compare
from compare import Difference


def line(file):
    data = file.readline()
    if not data.endswith(b"\n"):
        raise ValueError("a line without an end")
    return data[:-1]


# pickletools reads ASCII only, and puts a blank between the names of a global.
pickletools.stringnl.reader = lambda file: codecs.escape_decode(line(file)[1:-1])[0].decode("latin-1")
pickletools.stringnl_noescape.reader = lambda file: line(file).decode("utf-8", "surrogateescape")
pickletools.stringnl_noescape_pair.reader = lambda file: tuple(line(file).decode("utf-8", "surrogateescape") for _ in range(2))


class Node:
    """A value: what it was made from, and what has been done to it since."""

    __slots__ = ("kind", "parts", "events", "seen")

    def __init__(self, kind, *parts):
        self.kind, self.parts, self.events, self.seen = kind, parts, [], ()


MARK = object()
# Values of these kinds are the same wherever they are equal.
BY_VALUE = frozenset({"int", "float", "none", "bool", "global", "extension"})
CALLS = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"})
SIMPLE = {
    "BININT": "int", "BININT1": "int", "BININT2": "int", "LONG": "int", "LONG1": "int", "LONG4": "int", "FLOAT": "float", "BINFLOAT": "float",
    "STRING": "string", "BINSTRING": "string", "SHORT_BINSTRING": "string", "BINBYTES": "bytes", "SHORT_BINBYTES": "bytes", "BINBYTES8": "bytes",
    "BYTEARRAY8": "bytearray", "UNICODE": "str", "SHORT_BINUNICODE": "str", "BINUNICODE": "str", "BINUNICODE8": "str",
    "EXT1": "extension", "EXT2": "extension", "EXT4": "extension", "PERSID": "persistent",
}
CONSTANTS = {"NONE": ("none", None), "NEWTRUE": ("bool", True), "NEWFALSE": ("bool", False)}
EMPTY = {"EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_DICT": "dict", "EMPTY_SET": "set"}
MARKED = {"LIST": "list", "TUPLE": "tuple", "DICT": "dict", "FROZENSET": "frozenset"}
LAST = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def arguments(*values):
    """How far each argument of a call, or what it is directly in, has come when the call is made."""
    seen = []
    for v in values:
        for w in (v, *(v.parts if v.kind == "tuple" else ())):
            if isinstance(w, Node):
                seen.append(len(w.events))
    return tuple(seen)


class Evaluation:
    """What one pickle comes to: its root, and the calls it makes, in order."""

    def __init__(self, file):
        self.stack, self.memo, self.calls = [], {}, []
        for op, arg, _ in pickletools.genops(file):
            self.step(op.name, arg)
        self.root = self.stack.pop()

    def marked(self):
        stack = self.stack
        for i in range(len(stack) - 1, -1, -1):
            if stack[i] is MARK:
                found = stack[i + 1 :]
                del stack[i:]
                return found
        raise ValueError("no mark")

    def call(self, kind, *parts):
        node = Node(kind, *parts)
        node.seen = arguments(*[p for p in parts if isinstance(p, Node)])
        self.calls.append(node)
        self.stack.append(node)

    def step(self, name, arg):
        stack = self.stack
        if name in SIMPLE:
            kind = SIMPLE[name]
            stack.append(Node(kind, compare.bits(arg) if kind == "float" else bytes(arg) if kind == "bytearray" else arg))
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if stack[-1] is MARK:
                raise ValueError("a mark in the memo")
            self.memo[arg] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[arg])
        elif name == "MARK":
            stack.append(MARK)
        elif name in CONSTANTS:
            stack.append(Node(*CONSTANTS[name]))
        elif name == "INT":
            stack.append(Node("bool" if isinstance(arg, bool) else "int", arg))
        elif name in EMPTY:
            stack.append(Node(EMPTY[name]))
        elif name in LAST:
            parts = stack[-LAST[name] :]
            del stack[-LAST[name] :]
            stack.append(Node("tuple", *parts))
        elif name in MARKED:
            parts, kind = self.marked(), MARKED[name]
            node = Node(kind, *(parts if kind in ("tuple", "frozenset") else ()))
            stack.append(node)
            if kind == "list":
                self.append(node, parts)
            elif kind == "dict":
                self.set_items(node, parts)
            elif kind == "frozenset":
                node.seen = tuple(len(p.events) for p in parts)
        elif name == "APPEND":
            value = stack.pop()
            self.append(stack[-1], [value])
        elif name == "APPENDS":
            values = self.marked()
            self.append(stack[-1], values)
        elif name == "SETITEM":
            pair = stack[-2:]
            del stack[-2:]
            self.set_items(stack[-1], pair)
        elif name == "SETITEMS":
            values = self.marked()
            self.set_items(stack[-1], values)
        elif name == "ADDITEMS":
            values = self.marked()
            stack[-1].events += [("add", len(v.events), v) for v in values]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].events.append(("build", arguments(state), state))
        elif name == "GLOBAL":
            stack.append(Node("global", *arg))
        elif name == "STACK_GLOBAL":
            of = stack.pop()
            module = stack.pop()
            if module.kind != "str" or of.kind != "str":
                raise ValueError("a global whose name is no text")
            stack.append(Node("global", module.parts[0], of.parts[0]))
        elif name in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            self.call(name, stack.pop(), args)
        elif name == "NEWOBJ_EX":
            named, args = stack.pop(), stack.pop()
            self.call(name, stack.pop(), args, named)
        elif name == "INST":
            # What INST and OBJ call is the same as what REDUCE does, but that NEWOBJ is used where there is
            # nothing to be given.
            self.call("OBJ", Node("global", *arg), Node("tuple", *self.marked()))
        elif name == "OBJ":
            found = self.marked()
            self.call("OBJ", found[0], Node("tuple", *found[1:]))
        elif name == "BINPERSID":
            node = stack.pop()
            stack.append(Node("persistent", node.parts[0] if node.kind == "str" else node))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.marked()
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"{name} is not evaluated")

    def append(self, node, values):
        node.events += [("append", 0, v) for v in values]

    def set_items(self, node, values):
        for key, value in zip(values[::2], values[1::2], strict=True):
            node.events.append(("set", len(key.events), key, value))


class NodeComparer(compare.Comparer):
    def pair(self, a, b, path):
        if not isinstance(a, Node) or not isinstance(b, Node):
            if type(a) is not type(b) or a != b:
                self.differ(path, f"{a!r:.200} became {b!r:.200}")
            return
        if a.kind != b.kind:
            self.differ(path, f"{a.kind} became {b.kind}")
        if a.kind not in BY_VALUE and (a.kind != "tuple" or a.parts or b.parts):  # there is one empty tuple
            known, other = self.there.get(id(a)), self.back.get(id(b))
            if known is not None or other is not None:
                if known != id(b) or other != id(a):
                    self.differ(path, f"the identity of this {a.kind}: {'there are two now' if other is None else 'two are one now' if known is None else 'it is another one now'}")
                return
            self.there[id(a)], self.back[id(b)] = id(b), id(a)
        if a.seen != b.seen:
            self.differ(path, f"{a.kind} is called when its arguments are at {b.seen} of what is done to them, not at {a.seen}")
        self.sequence(a.parts, b.parts, (path, a.kind), "parts")
        if len(a.events) != len(b.events):
            self.differ(path, f"{len(a.events)} things were done to this {a.kind}, now {len(b.events)}")
        for i, (e, f) in reversed(list(enumerate(zip(a.events, b.events)))):
            if e[:2] != f[:2]:
                self.differ(path, f"{e[:2]} became {f[:2]}")
            self.todo.extend([(x, y, (path, f"{e[0]} {i}")) for x, y in zip(e[2:], f[2:])][::-1])


def compare_calls(comparer, left, right):
    """The calls that nothing which is left refers to: their order, and what they were given."""
    for a in left:
        if id(a) in comparer.there:
            continue
        b = next((c for c in right if id(c) not in comparer.back), None)
        if b is None:
            raise Difference("a call whose result is thrown away is gone")
        comparer.compare(a, b)
    if any(id(c) not in comparer.back for c in right):
        raise Difference("a call whose result is thrown away is new")


def evaluate(data):
    file, found = io.BytesIO(data), []
    while file.tell() < len(data):
        found.append(Evaluation(file))
    return found


def compare_evaluated(before, after):
    left, right = evaluate(before), evaluate(after)
    if len(left) != len(right):
        raise Difference(f"{len(left)} pickles became {len(right)}")
    compared = 0
    for a, b in zip(left, right):
        comparer = NodeComparer()
        comparer.compare(a.root, b.root)
        compare_calls(comparer, a.calls, b.calls)
        compared += comparer.compared
    return compared


class Stub:
    """Stands for an instance of a class, or the result of a call."""

    def __new__(cls, *args, **kwargs):
        made = object.__new__(cls)
        made.__dict__.update(serial=len(StubLoader.made), args=args, kwargs=kwargs, events=[])
        StubLoader.made.append(made)
        return made

    def __setstate__(self, state):
        self.events.append(("build", state))

    def append(self, value):
        self.events.append(("append", value))

    def extend(self, values):
        for value in values:
            self.append(value)

    def add(self, value):
        self.events.append(("add", value))

    def __setitem__(self, key, value):
        self.events.append(("set", key, value))

    def __call__(self, *args):
        return Stub(self, *args)


Stub.__module__ = "graph_classes"


class StubLoader(pickle.Unpickler):
    classes = {}
    made = []  # of the load under way

    def find_class(self, module, name):
        if (module, name) not in self.classes:
            self.classes[module, name] = type(f"{module}.{name}", (Stub,), {"__module__": "graph_classes"})
        return self.classes[module, name]

    def persistent_load(self, pid):
        return self.find_class("persistent", "")(pid)


class StubComparer(compare.Comparer):
    def parts(self, a, b, path):
        if isinstance(a, Stub):
            for name in ("args", "kwargs", "events"):
                left, right = a.__dict__[name], b.__dict__[name]
                if name == "kwargs":
                    left, right = [x for p in left.items() for x in p], [x for p in right.items() for x in p]
                if name == "events":
                    if [e[0] for e in left] != [e[0] for e in right]:
                        self.differ(path, f"{[e[0] for e in left]!s:.200} became {[e[0] for e in right]!s:.200}")
                    left, right = [x for e in left for x in e[1:]], [x for e in right for x in e[1:]]
                self.sequence(left, right, (path, name))
        else:
            super().parts(a, b, path)


_looks = compare.looks


def looks(value, depth=0):
    return f"stub {value.serial}" if isinstance(value, Stub) else _looks(value, depth)


compare.looks = looks


def stub_load(data):
    """Gives what each pickle of a file comes to, and the calls it makes; None if the interpreter cannot."""
    file, found = io.BytesIO(data), []
    while file.tell() < len(data):
        StubLoader.made = []
        found.append((StubLoader(file, encoding="bytes").load(), StubLoader.made))
    return found


def compare_loaded(before, after):
    try:
        left = stub_load(before)
    except Exception:
        return 0  # such a pickle is no class's own: the opcodes have been compared
    right = stub_load(after)
    if len(left) != len(right):
        raise Difference(f"{len(left)} pickles became {len(right)}")
    compared = 0
    for (a, called), (b, calls) in zip(left, right):
        comparer = StubComparer()
        comparer.compare(a, b)
        compare_calls(comparer, called, calls)
        compared += comparer.compared
    return compared


def check(before, after):
    return compare_evaluated(before, after) + compare_loaded(before, after)


def main(original, result):
    results = archive.read(result)
    failed = compared = pickles = loaded = 0
    for name, meta, before in archive.read(original):
        other, outcome, after = next(results, ("nothing", {}, b""))
        if name != other:
            sys.exit(f"{name} is {other} in the results")
        if outcome.get("error"):
            continue  # the other side has said so
        if meta.get("want") == "any":
            try:
                evaluate(before)
            except Exception:
                continue  # it cannot be evaluated
        pickles += 1
        try:
            compared += compare_evaluated(before, after)
            of = compare_loaded(before, after)
            compared, loaded = compared + of, loaded + (of > 0)
            if not meta.get("any protocol") and meta.get("want") != "any":
                compare.check_protocol(before, after)
        except Exception as err:
            failed += 1
            if failed <= 20:
                shown = f"\n    was {before.hex()}\n    is  {after.hex()}" if len(before) <= 400 else ""
                print(f"{name}: {type(err).__name__}: {err}{shown}")
    print(f"{pickles} pickles compared, {loaded} of them loaded too, {compared} nodes, {failed} differ")
    sys.exit(1 if failed else 0)


def self_test():
    """Damages that must be found: sound pickles, each with damaged ones, and whether classes can tell."""
    one = b"G?\xf0\0\0\0\0\0\0"
    klass = b"(cmod\nKlass\n\x94)\x81\x94"
    both, evaluated = True, False
    cases = [
        (b"]\x94(h\0K\x01]\x94h\x01e.", [
            (b"]\x94(h\0K\x01]\x94h\0e.", both), (b"]\x94(h\0K\x01]\x94]e.", both), (b"]\x94(]K\x01]\x94h\x01e.", both), (b"]\x94(h\0" + one + b"]\x94h\x01e.", both),
            (b"]\x94(h\0K\x01]\x94e.", both)]),
        (klass + b"}\x94(\x8c\x01aK\x01\x8c\x01b" + one + b"ubh\x01t.", [
            (klass + b"}\x94(\x8c\x01b" + one + b"\x8c\x01aK\x01ubh\x01t.", both),
            (klass.replace(b"\x81", b"R") + b"}\x94(\x8c\x01aK\x01\x8c\x01b" + one + b"ubh\x01t.", evaluated),
            (klass.replace(b"Klass", b"Other") + b"}\x94(\x8c\x01aK\x01\x8c\x01b" + one + b"ubh\x01t.", both),
            (klass + b"}\x94(\x8c\x01aK\x01\x8c\x01b" + one.replace(b"?", b"\xbf") + b"ubh\x01t.", both),
            (klass + b"h\x01t.", both)]),
        (b"}\x94cmod\nset_item\n(h\0\x8c\x01kK\x01tR0.", [  # a call whose result is thrown away
            (b"}\x94.", both), (b"}\x94cmod\nset_item\n(h\0\x8c\x01kK\x02tR0.", both), (b"}\x94cmod\nset_item\n(}\x8c\x01kK\x01tR0.", both),
            (b"}\x94" + b"cmod\nset_item\n(h\0\x8c\x01kK\x01tR0" * 2 + b".", both)]),
        (b"cmod\nKlass\n)R\x94cmod\nset_state\nh\0}\x8c\x01aK\x01s\x86R0.", [
            (b"cmod\nKlass\n)R\x94.", both), (b"cmod\nKlass\n)R\x94cmod\nset_state\nh\0}\x86R0.", both),
            (b"cmod\nKlass\n)R\x94cmod\nset_state\nh\0}\x8c\x01aK\x01s\x86R0cmod\nmore\n)R0.", both)]),
        (b"\x8f(K\x01\x8c\x01xcmod\nKlass\n)R\x90.", [(b"\x8f(K\x01\x8c\x01ycmod\nKlass\n)R\x90.", both), (b"\x8f(K\x01cmod\nKlass\n)R\x90.", both)]),
        (b"\x8c\x03mod\x8c\x01K\x93)\x81}b.", [(b"\x8c\x03mod\x8c\x01L\x93)\x81}b.", both), (b"\x8c\x03mod\x8c\x01K\x93)\x81Nb.", both)]),
        (b"U\x01aX\x01\0\0\0a\x86.", [(b"X\x01\0\0\0aX\x01\0\0\0a\x86.", both), (b"U\x01aU\x01a\x86.", both), (b"C\x01aX\x01\0\0\0a\x86.", evaluated)]),
        (b"K\x01.K\x02.", [(b"K\x01.", both), (b"K\x01.K\x03.", both)]),
        # A call before its argument has its state.
        (b"cm\nK\n)R\x94}bcm\nf\nh\0\x85R.", [(b"cm\nK\n)R\x94cm\nf\nh\0\x85Rh\0}b0.", evaluated)]),
        (b"}\x94(cm\nK\n)R\x94}bK\x01u.", [(b"}\x94(cm\nK\n)R\x94K\x01uh\x01}b0.", evaluated)]),
    ]
    found = 0
    for before, damaged in cases:
        for how in (compare_evaluated, compare_loaded):
            how(before, before)
            for after, seen in damaged:
                try:
                    how(before, after)
                except Difference:
                    found += 1
                else:
                    if seen or how is compare_evaluated:
                        sys.exit(f"{before!r} became {after!r}: not found by {how.__name__}")
    print(f"{found} damages found")


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    self_test() if sys.argv[1] == "--self-test" else main(*sys.argv[1:])
