"""Pickles written by hand, opcode by opcode: all there are, in ways that no pickler uses them.

    opcodes.py ARCHIVE

Meta "want" says what must become of a pickle: "graph" that it is kept, "error" that it is refused, "any"
that either will do, since the interpreter's own unpicklers do not agree about it or would fail where
nothing is known of what a name stands for.
"""
import pickletools
import struct
import sys

import archive
import stubs

OPS = {op.name: op for op in pickletools.opcodes}
USED = set()


def little(value):
    return b"" if value == 0 else value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def counted(form):
    return lambda data: struct.pack(form, len(data)) + data


def text(form):
    return lambda s: counted(form)(s.encode("utf-8", "surrogatepass") if isinstance(s, str) else s)


ARGUMENTS = {
    "decimalnl_short": lambda v: (v if isinstance(v, bytes) else b"%d" % v) + b"\n",
    "decimalnl_long": lambda v: (v if isinstance(v, bytes) else b"%dL" % v) + b"\n",
    "floatnl": lambda v: (v if isinstance(v, bytes) else repr(v).encode()) + b"\n",
    "int4": lambda v: struct.pack("<i", v), "uint1": lambda v: struct.pack("<B", v), "uint2": lambda v: struct.pack("<H", v),
    "uint4": lambda v: struct.pack("<I", v), "uint8": lambda v: struct.pack("<Q", v), "float8": lambda v: struct.pack(">d", v),
    "long1": lambda v: counted("<B")(v if isinstance(v, bytes) else little(v)), "long4": lambda v: counted("<i")(v if isinstance(v, bytes) else little(v)),
    "stringnl": lambda v: v + b"\n", "string4": counted("<i"), "string1": counted("<B"),
    "bytes4": counted("<I"), "bytes1": counted("<B"), "bytes8": counted("<Q"), "bytearray8": counted("<Q"),
    "unicodestringnl": lambda v: v + b"\n", "unicodestring1": text("<B"), "unicodestring4": text("<I"), "unicodestring8": text("<Q"),
    "stringnl_noescape_pair": lambda v: b"%s\n%s\n" % v, "stringnl_noescape": lambda v: v + b"\n",
}


def op(name, *arg):
    """One opcode and its argument as bytes."""
    USED.add(name)
    o = OPS[name]
    return o.code.encode("latin-1") + (ARGUMENTS[o.arg.name](*arg) if o.arg else b"")


def asm(*steps):
    """Opcodes by name, by (name, argument), or as bytes, and STOP."""
    return b"".join(s if isinstance(s, bytes) else op(s) if isinstance(s, str) else op(*s) for s in steps) + op("STOP")


def word(s):
    return ("SHORT_BINUNICODE", s)


def one(n):
    return ("BININT1", n)


def klass(name=b"Klass"):
    return ("GLOBAL", (b"some.module", name))


MADE = [klass(), "EMPTY_TUPLE", "REDUCE"]

# For each opcode a pickle that has it, with nothing above its protocol but PROTO itself.
EACH = {
    "INT": [("INT", -5)], "BININT": [("BININT", -(2**31))], "BININT1": [one(255)], "BININT2": [("BININT2", 65535)],
    "LONG": [("LONG", 2**70)], "LONG1": [("LONG1", -(2**70))], "LONG4": [("LONG4", 2**3000)],
    "STRING": [("STRING", b"'it is'")], "BINSTRING": [("BINSTRING", b"q" * 300)], "SHORT_BINSTRING": [("SHORT_BINSTRING", b"q")],
    "BINBYTES": [("BINBYTES", b"\0" * 300)], "SHORT_BINBYTES": [("SHORT_BINBYTES", b"\xff")], "BINBYTES8": [("BINBYTES8", b"\xff")],
    "BYTEARRAY8": [("BYTEARRAY8", b"ab")], "NONE": ["NONE"], "NEWTRUE": ["NEWTRUE"], "NEWFALSE": ["NEWFALSE"],
    "UNICODE": [("UNICODE", rb"a\u20acb")], "SHORT_BINUNICODE": [word("é")], "BINUNICODE": [("BINUNICODE", "é" * 200)], "BINUNICODE8": [("BINUNICODE8", "é")],
    "FLOAT": [("FLOAT", 1.5)], "BINFLOAT": [("BINFLOAT", 1.5)],
    "EMPTY_LIST": ["EMPTY_LIST"], "APPEND": ["MARK", "LIST", ("INT", 1), "APPEND"], "APPENDS": ["EMPTY_LIST", "MARK", one(1), one(2), "APPENDS"], "LIST": ["MARK", ("INT", 1), "LIST"],
    "EMPTY_TUPLE": ["EMPTY_TUPLE"], "TUPLE": ["MARK", "NONE", "TUPLE"], "TUPLE1": [one(1), "TUPLE1"], "TUPLE2": [one(1), one(2), "TUPLE2"], "TUPLE3": [one(1), one(2), one(3), "TUPLE3"],
    "EMPTY_DICT": ["EMPTY_DICT"], "DICT": ["MARK", ("INT", 1), ("INT", 2), "DICT"], "SETITEM": ["MARK", "DICT", ("INT", 1), "NONE", "SETITEM"],
    "SETITEMS": ["EMPTY_DICT", "MARK", one(1), one(2), one(3), one(4), "SETITEMS"],
    "EMPTY_SET": ["EMPTY_SET"], "ADDITEMS": ["EMPTY_SET", "MARK", one(1), one(2), "ADDITEMS"], "FROZENSET": ["MARK", one(1), "FROZENSET"],
    "POP": [("INT", 1), ("INT", 2), "POP"], "DUP": ["MARK", ("INT", 1), "DUP", "TUPLE"], "MARK": ["MARK", "LIST"], "POP_MARK": [one(1), "MARK", one(2), "POP_MARK"],
    "GET": ["MARK", "LIST", ("PUT", 7), ("GET", 7), "APPEND"], "BINGET": ["EMPTY_LIST", ("BINPUT", 7), ("BINGET", 7), "APPEND"],
    "LONG_BINGET": ["EMPTY_LIST", ("LONG_BINPUT", 70_000), ("LONG_BINGET", 70_000), "APPEND"],
    "PUT": ["NONE", ("PUT", 3)], "BINPUT": ["NONE", ("BINPUT", 3)], "LONG_BINPUT": ["NONE", ("LONG_BINPUT", 3)], "MEMOIZE": ["EMPTY_LIST", "MEMOIZE", ("BINGET", 0), "APPEND"],
    "EXT1": [("EXT1", 0xF1)], "EXT2": [("EXT2", 0xF102)], "EXT4": [("EXT4", 0x7FF10203)],
    "GLOBAL": [klass()], "STACK_GLOBAL": [word("some.module"), word("Klass.Inner"), "STACK_GLOBAL"],
    "REDUCE": [klass(), "MARK", ("INT", 1), "TUPLE", "REDUCE"], "BUILD": [klass(), "MARK", "TUPLE", "REDUCE", "MARK", "DICT", "BUILD"],
    "INST": ["MARK", ("INT", 1), ("INST", (b"some.module", b"Klass"))], "OBJ": ["MARK", klass(), ("INT", 1), "OBJ"],
    "NEWOBJ": [klass(), "EMPTY_TUPLE", "NEWOBJ"], "NEWOBJ_EX": [klass(), one(1), "TUPLE1", "EMPTY_DICT", word("k"), one(2), "SETITEM", "NEWOBJ_EX"],
    "PROTO": ["NONE"], "STOP": ["NONE"], "FRAME": [("FRAME", 2), "NONE"], "PERSID": [("PERSID", b"an id")], "BINPERSID": [one(1), one(2), "TUPLE2", "BINPERSID"],
}


def each():
    for name, steps in EACH.items():
        least = OPS[name].proto
        for protocol in range(least, 6):
            head = [("PROTO", protocol)] if protocol >= 2 else []
            yield f"{name} in protocol {protocol}", "graph", asm(*head, *steps)
    yield "out-of-band buffer", "buffer", asm(("PROTO", 5), "NEXT_BUFFER")
    yield "out-of-band buffer, read only", "buffer", asm(("PROTO", 5), "NEXT_BUFFER", "READONLY_BUFFER")
    yield "read only what is no buffer", "any", asm(("PROTO", 5), ("SHORT_BINBYTES", b"x"), "READONLY_BUFFER")


def values():
    for v in (0, 1, -1, 2**31 - 1, -(2**31)):
        yield f"BININT {v}", asm(("BININT", v))
        yield f"INT {v}", asm(("INT", v))
        yield f"LONG {v}", asm(("LONG", v))
    for v in (b"00", b"01", b"+5", b"12345678901234567890123"):
        yield f"INT {v}", asm(("INT", v))
    for v in (b"0L", b"5", b"-7L", b"9" * 10_000 + b"L", b"-" + b"1" * 999 + b"L"):
        yield f"LONG {v[:9]} of {len(v)}", asm(("LONG", v))
    for v in (b"", b"\0", b"\1\0\0", b"\xff", b"\xff\xff\xff", b"\0\x80", b"\xff" * 254 + b"\x7f", b"\0" * 255):
        yield f"LONG1 {v[:9].hex()} of {len(v)}", asm(("PROTO", 2), ("LONG1", v))
        yield f"LONG4 {v[:9].hex()} of {len(v)}", asm(("PROTO", 2), ("LONG4", v))
    yield "LONG4 of 60,000", asm(("PROTO", 2), ("LONG4", b"\x5a" * 60_000))
    for v in (b"0", b"-0.0", b"1e5", b"-inf", b"nan", b"inf", b".5", b"5.", b"1e-400", b"123456789012345678901234567890", b"0.1000000000000000055511151231257827"):
        yield f"FLOAT {v}", asm(("FLOAT", v))
    for v in ("0000000000000000", "8000000000000000", "7ff8000000000000", "7ff8000000000001", "fff8000000000000", "7ff4000000000000", "7ff0000000000000", "0000000000000001", "3ff8000000000000", "47efffffe0000000", "36a0000000000000", "3f10000000000000"):
        yield f"BINFLOAT {v}", asm(b"G" + bytes.fromhex(v))
    USED.add("BINFLOAT")
    for v in (b"''", b'""', b"'a\\n\\x41\\\\'", b'"it\'s"', b"'it\\'s'", b"'\\x00\\xff\\t\\r\\v\\f\\b\\a\\101\\7'", b"'a\"b'", b"'" + b"q" * 70_000 + b"'"):
        yield f"STRING {v[:30]} of {len(v)}", asm(("STRING", v))
    for v in (b"", b"q", b"\0\n\r", b"\xff\xfe", "é".encode(), b"q" * 255):
        yield f"SHORT_BINSTRING {v[:9]} of {len(v)}", asm(("SHORT_BINSTRING", v))
        yield f"BINSTRING {v[:9]} of {len(v)}", asm(("BINSTRING", v))
        yield f"SHORT_BINBYTES {v[:9]} of {len(v)}", asm(("PROTO", 3), ("SHORT_BINBYTES", v))
        yield f"BINBYTES {v[:9]} of {len(v)}", asm(("PROTO", 3), ("BINBYTES", v))
        yield f"BINBYTES8 {v[:9]} of {len(v)}", asm(("PROTO", 4), ("BINBYTES8", v))
        yield f"BYTEARRAY8 {v[:9]} of {len(v)}", asm(("PROTO", 5), ("BYTEARRAY8", v), "DUP", "TUPLE2")
    for v in ("", "a", "\0", "é", "\ud800", "\udfff\ud800", "\U0010ffff", "a\nb", "\ud83d\ude00", "q" * 255):
        yield f"SHORT_BINUNICODE {v[:5]!r} of {len(v)}", asm(("PROTO", 4), ("SHORT_BINUNICODE", v))
        yield f"BINUNICODE {v[:5]!r} of {len(v)}", asm(("BINUNICODE", v))
        yield f"BINUNICODE8 {v[:5]!r} of {len(v)}", asm(("PROTO", 4), ("BINUNICODE8", v))
    for v in (rb"", rb"a", rb"\u000a", rb"\u005cu0041", rb"\\", rb"\\u0041", rb"\ud800", rb"\U0001F600", b"\xe9\xff", rb"\x41", rb"\n", rb"a\b", b"q" * 70_000):
        yield f"UNICODE {v[:12]} of {len(v)}", asm(("UNICODE", v))


def graphs():
    yield "memo with gaps", asm("EMPTY_LIST", ("BINPUT", 200), one(5), ("LONG_BINPUT", 100_000), "APPEND", ("LONG_BINGET", 100_000), "APPEND", ("BINGET", 200), "APPEND")
    yield "memo overwritten", asm("MARK", "EMPTY_LIST", ("BINPUT", 0), ("BINGET", 0), "EMPTY_LIST", ("BINPUT", 0), ("BINGET", 0), "TUPLE")
    yield "memo overwritten by itself", asm("EMPTY_LIST", ("BINPUT", 0), ("BINPUT", 0), ("BINPUT", 1), ("BINGET", 0), "APPEND", ("BINGET", 1), "APPEND")
    yield "memo of text and of binary are one", asm("EMPTY_LIST", ("PUT", 300), ("LONG_BINGET", 300), "APPEND", ("GET", 300), "APPEND")
    yield "MEMOIZE after a gap", asm(("PROTO", 4), "MARK", "EMPTY_LIST", ("BINPUT", 3), "EMPTY_DICT", "MEMOIZE", "EMPTY_SET", "MEMOIZE", "EMPTY_LIST", "MEMOIZE", ("BINGET", 1), ("BINGET", 2), ("BINGET", 3), "TUPLE")
    yield "memo of numbers", asm("MARK", one(5), ("BINPUT", 0), ("BINGET", 0), "NONE", ("BINPUT", 1), ("BINGET", 1), ("BINFLOAT", 2.5), ("BINPUT", 2), ("BINGET", 2), ("LONG", 2**99), ("BINPUT", 3), ("BINGET", 3), "TUPLE")
    yield "memo of globals", asm(klass(), ("BINPUT", 0), "EMPTY_TUPLE", "REDUCE", ("BINGET", 0), "EMPTY_TUPLE", "REDUCE", ("BINGET", 0), ("PROTO", 2), "TUPLE3")
    yield "GET of a tuple", asm(("PROTO", 2), one(1), "TUPLE1", ("BINPUT", 0), ("BINGET", 0), ("BINGET", 0), "TUPLE3")
    yield "GET of an empty tuple", asm(("PROTO", 2), "EMPTY_TUPLE", ("BINPUT", 0), ("BINGET", 0), "TUPLE2")
    yield "GET of what was popped", asm(("PROTO", 2), "EMPTY_LIST", ("BINPUT", 0), "POP", ("BINGET", 0), ("BINGET", 0), "TUPLE2")
    yield "memo nobody gets", asm("EMPTY_LIST", ("BINPUT", 9), "POP", "NONE")
    yield "DUP of a list", asm(("PROTO", 2), "EMPTY_LIST", "DUP", one(1), "APPEND", "TUPLE2")
    yield "DUP of a number", asm(("PROTO", 2), one(1), "DUP", "DUP", "TUPLE3")
    yield "DUP of a string", asm(("PROTO", 4), word("x y"), "DUP", "DUP", "TUPLE3")
    yield "DUP of an object", asm(("PROTO", 2), *MADE, "DUP", "NONE", "BUILD", "TUPLE2")
    yield "DUP and POP", asm("EMPTY_LIST", "DUP", "POP", one(1), "APPEND")
    yield "POP of a mark", asm("EMPTY_LIST", "MARK", "POP", one(1), "APPEND")
    yield "POP_MARK with values", asm("EMPTY_LIST", "MARK", one(1), "EMPTY_LIST", "EMPTY_DICT", "POP_MARK", one(1), "APPEND")
    yield "marks in marks", asm("MARK", "MARK", "MARK", one(1), "LIST", one(2), "TUPLE", "MARK", "TUPLE", "LIST")
    yield "values below the result", asm(one(1), one(2), "EMPTY_LIST", one(3))
    yield "APPENDS of nothing", asm("EMPTY_LIST", "MARK", "APPENDS", "MARK", one(1), "APPENDS", "MARK", "APPENDS")
    yield "SETITEMS of nothing", asm("EMPTY_DICT", "MARK", "SETITEMS", "MARK", one(1), one(2), "SETITEMS")
    yield "ADDITEMS of nothing", asm(("PROTO", 4), "EMPTY_SET", "MARK", "ADDITEMS", "MARK", one(1), "ADDITEMS")
    yield "a list filled through the memo", asm("EMPTY_LIST", ("BINPUT", 0), "EMPTY_DICT", one(1), ("BINGET", 0), one(7), "APPEND", "SETITEM", "POP", ("BINGET", 0))
    yield "a list filled after it is in a tuple", asm(("PROTO", 2), "EMPTY_LIST", ("BINPUT", 0), "TUPLE1", ("BINGET", 0), one(7), "APPEND", "POP")
    yield "a list filled in two places", asm(("PROTO", 2), "EMPTY_LIST", ("BINPUT", 0), one(1), "APPEND", "TUPLE1", ("BINGET", 0), one(2), "APPEND", "POP", ("BINGET", 0), one(3), "APPEND", "TUPLE2")
    yield "a dict filled through the memo", asm(("PROTO", 2), "EMPTY_DICT", ("BINPUT", 0), "TUPLE1", ("BINGET", 0), one(7), one(8), "SETITEM", "POP")
    yield "a set filled through the memo", asm(("PROTO", 4), "EMPTY_SET", ("BINPUT", 0), "TUPLE1", ("BINGET", 0), "MARK", one(7), "ADDITEMS", "POP")
    yield "an object built through the memo", asm(("PROTO", 2), *MADE, ("BINPUT", 0), "TUPLE1", ("BINGET", 0), "EMPTY_DICT", "BUILD", "POP")
    yield "an object built twice", asm(*MADE, "EMPTY_DICT", "BUILD", "NONE", "BUILD")
    yield "an object built by itself", asm(*MADE, ("BINPUT", 0), ("BINGET", 0), "BUILD")
    yield "an object's state in its state", asm(*MADE, ("BINPUT", 0), "EMPTY_DICT", ("BINPUT", 1), ("BINUNICODE", "a"), ("BINGET", 1), "SETITEM", ("BINUNICODE", "o"), ("BINGET", 0), "SETITEM", "BUILD")
    yield "a state shared by two", asm(("PROTO", 2), *MADE, "EMPTY_DICT", ("BINPUT", 0), "BUILD", *MADE, ("BINGET", 0), "BUILD", "TUPLE2")
    yield "a state changed after BUILD", asm(*MADE, "EMPTY_DICT", ("BINPUT", 0), "BUILD", ("BINGET", 0), one(1), one(2), "SETITEM", "POP")
    yield "arguments shared by two calls", asm(("PROTO", 2), klass(), one(1), "TUPLE1", ("BINPUT", 0), "REDUCE", klass(), ("BINGET", 0), "NEWOBJ", ("BINGET", 0), "TUPLE3")
    yield "an argument changed after the call", asm(("PROTO", 2), klass(), "EMPTY_LIST", ("BINPUT", 0), "TUPLE1", "REDUCE", ("BINGET", 0), one(1), "APPEND", "TUPLE2")
    yield "an argument changed before and after the call", asm(("PROTO", 2), klass(), "EMPTY_LIST", ("BINPUT", 0), one(0), "APPEND", "TUPLE1", "REDUCE", ("BINGET", 0), one(1), "APPEND", "TUPLE2")
    yield "an argument built after the call", asm(("PROTO", 2), klass(), *MADE, ("BINPUT", 0), "TUPLE1", "REDUCE", ("BINGET", 0), "EMPTY_DICT", "BUILD", "TUPLE2")
    yield "a call of what a call gave", asm(klass(), "EMPTY_TUPLE", "REDUCE", "EMPTY_TUPLE", "REDUCE", "MARK", one(1), "TUPLE", "REDUCE")
    yield "a call for its effect", asm("EMPTY_DICT", ("BINPUT", 0), klass(b"set_item"), "MARK", ("BINGET", 0), one(1), one(2), "TUPLE", "REDUCE", "POP")
    yield "calls for their effects", asm(*[s for i in range(5) for s in (klass(b"f%d" % i), "EMPTY_TUPLE", "REDUCE", "POP")], "NONE")
    yield "a call for its effect under a mark", asm("EMPTY_LIST", ("BINPUT", 0), "MARK", klass(b"f"), "MARK", ("BINGET", 0), "TUPLE", "REDUCE", "POP_MARK", one(1), "APPEND")
    yield "a call for its effect below the result", asm(klass(b"f"), "EMPTY_TUPLE", "REDUCE", "NONE")
    yield "a built object that is popped", asm("EMPTY_LIST", ("BINPUT", 0), klass(), "MARK", ("BINGET", 0), "TUPLE", "REDUCE", "EMPTY_DICT", "BUILD", "POP")
    yield "effects between elements", asm("EMPTY_LIST", ("BINPUT", 0), "MARK", klass(b"f"), "EMPTY_TUPLE", "REDUCE", klass(b"g"), "MARK", ("BINGET", 0), "TUPLE", "REDUCE", "POP", klass(b"h"), "EMPTY_TUPLE", "REDUCE", "APPENDS")
    yield "a global for its effect", asm(klass(b"imported"), "POP", "NONE")
    yield "elements for an object", asm(*MADE, "MARK", one(1), one(2), "APPENDS", one(3), "APPEND", "MARK", one(1), one(2), "SETITEMS", one(3), one(4), "SETITEM")
    yield "elements and state in turns", asm(*MADE, one(3), "APPEND", "EMPTY_DICT", "BUILD", one(4), "APPEND", one(1), one(2), "SETITEM", "NONE", "BUILD")
    yield "ADDITEMS for an object", asm(("PROTO", 4), *MADE, "MARK", one(1), one(2), "ADDITEMS")
    yield "elements for what is outside", asm(("PERSID", b"7"), one(1), "APPEND", "EMPTY_DICT", "BUILD")
    yield "INST without arguments", asm("MARK", ("INST", (b"some.module", b"Klass")), "EMPTY_DICT", "BUILD")
    yield "OBJ of a class from the memo", asm(("PROTO", 2), klass(), ("BINPUT", 0), "MARK", ("BINGET", 0), "OBJ", "MARK", ("BINGET", 0), one(1), one(2), "OBJ", "TUPLE3")
    yield "NEWOBJ_EX with keywords shared", asm(("PROTO", 4), "EMPTY_DICT", "MEMOIZE", word("k"), one(1), "SETITEM", "POP", klass(), "EMPTY_TUPLE", ("BINGET", 0), "NEWOBJ_EX", klass(), "EMPTY_TUPLE", ("BINGET", 0), "NEWOBJ_EX", "TUPLE2")
    yield "STACK_GLOBAL from the memo", asm(("PROTO", 4), word("some.module"), "MEMOIZE", word("a"), "MEMOIZE", "STACK_GLOBAL", ("BINGET", 0), word("b"), "STACK_GLOBAL", ("BINGET", 0), ("BINGET", 1), "TUPLE2", "TUPLE3")
    yield "STACK_GLOBAL of strings of every kind", asm(("PROTO", 4), ("BINUNICODE8", "some.module"), ("UNICODE", b"Kl\\u0061ss"), "STACK_GLOBAL")
    yield "STACK_GLOBAL of odd names", asm(("PROTO", 4), word("m\no"), word("a\nb"), "STACK_GLOBAL", word(""), word(""), "STACK_GLOBAL", word("é"), word("\U0001F600"), "STACK_GLOBAL", "TUPLE3")
    yield "STACK_GLOBAL beyond a name", asm(("PROTO", 4), ("BINUNICODE", "m" * 70_000), word("a.b.<locals>.c"), "STACK_GLOBAL")
    yield "GLOBAL of odd names", asm(("PROTO", 2), ("GLOBAL", ("é".encode(), b"a.b c\td")), ("GLOBAL", (b" m ", b" ")), "TUPLE2")
    yield "GLOBAL of Python 2", asm(("PROTO", 2), ("GLOBAL", (b"__builtin__", b"xrange")), ("GLOBAL", (b"copy_reg", b"_reconstructor")), "TUPLE2")
    yield "extensions", asm(("PROTO", 2), ("EXT1", 1), ("EXT2", 1), ("EXT4", 1), "TUPLE3", ("EXT1", 255), "EMPTY_TUPLE", "NEWOBJ", ("EXT4", 2**31 - 1), "TUPLE3")
    yield "ids of every kind", asm(("PROTO", 2), ("PERSID", b""), ("PERSID", b"a b"), "NONE", "BINPERSID", "TUPLE3", ("BINUNICODE", "a\nb"), "BINPERSID", "MARK", ("BINUNICODE", "x"), *MADE, "TUPLE", "BINPERSID", "TUPLE3")
    yield "an id twice", asm(("PROTO", 2), ("PERSID", b"7"), ("PERSID", b"7"), ("PERSID", b"7"), ("BINPUT", 0), ("BINGET", 0), "TUPLE2", "TUPLE3")
    yield "a shared id", asm(("PROTO", 2), one(1), "TUPLE1", ("BINPUT", 0), "BINPERSID", ("BINGET", 0), "BINPERSID", ("BINGET", 0), "TUPLE3")
    yield "keys that are equal", asm("EMPTY_DICT", "MARK", one(1), one(1), ("PROTO", 2), "NEWTRUE", one(2), ("BINFLOAT", 1.0), one(3), ("LONG", 1), one(4), "SETITEMS")
    yield "a key twice", asm("EMPTY_DICT", "MARK", ("BINUNICODE", "k"), one(1), ("BINUNICODE", "l"), one(2), ("BINUNICODE", "k"), one(3), "SETITEMS")
    yield "a key twice, apart", asm("EMPTY_DICT", ("BINUNICODE", "k"), one(1), "SETITEM", ("BINUNICODE", "l"), one(2), "SETITEM", ("BINUNICODE", "k"), one(3), "SETITEM")
    yield "an element twice", asm(("PROTO", 4), "EMPTY_SET", "MARK", one(1), one(1), "ADDITEMS")
    yield "keys of every kind", asm(("PROTO", 4), "EMPTY_DICT", "MARK", "NONE", one(1), "EMPTY_TUPLE", one(2), *MADE, one(3), "MARK", one(1), "FROZENSET", one(4), klass(), one(5), ("PERSID", b"7"), one(6), ("EXT1", 1), one(7), ("SHORT_BINSTRING", b"s"), one(8), ("SHORT_BINBYTES", b"s"), one(9), ("BINFLOAT", float("nan")), one(10), "SETITEMS")
    yield "keys from the memo", asm(("PROTO", 2), ("BINUNICODE", "key"), ("BINPUT", 0), "POP", "EMPTY_DICT", ("BINGET", 0), ("BINGET", 0), "SETITEM", "EMPTY_DICT", ("BINGET", 0), one(1), "SETITEM", "TUPLE2")
    yield "a key that is changed later", asm("EMPTY_DICT", ("BINPUT", 1), *MADE, ("BINPUT", 0), one(1), "SETITEM", ("BINGET", 0), "EMPTY_DICT", "BUILD", "POP")
    yield "an entry set while its value is filled", asm("EMPTY_DICT", ("BINPUT", 0), ("BINUNICODE", "a"), "EMPTY_LIST", ("BINPUT", 1), "SETITEM", ("BINUNICODE", "b"), ("BINGET", 1), one(1), "APPEND", "SETITEM", ("BINGET", 1), one(2), "APPEND", "POP")
    yield "entries of a dict set in another's value", asm("EMPTY_DICT", ("BINPUT", 0), ("BINUNICODE", "a"), ("BINGET", 0), ("BINUNICODE", "b"), one(1), "SETITEM", "POP", "NONE", "SETITEM")
    yield "a list in itself", asm("EMPTY_LIST", ("BINPUT", 0), ("BINGET", 0), "APPEND")
    yield "a dict in itself", asm("EMPTY_DICT", ("BINPUT", 0), ("BINUNICODE", "me"), ("BINGET", 0), "SETITEM")
    yield "a tuple in itself", asm(("PROTO", 2), "EMPTY_LIST", ("BINPUT", 0), ("BINGET", 0), "TUPLE1", ("BINPUT", 1), "APPEND", "POP", ("BINGET", 1))
    yield "a frozenset in itself", asm(("PROTO", 4), *MADE, "MEMOIZE", "MARK", ("BINGET", 0), "FROZENSET", "MEMOIZE", "BUILD")
    yield "an object among its own arguments", asm("EMPTY_LIST", ("BINPUT", 0), klass(), "MARK", ("BINGET", 0), "TUPLE", "REDUCE", "APPEND")
    yield "frames", asm(("PROTO", 4), ("FRAME", 3), "EMPTY_LIST", one(1), "APPEND", ("FRAME", 2), one(2), "APPEND", one(3), ("FRAME", 1), "APPEND", ("FRAME", 1))
    yield "a frame of nothing", asm(("PROTO", 4), ("FRAME", 0), "EMPTY_LIST", ("FRAME", 0), one(1), "APPEND")
    yield "a frame before PROTO", asm(("FRAME", 3), ("PROTO", 4), "NONE")
    yield "PROTO again", asm(("PROTO", 2), "EMPTY_LIST", ("PROTO", 4), "NONE", "APPEND", ("PROTO", 2))
    yield "PROTO 0 and 1", asm(("PROTO", 0), "NONE") + asm(("PROTO", 1), "EMPTY_LIST")
    yield "opcodes of 5 without PROTO", asm(("BYTEARRAY8", b"x"), "MEMOIZE", word("a"), "TUPLE2")
    yield "opcodes of 4 in protocol 2", asm(("PROTO", 2), word("a"), "EMPTY_SET", "TUPLE2")
    yield "several", asm(one(1)) + asm(("PROTO", 4), "EMPTY_DICT", "MEMOIZE") + asm(("INT", 1)) + asm(("PROTO", 5), "EMPTY_DICT", "MEMOIZE", ("BINGET", 0), one(1), "POP", one(1), one(2), "SETITEM")
    yield "several that are alike", asm("EMPTY_DICT", ("BINUNICODE", "a"), one(1), "SETITEM") * 3
    yield "a hundred", b"".join(asm(("PROTO", 2), ("BININT", i)) for i in range(100))
    yield "10,000 of nothing", asm("EMPTY_LIST", "MARK", *["NONE"] * 10_000, "APPENDS")


def odd():
    """What the interpreter may take or not."""
    yield "FLOAT that is too large", asm(("FLOAT", b"1E+400"))
    yield "GLOBAL of nothing", asm(("GLOBAL", (b"", b"")))
    yield "STACK_GLOBAL of half a character", asm(("PROTO", 4), word("m"), word("\ud800"), "STACK_GLOBAL")
    yield "elements for a global", asm(klass(), ("BINPUT", 0), "MARK", one(1), one(2), "SETITEMS", ("BINGET", 0), "EMPTY_DICT", "BUILD", ("PROTO", 2), "TUPLE2")
    yield "a global whose name is computed", asm(("PROTO", 4), word("m"), *MADE, "STACK_GLOBAL")
    yield "a memo kept from one pickle to the next", asm("EMPTY_LIST", ("BINPUT", 0)) + asm(("BINGET", 0))
    yield "elements for a number", asm(one(1), one(2), "APPEND")
    yield "elements for a tuple", asm("EMPTY_TUPLE", "MARK", one(1), one(2), "SETITEMS")
    yield "state for a list", asm("EMPTY_LIST", "EMPTY_DICT", "BUILD")
    yield "state for a number", asm(one(1), "NONE", "BUILD")
    yield "entries for a list", asm("EMPTY_LIST", one(0), one(1), "SETITEM")
    yield "elements for a dict", asm("EMPTY_DICT", one(0), "APPEND")
    yield "elements for a list by ADDITEMS", asm(("PROTO", 4), "EMPTY_LIST", "MARK", one(0), "ADDITEMS")
    yield "a call of a number", asm(one(1), "EMPTY_TUPLE", "REDUCE")
    yield "a call with a list", asm(klass(), "EMPTY_LIST", "REDUCE")
    yield "NEWOBJ with a list", asm(("PROTO", 2), klass(), "EMPTY_LIST", "NEWOBJ")
    yield "NEWOBJ of no class", asm(("PROTO", 2), "NONE", "EMPTY_TUPLE", "NEWOBJ")
    yield "NEWOBJ_EX with no dict", asm(("PROTO", 4), klass(), "EMPTY_TUPLE", "NONE", "NEWOBJ_EX")
    yield "OBJ of no class", asm("MARK", one(1), "OBJ")
    yield "a key that cannot be one", asm("EMPTY_DICT", "EMPTY_LIST", one(1), "SETITEM")
    yield "an element that cannot be one", asm(("PROTO", 4), "EMPTY_SET", "MARK", "EMPTY_DICT", "ADDITEMS")
    yield "a frozenset of lists", asm(("PROTO", 4), "MARK", "EMPTY_LIST", "FROZENSET")
    yield "a frame in a frame", asm(("PROTO", 4), ("FRAME", 11), ("FRAME", 1), "NONE")
    yield "a frame that ends inside an opcode", asm(("PROTO", 4), ("FRAME", 1), one(1), "NONE", "NONE")
    yield "a frame over two pickles", asm(("PROTO", 4), ("FRAME", 4), "NONE") + asm(one(1))
    yield "INT in hexadecimal", asm(("INT", b"0x10"))
    yield "INT in octal", asm(("INT", b"010"))
    yield "INT with a blank", asm(("INT", b" 5 "))
    yield "INT with underscores", asm(("INT", b"1_000"))
    yield "LONG with underscores", asm(("LONG", b"1_000L"))
    yield "LONG in hexadecimal", asm(("LONG", b"0xffL"))
    yield "FLOAT with underscores", asm(("FLOAT", b"1_0.5"))
    yield "FLOAT infinity", asm(("FLOAT", b"Infinity"))
    yield "GET with zeros", asm("NONE", ("PUT", b"007"), ("GET", b"7"))
    yield "UNICODE beyond the last", asm(("UNICODE", rb"\U00110000"))
    yield "UNICODE cut", asm(("UNICODE", rb"\u12"))
    yield "UNICODE with a backslash at its end", asm(("UNICODE", b"a\\"))
    yield "SHORT_BINUNICODE that is no UTF-8", asm(("PROTO", 4), word(b"\xff\xfe"))
    yield "STRING with an odd escape", asm(("STRING", rb"'\q \x4'"))
    yield "EXT1 0", asm(("PROTO", 2), ("EXT1", 0))
    yield "EXT4 -1", asm(("PROTO", 2), ("EXT4", -1))
    yield "GLOBAL that is no UTF-8", asm(("GLOBAL", (b"\xff", b"\xfe")))
    yield "PERSID that is no ASCII", asm(("PERSID", b"\xff"))


def wrong():
    """What no unpickler takes."""
    yield "INT that is none", asm(("INT", b"five"))
    yield "INT of nothing", asm(("INT", b""))
    yield "LONG that is none", asm(("LONG", b"1.5L"))
    yield "FLOAT that is none", asm(("FLOAT", b"1,5"))
    yield "STRING without quotes", asm(("STRING", b"abc"))
    yield "STRING with one quote", asm(("STRING", b"'"))
    yield "STRING with two kinds of quotes", asm(("STRING", b"'abc\""))
    yield "GET of nothing", asm(("GET", 3))
    yield "BINGET of nothing", asm(("BINGET", 3))
    yield "LONG_BINGET of nothing", asm(("LONG_BINGET", 2**32 - 1))
    yield "GET that is no number", asm(("GET", b"x"))
    yield "PUT that is no number", asm("NONE", ("PUT", b"x"))
    yield "PUT below 0", asm("NONE", ("PUT", -1))
    yield "PUT of a mark", asm("MARK", ("BINPUT", 0), "LIST")
    yield "MEMOIZE of a mark", asm("MARK", "MEMOIZE", "LIST")
    yield "DUP of a mark", asm("MARK", "DUP", "LIST")
    yield "STOP at a mark", asm(one(1), "MARK")
    yield "BUILD across a mark", asm(*MADE, "MARK", "EMPTY_DICT", "BUILD")
    yield "APPEND across a mark", asm("EMPTY_LIST", "MARK", one(1), "APPEND")
    yield "TUPLE2 across a mark", asm(("PROTO", 2), one(1), "MARK", one(2), "TUPLE2")
    yield "REDUCE across a mark", asm(klass(), "MARK", "EMPTY_TUPLE", "REDUCE")
    yield "SETITEM across a mark", asm("EMPTY_DICT", one(1), "MARK", one(1), "SETITEM")
    yield "SETITEMS of an odd number", asm("EMPTY_DICT", "MARK", one(1), "SETITEMS")
    yield "DICT of an odd number", asm("MARK", one(1), "DICT")
    yield "PROTO 6", asm(("PROTO", 6), "NONE")
    yield "PROTO 255", asm(("PROTO", 255), "NONE")
    yield "an opcode that there is not", asm("EMPTY_LIST", b"\xff")
    yield "an opcode 0", asm("EMPTY_LIST", b"\0")
    yield "STACK_GLOBAL of a number", asm(("PROTO", 4), word("m"), one(1), "STACK_GLOBAL")
    yield "STACK_GLOBAL of bytes", asm(("PROTO", 4), ("SHORT_BINBYTES", b"m"), word("n"), "STACK_GLOBAL")
    yield "bytes behind the end", asm(one(1)) + b"\0\0\0"
    yield "a second pickle cut off", asm(one(1)) + b"\x80\x04]"
    yield "text", b"this is no pickle"
    yield "JSON", b'{"a": [1, 2]}'
    yield "zeros", b"\0" * 100
    yield "STOP alone", b"."
    for name in OPS:
        if name in ("NEXT_BUFFER", "STOP"):
            continue
        o = OPS[name]
        takes = [s.name for s in o.stack_before]
        if not takes:
            continue
        sample = EACH.get(name, ["READONLY_BUFFER"])
        alone = next((s for s in sample if s == name or s[0] == name), None)
        if alone is None:
            continue
        yield f"{name} on an empty stack", asm(alone)
        if "mark" in takes or "stackslice" in takes:
            yield f"{name} without a mark", asm(one(1), one(1), one(1), alone)
        elif name not in ("POP", "INST"):
            yield f"{name} at a mark", asm(one(1), one(1), one(1), "MARK", alone)
        if len(takes) > 1 and "mark" not in takes:
            yield f"{name} with a value too few", asm(*[one(1)] * (len(takes) - 1), alone)


def main(path):
    with open(path, "wb") as out:
        for name, want, data in each():
            archive.write(out, name, data, want=want)
        for name, data in [*values(), *graphs()]:
            stubs.evaluate(data)  # or the case is at fault
            archive.write(out, name, data, want="graph", **({"any protocol": True} if "without PROTO" in name or "in protocol 2" in name else {}))
        for name, data in odd():
            archive.write(out, name, data, want="any")
        for name, data in wrong():
            archive.write(out, name, data, want="error")
    if missing := set(OPS) - USED:
        sys.exit(f"no case for {sorted(missing)}")


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    main(sys.argv[1])
