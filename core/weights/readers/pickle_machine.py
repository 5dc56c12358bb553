"""Reads a pickle without running anything: an interpreter for its opcodes that only handles data.

Python's own unpickler calls whatever a file names. This one never imports, calls or looks up anything: a
global stays a name, the result of a call becomes a `TensorRef`, a plain container or an inert `Placeholder`,
and names that are not on the short list (core/weights/readers/pickle_names.py) are collected, for the caller
to refuse.

The opcodes are those of Python's `pickletools`, protocols 0 to 5. Every opcode costs a bounded amount of
memory and time, and their number is limited.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, cast

from core.weights.readers.mapped_file import MAX_NAME, Damaged, shown
from core.weights.readers.pickle_names import DTYPES, HARMLESS, STORAGES

MAX_OPCODES = 500_000  # ten times as many as in the largest training checkpoints of SD


class PickleSource(Protocol):
    """The file interface that `pickletools` needs."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


@dataclass(frozen=True)
class Global:
    """The name of something importable. It is never imported."""

    name: str


class Placeholder:
    """Replaces an object that the file would have made. It takes any state and does nothing."""

    __slots__ = ()


@dataclass(frozen=True)
class StorageRef:
    """A storage in the file: its key, its dtype, and its number of elements by the pickle."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor over a storage; offset and strides in elements of `dtype`."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Pickled:
    """A pickle's content: its value, its storages, and every global that it names."""

    value: Any = None
    storages: dict[str, StorageRef] = field(default_factory=dict)
    globals: list[str] = field(default_factory=list)

    @property
    def refused(self) -> list[str]:
        """The globals that weights never need."""
        return [name for name in self.globals if name not in KNOWN]


def read_pickle(source: PickleSource) -> Pickled:
    """Read one pickle, to its STOP. Raises Damaged for anything else."""
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", source))):
            if count >= MAX_OPCODES:
                raise Damaged("is not a model: its pickle has more opcodes than any training run saves")
            machine.step(opcode.name, argument)
    except Damaged:
        raise
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:
        raise Damaged(f"is damaged: its pickle cannot be read ({type(error).__name__})") from None
    return machine.result


_MARK = object()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": lambda: (),
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": Placeholder,
}
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)
_MEMO_WRITES, _MEMO_READS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_NOTHING = {"PROTO", "FRAME", "STOP"}


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result = Pickled()

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _MEMO_WRITES:
            self.memo[argument] = stack[-1]
        elif name in _MEMO_READS:
            stack.append(self.memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _NOTHING:
            if name == "STOP":
                self.result.value = stack.pop()
        else:
            operation = getattr(self, f"op_{name.lower()}", None)
            if operation is None:
                raise Damaged(f"is damaged: its pickle has a {name}, which no model file has")
            operation(argument)

    def _to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
        return items

    def _named(self, module: str, name: str) -> None:
        # Python 2's name of the module, which protocols below 3 still write.
        name = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if len(name) > MAX_NAME or not name.isprintable():
            raise Damaged("is damaged or malicious: its pickle asks Python for an invalid name")
        if name not in self.result.globals:
            self.result.globals.append(name)
        self.stack.append(Global(name))

    # Methods named after the opcodes, in the order of Python's documentation.

    def op_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def op_pop(self, _: Any) -> None:
        self.stack.pop()

    def op_pop_mark(self, _: Any) -> None:
        self._to_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._to_mark()))

    def op_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def op_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def op_list(self, _: Any) -> None:
        self.stack.append(self._to_mark())

    def op_dict(self, _: Any) -> None:
        items = self._to_mark()
        self.stack.append({})
        self._set(items)

    def op_frozenset(self, _: Any) -> None:
        self._to_mark()
        self.stack.append(Placeholder())

    def op_append(self, _: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def op_appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def op_additems(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise Damaged("is damaged: its pickle appends to something that is not a list")

    def op_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def op_setitems(self, _: Any) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            # Other keys are not needed, and hashing a deep tuple may overflow the interpreter's stack.
            target.update((k, v) for k, v in zip(items[::2], items[1::2], strict=True) if type(k) is str)
        elif not isinstance(target, Placeholder):
            raise Damaged("is damaged: its pickle sets items of something that is not a dict")

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._named(module, name)

    def op_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Damaged("is damaged: its pickle names a global by something other than text")
        self._named(module, name)

    def op_inst(self, argument: str) -> None:
        self._to_mark()
        self.op_global(argument)
        self.stack[-1] = Placeholder()

    def op_obj(self, _: Any) -> None:
        self._to_mark()
        self.stack.append(Placeholder())

    def op_newobj(self, _: Any) -> None:
        del self.stack[-2:]
        self.stack.append(Placeholder())

    def op_newobj_ex(self, _: Any) -> None:
        del self.stack[-3:]
        self.stack.append(Placeholder())

    def op_build(self, _: Any) -> None:
        self.stack.pop()  # an object's state, which is discarded

    def op_binpersid(self, _: Any) -> None:
        storage = _storage(self.stack.pop())
        known = self.result.storages.setdefault(storage.key, storage)
        self.stack.append(known)

    def op_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(function, arguments))


def _made(function: Any, arguments: Any) -> Any:
    """The result of a call of the global, for the few that are needed."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        return Placeholder()
    builder = _BUILDERS.get(function.name)
    return Placeholder() if builder is None else builder(*arguments)


def _storage(identity: Any) -> StorageRef:
    """A storage by its persistent id: ("storage", its class, key, device, count)."""
    kind, storage, key, _, count = identity[:5]
    if kind != "storage" or not isinstance(storage, Global) or storage.name not in STORAGES:
        raise Damaged(f"is damaged: its pickle refers to {shown(kind)}, not to a storage")
    if type(key) is not str or not _whole(count) or any(part is not None for part in identity[5:]):
        raise Damaged("is damaged: its pickle has an invalid storage")
    return StorageRef(key, STORAGES[storage.name], count)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any, dtype: str | None = None
) -> TensorRef:
    """`torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, StorageRef) or len(shape) != len(strides) or not all(map(_whole, numbers)):
        raise Damaged("is damaged: its pickle has an invalid tensor")
    return TensorRef(storage, dtype or storage.dtype, offset, tuple(shape), tuple(strides))


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, dtype: Any, *_: Any
) -> TensorRef:
    """`torch._utils._rebuild_tensor_v3`, with an explicit dtype and a storage of bytes."""
    if not isinstance(dtype, Global) or dtype.name not in DTYPES:
        raise Damaged("is damaged: its pickle has an invalid tensor")
    return _tensor(storage, offset, shape, strides, dtype=dtype.name.removeprefix("torch."))


def _subclassed(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a tensor of a subclass, or with its own attributes."""
    if isinstance(function, Global) and function.name == "torch._tensor._rebuild_from_type_v2":
        raise Damaged("is damaged: its pickle makes a tensor from itself")
    return _made(function, arguments)


def _table(*arguments: Any) -> dict[str, Any]:
    """An OrderedDict or a defaultdict, from pairs of names and values, if any."""
    pairs = arguments[-1] if arguments and isinstance(arguments[-1], list) else []
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and type(pair[0]) is str}


_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": _subclassed,
    "torch.Size": lambda shape=(): tuple(shape),
    "collections.OrderedDict": _table,
    "collections.defaultdict": _table,
}
KNOWN = HARMLESS | DTYPES | STORAGES.keys() | _BUILDERS.keys()


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62
