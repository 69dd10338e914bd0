"""Tests of torpor.py: python3 -m unittest, in this folder."""

import collections
import contextlib
import datetime
import http.client
import http.server
import io
import os
import pickle
import queue
import socket
import struct
import sys
import tempfile
import threading
import types
import unittest
import unittest.mock
import uuid
import wsgiref.simple_server

sys.dont_write_bytecode = True
import torpor

# The service's classes, in a module of their own as a service's are.
models = types.ModuleType("models")
exec(
    """
import enum, os, threading
from os import system

class Item:
    price = 1
    def __init__(self, name): self.name = name
    class Part: pass

class Slotted:
    __slots__ = ("a", "b")

class Color(enum.Enum):
    RED = 1

class Store:
    def __init__(self): self.items, self.lock = {}, threading.RLock()

class Bundle(dict):
    def __init__(self): self.lock = threading.Lock()
    def __setitem__(self, k, v): raise AssertionError("used, not restored")
    def __missing__(self, k): raise AssertionError("used, not restored")

class Changed:
    def __setstate__(self, state): raise KeyError("of an older version")

class Strict:
    def __setstate__(self, state): raise refused("not this one")

def make(): return Item("made")
""",
    models.__dict__,
)
models.refused = torpor.Refused
sys.modules["models"] = models
Item, Slotted, Color, Store, Bundle, Changed, Strict = (getattr(models, n) for n in "Item Slotted Color Store Bundle Changed Strict".split())
for kind in (Item, Slotted, Color, Store, Bundle, Changed, Strict):
    kind.__module__ = "models"
models.make.__module__ = "models"


def pickled(state, name="store"):
    file, size = state.get(name)
    with file:
        data = file.read()
    assert len(data) == size
    return data


def put(state, data, name="store"):
    state.put(name, io.BytesIO(data))


def through(*targets, **named):
    """A state with these targets, saved, emptied and restored."""
    state = torpor.State(allow=["models"])
    state.part("store", *targets, **named)
    data = pickled(state)
    state.empty("store")
    put(state, data)
    return state


class Hostile:
    """Pickles as a call of anything."""

    def __init__(self, call, *args):
        self.reduced = call, args

    def __reduce__(self):
        return self.reduced


class TestStates(unittest.TestCase):
    def test_targets_stay_what_they_are(self):
        stock, names, tags, one = {"a": [1]}, [1, 2], {3}, Store()
        one.items["x"] = 5
        lock = one.lock
        state = torpor.State(allow=["models"])
        state.part("store", stock=stock, names=names, tags=tags, one=one, keep=["lock"])
        data = pickled(state)
        for change in (lambda: state.empty("store"), lambda: (stock.update(b=1), names.append(4), tags.add(9), one.__dict__.update(more=1, items=None))):
            change()
            put(state, data)
            self.assertEqual((stock, names, tags, one.items), ({"a": [1]}, [1, 2], {3}, {"x": 5}))
            self.assertIs(one.lock, lock)
            self.assertEqual(sorted(vars(one)), ["items", "lock"])

    def test_references_are_kept(self):
        stock, orders, first = Bundle(), {}, Item("a")
        dict.update(stock, {"000000000000": {"us-east-1": first}})
        first.all, first.self, first.orders = stock, first, orders
        orders["1"] = [first, first]
        through(stock=stock, orders=orders)
        again = stock["000000000000"]["us-east-1"]
        self.assertIsNot(again, first)
        self.assertIs(again.all, stock)
        self.assertIs(again.self, again)
        self.assertIs(again.orders, orders)
        self.assertIs(orders["1"][0], orders["1"][1])
        self.assertIs(orders["1"][0], again)

    def test_references_between_parts(self):
        stock, backend = {}, Store()
        state = torpor.State(allow=["models"])
        state.part("store", stock)
        state.part("backend", backend, keep=["lock"])
        stock["backend"], backend.items["store"] = backend, stock
        data = pickled(state)
        state.empty("store")
        put(state, data)
        self.assertIs(stock["backend"], backend)
        alone = torpor.State(allow=["models"])
        alone.part("store", {})
        with self.assertRaisesRegex(torpor.Refused, "'backend', which is not registered") as raised:
            put(alone, data)
        self.assertEqual(raised.exception.status, 415)

    def test_the_native_form(self):
        one = torpor.State()
        one.part("store", {"000000000000": {"us-east-1": {"a": 1}}})
        self.assertEqual(pickle.loads(pickled(one)), {"000000000000": {"us-east-1": {"a": 1}}})
        several = torpor.State(protocol=5)
        several.part("store", a={1: 2}, b=[3])
        self.assertEqual(pickle.loads(pickled(several)), {"a": {1: 2}, "b": [3]})
        self.assertEqual((pickled(one)[1], pickled(several)[1]), (4, 5))

    def test_all_kinds_of_data(self):
        slotted = Slotted()
        slotted.a = 1
        data = {
            "plain": [None, True, -1, 2**200, 1.5, 2j, "text", "\udc80", b"bytes", bytearray(b"array"), (), (1,), range(3), slice(1, 2)],
            "sets": [{1, 2}, frozenset([3])],
            "times": [datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(1), datetime.date(2026, 1, 1)],
            "collections": [collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1], 3), collections.defaultdict(list, a=[1])],
            "other": [uuid.UUID(int=5), types.SimpleNamespace(a=1), Color.RED, Item.Part],
        }
        want = repr(data)
        data["slots"] = slotted
        through(data)
        self.assertEqual((data["slots"].a, hasattr(data["slots"], "b")), (1, False))
        self.assertIs(data["other"][2], Color.RED)
        self.assertEqual(repr({k: v for k, v in data.items() if k != "slots"}), want)

    def test_locks_are_made_anew(self):
        lock, shared = threading.Lock(), threading.RLock()
        waiting, event = queue.Queue(), threading.Event()
        lock.acquire()
        shared.acquire()
        waiting.put(1)
        event.set()
        data = {"lock": lock, "two": [shared, shared], "condition": threading.Condition(shared), "queue": waiting, "event": event, "semaphore": threading.Semaphore(2)}
        through(data)
        self.assertTrue(data["lock"].acquire(False))
        self.assertIs(data["two"][0], data["two"][1])
        self.assertIs(data["condition"]._lock, data["two"][0])
        self.assertIsNot(data["two"][0], shared)
        self.assertEqual((data["queue"].get(False), data["event"].is_set(), data["semaphore"]._value), (1, True, 2))
        with data["condition"]:
            data["condition"].notify_all()

    def test_what_cannot_be_pickled_is_named(self):
        item = Item("a")
        for bad, want in (
            ({"k": [1, (2, lambda: 0)]}, r"part store: \['x'\]\.bad\['k'\]\[1\]\[1\]: .*<lambda>"),
            (socket.socket(), r"part store: \['x'\]\.bad: TypeError: cannot pickle 'socket' object"),
            (threading.Thread(), r"part store: \['x'\]\.bad.*(Thread|thread)"),
            ({Item.Part(): iter(map(str, []))}, r"part store: \['x'\]\.bad\[<Part>\].*map"),
            (os.getcwd, r"part store: \['x'\]\.bad: PicklingError: function posix.getcwd may not be in a state"),
            (item.__init__, r"part store: \['x'\]\.bad.*getattr"),
            (argparse_namespace(), r"part store: \['x'\]\.bad.*class argparse.Namespace may not be in a state"),
            (type(None), r"part store: \['x'\]\.bad: .*NoneType"),
            (models.make, r"part store: \['x'\]\.bad: .*function models.make may not be in a state"),
        ):
            item.bad = bad
            state = torpor.State(allow=["models"])
            state.part("store", {"x": item})
            with self.assertRaisesRegex(torpor.Unpicklable, want):
                pickled(state)
            if isinstance(bad, socket.socket):
                bad.close()
        with self.assertRaisesRegex(torpor.Unpicklable, r"part one: \.items\['k'\]: "):
            one = Store()
            one.items["k"] = lambda: 0
            torpor.State().part("one", one, keep=["lock"])

    def test_depth(self):
        deep = []
        for _ in range(20_000):
            deep = [deep]
        state = torpor.State()
        state.part("store", {"a": deep})
        with self.assertRaisesRegex(torpor.Unpicklable, r"references go 20002 deep.*setrecursionlimit"):
            pickled(state)
        while deep:  # or freeing it goes as deep
            deep = deep.pop()

    def test_the_empty_state(self):
        stock, one = {"a": 1}, Item("first")
        state = torpor.State(allow=["models"])
        state.part("store", stock)
        state.part("one", one)
        one.name, one.more = "second", 1
        state.empty("store")
        state.empty("one")
        self.assertEqual((stock, vars(one)), ({}, {"name": "first"}))
        data = pickled(state)
        self.assertEqual(pickle.loads(data), {})
        stock["b"] = 2
        put(state, data)
        self.assertEqual(stock, {})

    def test_restored_is_called_or_all_is_put_back(self):
        stock, seen = {"a": 1}, []

        def restored():
            seen.append(dict(stock))
            if "bad" in stock:
                raise torpor.Refused("bad", 422)

        state = torpor.State()
        state.part("store", stock, restored=restored)
        put(state, pickle.dumps({"b": 2}, 4))
        state.empty("store")
        put(state, pickle.dumps({"c": 3}, 4))
        with self.assertRaisesRegex(torpor.Refused, "bad"):
            put(state, pickle.dumps({"bad": 1}, 4))
        self.assertEqual((stock, seen), ({"c": 3}, [{"b": 2}, {}, {"c": 3}, {"bad": 1}]))

    def test_an_ordered_dict(self):
        stock = collections.OrderedDict([("b", 1), ("a", 2)])
        through(stock)
        stock.move_to_end("b")
        self.assertEqual(list(stock), ["a", "b"])

    def test_large_states(self):
        stock = {str(i): os.urandom(1 << 20) for i in range(20)}
        want = dict(stock)
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(tempfile, "tempdir", folder):
            through(stock)
            self.assertEqual(os.listdir(folder), [])
        self.assertEqual(stock, want)

    def test_wrong_use(self):
        state = torpor.State()
        one = {}
        state.part("store", one)
        for error, call in (
            (ValueError, lambda: state.part("store", {})),
            (ValueError, lambda: state.part("again", one)),
            (ValueError, lambda: state.part("twice", a=[], b=one)),
            (ValueError, lambda: state.part("a/b", {})),
            (TypeError, lambda: state.part("none")),
            (TypeError, lambda: state.part("both", {}, a={})),
            (TypeError, lambda: state.part("number", 5)),
            (TypeError, lambda: state.part("class", Item)),
            (TypeError, lambda: state.part("module", models)),
            (TypeError, lambda: state.part("keep", {}, keep="lock")),
            (TypeError, lambda: torpor.State(allow="models")),
            (ValueError, lambda: torpor.State(path="state/")),
            (ValueError, lambda: torpor.State(token="")),
            (ValueError, lambda: torpor.State(token="two words")),
            (ValueError, lambda: torpor.State(protocol=3)),
            (ValueError, lambda: state.serve("0.0.0.0")),
        ):
            with self.assertRaises(error):
                call()
        self.assertEqual(list(state._parts), ["store"])
        self.assertEqual(list(state._targets), ["store"])


def argparse_namespace():
    import argparse

    return argparse.Namespace()


class TestRefusals(unittest.TestCase):
    """Whatever is refused leaves everything as it was, and runs nothing."""

    def setUp(self):
        self.stock = {"a": Item("a")}
        self.before = self.stock["a"]
        self.state = torpor.State(allow=["models", "models:make"])
        self.state.part("store", self.stock)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.proof = os.path.join(self.folder.name, "was run")

    def refused(self, data, status, want=""):
        with self.assertRaisesRegex(torpor.Refused, want) as raised:
            put(self.state, data)
        self.assertEqual(raised.exception.status, status, raised.exception)
        self.assertEqual(list(self.stock.items()), [("a", self.before)])
        self.assertFalse(os.path.exists(self.proof))

    def test_hostile(self):
        touch = "touch " + self.proof
        for call, args in (
            (os.system, (touch,)),
            (eval, (f"open({self.proof!r}, 'w')",)),
            (exec, (f"open({self.proof!r}, 'w')",)),
            (getattr, (Item("x"), "__class__")),
            (open, (self.proof, "w")),
            (__import__, ("os",)),
            (type, ("X", (), {})),
            (compile, ("1", "x", "eval")),
            (os.popen, (touch,)),
            (setattr, (Item, "price", 2)),
            (bytes.fromhex, ("00",)),
        ):
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                with self.subTest(call=call, protocol=protocol):
                    self.refused(pickle.dumps({"x": Hostile(call, *args)}, protocol), 415, "which it may not")

    def test_hostile_names(self):
        """What an allowed module has imported, or what can be reached through it, is not its own."""
        for module, name in (
            ("models", "system"),
            ("models", "os.system"),
            ("models", "os"),
            ("models", "threading.Thread"),
            ("models", "Item.__init__"),
            ("models", "Item.__init__.__globals__"),
            ("models", "Item.__class__"),
            ("models", "Item.__subclasses__"),
            ("models", "Item.price"),
            ("models", "__builtins__"),
            ("models", "make.__globals__"),
            ("models", "gone"),
            ("models", ""),
            ("models.sub", "Item"),
            ("modelsx", "Item"),
            ("mod", "Item"),
            ("", "Item"),
            ("builtins", "Item"),
            ("builtins", "dict.fromkeys"),
            ("threading", "Thread"),
            ("torpor", "_plain"),
            ("__main__", "torpor"),
        ):
            with self.subTest(module=module, name=name):
                code = b"\x80\x04" + text(module) + text(name) + b"\x93" + text("touch " + self.proof) + b"\x85R."
                self.refused(code, 415, "names")

    def test_functions_that_are_allowed(self):
        put(self.state, pickle.dumps({"made": Hostile(models.make)}, 4))
        self.assertEqual(self.stock["made"].name, "made")

    def test_packages(self):
        state = torpor.State(allow=["shop.*"])
        for module, want in (("shop", True), ("shop.a", True), ("shop.a.b", True), ("shopping", False), ("a.shop", False), ("", False)):
            self.assertEqual(state._allowed(module, "X"), want, module)

    def test_nothing_is_imported(self):
        os.mkdir(os.path.join(self.folder.name, "late"))
        with open(os.path.join(self.folder.name, "late", "__init__.py"), "w") as f:
            f.write(f"open({self.proof!r}, 'w')\nclass Item: pass\n")
        self.state._allow = frozenset(["late"])
        with unittest.mock.patch.object(sys, "path", [self.folder.name] + sys.path):
            self.refused(b"\x80\x04" + text("late") + text("Item") + b"\x93)\x81.", 415, "late.Item, which there is not, or not yet")

    def test_classes_stay_as_they_are(self):
        """BUILD sets attributes of whatever is on the stack."""
        item, color = text("models") + text("Item") + b"\x93", text("models") + text("Color") + b"\x93"
        slots = b"}" + text("price") + b"K\x07s"
        for name, code in {
            "an attribute of a class": item + b"N" + slots + b"\x86b",
            "a new one": item + b"N}" + text("__reduce__") + b"K\x07s\x86b",
            "a member of an enumeration": color + b"K\x01\x85R}" + text("_value_") + b"K\x07sb",
            "a class of the standard library": text("threading") + text("Event") + b"\x93N}" + text("wait") + b"K\x07s\x86b",
            "and then it fails": item + b"N" + slots + b"\x86b" + b"0" * 9,
        }.items():
            with self.subTest(name):
                wait = threading.Event.wait
                self.refused(b"\x80\x04" + code + b".", 422, "changes .*, while it is read")
                self.assertEqual((Item.price, Color.RED.value, threading.Event.wait), (1, 1, wait))
                self.assertNotIn("__reduce__", vars(Item))

    def test_targets_stay_as_they_are(self):
        """A state that refers to a target has it on the stack, and it is the live one."""
        one, tags, names, bundle = Item("a"), {1}, [1], Bundle()
        ordered = collections.OrderedDict(b=1, a=2)
        lock = bundle.lock
        self.state.part("other", one=one, tags=tags, names=names, bundle=bundle, ordered=ordered, keep=["name"])
        names.append(one)

        def target(pid):
            return text(pid) + b"Q"

        item = text("models") + text("Item") + b"\x93"
        for name, code in {
            "an entry": target("store") + text("a") + b"Ns",
            "entries": target("store") + b"(" + text("b") + b"Nu",
            "an attribute": target("other/one") + b"}" + text("name") + b"Nsb",
            "a slot": target("other/one") + b"N}" + text("name") + b"Ns\x86b",
            "a class": target("other/one") + b"N}" + text("__class__") + text("models") + text("Store") + b"\x93s\x86b",
            "an item of a list": target("other/names") + b"Na",
            "an item of a set": target("other/tags") + b"(N\x90",
            "an attribute of a dict": target("other/bundle") + b"}" + text("lock") + b"Nsb",
            "the order": target("other/ordered") + text("b") + b"K\x01s",
            "and then it fails": target("store") + text("a") + b"Ns" + b"0" * 9,
            "and then names what it may not": target("store") + text("a") + b"Ns" + text("os") + text("system") + b"\x93",
        }.items():
            with self.subTest(name):
                if name == "the order":  # the same order and values: no change
                    self.refused(b"\x80\x04" + code + b".", 422, "is restored from a dict")
                else:
                    self.refused(b"\x80\x04" + code + b".", 422, "changes .*, while it is read")
                self.assertEqual((type(one), vars(one), tags, names, bundle, vars(bundle)), (Item, {"name": "a"}, {1}, [1, one], {}, {"lock": lock}))
                self.assertEqual(list(ordered), ["b", "a"])

    def test_functions_stay_as_they_are(self):
        before = threading.RLock
        code = b"\x80\x04}" + text("l") + text("threading") + text("RLock") + b"\x93N}" + text("__defaults__") + b"K\x01\x85s\x86bNs."
        with contextlib.suppress(torpor.Refused):
            put(self.state, code)
        self.assertIs(threading.RLock, before)
        self.assertIsNone(getattr(threading.RLock, "__defaults__", None))
        threading.RLock()

    def test_lists_without_an_end(self):
        code = text("builtins") + text("list") + b"\x93" + text("builtins") + text("range") + b"\x93\x8a\x05\x00\x00\x00\x00\x10\x85R\x85R"
        self.refused(b"\x80\x04" + code + b".", 422, "range")

    def test_what_is_no_pickle(self):
        good = pickle.dumps({"b": Item("b")}, 4)
        for n in range(len(good)):
            self.refused(good[:n], 422)
        self.refused(good + b"\0", 422, "behind the end")
        self.refused(good + good, 422, "behind the end")
        for data in (b"{}", b"\xff" * 100, pickle.dumps({}, 0), pickle.dumps({}, 1), b"\x80\x04]a.", b"\x80\x04\x95" + b"\xff" * 8 + b"}."):
            self.refused(data, 422)
        self.refused(b"\x80\x04h\x00.", 422 if sys.version_info > (3, 9) else 415)  # a KeyError, as of a class
        self.refused(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".", 422)
        for n in range(len(good)):
            for bit in range(8):
                damaged = bytearray(good)
                damaged[n] ^= 1 << bit
                try:
                    put(self.state, bytes(damaged))
                except torpor.Refused as err:
                    self.assertIn(err.status, (422, 415, 413))
                    self.assertEqual(list(self.stock.items()), [("a", self.before)])
                self.stock.clear()
                self.stock["a"] = self.before

    def test_the_memo(self):
        """Places are cleared up to the one that is asked for; a pickle may not ask for more than it has bytes."""
        for place in (1000, 0xFFFFFFFF):
            self.refused(b"\x80\x04}r" + struct.pack("<I", place) + b".", 422, "opcode b'r'")
        put(self.state, b"\x80\x04}r" + struct.pack("<I", 8) + b".")

    def test_every_opcode_is_known(self):
        """What Python pickles is looked over right, of whatever protocol and size."""
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            for n in (0, 1, 9, 255, 256, 257, 65535, 65536, 70000):
                data = ["x" * n, b"y" * n, list(range(n)), {str(i): (i,) * (i % 5) for i in range(n % 3000)}, 1 << n % 9999, 1.5, True, None, {n}, frozenset([n]), bytearray(b"z" * n), Item, Item("a"), "é" * n]
                torpor._scan(pickle.dumps(data, protocol))

    def test_versions(self):
        self.refused(b"\x80\x09}.", 415, "protocol 9")
        self.refused(b"\x80\x04" + text("models") + text("Gone") + b"\x93)\x81.", 415, "models.Gone, which there is not")
        changed, strict = Changed.__new__(Changed), Strict.__new__(Strict)
        changed.a = strict.a = 1
        self.refused(pickle.dumps({"x": changed}, 4), 415, "does not fit the service's classes: KeyError: 'of an older version'")
        self.refused(pickle.dumps({"x": strict}, 4), 422, "not this one")

    def test_of_another_shape(self):
        for other in ([], 5, collections.OrderedDict(), Item("a"), {1}):
            self.refused(pickle.dumps(other, 4), 422, "is restored from a dict")
        one, several = torpor.State(), torpor.State()
        one.part("store", Item("a"))
        several.part("store", a={}, b=[])
        for state, shape, status in ((one, {1: 2}, 422), (one, [], 422), (several, [], 422), (several, {"a": {}}, 415), (several, {"a": {}, "b": {}}, 422), (several, {"a": {}, "b": [], 3: 4}, 415)):
            with self.assertRaises(torpor.Refused) as raised:
                put(state, pickle.dumps(shape, 4))
            self.assertEqual(raised.exception.status, status, shape)


def text(s):
    return b"\x8c" + bytes([len(s)]) + s.encode()


class OverHTTP:
    """The same on a port of the kit's own, in the service's http.server, and mounted in a WSGI application."""

    token, limit = "s3cret", 100_000

    def setUp(self):
        self.stock = {"a": 1}
        self.state = torpor.State(token=self.token, max_bytes=self.limit)
        self.state.part("store", self.stock)
        self.port = self.begin()

    def begin(self):
        server = self.state.serve()
        self.addCleanup(server.close)
        self.assertEqual(server.url("store"), f"http://127.0.0.1:{server.port}/_torpor/state/store")
        return server.port

    def listen(self, server):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def end():
            server.shutdown()
            thread.join()
            server.server_close()

        self.addCleanup(end)
        return server.server_port

    def ask(self, method, body=None, path="/_torpor/state/store", token=True, **headers):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(c):
            headers = {k.replace("_", "-"): v for k, v in headers.items()}
            if token:
                headers["Authorization"] = "Bearer " + (self.token if token is True else token)
            c.request(method, path, body=body, headers=headers)
            r = c.getresponse()
            return r.status, r.read(), r.headers

    def raw(self, request, half=True):
        """Sends bytes and then no more, and gives the status of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as s:
            s.sendall(request)
            if half:
                s.shutdown(socket.SHUT_WR)
            answer = s.makefile("rb").readline().split()
            return int(answer[1]) if answer else None

    def head(self, *lines):
        return "\r\n".join(("PUT /_torpor/state/store HTTP/1.1", "Host: 127.0.0.1", "Authorization: Bearer " + self.token) + lines + ("", "")).encode()

    def test_get_put_delete(self):
        status, data, headers = self.ask("GET")
        self.assertEqual((status, pickle.loads(data), headers["Content-Length"], headers["Cache-Control"]), (200, {"a": 1}, str(len(data)), "no-store"))
        self.assertEqual(self.ask("DELETE")[0], 204)
        self.assertEqual(self.stock, {})
        status, empty, _ = self.ask("GET")
        self.assertEqual((status, pickle.loads(empty)), (200, {}))
        status, said, headers = self.ask("PUT", data)
        self.assertEqual((status, said, self.stock), (204, b"", {"a": 1}))
        self.assertEqual((self.ask("PUT", empty)[0], self.stock), (204, {}))

    def test_refusals(self):
        good = pickle.dumps({"b": 2}, 4)
        for want, status, args in (
            (b"no pickle", 422, dict(method="PUT", body=b"")),
            (b"no pickle", 422, dict(method="PUT", body=b"{}")),
            (b"protocol 9", 415, dict(method="PUT", body=b"\x80\x09}.")),
            (b"at most 100000", 413, dict(method="PUT", body=b"x" * 100_001)),
            (b"Content-Encoding", 415, dict(method="PUT", body=good, Content_Encoding="gzip")),
            (b"os.system", 415, dict(method="PUT", body=b"\x80\x04cos\nsystem\n.")),
            (b"no part 'stores'", 404, dict(method="GET", path="/_torpor/state/stores")),
            (b"no part ''", 404, dict(method="GET", path="/_torpor/state/")),
            (b"GET, PUT", 405, dict(method="POST", body=good)),
            (b"token", 401, dict(method="GET", token=None)),
            (b"token", 401, dict(method="PUT", body=good, token="s3cre")),
            (b"token", 401, dict(method="DELETE", token="s3cret2")),
            (b"token", 401, dict(method="DELETE", token="")),
            (b"token", 401, dict(method="DELETE", token="\xff")),
            (b"web pages", 403, dict(method="GET", Origin="http://example.com")),
            (b"web pages", 403, dict(method="GET", Sec_Fetch_Site="cross-site")),
        ):
            with self.subTest(args):
                got, said, headers = self.ask(**args)
                self.assertEqual((got, self.stock), (status, {"a": 1}), said)
                self.assertEqual(headers["Content-Length"], str(len(said)))
                if want.startswith(b"os") and b"cos" in args["body"]:
                    self.assertIn(b"os.system", said)
                self.assertIn(want, said)

    def test_a_body_that_is_far_too_large(self):
        self.assertEqual(self.ask("PUT", b"x" * (8 << 20))[0], 413)

    def test_cut_off(self):
        good = pickle.dumps({"b": list(range(100))}, 4)
        for n in range(0, len(good), 7):
            self.assertIn(self.raw(self.head(f"Content-Length: {len(good)}") + good[:n]), (400, None))
            self.assertEqual(self.stock, {"a": 1})
        # One that is whole by itself, had the length not been told.
        self.assertIn(self.raw(self.head(f"Content-Length: {len(good) + 1}") + good), (400, None))
        self.assertEqual(self.stock, {"a": 1})
        self.assertEqual(self.raw(self.head(f"Content-Length: {len(good)}") + good), 204)
        self.assertEqual(self.stock, {"b": list(range(100))})

    def test_without_a_length(self):
        self.assertEqual(self.raw(self.head()), 411)
        self.assertEqual(self.stock, {"a": 1})

    def test_a_state_that_cannot_be_saved(self):
        self.stock["b"] = lambda: 0
        status, said, _ = self.ask("GET")
        self.assertEqual(status, 500)
        self.assertIn(b"part store: ['b']: ", said)

    def test_an_error_of_the_service(self):
        self.state._parts["store"].restored = lambda: 1 / 0
        with self.assertLogs("torpor", "ERROR"):
            status, said, _ = self.ask("DELETE")
        self.assertEqual((status, said, self.stock), (500, b"ZeroDivisionError: division by zero\n", {"a": 1}))

    def test_at_once(self):
        """What is given and taken is of one moment: the two sides of each transfer."""
        self.stock.clear()
        self.stock.update(a=500, b=500)
        stop, seen = threading.Event(), []

        def transfer():
            n = 0
            while not stop.is_set():
                n += 1
                with self.state.lock:
                    self.stock["a"] -= n % 7
                    self.stock["x", n % 50] = n  # changes size
                    self.stock.pop(("x", (n + 1) % 50), None)
                    self.stock["b"] += n % 7

        def save(n):
            for i in range(15):
                if n % 2:
                    self.assertEqual(self.ask("PUT", pickle.dumps({"a": 250 + i, "b": 750 - i}, 4))[0], 204)
                else:
                    status, data, _ = self.ask("GET")
                    seen.append((status, data))

        threads = [threading.Thread(target=transfer) for _ in range(2)]
        saving = [threading.Thread(target=save, args=(n,)) for n in range(4)]
        for t in threads + saving:
            t.start()
        for t in saving:
            t.join()
        stop.set()
        for t in threads:
            t.join()
        self.assertEqual(len(seen), 30)
        for status, data in seen:
            self.assertEqual(status, 200)
            got = pickle.loads(data)
            self.assertEqual(got["a"] + got["b"], 1000)

    def test_head(self):
        status, said, headers = self.ask("HEAD")
        self.assertEqual((status, said, headers["Allow"]), (405, b"", "GET, PUT, DELETE"))

    def test_waits_for_the_lock(self):
        done = threading.Event()
        with self.state.lock:
            self.stock["a"] = "half"
            t = threading.Thread(target=lambda: (self.ask("DELETE"), done.set()))
            t.start()
            self.assertFalse(done.wait(0.2))
            self.stock["b"] = "whole"
            self.assertEqual(self.stock, {"a": "half", "b": "whole"})
        t.join()
        self.assertEqual(self.stock, {})


class Chunked:
    """For servers that read chunks: all that HTTP allows, and nothing that is cut off."""

    def chunked(self, *lines):
        return self.head("Transfer-Encoding: chunked", *lines)

    def test_chunked(self):
        good = pickle.dumps({"b": list(range(100))}, 4)
        chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(good[i : i + 10]), good[i : i + 10]) for i in range(0, len(good), 10))
        self.assertEqual(self.raw(self.chunked() + chunks + b"0\r\nTrailer: 1\r\n\r\n"), 204)
        self.assertEqual(self.stock, {"b": list(range(100))})
        whole = chunks + b"0\r\n\r\n"
        self.stock.clear()
        for n in list(range(0, len(whole), 7)) + [len(chunks), len(whole) - 2, len(whole) - 1]:
            self.assertEqual(self.raw(self.chunked() + whole[:n]), 400, n)
            self.assertEqual(self.stock, {})
        for bad in (b"x\r\n", b"-1\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n", b"f" * 5000, b"\r\n"):
            self.assertEqual(self.raw(self.chunked() + bad), 400, bad)
        self.assertEqual(self.raw(self.chunked() + b"%x\r\n" % (self.limit + 1) + b"x" * (self.limit + 1) + b"\r\n0\r\n\r\n"), 413)
        self.assertEqual(self.raw(self.chunked("Content-Length: 3") + b"0\r\n\r\n"), 400)
        self.assertEqual(self.raw(self.head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"), 400)
        self.assertEqual(self.raw(self.head("Content-Length: 3", "Content-Length: 4") + b"abcd"), 411)
        self.assertEqual(self.raw(self.head("Content-Length: 0x3") + b"abcd"), 400)
        self.assertEqual(self.stock, {})


class TestServer(Chunked, OverHTTP, unittest.TestCase):
    def test_other_paths(self):
        self.assertEqual(self.ask("GET", path="/")[0], 404)
        self.assertEqual(self.ask("GET", path="/_torpor/statex/store")[0], 404)
        self.assertEqual(self.ask("GET", path="/_torpor/state/store?a=1")[0], 200)
        self.assertEqual(self.raw(b"GET http://[ HTTP/1.1\r\n\r\n"), 404)
        for path in ("/a//[", "http://127.0.0.1/_torpor/state/store", "/_torpor/state/%73tore", "*"):
            self.assertEqual(self.ask("GET", path=path)[0], 404, path)

    def test_a_connection_is_used_again(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port)
        with contextlib.closing(c):
            for method in ("GET", "DELETE", "GET"):
                c.request(method, "/_torpor/state/store", headers={"Authorization": "Bearer " + self.token})
                c.getresponse().read()
                self.assertIsNotNone(c.sock)

    def test_close(self):
        server = self.state.serve()
        with server:
            pass
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5).close()

    def test_without_a_token(self):
        state = torpor.State()
        state.part("store", {"a": 1})
        with state.serve() as server:
            self.port = server.port
            for host, status in (("localhost", 200), (f"localhost:{server.port}", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("torpor.example.com", 403), ("10.0.0.1:80", 403), ("localhost.example.com", 403), ("[::1", 403), ("//", 403)):
                self.assertEqual(self.ask("GET", token=None, Host=host)[0], status, host)

        def header(name):
            return {"Host": "localhost"}.get(name)

        for peer, status in (("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.1.2.3", 403), ("", 403)):
            got, _, file = state._answer("GET", "/_torpor/state/store", header, peer, None)
            self.assertEqual(got, status, peer)
            if got == 200:
                file.close()


class Service(torpor.StateHandler, http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"own")

    def log_message(self, *_):
        pass


class TestHandler(Chunked, OverHTTP, unittest.TestCase):
    def begin(self):
        class Handler(Service):
            torpor = self.state

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        return self.listen(server)

    def test_the_service_goes_on(self):
        self.assertEqual(self.ask("GET", path="/")[:2], (200, b"own"))
        self.assertEqual(self.ask("GET", path="/_torpor/states")[:2], (200, b"own"))


class QuietWSGI(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


class TestMounted(OverHTTP, unittest.TestCase):
    """wsgiref's server; it closes on a body that was not read, so that test is of the others."""

    test_a_body_that_is_far_too_large = None

    def begin(self):
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "3")])
            return [b"own"]

        server = wsgiref.simple_server.make_server("127.0.0.1", 0, self.state.mount(app), handler_class=QuietWSGI)
        return self.listen(server)

    def test_the_service_goes_on(self):
        self.assertEqual(self.ask("GET", path="/")[:2], (200, b"own"))

    def test_alone(self):
        got = []
        environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/other", "PATH_INFO": "/store", "wsgi.input": io.BytesIO()}
        self.assertEqual(self.state.wsgi(environ, lambda *a: got.append(a[0])), [b""])
        environ.update(SCRIPT_NAME="/_torpor/state", HTTP_AUTHORIZATION="Bearer " + self.token)
        answer = self.state.wsgi(environ, lambda *a: got.append(a[0]))
        self.assertEqual((pickle.loads(b"".join(answer)), got), ({"a": 1}, ["404 Not Found", "200 OK"]))
        answer.close()

    def test_chunks_that_the_server_reads(self):
        def broken(n):
            raise OSError("cut off")

        good = pickle.dumps({"b": 2}, 4)
        environ = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/_torpor/state/store", "HTTP_AUTHORIZATION": "Bearer " + self.token, "wsgi.input_terminated": True}
        for body, want in ((broken, "400 Bad Request"), (io.BytesIO(good[:-1]).read, "422 Unprocessable Entity"), (io.BytesIO(good).read, "204 No Content")):
            self.assertEqual(self.stock, {"a": 1})
            got = []
            self.state.wsgi(dict(environ, **{"wsgi.input": types.SimpleNamespace(read=body)}), lambda *a: got.append(a[0]))
            self.assertEqual(got[0].partition(" ")[0], want.partition(" ")[0])
        self.assertEqual(self.stock, {"b": 2})


class TestTiming(unittest.TestCase):
    def test_tokens_are_compared_in_constant_time(self):
        state = torpor.State(token="a" * 32)
        with unittest.mock.patch("hmac.compare_digest", return_value=True) as compare:
            state._authorize({"Authorization": "Bearer b"}.get, "10.0.0.1")
        compare.assert_called_once_with(b"Bearer b", b"Bearer " + b"a" * 32)


if __name__ == "__main__":
    unittest.main()
