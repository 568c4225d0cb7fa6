"""What a correct object does: models of a register, a lock, a key-value store and a list.

A model is a state and a function that says what an operation makes of it, or that the operation could not
have gone like that. The operations of different keys are independent objects, each with a state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Protocol

from paxos.sim.linearizability.foresight import Foresight, foresee
from paxos.sim.linearizability.operations import (
    MISSING,
    UNKNOWN,
    Marker,
    Operation,
    distinct,
    is_ambiguous,
    same,
    show,
)

REFUSED: Final = Marker.REFUSED
"""What `Model.step` returns for an operation that cannot have happened in that state."""

NO_NAMES: Final[frozenset[str]] = frozenset()


class Model(Protocol):
    """What a sequential object does. Subclass it for your own; `initial`, `step` and `functions` are enough.

    Attributes:
        name: how the command line calls it.
        functions: names of the operations that it knows.
        reads: those that never change the state, whatever it is. Their failed and open operations are
            dropped, and the search may place them at the first moment that fits.
        anonymous: `step` does not look at the process of an operation; then equal operations of different
            processes are one to the search.
        overwrites: those after which the state does not depend on what it was, and which are never refused.
        unconditional: those that are never refused in any state.

    The last two serve only to find a smaller counter-example.
    """

    name: str = "model"
    functions: frozenset[str] = NO_NAMES
    reads: frozenset[str] = NO_NAMES
    anonymous: bool = False
    overwrites: frozenset[str] = NO_NAMES
    unconditional: frozenset[str] = NO_NAMES

    def initial(self) -> Hashable:
        """Return the state before the first operation."""
        ...

    def step(self, state: Any, operation: Operation) -> Hashable:
        """Return the state after ``operation``, or ``REFUSED``.

        It must depend on nothing but ``state`` and the function, value, result and (unless the model is
        ``anonymous``) process of ``operation``. Of an open operation the result is ``UNKNOWN``: return
        the state as it is if the operation takes effect; that it may not is taken care of.
        """
        ...

    def validate(self, operation: Operation) -> None:
        """Raise ValueError if ``operation`` makes no sense for this model, whatever the state."""
        if operation.f not in self.functions:
            known = ", ".join(sorted(self.functions))
            raise ValueError(f"{self.name} knows no operation {operation.f!r}, only {known}")

    def prepare(self, operations: Sequence[Operation]) -> Model:
        """Return a model that may use what it learns from all operations of one key to answer `ends_reads`."""
        return self

    def ends_reads(self, state: Any) -> bool:
        """Return True if no read among the operations can succeed any more from ``state`` on."""
        return False

    def foresee(self, operations: Sequence[Operation]) -> Foresight | None:
        """Return what the reads among all operations of one key force upon any order, if that is known."""
        return None

    def erase(self, gone: Sequence[Operation], others: Sequence[Operation]) -> list[Operation] | None:
        """Return ``others`` as they would be had ``gone`` never happened, or ``None`` if nobody can tell.

        If an order explains all of them, then one must explain what this returns.
        """
        return None

    def show(self, state: Any) -> str:
        """Return a state as people read it."""
        return show(state)


def demand_result(operation: Operation) -> None:
    """Raise ValueError for a completed read that does not say what it read."""
    if operation.result is MISSING:
        raise ValueError(f"the ok of a {operation.f} carries no value (null is one, if nothing was there)")


def demand_no_result(operation: Operation) -> None:
    """Raise ValueError for a completed mutation that says something else than what was asked."""
    result = operation.result
    if result in (UNKNOWN, MISSING, None) or same(result, operation.value):
        return
    raise ValueError(f"the ok of {operation.f} {show(operation.value)} says {show(result)}; it has no result")


def demand_pair(operation: Operation) -> None:
    """Raise ValueError for a compare-and-set without exactly two values."""
    if not isinstance(operation.value, tuple) or len(operation.value) != 2:
        raise ValueError(f"cas wants [expected new], not {show(operation.value)}")


class _Values(Model):
    """One value that is read, overwritten, and perhaps compared, appended to or deleted.

    Args:
        initial: what a read finds before anything was written.
    """

    anonymous = True
    READS: ClassVar[frozenset[str]] = frozenset({"read", "get"})
    WRITES: ClassVar[frozenset[str]] = frozenset({"write", "put"})

    def __init__(self, initial: Any = None) -> None:
        self._initial = initial
        self.reads = self.functions & self.READS
        self.overwrites = self.functions & (self.WRITES | {"delete"})
        self.unconditional = self.overwrites | self.functions & {"append"}

    def initial(self) -> Hashable:
        return self._initial  # type: ignore[no-any-return]

    def validate(self, operation: Operation) -> None:
        super().validate(operation)
        if operation.f in self.reads:
            demand_result(operation)
            return
        demand_no_result(operation)
        if operation.f == "cas":
            demand_pair(operation)
        elif operation.f == "append" and not isinstance(operation.value, str | bytes):
            raise ValueError(f"append wants a string, not {show(operation.value)}; see the model list-append")

    def step(self, state: Any, operation: Operation) -> Hashable:
        f = operation.f
        if f in self.reads:
            return state if same(state, operation.result) else REFUSED
        if f == "cas":
            expected, new = operation.value
            return new if same(state, expected) else REFUSED
        if f == "append":
            if state is None:
                return operation.value  # type: ignore[no-any-return]
            return state + operation.value if type(state) is type(operation.value) else REFUSED
        return self._initial if f == "delete" else operation.value  # type: ignore[no-any-return]

    def foresee(self, operations: Sequence[Operation]) -> Foresight | None:
        return foresee(operations, self.reads, self._initial)

    def erase(self, gone: Sequence[Operation], others: Sequence[Operation]) -> list[Operation] | None:
        """Leave out writes of which nobody found what they left: the state might as well be the old one."""
        left: set[Hashable] = set()
        for operation in gone:
            if operation.f in self.reads or operation.f == "append":
                return None
            value = self._initial if operation.f == "delete" else operation.value
            left.add(distinct(operation.value[1] if operation.f == "cas" else value))
        for other in others:
            if (
                other.f == "append"
                or (other.f in self.reads and distinct(other.result) in left)
                or (other.f == "cas" and distinct(other.value[0]) in left)
            ):
                return None
        return list(others)


class Register(_Values):
    """``read`` and ``write``."""

    name = "register"
    functions = frozenset({"read", "write"})


class CasRegister(_Values):
    """``read``, ``write`` and ``cas`` with ``[expected new]``; a cas that did not match is a ``fail``."""

    name = "cas-register"
    functions = frozenset({"read", "write", "cas"})


class KeyValue(_Values):
    """``get``, ``put``, ``append`` to a string, ``delete`` and ``cas``, each of one key.

    Args:
        initial: what ``get`` finds under a key that is not there.
    """

    name = "key-value"
    functions = frozenset({"get", "read", "put", "write", "append", "delete", "cas"})


class Mutex(Model):
    """``acquire`` and ``release``; anybody may release it. See also `OwnedMutex`."""

    name = "mutex"
    functions = frozenset({"acquire", "release"})
    anonymous = True

    def initial(self) -> Hashable:
        return None

    def validate(self, operation: Operation) -> None:
        super().validate(operation)
        demand_no_result(operation)

    def step(self, state: Any, operation: Operation) -> Hashable:
        if operation.f == "acquire":
            return "locked" if state is None else REFUSED
        return REFUSED if state is None else None

    def show(self, state: Any) -> str:
        return "free" if state is None else str(state)


class OwnedMutex(Mutex):
    """``acquire`` and ``release``; only the process that acquired it may release it."""

    name = "owned-mutex"
    anonymous = False

    def step(self, state: Any, operation: Operation) -> Hashable:
        if operation.f == "acquire":
            return ("held by", operation.process) if state is None else REFUSED
        return None if state == ("held by", operation.process) else REFUSED

    def show(self, state: Any) -> str:
        return "free" if state is None else f"held by process {state[1]}"


class ListAppend(Model):
    """``append`` one element to a list, ``read`` the whole of it.

    What a history is best made of: every read shows the order of all appends before it. As lists only grow,
    an append that leads away from every read must come after all of them, and the search hardly ever has a
    choice. States are numbers of nodes in a tree of lists, which keeps a long history linear.
    """

    name = "list-append"
    functions = frozenset({"append", "read"})
    reads = frozenset({"read"})
    anonymous = True

    def __init__(self) -> None:
        self._children: dict[tuple[int, Hashable], int] = {}
        self._parents: list[tuple[int, Any]] = [(0, None)]
        self._read_end = 1  # the nodes below this one are beginnings of some read
        # The longest list so far and the nodes of its beginnings: most lists are one of those.
        self._longest: tuple[Any, ...] = ()
        self._path: list[int] = [0]
        self._nodes: dict[int, tuple[tuple[Any, ...], int]] = {}

    def initial(self) -> Hashable:
        return 0

    def validate(self, operation: Operation) -> None:
        super().validate(operation)
        if operation.f == "append":
            demand_no_result(operation)
            return
        demand_result(operation)
        if operation.result is not UNKNOWN and not isinstance(operation.result, tuple | type(None)):
            raise ValueError(f"a read of {self.name} gives a list, not {show(operation.result)}")

    def prepare(self, operations: Sequence[Operation]) -> ListAppend:
        model = type(self)()
        for operation in operations:
            if operation.f == "read":
                model._node(operation.result or ())
        model._read_end = len(model._parents)
        return model

    def ends_reads(self, state: Any) -> bool:
        return int(state) >= self._read_end

    def _child(self, node: int, item: Any) -> int:
        key = (node, distinct(item))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = len(self._parents)
            self._parents.append((node, item))
        return child

    def _node(self, items: tuple[Any, ...]) -> int:
        """Return the node of a list; the same object is looked at once."""
        known = self._nodes.get(id(items))
        if known is None or known[0] is not items:
            known = self._nodes[id(items)] = (items, self._walk(items))
        return known[1]

    def _walk(self, items: tuple[Any, ...]) -> int:
        common = min(len(items), len(self._longest))
        if items[:common] != self._longest[:common] or is_ambiguous(items):
            node = 0
            for item in items:
                node = self._child(node, item)
            return node
        for item in items[common:]:
            self._path.append(self._child(self._path[-1], item))
        if len(items) > common:
            self._longest = items
        return self._path[len(items)]

    def step(self, state: Any, operation: Operation) -> Hashable:
        if operation.f == "read":
            return state if self._node(operation.result or ()) == state else REFUSED
        return self._child(state, operation.value)

    def erase(self, gone: Sequence[Operation], others: Sequence[Operation]) -> list[Operation] | None:
        """Take the elements out of every list, unless others appended them, too."""
        values = {distinct(operation.value) for operation in gone}
        if any(operation.f == "read" for operation in gone) or any(
            other.f == "append" and distinct(other.value) in values for other in others
        ):
            return None
        return [
            replace(other, result=tuple(item for item in other.result if distinct(item) not in values))
            if other.f == "read" and isinstance(other.result, tuple)
            else other
            for other in others
        ]

    def show(self, state: Any) -> str:
        items = []
        while state:
            state, item = self._parents[state]
            items.append(item)
        return show(tuple(reversed(items)))


MODELS: dict[str, Callable[[], Model]] = {
    "register": Register,
    "cas-register": CasRegister,
    "mutex": Mutex,
    "owned-mutex": OwnedMutex,
    "key-value": KeyValue,
    "list-append": ListAppend,
}
"""The models by the names that the command line knows."""
