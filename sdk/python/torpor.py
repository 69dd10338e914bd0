"""Torpor's kit for services in Python: the state endpoints, in one file, of the standard library alone.

    stock = {}                                   # {account: {region: store}}, or any dict, list, set or object
    state = torpor.State(allow=["warehouse"])    # the modules whose classes a state may hold
    state.part("store", stock)
    state.serve(port=4601)                       # http://127.0.0.1:4601/_torpor/state/store

    with state.lock:                             # in whatever handles the service's own requests
        ...

GET gives the part's state as a pickle, PUT replaces it wholly or not at all, DELETE empties it. README.md
says what is promised, what is refused, and where the limits are. Python 3.8 or later.
"""

import collections
import contextlib
import copyreg
import datetime
import decimal
import enum
import hmac
import http.server
import io
import ipaddress
import logging
import mmap
import pathlib
import pickle
import queue
import re
import shutil
import socket
import sys
import tempfile
import threading
import types
import uuid

__all__ = ["State", "StateHandler", "Server", "Refused", "Unpicklable"]

MEDIA = "application/x-python-pickle"
MAX_BYTES = 1 << 30  # of a state, by default
MEMORY = 16 << 20  # of a state on its way; a larger one waits in a temporary file
DISCARD = 64 << 20  # of a body that was refused, so that its sender comes to read why

_PIECE = 1 << 16
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


class Refused(Exception):
    """A body that is not taken. status is 422 for what is no state of this service, which Torpor takes for
    damage; 415 for one of another version, which it keeps; 413, 411 and 400 for what HTTP calls so."""

    def __init__(self, message, status=422):
        super().__init__(message)
        self.status = status


class Unpicklable(Exception):
    """A state that cannot be saved; it says which attribute, by its path, and why."""


class State:
    """The parts of a service's state, and the lock under which they are read and replaced.

    allow   what a state may name, besides plain data and _plain() below: "module" for the classes that
            module defines, "package.*" for those of all its modules, "module:name" for one class or function
    path    the parts' URLs begin with it
    token   what requests must carry as "Authorization: Bearer TOKEN". None: whoever is on this machine may
    protocol, max_bytes   of the pickles, both ways
    lock    a lock that the service has already; it must be one that a thread can take twice (RLock)
    """

    def __init__(self, allow=(), *, path="/_torpor/state", token=None, protocol=4, max_bytes=MAX_BYTES, lock=None):
        if isinstance(allow, str) or not all(isinstance(a, str) and a for a in allow):
            raise TypeError("allow is a list of names of modules")
        if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", path):
            raise ValueError(f"path {path!r}: want one such as /_torpor/state")
        if protocol not in (4, 5):
            raise ValueError(f"protocol {protocol!r}: want 4 or 5")
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise ValueError("the token must be letters, digits and signs, without spaces")
        self.path, self.protocol, self.max_bytes = path, protocol, max_bytes
        self.lock = threading.RLock() if lock is None else lock
        self._token = None if token is None else token.encode()
        self._allow = frozenset(allow)
        self._parts = {}
        self._names = {}  # id of a target: the persistent id by which pickles refer to it
        self._targets = {}  # the reverse

    def part(self, name, target=None, /, *, keep=(), restored=None, **targets):
        """Registers a part, to be found at path/name: one target, or several by name, whose references to
        one another are kept.

        A target is a dict, a list, a set or an object with attributes. It stays the object it is: what is
        restored is put into it, so that whoever holds the target sees the restored state. What lies inside
        is new; reach for it through the target. References to a target from inside a state lead to it.

        keep      attributes of target objects that are no state and stay as they are
        restored  called, under the lock, when the part's contents have been replaced or emptied. If it
                  raises, what there was is put back, and the error is the answer
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in self._parts:
            raise ValueError(f"part {name!r}: a name of letters, digits, _ and -, of its own")
        if (target is None) == (not targets):
            raise TypeError("a part has one target, or several by name")
        if isinstance(keep, str):
            raise TypeError("keep is a list of names of attributes")
        part = _Part(name, {"": target} if target is not None else targets, frozenset(keep), restored)
        with self.lock:
            names = {id(t): f"{name}/{k}" if k else name for k, t in part.targets.items()}
            if len(names) < len(part.targets) or names.keys() & self._names.keys():
                raise ValueError(f"part {name}: a target is registered already")
            self._names.update(names)
            self._targets.update((names[id(t)], t) for t in part.targets.values())
            try:
                if any(_kind(t) is None for t in part.targets.values()):  # what emptying is, for objects
                    part.first = io.BytesIO()
                    self._dump(part, part.first)
            except BaseException:
                for i, pid in names.items():
                    del self._names[i], self._targets[pid]
                raise
            self._parts[name] = part

    def get(self, name):
        """The state of a part as a file open at its beginning, and its length. The caller closes it."""
        part = self._parts[name]
        file = tempfile.SpooledTemporaryFile(MEMORY)
        try:
            with self.lock:
                self._dump(part, file)
            size = file.tell()
            if size > self.max_bytes:
                raise Unpicklable(f"part {name}: a state of {size} bytes could not be restored: max_bytes is {self.max_bytes}")
            file.seek(0)
            return file, size
        except BaseException:
            file.close()
            raise

    def put(self, name, file):
        """Replaces the state of a part with what is read from file (a pickle, and nothing behind it), wholly
        or, if it raises, not at all."""
        part = self._parts[name]
        with _readable(file) as data:
            _scan(data)
            with self.lock:
                self._replace(part, self._load(part, data))

    def empty(self, name):
        """Empties a part; objects become what they were when they were registered."""
        part = self._parts[name]
        with self.lock:
            if part.first:
                contents = self._load(part, part.first.getvalue())
            contents = {k: _kind(t)() if _kind(t) else contents[k] for k, t in part.targets.items()}
            self._replace(part, contents)

    def serve(self, host="127.0.0.1", port=0):
        """Serves the parts on a port of their own, from a thread, and returns the Server. Addresses other
        than loopback need a token."""
        if self._token is None and not _loopback(host):
            raise ValueError(f"{host} can be reached from elsewhere: that needs a token")
        return Server(self, host, port)

    def mount(self, app):
        """A WSGI application that is app, and the parts under path: app.wsgi_app = state.mount(app.wsgi_app)."""

        def mounted(environ, start_response):
            if self.owns(_wsgi_path(environ)):
                return self.wsgi(environ, start_response)
            return app(environ, start_response)

        return mounted

    def owns(self, url):
        """Whether a request's path is one of the kit's."""
        path = _url_path(url)
        return path == self.path or path.startswith(self.path + "/")

    # What is saved and restored.

    def _dump(self, part, file):
        contents = {k: part.contents(t) for k, t in part.targets.items()}
        root = contents[""] if "" in contents else contents
        try:
            _Pickler(self, file).dump(root)
        except Exception as err:
            path, why = _blame(self, root, part, err)
            raise Unpicklable(f"{path}: {why}") from err

    def _load(self, part, data):
        unpickler = _Unpickler(self, io.BytesIO(data) if isinstance(data, bytes) else data)
        try:
            root = unpickler.load()
        except Refused:
            raise
        except (pickle.UnpicklingError, EOFError, ValueError, OverflowError, IndexError) as err:
            raise Refused(f"this is no state: {_said(err)}") from err
        except MemoryError as err:
            raise Refused("the state needs more memory than there is", 413) from err
        except Exception as err:  # of the service's own classes
            raise Refused(f"the state does not fit the service's classes: {_said(err)}", 415) from err
        finally:
            unpickler.put_back()
        if "" in part.targets:
            root = {"": root}
        elif type(root) is not dict:
            raise Refused(f"part {part.name} is a dict of {sorted(part.targets)}, this is a {type(root).__name__}")
        elif root.keys() != part.targets.keys():
            raise Refused(f"the state has {sorted(map(str, root))}, part {part.name} has {sorted(part.targets)}", 415)
        for k, target in part.targets.items():
            want = _kind(target) or dict
            if type(root[k]) is not want or _kind(target) is None and not all(type(a) is str for a in root[k]):
                raise Refused(f"part {part.name}{'/' + k if k else ''} is restored from a {want.__name__}, this is a {type(root[k]).__name__}")
        return root

    def _replace(self, part, contents):
        before = {k: part.contents(t) for k, t in part.targets.items()}
        try:
            for k, target in part.targets.items():
                part.fill(target, contents[k])
            if part.restored:
                part.restored()
        except BaseException:
            for k, target in part.targets.items():
                part.fill(target, before[k])
            raise

    def _allowed(self, module, name):
        """Whether a class of that module may be named, or exactly this thing."""
        if module in self._allow or f"{module}:{name}" in self._allow:
            return True
        while module:
            if module + ".*" in self._allow:
                return True
            module = module.rpartition(".")[0]
        return False

    # HTTP.

    def _answer(self, method, url, header, peer, body):
        """What a request is answered: status, headers, and a file or bytes. header gives a header or None;
        body(max_bytes) gives the body as a file that was read to its end, or raises Refused."""
        try:
            self._authorize(header, peer)
            name = _url_path(url)[len(self.path) + 1 :]
            if name not in self._parts:
                raise Refused(f"there is no part {name!r}", 404)
            if method == "GET":
                file, size = self.get(name)
                return 200, [("Content-Type", MEDIA), ("Content-Length", str(size))], file
            if method == "PUT":
                if header("Content-Encoding") not in (None, "", "identity"):
                    raise Refused("send the state as it is, without a Content-Encoding", 415)
                with body(self.max_bytes) as file:
                    self.put(name, file)
            elif method == "DELETE":
                self.empty(name)
            else:
                raise Refused("GET, PUT and DELETE are answered", 405)
            return 204, [("Content-Length", "0")], b""
        except Refused as err:
            status, text = err.status, str(err)
        except Unpicklable as err:
            status, text = 500, str(err)
        except ConnectionError:
            raise
        except Exception as err:
            logging.getLogger("torpor").exception("%s %s", method, url)
            status, text = 500, _said(err)
        said = (text + "\n").encode("utf-8", "backslashreplace")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(said)))]
        if status == 401:
            headers.append(("WWW-Authenticate", "Bearer"))
        if status == 405:
            headers.append(("Allow", "GET, PUT, DELETE"))
        return status, headers, said if method != "HEAD" else b""

    def _authorize(self, header, peer):
        if header("Origin") is not None or header("Sec-Fetch-Site") is not None:
            raise Refused("web pages have no business here", 403)
        if self._token is None:
            # A name that merely leads here could be a web page's own, made to point to this machine.
            host = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](:\d*)?|([^:]+)(:\d*)?", header("Host") or "localhost")
            if not host or not _loopback(peer) or not _loopback(host[1] or host[3]):
                raise Refused("without a token only this machine is answered, by the name localhost or its address", 403)
            return
        given = (header("Authorization") or "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            raise Refused("a token is needed: Authorization: Bearer TOKEN", 401)

    def wsgi(self, environ, start_response):
        """The parts as a WSGI application."""
        def header(name):
            return environ.get("HTTP_" + name.upper().replace("-", "_"))

        def body(limit):
            length = environ.get("CONTENT_LENGTH") or None
            if length is None and not environ.get("wsgi.input_terminated"):
                raise Refused("say how long the state is: Content-Length", 411)
            try:
                return _spool(environ["wsgi.input"].read, _length(length), limit)
            except (OSError, EOFError) as err:
                raise Refused(f"the body is cut off: {_said(err)}", 400) from err

        if not self.owns(_wsgi_path(environ)):
            status, headers, said = 404, [("Content-Length", "0")], b""
        else:
            status, headers, said = self._answer(environ["REQUEST_METHOD"], _wsgi_path(environ), header, environ.get("REMOTE_ADDR", ""), body)
        start_response(f"{status} {http.server.BaseHTTPRequestHandler.responses[status][0]}", headers + [("Cache-Control", "no-store")])
        return [said] if isinstance(said, bytes) else _Pieces(said)


class StateHandler:
    """For services on http.server: class Handler(torpor.StateHandler, BaseHTTPRequestHandler), with the State as
    its attribute torpor. Requests to the parts are answered before any do_GET or do_PUT of the service."""

    torpor = None

    def parse_request(self):
        if not super().parse_request():
            return False
        if not self.torpor.owns(self.path):
            return True
        headers = self.headers
        unread = [headers.get("Transfer-Encoding") is not None or headers.get("Content-Length", "0") != "0"]

        def body(limit):
            lengths, coding = headers.get_all("Content-Length", []), headers.get("Transfer-Encoding")
            if coding is not None and (lengths or coding.strip().lower() != "chunked"):
                raise Refused("a Content-Length, or chunks, and nothing else", 400)
            if coding is None and len(set(lengths)) != 1:
                raise Refused("say how long the state is: Content-Length", 411)
            try:
                if coding is not None:
                    file = _spool(_Chunks(self.rfile).read, None, limit)
                else:
                    file = _spool(self.rfile.read, _length(lengths[0]), limit)
            except OSError as err:  # a time-out among them
                raise Refused(f"the body is cut off: {_said(err)}", 400) from err
            unread[0] = False
            return file

        status, answer, said = self.torpor._answer(self.command, self.path, headers.get, self.client_address[0], body)
        with contextlib.closing(io.BytesIO(said) if isinstance(said, bytes) else said) as file:
            self.send_response(status)
            for name, value in answer + [("Cache-Control", "no-store")] + ([("Connection", "close")] if unread[0] else []):
                self.send_header(name, value)
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, _PIECE)
            self.wfile.flush()
        if unread[0]:
            # Closing on what was sent and not read would take the answer back.
            self.close_connection, left = True, DISCARD
            with contextlib.suppress(OSError):
                while left > 0:
                    piece = self.rfile.read1(_PIECE)
                    left = left - len(piece) if piece else 0
        return False


class Server:
    """Serves a State on a port of its own until close, which a with statement calls."""

    def __init__(self, state, host, port):
        class Handler(StateHandler, http.server.BaseHTTPRequestHandler):
            torpor, protocol_version, timeout, server_version = state, "HTTP/1.1", 60, "torpor"

            def parse_request(self):
                if super().parse_request():
                    self.send_error(404)
                return False

            def log_message(self, form, *args):
                logging.getLogger("torpor").debug(form, *args)

        class Listener(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def handle_error(self, request, client_address):  # whoever asked has gone
                logging.getLogger("torpor").debug("%s", client_address, exc_info=True)

        self._state, self._server = state, Listener((host, port), Handler)
        self.host, self.port = self._server.server_address[:2]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="torpor", daemon=True)
        self._thread.start()

    def url(self, name):
        """The state URL of a part."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self._state.path}/{name}"

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Part:
    def __init__(self, name, targets, keep, restored):
        self.name, self.targets, self.keep, self.restored, self.first = name, targets, keep, restored, None
        for k, target in targets.items():
            if _kind(target) is None and (not hasattr(target, "__dict__") or isinstance(target, (type, types.ModuleType) + _FUNCTIONS)):
                raise TypeError(f"part {name}{'/' + k if k else ''}: a {type(target).__name__} is no dict, list, set or object with attributes")

    def contents(self, target):
        """A copy of what the target holds, as it is pickled."""
        if _kind(target):
            return _copy(target)
        return {k: v for k, v in vars(target).items() if k not in self.keep}

    def fill(self, target, contents):
        if _kind(target):
            _fill(target, contents)
        else:
            kept = {k: v for k, v in vars(target).items() if k in self.keep}
            _fill(vars(target), {**contents, **kept})


# The methods are those of the built-in types: a subclass that does more when it is read or written, such as
# to make what is missing, is saved and restored here, not used.


def _copy(target):
    if isinstance(target, dict):
        return dict(_base(target).items(target))
    return list(target) if isinstance(target, list) else set(target)


def _fill(target, contents):
    if isinstance(target, dict):
        _base(target).clear(target)
        _base(target).update(target, contents)
    elif isinstance(target, list):
        list.__setitem__(target, slice(None), contents)
    else:
        set.clear(target)
        set.update(target, contents)


def _base(target):
    return collections.OrderedDict if isinstance(target, collections.OrderedDict) else dict


def _kind(target):
    for kind in (dict, list, set):
        if isinstance(target, kind):
            return kind
    return None


def _plain():
    """What a state may name without being allowed to: data, and what locks are made of anew."""

    def span(*args):  # not 10 GB of numbers, once someone makes a list of it
        made = range(*args)
        if len(made) > 1 << 24:
            raise Refused(f"a range of {len(made)} numbers")
        return made

    of = {
        "builtins": (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, object, set, slice, str, tuple),
        "collections": (collections.ChainMap, collections.Counter, collections.OrderedDict, collections.UserDict, collections.UserList, collections.defaultdict, collections.deque),
        "datetime": (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
        "decimal": (decimal.Decimal,),
        "ipaddress": (ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network, ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
        "pathlib": (pathlib.PurePosixPath, pathlib.PosixPath, pathlib.PureWindowsPath),
        "queue": (queue.LifoQueue, queue.PriorityQueue, queue.Queue),
        "threading": (threading.BoundedSemaphore, threading.Condition, threading.Event, threading.Semaphore),
        "types": (types.SimpleNamespace,),
        "uuid": (uuid.SafeUUID, uuid.UUID),
    }
    plain = {(module, kind.__name__): kind for module, kinds in of.items() for kind in kinds}
    plain["builtins", "range"] = span
    for name in ("PurePosixPath", "PosixPath", "PureWindowsPath"):  # of Python 3.13
        plain["pathlib._local", name] = plain["pathlib", name]
    # Under the names they have had. Functions are made for this once, so that nothing can be done to them.
    for module, name in (("threading", "RLock"), ("_thread", "RLock")):
        plain[module, name] = lambda: threading.RLock()
    for module, name in (("threading", "Lock"), ("_thread", "allocate_lock"), ("_thread", "lock")):
        plain[module, name] = lambda: threading.Lock()
    return plain


_PLAIN = frozenset(_plain())

# A lock is restored as a new one, which nobody holds.
_LOCKS = {
    type(threading.Lock()): lambda lock: (threading.Lock, ()),
    type(threading.RLock()): lambda lock: (threading.RLock, ()),
    threading.Condition: lambda condition: (threading.Condition, (condition._lock,)),
}


class _Pickler(pickle.Pickler):
    def __init__(self, state, file):
        super().__init__(file, state.protocol)
        self.dispatch_table = {**copyreg.dispatch_table, **_LOCKS}
        self._state = state

    def persistent_id(self, obj):
        return self._state._names.get(id(obj))

    def reducer_override(self, obj):
        # Classes and functions come by here: what could not be restored is not saved either.
        if isinstance(obj, type) or isinstance(obj, _FUNCTIONS):
            _check_global(self._state, obj)
        return NotImplemented


def _check_global(state, obj):
    module, name = pickle.whichmodule(obj, obj.__qualname__), obj.__qualname__
    if (module, name) in _PLAIN:
        return
    if not state._allowed(module, name) or not isinstance(obj, type) and f"{module}:{name}" not in state._allow:
        raise pickle.PicklingError(f"{_what(obj)} {module}.{name} may not be in a state: it is not in allow")


class _Unpickler(pickle.Unpickler):
    def __init__(self, state, file):
        super().__init__(file)
        self._state, self._plain, self._found, self._before = state, _plain(), {}, {}

    def persistent_load(self, pid):
        try:
            target = self._state._targets[pid]
            if pid not in self._before:
                attributes = vars(target) if hasattr(target, "__dict__") else None
                self._before[pid] = type(target), _copy(target) if _kind(target) else None, None if attributes is None else dict(attributes)
            return target
        except (KeyError, TypeError):
            raise Refused(f"the state refers to {pid!r}, which is not registered", 415) from None

    def find_class(self, module, name):
        found = self._plain.get((module, name))
        if found is None:
            if not self._state._allowed(module, name):
                raise Refused(f"the state names {module}.{name}, which it may not: it is not in allow", 415)
            found = sys.modules.get(module)  # nothing is imported because a state says so
            for step in name.split("."):
                found = getattr(found, step, None)
                if not isinstance(found, type):
                    break
            if found is None:
                raise Refused(f"the state names {module}.{name}, which there is not, or not yet", 415)
            # Not what a module has merely imported, such as os.system.
            if not isinstance(found, type) or not self._state._allowed(found.__module__, found.__qualname__):
                if f"{module}:{name}" not in self._state._allow:
                    raise Refused(f"the state names {module}.{name}, which is no class that {module} defines", 415)
        if isinstance(found, type) and found not in self._found:
            self._found[found] = dict(vars(found))
            if issubclass(found, enum.Enum):
                self._found.update((member, dict(vars(member))) for member in found)
        return found

    def put_back(self):
        """A pickle can set attributes of whatever it names, and put things into what it refers to: classes and
        the service's own targets too, while it is being read. It is refused if it has."""
        touched = []
        for obj, before in self._found.items():
            assign, remove = (type.__setattr__, type.__delattr__) if isinstance(obj, type) else (object.__setattr__, object.__delattr__)
            now = dict(vars(obj))
            for k in now.keys() - before.keys():
                remove(obj, k)
                if k != "__slotnames__":  # which copyreg remembers there
                    touched.append(f"{k} of {obj!r}")
            for k, v in before.items():
                if k not in now or now[k] is not v:
                    assign(obj, k, v)
                    touched.append(f"{k} of {obj!r}")
        for pid, (kind, contents, attributes) in self._before.items():
            target = self._state._targets[pid]
            if type(target) is not kind:
                object.__setattr__(target, "__class__", kind)
                touched.append(f"the class of {pid}")
            for now, before in ((target, contents), (getattr(target, "__dict__", None), attributes)):
                if before is not None and not _same(_copy(now), before):
                    _fill(now, before)
                    touched.append(f"what is in {pid}")
        if touched:
            raise Refused(f"the state changes {touched[0]}, while it is read")


def _same(a, b):
    """Whether two copies hold the same objects."""
    if isinstance(a, set):
        return len(a) == len(b) and {id(v) for v in a} == {id(v) for v in b}
    if isinstance(a, dict):
        a, b = [v for item in a.items() for v in item], [v for item in b.items() for v in item]
    return len(a) == len(b) and all(v is w for v, w in zip(a, b))


# Opcodes of a fixed length, and short texts, by the hundred; the others are _LONG: the bytes of their length.
_SHORT = (
    rb"(?:[()012}\]NabdelostuRQ\x81\x85-\x89\x8f-\x94]|[Khq].|M..|[Jj]....|G.{8}|\x8c(?:%s)){1,100}"
    % b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(256))
)
_LONG = {b"C": 1, b"U": 1, b"\x8a": 1, b"X": 4, b"B": 4, b"T": 4, b"\x8b": 4, b"\x8d": 8, b"\x8e": 8, b"\x96": 8}


def _scan(data):
    """Looks over the opcodes of a pickle before anything is made of it: that each is one of protocol 2 or later,
    that lengths stay within it, that it ends where the data ends, and that no place in the memo is asked for
    but by a pickle long enough to fill it: the C pickler would clear memory for all places below."""
    if len(data) < 2 or data[0] != 0x80 or data[1] < 2:
        raise Refused("this is no pickle of protocol 2 or later")
    if data[1] > pickle.HIGHEST_PROTOCOL:
        raise Refused(f"a pickle of protocol {data[1]}; this Python reads up to {pickle.HIGHEST_PROTOCOL}", 415)
    at, size, short = 2, len(data), re.compile(_SHORT, re.DOTALL)  # when first needed: it takes some 50 ms
    while at < size:
        match = short.match(data, at)
        if match:
            at = match.end()
            continue
        op, at = data[at : at + 1], at + 1
        if op == b".":
            if at < size:
                raise Refused(f"there are {size - at} bytes behind the end of the pickle")
            return
        if op in _LONG:
            n = int.from_bytes(data[at : at + _LONG[op]], "little")
            at += _LONG[op] + n
        elif op == b"r" and int.from_bytes(data[at : at + 4], "little") <= size:
            at += 4
        elif op == b"\x95":  # a frame, whose contents come next
            if int.from_bytes(data[at : at + 8], "little") > size:
                break
            at += 8
        elif op == b"c":
            line = re.compile(rb"[^\n]*\n[^\n]*\n").match(data, at)
            at = line.end() if line else size
        else:
            raise Refused(f"this is no state: there is no opcode {op!r} in pickles of protocol 2 or later, at byte {at - 1}")
    raise Refused("this is no state: it ends too early")


def _blame(state, root, part, err):
    """The path to what cannot be pickled, and why: a walk over what a pickler would look at."""
    seen, todo, deepest = {}, [(root, None)], 0  # a path: the one before, the step, its length
    plain = (type(None), bool, int, float, complex, str, bytes, bytearray)
    table = {**copyreg.dispatch_table, **_LOCKS}
    while todo:
        obj, path = todo.pop()
        if type(obj) in plain or id(obj) in seen or id(obj) in state._names:
            continue
        seen[id(obj)] = obj
        deeper = []
        try:
            if isinstance(obj, type) or isinstance(obj, _FUNCTIONS):
                _check_global(state, obj)
                pickle.dumps(obj, state.protocol)
            elif type(obj) is dict:
                for k, v in obj.items():
                    deeper += [(k, f" key {_short(k)}"), (v, f"[{_short(k)}]")]
            elif type(obj) in (list, tuple):
                deeper = [(v, f"[{i}]") for i, v in enumerate(obj)]
            elif type(obj) in (set, frozenset):
                deeper = [(v, f" item {_short(v)}") for v in obj]
            else:
                reduce = table.get(type(obj))
                made = reduce(obj) if reduce else obj.__reduce_ex__(state.protocol)
                if isinstance(made, str):
                    pickle.dumps(obj, state.protocol)
                    continue
                call, args, inner, items, pairs = (tuple(made) + (None,) * 3)[:5]
                new = getattr(call, "__module__", "") == "copyreg" and call.__name__ in ("__newobj__", "__newobj_ex__")
                deeper = [] if new else [(call, f" ({_what(obj)})")]
                deeper += [(a, f" ({_what(obj)})" if isinstance(a, type) or isinstance(a, _FUNCTIONS) else f" argument {i}") for i, a in enumerate(args)]
                slots = {}
                if isinstance(inner, tuple) and len(inner) == 2 and isinstance(inner[1], dict):
                    inner, slots = inner
                for attributes in (inner, slots):
                    if type(attributes) is dict:
                        deeper += [(v, f".{k}") for k, v in attributes.items()]
                    else:
                        deeper.append((attributes, " state"))
                deeper += [(v, f"[{i}]") for i, v in enumerate(items or ())]
                deeper += [(v, f"[{_short(k)}]") for k, v in pairs or ()]
        except Exception as why:  # pickle raises whatever the class does
            return _path(part, path), _said(why)
        length = path[2] + 1 if path else 1
        deepest = max(deepest, length)
        todo += [(v, (path, step, length)) for v, step in reversed(deeper)]
    if isinstance(err, RecursionError):
        return f"part {part.name}", f"references go {deepest} deep, more than Python's pickler can follow (sys.setrecursionlimit)"
    return f"part {part.name}", _said(err)


def _path(part, path):
    steps = []
    while path:
        steps.append(path[1])
        path = path[0]
    if not steps:
        return f"part {part.name}"
    first, rest = steps.pop(), "".join(reversed(steps[:100]))
    if "" in part.targets and _kind(part.targets[""]) is None and first.startswith("["):
        first = "." + first[2:-2]  # an attribute of the target
    return f"part {part.name}: {first.strip()}{rest}"


def _short(key):
    text = repr(key) if isinstance(key, (str, bytes, int, float, tuple)) else f"<{type(key).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def _what(obj):
    return "class" if isinstance(obj, type) else "function" if isinstance(obj, _FUNCTIONS) else type(obj).__name__


def _said(err):
    return f"{type(err).__name__}: {err}" if str(err) else type(err).__name__


@contextlib.contextmanager
def _readable(file):
    """The bytes of a file, in memory or mapped into it."""
    if isinstance(file, tempfile.SpooledTemporaryFile):
        size = file.seek(0, io.SEEK_END) or file.tell()  # seek returns nothing before Python 3.11
        file.seek(0)
        if size > MEMORY:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
            return
    yield file.read()


def _spool(read, length, limit):
    """Reads a body of so many bytes, or to its end, into a file."""
    if length is not None and length > limit:
        raise Refused(f"a state of {length} bytes; at most {limit} are taken", 413)
    file, size = tempfile.SpooledTemporaryFile(MEMORY), 0
    try:
        while length is None or size < length:
            piece = read(_PIECE if length is None else min(_PIECE, length - size))
            if not piece:
                if length is not None:
                    raise Refused(f"the body is cut off: {size} bytes of {length}", 400)
                break
            size += len(piece)
            if size > limit:
                raise Refused(f"a state of more than {limit} bytes", 413)
            file.write(piece)
        file.seek(0)
        return file
    except BaseException:
        file.close()
        raise


def _length(text):
    if text is not None and not re.fullmatch(r"[0-9]{1,18}", text):
        raise Refused("the Content-Length is no number", 400)
    return None if text is None else int(text)


class _Chunks:
    """Reads a chunked body; its end is the last chunk, not that of the connection."""

    def __init__(self, file):
        self._file, self._left, self._ended = file, 0, False

    def _line(self):
        line = self._file.readline(4097)
        if not line.endswith(b"\n") or len(line) > 4096:
            raise Refused("the body is cut off, or its chunks are none", 400)
        return line.rstrip(b"\r\n")

    def read(self, n):
        if self._ended:
            return b""
        if self._left == 0:
            digits = self._line().partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):
                raise Refused("the length of a chunk is no number", 400)
            self._left = int(digits, 16)
            if self._left == 0:
                while self._line():  # trailers
                    pass
                self._ended = True
                return b""
        piece = self._file.read(min(n, self._left))
        if not piece:
            raise Refused("the body is cut off in a chunk", 400)
        self._left -= len(piece)
        if self._left == 0 and self._line():
            raise Refused("a chunk is longer than it says", 400)
        return piece


class _Pieces:
    def __init__(self, file):
        self._file, self.close = file, file.close

    def __iter__(self):
        return iter(lambda: self._file.read(_PIECE), b"")


def _url_path(url):
    return re.split("[?#]", url, maxsplit=1)[0]


def _wsgi_path(environ):
    return environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")


def _loopback(host):
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
