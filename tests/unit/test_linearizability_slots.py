"""The judge that believes the slots: it agrees with the search on good histories and finds every kind of lie."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from paxos.sim.linearizability import (
    MODELS,
    UNKNOWN,
    History,
    MalformedHistory,
    Operation,
    Register,
    check_slots,
)
from paxos.sim.linearizability.slots import Command
from tests.unit import linearizability_kit as kit

LOG: dict[int, Command] = {1: ("write", None, "a"), 2: ("write", None, "b")}


def write(process: int, value: str, times: tuple[float, float | None], slot: int | None) -> Operation:
    result = UNKNOWN if times[1] is None else None
    return Operation(process, "write", value, result, None, *times, slot=slot)


def read(process: int, result: str | None, times: tuple[float, float], slot: int | None) -> Operation:
    return Operation(process, "read", None, result, None, *times, slot=slot)


GOOD = [write(0, "a", (0, 1), 1), write(1, "b", (2, 3), 2), read(0, "b", (4, 5), 2)]


def wrong(
    operations: list[Operation], log: dict[int, Command] = LOG, failed: tuple[Operation, ...] = ()
) -> str:
    """Return the one violation that is found, or nothing."""
    history = replace(kit.history_of(operations), failed=failed)
    result = check_slots(history, Register(), log)
    assert len(result.violations) <= 1, result.violations
    return result.violations[0] if result.violations else ""


def test_a_good_history_is_good() -> None:
    assert wrong(GOOD) == ""
    result = check_slots(kit.history_of([*GOOD, write(5, "x", (0, None), None)]), Register(), LOG)
    assert (bool(result), result.operations, result.resolved) == (True, 3, 0)


@pytest.mark.parametrize("kind", kit.KINDS)
def test_generated_histories_are_good_and_their_unknowns_resolved(kind: str) -> None:
    for seed in range(20):
        rng = random.Random(f"{kind} {seed}")
        life = kit.live(
            rng, kind, clients=5, operations=200, keys=3, unknown=0.1, unique=kind == "list-append"
        )
        result = check_slots(life.history, MODELS[kind](), life.log)
        assert result, result.violations
        closed = sum(
            operation.slot is not None and operation.f not in ("read", "get")
            for operation in life.history.operations
        )
        assert result.resolved == len(life.log) - closed


@pytest.mark.parametrize("kind", ["register", "key-value", "list-append"])
def test_a_wrong_result_in_a_long_history_is_found(kind: str) -> None:
    life = kit.live(random.Random(kind), kind, clients=5, operations=500, keys=2, unique=True)
    operations = list(life.history.operations)
    reads = [
        n
        for n, operation in enumerate(operations)
        if operation.f in ("read", "get") and not operation.is_open
    ]
    for number in reads[:: len(reads) // 10]:
        lie = ("never",) if kind == "list-append" else "never"
        spoilt = [*operations[:number], replace(operations[number], result=lie), *operations[number + 1 :]]
        assert len(check_slots(History(tuple(spoilt)), MODELS[kind](), life.log).violations) == 1


def test_a_stale_read_is_found() -> None:
    stale = [*GOOD[:2], read(0, "a", (4, 5), 1)]
    assert wrong(stale) == (
        'history:3: read -> "a": is in slot 1, but line 2 (write "b"), which returned before, is in 2'
    )
    assert wrong([*GOOD[:2], read(0, "a", (3, 5), 1)]) == "", "concurrent"


def test_a_read_that_does_not_fit_its_slot_is_found() -> None:
    assert wrong([*GOOD[:2], read(0, "a", (4, 5), 2)]) == 'history:3: read -> "a": in slot 2 the state is "b"'


def test_slots_against_real_time_are_found() -> None:
    swapped: dict[int, Command] = {1: LOG[2], 2: LOG[1]}
    assert "is in slot 1, but line 1" in wrong([write(0, "a", (0, 1), 2), write(1, "b", (2, 3), 1)], swapped)
    own = [write(0, "a", (1, 1), 2), write(0, "b", (1, 1), 1)]
    assert "is in slot 1, but line 1" in wrong(own, swapped), "one process, at one time"
    assert wrong([own[0], replace(own[1], process=1)], swapped) == ""


def test_lost_misplaced_and_doubled_writes_are_found() -> None:
    assert "lost: the log has no slot 2" in wrong(GOOD[:2], {1: LOG[1]})
    elsewhere = check_slots(kit.history_of(GOOD[:1]), Register(), {1: LOG[2]})
    assert [text.partition("holds")[0] for text in elsewhere.violations] == [
        'history:1: write "a": slot 1 ', "history: slot 1 ",
    ]  # fmt: skip
    assert "slot 2 is that of line 1, too" in wrong(
        [write(0, "b", (0, 9), 2), write(1, "b", (0, 9), 2), write(2, "a", (0, 9), 1)]
    )
    phantom = wrong(GOOD, LOG | {3: ("write", None, "a")})
    assert phantom == (
        "history: slot 3 holds ('write', None, 'a'), which nobody asked for or which happened before"
    )


def test_an_open_write_happened_iff_it_is_in_the_log_and_in_its_time() -> None:
    open_write = write(7, "c", (2.5, None), None)
    assert wrong([*GOOD, open_write]) == ""
    with_it = LOG | {3: ("write", None, "c")}
    assert wrong([*GOOD, open_write], with_it) == ""
    assert "in slot 3 the state is" in wrong([*GOOD, open_write, read(1, "b", (9, 10), 3)], with_it)
    early: dict[int, Command] = {1: LOG[1], 2: ("write", None, "c"), 3: LOG[2]}
    moved = [GOOD[0], write(1, "b", (2, 3), 3)]
    assert wrong([*moved, open_write], early) == ""
    assert "is in slot 2, but line 2" in wrong([*moved, replace(open_write, invoked=4)], early)


def test_a_failed_write_is_not_in_the_log() -> None:
    failed = (write(7, "c", (0, 1), None),)
    assert wrong(GOOD, LOG, failed) == ""
    assert "failed, and yet happened in slot 3" in wrong(GOOD, LOG | {3: ("write", None, "c")}, failed)


def test_a_cas_that_the_object_refused_may_be_in_the_log() -> None:
    failed = Operation(7, "cas", ("x", "y"), None, None, 0, 9)
    history = replace(kit.history_of(GOOD), failed=(failed,))
    assert check_slots(history, MODELS["cas-register"](), LOG | {3: ("cas", None, ("x", "y"))})
    assert not check_slots(history, MODELS["cas-register"](), LOG | {3: ("cas", None, ("b", "y"))})
    matching = replace(history, failed=(replace(failed, value=("b", "y")),))
    result = check_slots(matching, MODELS["cas-register"](), LOG | {3: ("cas", None, ("b", "y"))})
    assert "failed, and yet happened" in result.violations[0]


def test_an_operation_without_a_slot_cannot_be_judged() -> None:
    with pytest.raises(MalformedHistory, match='^history:1: write "a" has no slot'):
        wrong([write(0, "a", (0, 1), None)])
