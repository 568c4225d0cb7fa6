"""The linearizability checker: its verdicts against trying everything, its semantics, its counter-examples.

``PAXOS_LINEARIZABILITY_CASES`` sets how many random histories are tried (see docs/testing.md).
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paxos.sim.linearizability import (
    MISSING,
    MODELS,
    REFUSED,
    UNKNOWN,
    CasRegister,
    Event,
    History,
    KeyValue,
    ListAppend,
    MalformedHistory,
    Model,
    Mutex,
    Operation,
    OwnedMutex,
    Recorder,
    Register,
    Verdict,
    check,
    load,
)
from paxos.sim.linearizability.operations import distinct, freeze, same, show
from paxos.sim.linearizability.search import Outcome
from paxos.sim.linearizability.shrink import _Shrinker, opened
from tests.unit import linearizability_kit as kit

CASES = int(os.environ.get("PAXOS_LINEARIZABILITY_CASES", "3000"))
GROUPS = 4


def told(operations: Sequence[Operation]) -> list[str]:
    """Return operations as text, for messages of failing tests."""
    return [
        f"{operation.process}: {operation} [{operation.invoked}, {operation.returned}]"
        for operation in operations
    ]


def op(
    process: Hashable, f: str, value: Any, invoked: float, returned: float | None, result: Any = MISSING
) -> Operation:
    """Return an operation written down by hand; without a return it is open."""
    return Operation(process, f, value, UNKNOWN if returned is None else result, None, invoked, returned)


def read(process: Hashable, result: Any, invoked: float, returned: float) -> Operation:
    return op(process, "read", None, invoked, returned, result)


def write(process: Hashable, value: Any, invoked: float, returned: float | None) -> Operation:
    return op(process, "write", value, invoked, returned)


def verdict(model: Model, *operations: Operation) -> bool:
    result = check(kit.history_of(operations), model)
    assert result.verdict is not Verdict.INCONCLUSIVE
    return bool(result)


# --- against trying everything ------------------------------------------------------------------------------


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", range(GROUPS))
def test_it_agrees_with_trying_every_order(group: int) -> None:
    rng = random.Random(f"orders {group}")
    answers: Counter[tuple[str, bool]] = Counter()
    for _ in range(CASES // GROUPS):
        kind = rng.choice(kit.KINDS)
        history = kit.random_operations(rng, kind)
        expected = kit.exists_order(history.operations, MODELS[kind]())
        assert bool(check(history, MODELS[kind]())) == expected, (kind, told(history.operations))
        answers[kind, expected] += 1
    assert {kind for kind, expected in answers if expected} == set(kit.KINDS)
    assert {kind for kind, expected in answers if not expected} == set(kit.KINDS)


def spoil(rng: random.Random, operations: list[Operation], kind: str) -> list[Operation]:
    """Change one thing: what a read said, when something happened, whether it did, or do it twice."""
    number = rng.randrange(len(operations))
    chosen = operations[number]
    ways = ["late", "lost", "twice", "swapped"]
    if chosen.f in ("read", "get"):
        ways = ["lost"] if chosen.is_open else ["stale", "phantom"]
    way = rng.choice(ways)
    others = operations[:number] + operations[number + 1 :]
    if way == "stale":
        result = rng.choice(
            [other.result for other in operations if other.f == chosen.f and not other.is_open]
        )
        return [*others, replace(chosen, result=result)]
    if way == "phantom":
        return [*others, replace(chosen, result=kit.random_result(rng, kind, chosen.f))]
    if way == "lost":
        return others or operations
    if way == "twice":
        end = max(operation.returned or operation.invoked for operation in operations)
        return [
            *operations,
            replace(chosen, process="again", invoked=end + 1, returned=end + 2, result=MISSING),
        ]
    if way == "late":
        return [
            *others,
            replace(
                chosen,
                process="late",
                invoked=chosen.invoked + 40,
                returned=chosen.invoked + 50,
                result=MISSING,
            ),
        ]
    other = rng.choice(operations)
    return [
        replace(operation, value=other.value) if operation is chosen and chosen.f == other.f
        else replace(operation, value=chosen.value) if operation is other and chosen.f == other.f
        else operation
        for operation in operations
    ]  # fmt: skip


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", range(GROUPS))
def test_it_agrees_on_good_histories_that_were_spoilt(group: int) -> None:
    rng = random.Random(f"spoilt {group}")
    answers: Counter[bool] = Counter()
    for _ in range(CASES // GROUPS // 2):
        kind = rng.choice(kit.KINDS)
        life = kit.live(rng, kind, clients=3, operations=rng.randint(2, 7), unique=rng.random() < 0.5)
        good = list(life.history.operations)
        assert check(life.history, MODELS[kind]())
        if not good:
            continue
        history = kit.history_of(spoil(rng, good, kind))
        expected = kit.exists_order(history.operations, MODELS[kind]())
        assert bool(check(history, MODELS[kind]())) == expected, (kind, told(history.operations))
        answers[expected] += 1
    assert min(answers[True], answers[False]) > CASES // GROUPS // 20


def first_pair(
    operations: Sequence[Operation], f: str, rng: random.Random
) -> tuple[Operation, Operation] | None:
    """Return two random operations of which the first returned before the second was invoked."""
    pairs = [
        (a, b)
        for a in operations
        for b in operations
        if a.f == b.f == f and a.returned is not None and b.returned is not None and a.returned < b.invoked
    ]
    return rng.choice(pairs) if pairs else None


def with_lie(rng: random.Random, way: str) -> tuple[str, list[Operation], list[Operation]] | None:
    """Return (kind of object, a longer good history, the same with one certain lie), if luck has one."""
    kind = {"stale": "register", "phantom": "register", "duplicate": "cas-register"}.get(way, "list-append")
    life = kit.live(rng, kind, clients=4, operations=rng.randint(20, 60), unique=True)
    good = list(life.history.operations)
    end = max(operation.returned or operation.invoked for operation in good)
    pair = first_pair(good, "append" if kind == "list-append" else "write", rng)
    if pair is None:
        return None
    first, second = pair
    assert second.returned is not None
    if way == "stale":
        at = rng.uniform(second.returned + 0.5, end + 1)
        return kind, good, [*good, read("liar", first.value, at, at + 1)]
    if way == "phantom":
        at = rng.uniform(0, end)
        return kind, good, [*good, read("liar", "phantom", at, at + rng.uniform(0, 20))]
    if way == "duplicate":
        honest = [*good, write("x", "u", end + 1, end + 2), op("x", "cas", ("u", "v"), end + 3, end + 6)]
        return kind, honest, [*honest, op("y", "cas", ("u", "w"), end + 4, end + 5)]
    items = list(life.object.states.get(None, ()))
    honest = [*good, read("z", tuple(items), end + 600, end + 601)]
    if way == "lost":
        items.remove(second.value)
    else:
        a, b = items.index(first.value), items.index(second.value)
        items[a], items[b] = items[b], items[a]
    return kind, honest, [*good, read("z", tuple(items), end + 600, end + 601)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["stale", "phantom", "swapped", "lost", "duplicate"])
def test_a_certain_lie_in_a_longer_history_is_found(way: str) -> None:
    rng = random.Random(way)
    found = 0
    for _ in range(CASES // 50):
        made = with_lie(rng, way)
        if made is None:
            continue
        kind, honest, lying = made
        assert check(kit.history_of(honest), MODELS[kind]()), told(honest)
        result = check(kit.history_of(lying), MODELS[kind]())
        assert result.verdict is Verdict.NOT_LINEARIZABLE, told(lying)
        assert result.counterexample is not None
        assert len(result.counterexample.operations) <= 8
        found += 1
    assert found > CASES // 100


@pytest.mark.parametrize("kind", kit.KINDS)
def test_long_good_histories_of_many_clients_are_good(kind: str) -> None:
    keys = 10 if kind == "key-value" else 1
    life = kit.live(
        random.Random(kind), kind, clients=8, operations=1000, keys=keys, unique=kind == "list-append"
    )
    result = check(life.history, MODELS[kind]())
    assert result, result.describe()
    assert result.keys == keys


# --- semantics ----------------------------------------------------------------------------------------------


def test_an_open_write_may_happen_at_any_later_time_or_never() -> None:
    seen_late = [write(0, 1, 0, None), write(1, 2, 1, 2), read(1, 2, 3, 4), read(1, 1, 9, 10)]
    assert verdict(Register(), *seen_late)
    assert verdict(Register(), write(0, 1, 0, None), read(1, None, 50, 60))


def test_an_open_write_that_was_seen_cannot_be_unseen() -> None:
    unseen = [write(1, 2, 0, 1), write(0, 1, 2, None), read(1, 1, 3, 4), read(1, 2, 5, 6)]
    assert not verdict(Register(), *unseen)
    twice = [write(0, 1, 0, None), read(1, 1, 1, 2), write(1, 2, 3, 4), read(1, 1, 5, 6)]
    assert not verdict(Register(), *twice), "one write happens once"


def test_two_open_writes_of_one_value_can_be_seen_twice_and_not_three_times() -> None:
    opens = [write("a", 1, 0, None), write("b", 1, 0, None)]
    told = [read(0, 1, 1, 2), write(0, 2, 3, 4), read(0, 1, 5, 6), write(0, 2, 7, 8)]
    assert verdict(Register(), *opens, *told)
    assert not verdict(Register(), *opens, *told, read(0, 1, 9, 10))


def test_an_open_cas_may_have_happened_only_where_it_could() -> None:
    cas = op(0, "cas", (1, 2), 1, None)
    assert verdict(CasRegister(1), cas, read(1, 2, 2, 3))
    assert verdict(CasRegister(1), cas, read(1, 1, 2, 3), read(1, 2, 4, 5))
    assert not verdict(CasRegister(3), cas, read(1, 2, 2, 3))
    assert not verdict(CasRegister(1), cas, read(1, 2, 2, 3), read(1, 1, 4, 5))


def test_an_open_operation_cannot_happen_before_its_invocation() -> None:
    assert not verdict(Register(), read(1, 1, 0, 1), write(0, 1, 2, None))


def test_equal_times_count_as_concurrent() -> None:
    assert verdict(Register(), write(0, 1, 0, 5), read(1, None, 5, 6))
    assert not verdict(Register(), write(0, 1, 0, 5), read(1, None, 6, 7))


def test_operations_of_one_process_keep_their_order_at_equal_times() -> None:
    assert not verdict(Register(), write(0, 1, 5, 5), read(0, None, 5, 5))
    assert verdict(Register(), write(0, 1, 5, 5), read(1, None, 5, 5))
    # Two processes that each do two things at once: no interval order could say that.
    crossed = [write(0, 1, 5, 5), read(0, 2, 5, 5), write(1, 2, 5, 5), read(1, 1, 5, 5)]
    assert not verdict(Register(), *crossed)
    assert verdict(Register(), write(0, 1, 5, 5), read(0, 2, 5, 5), write(1, 2, 5, 5), read(1, 2, 5, 5))


def test_keys_are_independent_at_equal_times_too() -> None:
    # B before R, R before the acquire of y, that before its release, that before B: process order at equal
    # times would make a circle through two keys. Found by the 20,883rd of 100,000 random histories.
    operations = [
        replace(op(0, "acquire", None, 0, None), key="x"),
        replace(op(1, "release", None, 1, 2), key="x"),
        replace(op(3, "release", None, 1, 3), key="x"),
        replace(op(1, "release", None, 3, 3), key="y"),
        replace(op(1, "acquire", None, 3, None), key="x"),
        replace(op(3, "acquire", None, 3, 4), key="y"),
        replace(op(2, "acquire", None, 4, 6), key="y"),
    ]
    assert verdict(Mutex(), *operations)
    assert kit.exists_order(kit.history_of(operations).operations, Mutex())


def test_operations_may_take_no_time() -> None:
    assert verdict(Register(), write(0, 1, 1, 1), read(0, 1, 2, 2))
    assert not verdict(Register(), write(0, 1, 1, 1), read(0, 2, 2, 2))


def test_open_and_failed_reads_say_nothing() -> None:
    events = [
        Event("invoke", 0, "read"),
        Event("info", 0, "read", "timeout"),
        Event("invoke", 1, "read"),
        Event("fail", 1, "read", 17),
    ]
    result = check(History.of(events), Register())
    assert result and result.operations == 0 and result.dropped == 1


def test_failed_writes_did_not_happen() -> None:
    events = [
        Event("invoke", 0, "write", 1),
        Event("fail", 0, "write"),
        Event("invoke", 0, "read"),
        Event("ok", 0, "read", 1),
    ]
    assert not check(History.of(events), Register())
    assert not check(History.of([*events[:2], *events[2:3], Event("ok", 0, "read", 1)]), CasRegister())


def test_what_never_completed_is_open() -> None:
    events = [Event("invoke", 0, "write", 1), Event("invoke", 1, "read"), Event("ok", 1, "read", 1)]
    history = History.of(events)
    assert history.operations[0].is_open
    assert check(history, Register())


def test_keys_are_objects_of_their_own() -> None:
    recorder = Recorder()
    client = recorder.client()
    client.invoke("put", "a", key="x").ok()
    client.invoke("get", key="y").ok(None)
    assert check(recorder.history(), KeyValue()).keys == 2
    client.invoke("get", key="y").ok("a")
    result = check(recorder.history(), KeyValue())
    assert not result and result.counterexample is not None and result.counterexample.key == "y"


def test_true_is_not_one_and_one_is_not_a_float() -> None:
    for wrote, found in [(1, True), (True, 1), (1, 1.0), (0, False), ((1,), (True,))]:
        assert not verdict(Register(), write(0, wrote, 0, 1), read(0, found, 2, 3)), (wrote, found)
        assert verdict(Register(), write(0, wrote, 0, 1), read(0, wrote, 2, 3))
    both = [write(0, 1, 0, 9), write(1, True, 0, 9), read(2, True, 10, 11)]
    assert verdict(Register(), *both)
    assert not verdict(Register(), *both, read(2, 1, 12, 13))
    assert not verdict(ListAppend(), op(0, "append", 1, 0, 1), read(0, (True,), 2, 3))


def test_true_and_one_are_different_keys() -> None:
    operations = [replace(write(0, 5, 0, 1), key=1), replace(read(0, None, 2, 3), key=True)]
    assert check(kit.history_of(operations), Register()).keys == 2
    assert check(kit.history_of(operations), Register())


def hard() -> list[Operation]:
    """Return operations that no order explains, which takes thousands of configurations to find out."""
    writes = [write(process, process % 2, 0, 10) for process in range(11)]
    return [*writes, read("r", 0, 11, 12), read("r", 1, 13, 14)]


def test_giving_up_is_never_ok() -> None:
    history = kit.history_of(hard())
    by_count = check(history, Register(), configurations_max=1500)
    assert by_count.verdict is Verdict.INCONCLUSIVE and not by_count and "gave up" in by_count.reason
    assert check(history, Register(), timeout_s=1e-9).verdict is Verdict.INCONCLUSIVE
    assert check(history, Register()).verdict is Verdict.NOT_LINEARIZABLE


def test_a_violation_of_one_key_counts_though_another_is_undecided() -> None:
    # Keys with few operations come first: this one comes last.
    bad = [replace(read(f"b{n}", "phantom" if n == 19 else None, n, n), key="bad") for n in range(20)]
    undecided = [replace(operation, key="hard") for operation in hard()]
    result = check(kit.history_of([*undecided, *bad]), Register(), configurations_max=1500)
    assert result.verdict is Verdict.NOT_LINEARIZABLE


def test_progress_is_told_about_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import paxos.sim.linearizability.checker as module

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 2.0
            return self.now

    monkeypatch.setattr(module, "time", Clock())
    lines: list[str] = []
    check(kit.history_of(hard()), Register(), timeout_s=1e9, progress=lines.append)
    assert any("0 of 13 returns" in line for line in lines)
    assert "is not linearizable" in lines[-1]


# --- the models ---------------------------------------------------------------------------------------------


def test_a_mutex_is_held_once_and_an_owned_one_released_by_its_owner() -> None:
    taken = [op(0, "acquire", None, 0, 1)]
    assert not verdict(Mutex(), *taken, op(1, "acquire", None, 2, 3))
    assert verdict(Mutex(), *taken, op(1, "release", None, 2, 3))
    assert not verdict(OwnedMutex(), *taken, op(1, "release", None, 2, 3))
    assert verdict(OwnedMutex(), *taken, op(0, "release", None, 2, 3), op(1, "acquire", None, 4, 5))
    assert not verdict(Mutex(), op(0, "release", None, 0, 1))


class Seat(Model):
    """Whoever sits down last is seen there: equal operations of two processes are not the same."""

    functions = frozenset({"sit", "look"})
    reads = frozenset({"look"})

    def initial(self) -> Hashable:
        return None

    def step(self, state: Any, operation: Operation) -> Hashable:
        if operation.f == "sit":
            return operation.process
        return state if state == operation.result else REFUSED


def test_equal_open_operations_of_different_processes_are_told_apart() -> None:
    opens = [op("a", "sit", None, 0, None), op("b", "sit", None, 1, None)]
    assert verdict(Seat(), *opens, op("c", "look", None, 2, 3, "b"), op("c", "look", None, 4, 5, "a"))
    assert not verdict(Seat(), *opens, op("c", "look", None, 2, 3, "c"))


def test_a_key_value_store_appends_deletes_and_compares() -> None:
    store = [
        op(0, "append", "a", 0, 1),
        op(0, "append", "b", 2, 3),
        op(0, "get", None, 4, 5, "ab"),
        op(0, "cas", ("ab", "c"), 6, 7),
        op(0, "delete", None, 8, 9),
        op(0, "get", None, 10, 11, None),
    ]
    assert verdict(KeyValue(), *store)
    assert not verdict(KeyValue(), *store, op(0, "get", None, 12, 13, ""))
    assert verdict(KeyValue(initial=""), *store[:5], op(0, "get", None, 10, 11, ""))


def test_appends_to_a_list_are_seen_in_one_order() -> None:
    appends = [op(0, "append", 1, 0, 9), op(1, "append", 2, 0, 9)]
    assert verdict(ListAppend(), *appends, read(2, (1, 2), 10, 11), read(3, (1, 2), 10, 11))
    assert not verdict(ListAppend(), *appends, read(2, (1, 2), 10, 11), read(3, (2, 1), 10, 11))
    assert verdict(ListAppend(), read(0, None, 0, 1), read(0, (), 2, 3))


def test_a_lost_append_before_many_concurrent_ones_is_found_quickly() -> None:
    # Without knowing that reads are over, every order of what follows would be tried.
    appends = [op(n % 5, "append", n, n // 5 * 10, n // 5 * 10 + 9) for n in range(100)]
    result = check(kit.history_of([*appends, read("r", (0, 1), 1000, 1001)]), ListAppend())
    assert result.verdict is Verdict.NOT_LINEARIZABLE
    assert result.configurations < 1000


class Ticker(Model):
    """A counter whose increments tell their result: a model of somebody else."""

    name = "counter"
    functions = frozenset({"increment"})

    def initial(self) -> Hashable:
        return 0

    def step(self, state: Any, operation: Operation) -> Hashable:
        return state + 1 if operation.result in (UNKNOWN, state + 1) else REFUSED


def test_users_bring_their_own_models() -> None:
    ok = [op(0, "increment", None, 0, 5, 2), op(1, "increment", None, 0, 5, 1)]
    assert verdict(Ticker(), *ok)
    assert verdict(Ticker(), op(9, "increment", None, 0, None), op(0, "increment", None, 1, 2, 2))
    assert not verdict(Ticker(), *ok, op(2, "increment", None, 6, 7, 2))


def test_a_model_that_calls_a_change_a_read_is_found_out() -> None:
    class Wrong(Ticker):
        reads = frozenset({"increment"})

    with pytest.raises(ValueError, match="counter calls increment a read, but it changed the state"):
        verdict(Wrong(), op(0, "increment", None, 0, 1, 1))


@pytest.mark.parametrize(
    ("model", "operation", "reason"),
    [
        (Register(), op(0, "cas", (1, 2), 0, 1), "register knows no operation 'cas', only read, write"),
        (Register(), read(0, MISSING, 0, 1), "the ok of a read carries no value"),
        (Register(), op(0, "write", 3, 0, 1, 4), "the ok of write 3 says 4"),
        (CasRegister(), op(0, "cas", 7, 0, 1), r"cas wants \[expected new\], not 7"),
        (CasRegister(), op(0, "cas", (1, 2), 0, 1, False), "says false"),
        (KeyValue(), op(0, "append", 7, 0, 1), "append wants a string, not 7; see the model list-append"),
        (ListAppend(), read(0, 5, 0, 1), "a read of list-append gives a list, not 5"),
        (Mutex(), op(0, "acquire", None, 0, 1, "yes"), 'the ok of acquire nil says "yes"'),
    ],
)
def test_operations_that_make_no_sense_are_refused(model: Model, operation: Operation, reason: str) -> None:
    with pytest.raises(MalformedHistory, match=f"^history:1: .*{reason}"):
        check(kit.history_of([operation]), model)


# --- pairing ------------------------------------------------------------------------------------------------

INVOKE = Event("invoke", 0, "write", 1)
OK = Event("ok", 0, "write", 1)


@pytest.mark.parametrize(
    ("events", "line", "reason"),
    [
        ([INVOKE, INVOKE], 2, "process 0 invokes while its operation of line 1 is under way"),
        ([OK], 1, "completes an operation that it did not invoke"),
        ([INVOKE, OK, OK], 3, "completes an operation that it did not invoke"),
        ([INVOKE, OK._replace(f="read")], 2, "completes read, but invoked write in line 1"),
        ([INVOKE, OK._replace(key="x")], 2, 'completes write of key "x", but invoked write in line 1'),
        (
            [INVOKE, OK._replace(type="info"), INVOKE],
            3,
            "goes on after its operation of line 1 ended as info",
        ),
        ([INVOKE, OK._replace(type="done")], 2, "type is 'done', expected one of invoke, ok, fail, info"),
        ([INVOKE._replace(time=1), OK], 2, "has no time, though other events have one"),
        ([INVOKE._replace(time=2), OK._replace(time=1)], 2, "goes back in time"),
        ([INVOKE._replace(time=2), OK._replace(time=3), INVOKE._replace(time=1)], 3, "goes back in time"),
    ],
)
def test_what_no_client_can_have_seen_is_refused(events: list[Event], line: int, reason: str) -> None:
    with pytest.raises(MalformedHistory) as caught:
        History.of(events)
    assert (caught.value.line, reason in caught.value.reason) == (line, True), str(caught.value)


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        ([write(0, 1, 0, 5), read(0, 1, 4, 9)], "begins read -> 1 while write 1 of line 1 is under way"),
        ([write(0, 1, 0, None), read(0, 1, 4, 9)], "begins read -> 1 while write 1 -> \\? of line 1"),
        ([write(0, 1, 5, 4)], "write 1 ends before it begins"),
    ],
)
def test_operations_written_by_hand_are_no_less_strict(operations: list[Operation], reason: str) -> None:
    with pytest.raises(MalformedHistory, match=reason):
        kit.history_of(operations)


def test_times_decide_and_not_the_order_of_the_lines() -> None:
    late = [
        Event("invoke", 0, "read", time=10),
        Event("ok", 0, "read", 1, time=20),
        Event("invoke", 1, "write", 1, time=5),
        Event("ok", 1, "write", time=15),
    ]
    assert check(History.of(late), Register())
    assert not check(History.of([event._replace(time=None) for event in late]), Register())


# --- the recorder -------------------------------------------------------------------------------------------


def test_a_recorder_writes_what_it_can_read_again(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        client = recorder.client()
        client.invoke("put", b"\x00a", key="x").ok(slot=7)
        client.invoke("get", key=("x", 1)).ok(b"\x00a")
        client.invoke("put", "b", key="x").fail()
        client.invoke("put", "c", key="x").info()
        client.invoke("put", "d", key="x")
    assert load(path).operations == recorder.history().operations
    recorder.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == path.read_text()


def test_a_client_is_somebody_else_after_an_unknown_outcome() -> None:
    recorder = Recorder(prefix="a-")
    client = recorder.client()
    first = client.invoke("write", 1)
    client.invoke("write", 2).info()
    first.ok()  # heard at last, of a process that has gone on under another name
    client.invoke("write", 3).ok()
    history = recorder.history()
    assert [operation.process for operation in history.operations] == ["a-0", "a-1", "a-2"]
    assert [operation.is_open for operation in history.operations] == [False, True, False]
    with pytest.raises(RuntimeError, match="said before"):
        first.fail()


def test_a_recorder_is_used_by_many_threads() -> None:
    recorder = Recorder()
    lock = threading.Lock()
    items: list[int] = []

    def work(number: int) -> None:
        client = recorder.client()
        for turn in range(50):
            operation = client.invoke("append", number * 50 + turn)
            with lock:
                items.append(number * 50 + turn)
            operation.ok()
            operation = client.invoke("read")
            with lock:
                found = list(items)
            operation.ok(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [event.time or 0 for event in recorder.events]
    assert times == sorted(times) and len(times) == 800
    assert check(recorder.history(), ListAppend())


def test_histories_of_several_recorders_are_one() -> None:
    ticks = iter(range(100))
    left, right = (
        Recorder(prefix="l", clock=lambda: next(ticks)),
        Recorder(prefix="r", clock=lambda: next(ticks)),
    )
    one, two = left.client(), right.client()
    one.invoke("write", 1).ok()
    two.invoke("read").ok(1)
    merged = History.merged([left.history(), right.history()])
    assert [operation.process for operation in merged.operations] == ["l0", "r0"]
    assert check(merged, Register())
    with pytest.raises(MalformedHistory, match="process 'l0' is also in another file"):
        History.merged([left.history(), left.history()])


# --- counter-examples ---------------------------------------------------------------------------------------


def test_a_counterexample_is_what_matters_and_says_why() -> None:
    recorder = Recorder(clock=iter(range(1000)).__next__)
    client = recorder.client()
    for number in range(50):
        client.invoke("put", number, key="x").ok()
        client.invoke("get", key="x").ok(number)
        client.invoke("put", number, key="y").ok()
    client.invoke("get", key="x").ok(7)
    client.invoke("get", key="x").ok(49)
    result = check(recorder.history(), KeyValue())
    assert result.counterexample is not None
    assert result.counterexample.describe().splitlines() == [
        'No order explains these 2 operations of key "x":',
        "",
        "  line  process  operation  time",
        "   295  0        put 49     [---]",
        "   301  0        get -> 7           [---]",
        "",
        "Longest order that fits: put 49; then the state is 49.",
        "Next could be:",
        "  get -> 7 (line 301): refused, the state is 49",
        "",
        '100 more operations of key "x" play no part in this.',
        "What returned before line 295 is among them: that line overwrote it.",
    ]


def test_lists_of_a_counterexample_are_shown_without_what_plays_no_part() -> None:
    appends = [op(0, "append", number, 10 * number, 10 * number + 1) for number in range(30)]
    everything = tuple(range(30))
    reads = [read(1, everything, 500, 501), read(1, (*everything[:9], 29, *everything[9:29]), 502, 503)]
    found = check(kit.history_of([*appends, *reads]), ListAppend()).counterexample
    assert found is not None and found.shortened
    assert len(found.operations) <= 4
    assert "shown without what those operations left" in found.describe()


def left_of(found: Any) -> list[Operation]:
    return [
        opened(operation) if operation.number in found.free else operation for operation in found.operations
    ]


def test_no_order_explains_a_counterexample() -> None:
    rng = random.Random("counter-examples")
    seen: Counter[str] = Counter()
    while len(seen) < len(kit.KINDS) or min(seen.values()) < 20:
        kind = rng.choice(kit.KINDS)
        history = kit.random_operations(rng, kind)
        result = check(history, MODELS[kind]())
        if result.counterexample is not None:
            left = left_of(result.counterexample)
            assert not kit.exists_order(left, MODELS[kind]()), (kind, told(history.operations), told(left))
            assert len(left) <= len(history)
            seen[kind] += 1


class Follow(_Shrinker):
    """Asserts of every part that the shrinker considers that it can be explained, as the whole can."""

    def __init__(self, operations: Sequence[Operation], model: Model, rng: random.Random) -> None:
        closed = [operation for operation in operations if not operation.is_open]
        outcome = Outcome(False, [], None, model, 0, rng.choice(closed))
        super().__init__(operations, model, outcome, float("inf"))
        self.rng = rng
        self.considered = 0

    def keep(self, operations: list[Operation] | None) -> bool:
        if operations is None:
            return False
        self.considered += 1
        assert kit.exists_order(operations, self.model), (told(self.all), told(self.left), told(operations))
        if self.rng.random() < 0.5:
            return False
        self.left = operations
        return True


@pytest.mark.timeout(3600)
def test_whatever_is_left_out_was_not_what_made_the_whole_impossible() -> None:
    rng = random.Random("promise of the shrinker")
    considered: Counter[str] = Counter()
    for _ in range(CASES // 2):
        kind = rng.choice(kit.KINDS)
        if rng.random() < 0.5:
            history = kit.live(rng, kind, clients=3, operations=6, unique=rng.random() < 0.3).history
        else:
            history = kit.random_operations(rng, kind)
        operations = [
            operation
            for operation in history.operations
            if operation.key == history.operations[0].key
            and not (operation.is_open and operation.f in MODELS[kind]().reads)
        ]
        if all(operation.is_open for operation in operations):
            continue
        if kit.exists_order(operations, MODELS[kind]()):
            follow = Follow(operations, MODELS[kind](), rng)
            for step in (follow.cut_end, follow.start_late, follow.set_free):
                step()
            follow.drop(follow.is_read, follow.without)
            follow.drop(follow.may_go, follow.erased)
            considered[kind] += follow.considered
    assert set(considered) == set(kit.KINDS)


# --- values -------------------------------------------------------------------------------------------------


def test_values_are_frozen_compared_and_shown() -> None:
    assert freeze([1, {"a": [2]}, {3}]) == (1, frozenset({("a", (2,))}), frozenset({3}))
    with pytest.raises(ValueError, match="NaN equals nothing"):
        freeze([float("nan")])
    with pytest.raises(TypeError):
        freeze(slice(1))
    assert (
        same((1, (2,)), (1, (2,)))
        and not same((1, (2,)), (1, (True,)))
        and not same(frozenset({1}), frozenset({1.0}))
    )
    assert distinct((1, True)) != distinct((1, 1))
    assert [show(value) for value in (None, True, (1, "a"), b"x", 'q"')] == [
        "nil",
        "true",
        '[1 "a"]',
        "b'x'",
        '"q\\""',
    ]
    assert len(show("x" * 1000)) <= 48


def test_a_read_that_failed_has_no_result_and_says_nothing() -> None:
    recorder = Recorder()
    client = recorder.client()
    client.invoke("get", key="x").fail()
    client.invoke("get", key="x").ok(None)
    assert check(recorder.history(), KeyValue())
