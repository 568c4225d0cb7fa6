"""Histories with a known answer: made by a correct object, spoilt on purpose, or judged by trying everything."""

from __future__ import annotations

import heapq
import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from paxos.sim.linearizability import (
    MISSING,
    MODELS,
    REFUSED,
    UNKNOWN,
    Event,
    History,
    Model,
    Operation,
)

KINDS = sorted(MODELS)
LETTERS = "abc"


def history_of(operations: Sequence[Operation]) -> History:
    """Return a history of operations that were written down by hand."""
    return History(tuple(replace(operation, line=n + 1) for n, operation in enumerate(operations)))


def events_of(history: History) -> list[Event]:
    """Return the events of which a history was made, in the order of time."""
    events = []
    for operation in history.operations:
        process, f, key = operation.process, operation.f, operation.key
        events.append((operation.invoked, 0, Event("invoke", process, f, operation.value, key)))
        if operation.returned is not None:
            events.append((operation.returned, 1, Event("ok", process, f, operation.result, key)))
    events.sort(key=lambda item: item[:2])
    return [event._replace(time=time) for time, _, event in events]


def exists_order(operations: Sequence[Operation], model: Model) -> bool:
    """Try every order that real time allows: slow, and too simple to be wrong.

    All keys are tried together, with a state for each: that shows that they may be searched one by one.
    """
    operations = [
        operation
        for operation in operations
        if not (operation.f in model.reads and operation.result is UNKNOWN)
    ]

    def precedes(first: Operation, second: Operation) -> bool:
        if first.returned is None:
            return False
        if (first.process, first.key) == (second.process, second.key):
            return first.number < second.number
        return first.returned < second.invoked

    def goes_on(left: frozenset[int], states: dict[Hashable, Any]) -> bool:
        if all(operations[number].is_open for number in left):
            return True
        for number in left:
            operation = operations[number]
            if any(precedes(operations[other], operation) for other in left if other != number):
                continue
            state = states.get(operation.key, model.initial())
            following = model.step(state, operation)
            if following is not REFUSED and goes_on(left - {number}, states | {operation.key: following}):
                return True
        return False

    return goes_on(frozenset(range(len(operations))), {})


def random_request(rng: random.Random, kind: str) -> tuple[str, Any]:
    """Return the operation and the argument of a request that the model knows."""
    if kind in ("mutex", "owned-mutex"):
        return rng.choice(("acquire", "release")), None
    if kind == "list-append":
        return ("append", rng.randint(0, 2)) if rng.random() < 0.5 else ("read", None)
    letter = rng.choice(LETTERS)
    functions = {"register": "rw", "cas-register": "rrwc", "key-value": "rrwadc"}[kind]
    short = "get" if kind == "key-value" else "read"
    write = "put" if kind == "key-value" else "write"
    choice = rng.choice(functions)
    return {
        "r": (short, None),
        "w": (write, letter),
        "c": ("cas", (rng.choice(LETTERS), letter)),
        "a": ("append", letter),
        "d": ("delete", None),
    }[choice]


def random_result(rng: random.Random, kind: str, f: str) -> Any:
    """Return something that a read of such an object might say, true or not."""
    if f == "read" and kind == "list-append":
        return tuple(rng.randint(0, 2) for _ in range(rng.randint(0, 3)))
    if f in ("read", "get"):
        words = [None, *LETTERS]
        return rng.choice([*words, "ab", "ba", "aa"] if kind == "key-value" else words)
    return MISSING


def random_operations(rng: random.Random, kind: str, count_max: int = 8) -> History:
    """Return a few random operations, mostly overlapping, some open, with times that often coincide."""
    spread = rng.choice((3, 6, 12))
    keys = rng.choice(((None,), (None,), ("x", "y")))
    free_at = dict.fromkeys(range(rng.randint(1, 5)), 0)
    operations = []
    for _ in range(rng.randint(2, count_max)):
        process = rng.choice(list(free_at))
        f, value = random_request(rng, kind)
        invoked = free_at[process] + rng.randint(0, 2)
        operation = Operation(process, f, value, key=rng.choice(keys), invoked=invoked)
        if rng.random() < 0.15:
            del free_at[process]
            free_at[100 + len(operations)] = invoked
        else:
            free_at[process] = invoked + rng.randint(0, spread)
            operation = replace(operation, returned=free_at[process], result=random_result(rng, kind, f))
        operations.append(operation)
    if kind in ("register", "cas-register", "key-value") and rng.random() < 0.5:
        operations = with_values_that_differ(rng, operations)
    return history_of(operations)


def with_values_that_differ(rng: random.Random, operations: list[Operation]) -> list[Operation]:
    """Let no two operations write the same, and let reads find what may well have been there."""
    changed = []
    present = ["A"]
    for letter, operation in zip("ABCDEFGHIJ", sorted(operations, key=lambda o: o.invoked), strict=False):
        f = operation.f
        if f in ("write", "put", "append"):
            operation = replace(operation, value=letter)
            present.append(rng.choice(present) + letter if f == "append" else letter)
        elif f == "cas":
            operation = replace(operation, value=(rng.choice(present), letter))
            present.append(letter)
        elif f in ("read", "get") and not operation.is_open:
            operation = replace(operation, result=rng.choice(present[-3:]))
        changed.append(operation)
    return changed


class Correct:
    """A correct object of some kind, per key, and the log of what happened to it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.states: dict[Hashable, Any] = {}
        self.log: dict[int, tuple[str, Hashable, Any]] = {}

    def carry_out(self, process: Hashable, f: str, key: Hashable, value: Any) -> tuple[bool, Any, int]:
        """Return (it happened, its result, its slot)."""
        state = self.states.get(key, () if self.kind == "list-append" else None)
        if f in ("read", "get"):
            return True, state, len(self.log)
        after = {
            "write": value,
            "put": value,
            "delete": None,
            "acquire": process,
            "release": None,
        }.get(f, state)
        if f == "cas":
            after = value[1]
        elif f == "append":
            after = (*state, value) if self.kind == "list-append" else (state or "") + value
        possible = {
            "cas": f == "cas" and state == value[0],
            "acquire": state is None,
            "release": state == process,
        }.get(f, True)
        if not possible:
            return False, MISSING, 0
        self.states[key] = after
        self.log[len(self.log) + 1] = (f, key, value)
        return True, MISSING, len(self.log)


class Life:
    """What a generated history was made of, and what really happened.

    Attributes:
        events: what the clients saw.
        log: what the object did, in order, by slot.
    """

    def __init__(self, kind: str) -> None:
        self.object = Correct(kind)
        self.events: list[Event] = []

    @property
    def history(self) -> History:
        return History.of(self.events)

    @property
    def log(self) -> dict[int, tuple[str, Hashable, Any]]:
        return self.object.log


def live(
    rng: random.Random,
    kind: str,
    *,
    clients: int,
    operations: int,
    keys: int = 1,
    unknown: float = 0.03,
    unknown_max: int = 8,
    unique: bool = False,
) -> Life:
    """Let clients use a correct object; every operation takes effect somewhere between its two events.

    Args:
        unknown: share of operations whose outcome is never heard of; half of them happen, perhaps much later.
        unknown_max: how many of those at most.
        unique: every written value is another.
    """
    life = Life(kind)
    queue: list[tuple[int, int, str, Any]] = []
    ticket = 0

    def push(at: int, what: str, item: Any) -> None:
        nonlocal ticket
        ticket += 1
        heapq.heappush(queue, (at, ticket, what, item))

    for process in range(clients):
        push(rng.randint(0, 20), "invoke", process)
    started, next_process = 0, clients
    while queue:
        now, _, what, item = heapq.heappop(queue)
        if what == "invoke":
            if started == operations:
                continue
            started += 1
            f, value = random_request(rng, kind)
            if unique and f in ("write", "put", "append"):
                value = f"{started};" if kind == "key-value" else started
            key = f"k{rng.randrange(keys)}" if keys > 1 or kind == "key-value" else None
            life.events.append(Event("invoke", item, f, value, key, now))
            if unknown_max and rng.random() < unknown:
                unknown_max -= 1
                life.events.append(Event("info", item, f, MISSING, key, now + 1))
                if rng.random() < 0.5:
                    push(now + rng.choice((1, 5, 500)), "late", (item, f, key, value))
                push(now + 1, "invoke", next_process)
                next_process += 1
            else:
                push(now + rng.randint(0, 30), "effect", (item, f, key, value))
        elif what == "late":
            life.object.carry_out(*item)
        elif what == "effect":
            process, f, key, value = item
            push(now + rng.randint(0, 30), "return", (item, life.object.carry_out(process, f, key, value)))
        else:
            (process, f, key, value), (happened, result, slot) = item
            if happened:
                life.events.append(Event("ok", process, f, result, key, now, slot))
            else:
                life.events.append(Event("fail", process, f, MISSING, key, now))
            push(now + rng.randint(0, 10), "invoke", process)
    life.events.sort(key=lambda event: event.time or 0)
    return life
