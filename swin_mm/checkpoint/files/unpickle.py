"""Reads pickles as data: a closed table says what a file may build, and nothing else exists.

A pickle names functions and has them called. Here a name only ever gives an entry of a table; an
entry is no function, and what it builds is checked: sizes and offsets before memory is taken, types
before anything is set. Written in Python on `pickle._Unpickler`, whose memo is a dict: the one in C
takes as much memory as a damaged file asks for.
"""

import collections
import io
import pickle
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from swin_mm.checkpoint.files.rebuild import build, find_global, set_state
from swin_mm.checkpoint.files.tensors import Storage
from swin_mm.checkpoint.files.values import FileContentError, Global, check_key, require

# Deepest nesting of containers; no known script reaches 20.
MAX_DEPTH = 100

DICTS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
OPCODES = {
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
    *(pickle.DUP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT),
    *(pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.FLOAT),
    *(pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES),
    *(pickle.SHORT_BINBYTES, pickle.BINBYTES8, pickle.UNICODE, pickle.BINUNICODE),
    *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2),
    *(pickle.TUPLE3, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.LIST, pickle.DICT, pickle.FROZENSET, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.PUT),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.MEMOIZE, pickle.BINPERSID),
}


class Unpickler(pickle._Unpickler):
    """Reads one pickle.

    Args:
        file: With `read` and `readline`, in memory, so that a lying length reads what there is.
        find_storage: Gives the `Storage` of a persistent id; None where there are none.
    """

    # What the class of pickle has.
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in OPCODES
    }

    def __init__(
        self, file: io.BytesIO, find_storage: Callable[[tuple], Storage] | None = None
    ) -> None:
        super().__init__(file, encoding="latin1")
        self.find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        return find_global(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        if self.find_storage is None or type(pid) is not tuple:
            raise FileContentError("it refers to data outside itself")
        return self.find_storage(pid)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = build(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = build(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        if keywords:
            raise FileContentError("it builds an object by keywords")
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        set_state(self.stack[-1], state)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_append(self) -> None:
        value = self.stack.pop()
        _expect(self.stack[-1], (list, collections.deque)).append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        _expect(self.stack[-1], (list, collections.deque)).extend(values)

    def load_additems(self) -> None:
        values = self.pop_mark()
        _expect(self.stack[-1], (set,)).update(map(check_key, values))

    def load_frozenset(self) -> None:
        self.append(frozenset(map(check_key, self.pop_mark())))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _expect(self.stack[-1], DICTS)[check_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = _expect(self.stack[-1], DICTS)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({check_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)})

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
    }


def check_structure(root: Any) -> None:
    """Checks that content can be walked through, and holds values alone.

    Raises:
        FileContentError: It is nested deeper than `MAX_DEPTH`, contains itself, or holds a name
            that was never made into a value.
    """
    _height(root, {}, set())


def _height(value: Any, heights: dict[int, int], open_ids: set[int]) -> int:
    """Levels of containers in a value, those of `heights` known by its id."""
    children = _children(value)
    if children is None:
        return 0
    if id(value) in open_ids:
        raise FileContentError("it contains itself")
    if len(open_ids) < MAX_DEPTH and id(value) not in heights:
        open_ids.add(id(value))
        inner = (_height(child, heights, open_ids) for child in children)
        heights[id(value)] = 1 + max(inner, default=0)
        open_ids.remove(id(value))
    height = heights.get(id(value), 1)
    if len(open_ids) + height > MAX_DEPTH:
        raise FileContentError(f"it is nested more than {MAX_DEPTH} levels deep")
    return height


def _children(value: Any) -> Iterable[Any] | None:
    """What a container holds, None for all that is no container."""
    if isinstance(value, Global | Storage):
        raise FileContentError(f"it holds {value} where a value was expected")
    if isinstance(value, dict):
        return [*value.values(), *getattr(value, "__dict__", {}).values()]
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return value
    if isinstance(value, SimpleNamespace | Namespace):
        return vars(value).values()
    return None


def _expect(target: Any, kinds: tuple[type, ...]) -> Any:
    require(type(target) in kinds, f"values are put into a {type(target).__name__}")
    return target


def tensors(root: Any) -> Iterator[Tensor]:
    """Gives every tensor within dicts; to be called on checked content."""
    stack, seen = [root], set()
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            stack += value.values()
