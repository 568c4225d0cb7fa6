"""The Batcher: tickets in order, nothing lost, nothing beyond the bounds. Commands: values read back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos._core.batch import Batcher, Commands
from paxos._core.codec import decode_batch, encode_batch
from paxos.errors import Busy, Closed, ConfigError


def batcher(**limits: int) -> Batcher:
    return Batcher(2, 9, **limits)


def drain(source: Batcher) -> list[tuple[int, int, int, list[bytes]]]:
    batches = []
    while (value := source.take_value()) is not None:
        batches.append(decode_batch(value))
    return batches


def test_tickets_are_consecutive_and_one_batch_holds_what_gathered() -> None:
    b = batcher()
    assert [b.append(c) for c in (b"a", b"", b"ccc")] == [1, 2, 3]
    assert b.append_many([b"d", b"e"]) == (4, 2)
    assert drain(b) == [(2, 9, 1, [b"a", b"", b"ccc", b"d", b"e"])]
    assert b.pending_bytes == 0
    assert b.append(b"f") == 6
    assert drain(b) == [(2, 9, 6, [b"f"])]
    assert b.take_value() is None


def test_value_is_byte_for_byte_what_the_codec_encodes() -> None:
    b = batcher()
    b.append_many([b"x" * 10, b"y"])
    assert b.take_value() == encode_batch([b"x" * 10, b"y"], origin=2, incarnation=9, first_ticket=1)


def test_batches_are_sealed_at_their_limit_and_a_giant_travels_alone() -> None:
    b = batcher(batch_bytes_max=100)
    for command in (b"a" * 30, b"b" * 30, b"c" * 500, b"d"):
        b.append(command)
    got = drain(b)
    assert [len(commands) for *_, commands in got] == [2, 1, 1]
    assert [first for _, _, first, _ in got] == [1, 3, 4]


@given(st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=12), max_size=12), st.integers(1, 200))
@settings(max_examples=150, deadline=None)
def test_any_mix_of_runs_comes_out_in_ticket_order(runs: list[list[bytes]], batch_bytes_max: int) -> None:
    b = batcher(batch_bytes_max=batch_bytes_max)
    expected: list[bytes] = []
    for run in runs:
        first = b.append(run[0]) if len(run) == 1 else b.append_many(run)[0]
        assert first == len(expected) + 1
        expected += run
    ticket = 1
    commands: list[bytes] = []
    for _, _, first, batch in drain(b):
        assert first == ticket
        assert len(batch) == 1 or 32 + sum(4 + len(c) for c in batch) <= batch_bytes_max
        ticket += len(batch)
        commands += batch
    assert commands == expected


def test_long_runs_are_built_apart_and_keep_the_order() -> None:
    b = batcher(batch_bytes_max=1 << 16)
    b.append(b"before")
    run = [bytes([i % 256]) * 1000 for i in range(1000)]
    assert b.append_many(run) == (2, 1000)
    b.append(b"after")
    got = drain(b)
    assert [c for *_, commands in got for c in commands] == [b"before", *run, b"after"]
    assert len(got) > 10


@pytest.mark.parametrize("bad", ["text", 5, None, bytearray(b"x"), memoryview(b"x")])
def test_what_is_not_bytes_is_refused(bad: Any) -> None:
    b = batcher()
    with pytest.raises(TypeError, match=type(bad).__name__):
        b.append(bad)
    with pytest.raises(TypeError, match="command 1 of the run"):
        b.append_many([b"fine", bad])
    assert b.take_value() is None and b.append(b"ok") == 1


def test_a_command_over_the_limit_is_refused_and_nothing_of_its_run_is_taken() -> None:
    b = batcher(command_bytes_max=10)
    with pytest.raises(ConfigError, match="11 bytes is over the limit of 10"):
        b.append(b"x" * 11)
    with pytest.raises(ConfigError, match="command 2 of the run"):
        b.append_many([b"a", b"b", b"x" * 11])
    assert b.pending_bytes == 0 and b.append(b"y" * 10) == 1


def test_g9_beyond_pending_bytes_callers_get_busy_and_nothing_is_lost() -> None:
    b = batcher(pending_bytes_max=100)
    taken = 0
    with pytest.raises(Busy, match="pending_bytes_max"):
        while True:
            b.append(b"x" * 16)
            taken += 1
    assert taken == 5 and b.pending_bytes == 100
    with pytest.raises(Busy):
        b.append_many([b"a", b"b"], timeout_s=0.01)
    assert [len(c) for *_, c in drain(b)] == [5]
    assert b.append(b"z") == 6


def test_a_lone_giant_run_is_accepted_when_nothing_else_waits() -> None:
    b = batcher(pending_bytes_max=100)
    assert b.append_many([b"x" * 50] * 10) == (1, 10)
    with pytest.raises(Busy):
        b.append(b"")
    assert sum(len(c) for *_, c in drain(b)) == 10


def test_waiting_for_room_ends_when_the_reactor_takes() -> None:
    b = batcher(pending_bytes_max=100)
    b.append(b"x" * 90)
    result: list[tuple[int, int]] = []
    waiter = threading.Thread(target=lambda: result.append(b.append_many([b"y" * 20, b"z"], timeout_s=30)))
    waiter.start()
    assert b.take_value() is not None
    waiter.join(30)
    assert result == [(2, 2)]


def test_close_refuses_and_ends_the_wait_but_keeps_what_was_taken() -> None:
    b = batcher(pending_bytes_max=100)
    b.append(b"x" * 90)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            b.append(b"y" * 20, timeout_s=None)
        except BaseException as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    b.close()
    waiter.join(30)
    assert [type(f) for f in failures] == [Closed]
    with pytest.raises(Closed):
        b.append_many([b"a"])
    assert b.is_closed and len(drain(b)) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_timeouts_must_be_seconds(timeout: float) -> None:
    b = batcher(pending_bytes_max=10)
    b.append(b"x" * 10)
    with pytest.raises(ConfigError, match="seconds"):
        b.append(b"y", timeout_s=timeout)


@pytest.mark.parametrize("origin", [0, 65536])
def test_node_ids_are_checked(origin: int) -> None:
    with pytest.raises(ConfigError, match="node id"):
        Batcher(origin, 1)


def test_x5_many_threads_lose_nothing_and_keep_each_threads_order() -> None:
    b = batcher(batch_bytes_max=2000, pending_bytes_max=20_000)
    threads, each = 8, 2000
    given_tickets: list[dict[int, bytes]] = [{} for _ in range(threads)]

    def produce(who: int) -> None:
        for i in range(0, each, 4):
            run = [f"{who}:{i + k}".encode() for k in range(4)]
            if i % 8:
                first, _ = b.append_many(run, timeout_s=60)
                given_tickets[who].update({first + k: c for k, c in enumerate(run)})
            else:
                for command in run:
                    given_tickets[who][b.append(command, timeout_s=60)] = command

    workers = [threading.Thread(target=produce, args=(who,)) for who in range(threads)]
    for worker in workers:
        worker.start()
    by_ticket: dict[int, bytes] = {}
    while any(w.is_alive() for w in workers) or b.pending_bytes:
        value = b.take_value()
        if value is not None:
            _, _, first, commands = decode_batch(value)
            assert first == len(by_ticket) + 1
            by_ticket.update({first + k: c for k, c in enumerate(commands)})
    expected: dict[int, bytes] = {}
    for tickets in given_tickets:
        assert list(tickets) == sorted(tickets)
        expected.update(tickets)
    assert by_ticket == expected and len(by_ticket) == threads * each


def test_commands_is_a_lazy_sequence_over_the_value() -> None:
    items = [b"a", b"", b"ccc", b"dd"]
    commands = Commands(encode_batch(items, origin=3, incarnation=5, first_ticket=8))
    assert len(commands) == 4 and list(commands) == items and commands[:] == items
    assert commands[1:3] == items[1:3] and commands[::-1] == items[::-1] and commands[-2] == b"ccc"
    assert [commands[i] for i in range(4)] == items and list(reversed(commands)) == items[::-1]
    assert b"ccc" in commands and b"x" not in commands
    assert (commands.origin, commands.incarnation, commands.first_ticket) == (3, 5, 8)
    for bad in (4, -5):
        with pytest.raises(IndexError):
            commands[bad]


def test_x4_memoryviews_keep_the_value_alive_and_read_only() -> None:
    commands = Commands(encode_batch([b"abc", b"de"], origin=1, incarnation=1, first_ticket=1))
    views = commands.memoryviews()
    del commands
    assert [bytes(v) for v in views] == [b"abc", b"de"] and all(v.readonly for v in views)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_g10_arbitrary_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    try:
        commands = Commands(data)
    except ValueError:
        return
    assert sum(4 + len(c) for c in commands) + 32 == len(data)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
@settings(max_examples=300, deadline=None)
def test_g10_damaged_values_never_reach_beyond_their_bytes(items: list[bytes], data: st.DataObject) -> None:
    value = bytearray(encode_batch(items, origin=1, incarnation=1, first_ticket=1))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    del value[data.draw(st.integers(0, len(value))) :]
    try:
        commands = Commands(bytes(value))
    except ValueError:
        return
    assert sum(4 + len(c) for c in commands) + 32 == len(value)
