"""The classes whose instances graphs.py pickles and compare.py loads again: one for each way in which an
object can tell pickle how it is to be kept."""
import collections
import copyreg
import enum


class Plain:
    """Kept by its __dict__."""


class Numbered(Plain):
    """Plain, with a serial number that tells it from all others: it can be in a set."""


class Stateful:
    """State of its own choice, which is no dict."""

    def __getstate__(self):
        return list(self.__dict__.items())

    def __setstate__(self, state):
        self.__dict__.update(state)


class Bare:
    """Without any state: there is no BUILD."""

    def __getstate__(self):
        return None


class Slots:
    __slots__ = ("a", "b", "unset")


class SlotsAndDict(Slots):
    """State is a pair of a dict and the slots."""


class SlotsKept:
    """Slots that protocols 0 and 1 keep, too."""

    __slots__ = ("a", "b")

    def __getstate__(self):
        return None, {n: getattr(self, n) for n in self.__slots__ if hasattr(self, n)}


class NewArgs:
    def __new__(cls, *args):
        self = super().__new__(cls)
        self.given = args
        return self

    def __getnewargs__(self):
        return self.given

    def __reduce_ex__(self, protocol):  # protocols 0 and 1 know no __getnewargs__
        return object.__reduce_ex__(self, max(protocol, 2))


class NewArgsEx(NewArgs):
    """Keyword arguments: NEWOBJ_EX, or functools.partial before protocol 4."""

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls, *args)
        self.named = kwargs
        return self

    def __getnewargs_ex__(self):
        return self.given, self.named


def build(*args):
    made = Reduced()
    made.args = args
    return made


def set_state(made, state):
    made.set_by = state


class Reduced:
    """__reduce__ of 2 to 6 elements, as fields say. What was given to build must not change after it was."""

    def __init__(self):
        self.args = ()

    def __reduce__(self):
        state = {k: v for k, v in self.__dict__.items() if k not in ("args", "set_by", "elements", "pairs", "length")}
        length = self.__dict__.get("length", 2)
        whole = (build, self.args, state or None, iter(self.__dict__.get("elements", ())), iter(self.__dict__.get("pairs", ())), None)
        if length == 6:
            return (*whole[:2], self.__dict__.get("set_by"), *whole[3:5], set_state)
        return whole[:length]

    def append(self, element):
        self.__dict__.setdefault("elements", []).append(element)

    def extend(self, elements):
        for element in elements:
            self.append(element)

    def __setitem__(self, key, value):
        self.__dict__.setdefault("pairs", []).append((key, value))


class AppendOnly:
    """Without extend: it takes its elements one by one."""

    def __init__(self):
        self.elements = []

    def append(self, element):
        self.elements.append(element)

    def __reduce__(self):
        return AppendOnly, (), None, iter(self.elements)


class ByName:
    def __reduce__(self):
        return "THE_ONE"


THE_ONE = ByName()


class Registered:
    """Kept by a reducer in copyreg."""


def make_registered(state):
    made = Registered()
    made.__dict__.update(state)
    return made


copyreg.pickle(Registered, lambda r: (make_registered, (r.__dict__,)))


class Outer:
    class Inner:
        """A qualified name: a dot in STACK_GLOBAL, getattr before protocol 4."""

        def method(self):
            return self

    @classmethod
    def make(cls):
        return cls()


class ListChild(list):
    pass


class DictChild(dict):
    pass


class SetChild(set):
    pass


class FrozenSetChild(frozenset):
    pass


class TupleChild(tuple):
    pass


class StrChild(str):
    pass


class BytesChild(bytes):
    pass


class ByteArrayChild(bytearray):
    pass


class IntChild(int):
    pass


class FloatChild(float):
    pass


class DequeChild(collections.deque):
    pass


class OrderedChild(collections.OrderedDict):
    pass


Point = collections.namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class External:
    """Lives outside: kept by a persistent id."""

    def __init__(self, pid):
        self.pid = pid


class Extended1(Plain):
    pass


class Extended2(Plain):
    pass


class Extended4(Plain):
    pass


EXTENSIONS = {"Extended1": 0xF1, "Extended2": 0xF102, "Extended4": 0x7FF10203}
for _name, _code in EXTENSIONS.items():
    copyreg.add_extension(__name__, _name, _code)


def code_of(*parts):
    """Stands for what dill makes functions of: a call with very many arguments."""
    made = Reduced()
    made.args = parts
    return made


def set_item(mapping, key, value):
    """Called for what it does, not for what it gives, as dill calls operator.setitem."""
    mapping[key] = value
