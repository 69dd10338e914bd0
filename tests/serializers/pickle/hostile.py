"""Pickles that someone wrote to do harm: to whoever loads them, or to whatever reads them.

    hostile.py ARCHIVE CANARY

Meta "want" is as in opcodes.py. Where what a pickle names would be called, the file CANARY would be made.
"""
import os
import pickle
import struct
import sys

import archive
from opcodes import OPS, USED, asm, klass, one, op, word


def called(canary):
    """Calls that make the file: they are data."""
    path = canary.encode()
    touch = b"touch '%s'" % path
    text = ("BINUNICODE", canary)
    command = ("BINUNICODE", touch.decode())
    python = ("BINUNICODE", f"open({canary!r}, 'w')")
    for module in (b"os", b"posix", b"nt"):
        yield f"{module.decode()}.system", "system", asm(("GLOBAL", (module, b"system")), "MARK", command, "TUPLE", "REDUCE")
    yield "os.system, protocol 0", "system", b"cos\nsystem\n(S\"" + touch + b"\"\ntR."
    yield "os.system by INST", "system", b"(S\"" + touch + b"\"\nios\nsystem\n."
    yield "os.system by OBJ", "system", asm("MARK", ("GLOBAL", (b"os", b"system")), command, "OBJ")
    yield "os.system by STACK_GLOBAL", "system", asm(("PROTO", 4), ("FRAME", 9), word("os"), word("system"), "STACK_GLOBAL", command, "TUPLE1", "REDUCE")
    yield "os.system by NEWOBJ", "system", asm(("PROTO", 2), ("GLOBAL", (b"os", b"system")), command, "TUPLE1", "NEWOBJ")
    yield "os.system by NEWOBJ_EX", "system", asm(("PROTO", 4), ("GLOBAL", (b"os", b"system")), "EMPTY_TUPLE", "EMPTY_DICT", word("command"), command, "SETITEM", "NEWOBJ_EX")
    yield "os.system thrown away", "system", asm(("GLOBAL", (b"os", b"system")), "MARK", command, "TUPLE", "REDUCE", "POP", "NONE")
    yield "builtins.eval", "eval", asm(("GLOBAL", (b"builtins", b"eval")), "MARK", python, "TUPLE", "REDUCE")
    yield "__builtin__.eval", "eval", asm(("GLOBAL", (b"__builtin__", b"eval")), "MARK", python, "TUPLE", "REDUCE")
    yield "builtins.exec", "exec", asm(("GLOBAL", (b"builtins", b"exec")), "MARK", python, "TUPLE", "REDUCE")
    yield "builtins.open", "open", asm(("GLOBAL", (b"builtins", b"open")), "MARK", text, ("BINUNICODE", "w"), "TUPLE", "REDUCE")
    yield "getattr of an import", "getattr", asm(("GLOBAL", (b"builtins", b"getattr")), "MARK", ("GLOBAL", (b"builtins", b"__import__")), "MARK", ("BINUNICODE", "os"), "TUPLE", "REDUCE", ("BINUNICODE", "system"), "TUPLE", "REDUCE", "MARK", command, "TUPLE", "REDUCE")
    yield "subprocess.Popen in a dict", "Popen", asm("EMPTY_DICT", ("BINUNICODE", "000000000000"), "EMPTY_DICT", ("BINUNICODE", "x"), ("GLOBAL", (b"subprocess", b"Popen")), "MARK", "MARK", ("BINUNICODE", "touch"), text, "LIST", "TUPLE", "REDUCE", "SETITEM", "SETITEM")
    yield "os.system by BUILD", "Klass", asm(klass(), "EMPTY_TUPLE", "REDUCE", ("BINPUT", 0), "EMPTY_DICT", ("BINUNICODE", "__setstate__"), ("GLOBAL", (b"os", b"system")), "SETITEM", "BUILD", command, "BUILD")
    yield "os.system for an id", "system", asm(("GLOBAL", (b"os", b"system")), "MARK", command, "TUPLE", "REDUCE", "BINPERSID")
    yield "a dict that calls for its key", "system", asm("EMPTY_DICT", ("GLOBAL", (b"os", b"system")), "MARK", command, "TUPLE", "REDUCE", "NONE", "SETITEM")


def laughs(kind, depth=40, width=10):
    """Ten of ten of ten: nothing may be written out as often as it is referred to."""
    steps = [("PROTO", 4)]
    steps += ["EMPTY_LIST", "MEMOIZE"] if kind != "string" else [word("ha" * 100), "MEMOIZE"]
    for i in range(depth):
        get = ("LONG_BINGET", i)
        if kind == "tuple":
            steps += ["MARK", *[get] * width, "TUPLE", "MEMOIZE"]
        elif kind == "dict":
            steps += ["EMPTY_DICT", "MEMOIZE", "MARK", *[s for j in range(width) for s in (one(j), get)], "SETITEMS"]
        elif kind == "call":
            steps += [klass(), "MARK", *[get] * width, "TUPLE", "REDUCE", "MEMOIZE"]
        elif kind == "state":
            steps += [klass(), "EMPTY_TUPLE", "NEWOBJ", "MEMOIZE", "MARK", *[get] * width, "LIST", "BUILD"]
        elif kind == "frozenset":
            steps += ["MARK", *[s for j in range(width) for s in (get, one(j), "TUPLE2")], "FROZENSET", "MEMOIZE"]
        elif kind == "dup":
            steps += ["EMPTY_LIST", "MEMOIZE", "MARK", get, *["DUP"] * (width - 1), "APPENDS"]
        else:
            steps += ["EMPTY_LIST", "MEMOIZE", "MARK", *[get] * width, "APPENDS"]
    return asm(*steps)


def bombs():
    for kind in ("list", "tuple", "dict", "call", "state", "frozenset", "dup", "string"):
        yield f"laughs by {kind}", "graph", laughs(kind)
    deeper = [("PROTO", 2), "EMPTY_DICT", ("BINPUT", 0)]
    for i in range(200):  # mappings of mappings, each entry the same: what is split must not multiply
        deeper += ["EMPTY_DICT", ("LONG_BINPUT", i + 1), "MARK", *[s for j in range(20) for s in (one(j), ("LONG_BINGET", i))], "SETITEMS"]
    yield "laughs by mappings", "graph", asm(*deeper)
    for index in (2**31 - 1, 2**31, 2**32 - 1):
        yield f"memo at {index}", "any", asm("NONE", ("LONG_BINPUT", index), ("LONG_BINGET", index), ("PROTO", 2), "TUPLE2")
    for index in (2**31, 2**32, 2**63, 2**64, 10**30, 10**4000):
        yield f"memo in text of {len(str(index))} digits, {index % 97}", "any", asm("NONE", ("PUT", index), ("GET", index), ("PROTO", 2), "TUPLE2")
    yield "memo far apart", "any", asm("NONE", *[("LONG_BINPUT", i * 40_000) for i in range(100_000)])
    yield "memo of one many times", "graph", asm("EMPTY_LIST", *[("LONG_BINPUT", i) for i in range(200_000)])
    yield "DUP many times", "graph", asm("MARK", "EMPTY_LIST", *["DUP"] * 200_000, "LIST")
    number = ("LONG4", b"\x7f" * 100_000)
    yield "DUP of a large number", "any", asm(("PROTO", 2), "MARK", number, *["DUP"] * 100_000, "LIST")
    yield "a large number memoized late and often", "any", asm(("PROTO", 2), number, "EMPTY_LIST", "POP", *[("LONG_BINPUT", i) for i in range(20_000)])
    yield "long names of globals", "any", asm(("GLOBAL", (b"m", b"x" * 4000)), ("BINPUT", 0), "MARK", *[("BINGET", 0)] * 50_000, "TUPLE", "TUPLE2", ("PROTO", 2))
    yield "a name of a global that is too long", "error", asm(("GLOBAL", (b"m", b"x" * 5000)))
    lists = [[i] for i in range(60_000)]
    yield "many regions", "graph", pickle.dumps({"000000000000": {f"r-{i}": {"own": own, "last": lists[i - 1] if i else 0} for i, own in enumerate(lists)}}, 4)
    yield "BUILD many times", "graph", asm(klass(), "EMPTY_TUPLE", "REDUCE", *["NONE", "BUILD"] * 50_000)
    yield "one state many times", "graph", asm(("PROTO", 2), klass(), "EMPTY_TUPLE", "REDUCE", "EMPTY_LIST", ("BINPUT", 0), "MARK", *["NONE"] * 1000, "APPENDS", "BUILD", *[("BINGET", 0), "BUILD"] * 20_000)
    yield "one list filled from many places", "graph", asm("EMPTY_LIST", ("BINPUT", 0), "MARK", *[s for _ in range(20_000) for s in (("BINGET", 0), "NONE", "APPEND", "POP", one(1))], "LIST")
    yield "calls thrown away", "graph", asm("EMPTY_LIST", ("BINPUT", 0), *[klass(b"f"), "MARK", ("BINGET", 0), "TUPLE", "REDUCE", "POP"] * 20_000)
    yield "calls of a growing list thrown away", "graph", asm("EMPTY_LIST", ("BINPUT", 0), *["NONE", "APPEND", klass(b"f"), "MARK", ("BINGET", 0), "TUPLE", "REDUCE", "POP"] * 20_000)
    yield "empty pickles", "graph", b"N." * 50_000
    yield "one key many times", "graph", asm("EMPTY_DICT", "MARK", *[("BINUNICODE", "key"), "NONE"] * 50_000, "SETITEMS")
    yield "frames of nothing", "graph", asm(("PROTO", 4), *[("FRAME", 0)] * 50_000, "NONE")
    yield "APPENDS of nothing many times", "graph", asm("EMPTY_LIST", *["MARK", "APPENDS"] * 100_000)
    digits = b"7" * 1_000_000
    yield "a million digits in INT", "any", asm(("INT", digits))
    yield "a million digits in LONG", "any", asm(("LONG", digits + b"L"))
    yield "a million digits in FLOAT", "any", asm(("FLOAT", digits))
    yield "a million digits in GET", "any", asm("NONE", ("GET", digits))
    yield "a million digits in PUT", "any", asm("NONE", ("PUT", digits))
    yield "a million zeros in INT", "any", asm(("INT", b"0" * 1_000_000))
    yield "LONG4 of a million bytes", "graph", asm(("PROTO", 2), ("LONG4", b"\x7f" * 1_000_000))
    yield "a line without an end", "error", b"V" + b"x" * 2_000_000
    yield "a global without an end", "error", b"c" + b"x" * 1_000_000
    yield "many escapes", "graph", asm(("UNICODE", rb"\u000a\U0001F600" * 50_000))
    yield "many escapes in STRING", "graph", asm(("STRING", b"'" + rb"\x00\n" * 100_000 + b"'"))
    yield "a key of a megabyte", "graph", asm("EMPTY_DICT", ("BINUNICODE", "k" * 1_000_000), "NONE", "SETITEM")
    yield "keys of a megabyte that differ at their end", "graph", asm("EMPTY_DICT", "MARK", *[s for i in range(4) for s in (("BINUNICODE", "k" * 1_000_000 + str(i)), "NONE")], "SETITEMS")


def nested(depth):
    """Far deeper than anything may recurse. A limit on depth may refuse them, if it says so."""
    yield f"{depth} marks", "error", b"(" * depth + b"."
    yield f"{depth} marks and a list", "any", b"(" * depth + b"l."
    yield f"{depth} lists by LIST", "any", b"(" * depth + b"l" * depth + b"."
    yield f"{depth} lists by APPEND", "any", b"]" * depth + b"a" * (depth - 1) + b"."
    yield f"{depth} values and no end", "error", b"N" * depth
    yield f"{depth} lists and no end", "error", b"]" * depth
    yield f"{depth} dicts", "any", b"}" + b"K\1}" * (depth - 1) + b"s" * (depth - 1) + b"."
    depth = min(depth, 200_000)
    yield f"{depth} tuples", "any", b"\x80\x02)" + b"\x85" * depth + b"."
    yield f"{depth} calls", "any", b"\x80\x02" + b"cm\nC\n" * (depth // 4) + b")" + b"R\x85" * (depth // 4) + b"."
    yield f"{depth} states", "any", b"\x80\x02" + b"cm\nC\n)\x81" * (depth // 8) + b"b" * (depth // 8 - 1) + b"."
    yield f"{depth} frozensets", "any", b"\x80\x04" + b"(" * depth + b"\x91" * depth + b"."
    yield f"{depth} ids", "any", b"\x80\x02N" + b"Q" * depth + b"."


def lies():
    """Lengths that are not so."""
    for name, o in OPS.items():
        if not o.arg:
            continue
        form = {"string4": "<i", "long4": "<i", "string1": "<B", "long1": "<B", "bytes1": "<B", "unicodestring1": "<B", "bytes4": "<I", "unicodestring4": "<I",
                "bytes8": "<Q", "bytearray8": "<Q", "unicodestring8": "<Q", "uint8": "<Q"}.get(o.arg.name)
        if form is None:
            continue
        code = o.code.encode("latin-1")
        USED.add(name)
        bits = 8 * struct.calcsize(form)
        lengths = {4, 5, 100, 2**7, 2**8 - 1, 2**15, 2**16, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 5, 2**32 - 1, 2**32, 2**33, 2**62, 2**63 - 1, 2**63, 2**64 - 9, 2**64 - 1} if form[1].isupper() else {4, 100, 2**15, 2**24, 2**30, 2**31 - 1, -1, -2, -(2**31), -(2**16)}
        for length in sorted(n for n in lengths if n < 2 ** (bits - form[1].islower())):
            for before in (b"", b"\x80\x04", b"\x80\x04]K\x01a("):
                yield f"{name} that says {length} after {before.hex() or 'nothing'}", "error", before + code + struct.pack(form, length) + b"ab."


def main(path, canary):
    proof = canary + ".proof"
    pickle.loads(asm(("GLOBAL", (b"builtins", b"open")), "MARK", ("BINUNICODE", proof), ("BINUNICODE", "w"), "TUPLE", "REDUCE")).close()
    if not os.path.exists(proof):
        sys.exit("a pickle that was loaded did no harm: the others prove nothing")
    with open(path, "wb") as out:
        for name, shows, data in called(canary):
            archive.write(out, name, data, want="graph", shows=shows, compare=True)
        for name, want, data in bombs():
            archive.write(out, name, data, want=want, compare=len(data) < 50_000)
        for depth in (1000, 1_000_000):
            for name, want, data in nested(depth):
                archive.write(out, name, data, want=want, compare=depth == 1000)
        for name, want, data in lies():
            archive.write(out, name, data, want=want)


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    main(*sys.argv[1:])
