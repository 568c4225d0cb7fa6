"""The runtime over a reactor that chooses at once: order, outcomes, failures, closing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paxos import aio
from paxos import replica as replica_module
from paxos.errors import ApplyFailed, Busy, Closed, OutcomeUnknown, StorageError
from paxos.node import Node
from paxos.replica import Replica
from paxos.state_machine import StateMachine
from paxos.types import ApplyContext, Config
from tests.unit.face_fakes import FakeReactor, fake_node


class Recorder(StateMachine):
    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []

    def apply(self, command: bytes, context: ApplyContext) -> Any:
        if command == b"bad":
            raise ValueError("no such command")
        self.seen.append((context.index, command))
        return command.upper()


@pytest.fixture
def open_node() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def open_(machine: Any = None, config: Config | None = None) -> Node:
        node = fake_node(machine, config)
        nodes.append(node)
        node.start()
        return node

    yield open_
    for node in nodes:
        node.close(1.0)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.002)


def in_thread(function: Callable[[], Any]) -> Any:
    box: list[Any] = []
    thread = threading.Thread(target=lambda: box.append(function()))
    thread.start()
    thread.join(30)
    return box[0]


def test_outcomes_carry_index_slot_and_result(open_node: Callable[..., Node]) -> None:
    node = open_node(Recorder())
    assert node.propose(b"a", 10).index == 1
    outcome = in_thread(lambda: node.propose(b"b", 10))  # not the main thread: it applies for itself
    assert (outcome.index, outcome.result) == (2, b"B")
    run = node.submit_many([b"c", b"d"]).result(10)
    assert (run.indices, list(run.results)) == ((range(3, 5),), [b"C", b"D"])
    assert [entry.command for entry in node.read_range(1, 99)] == [b"a", b"b", b"c", b"d"]


def test_a_run_over_several_batches(open_node: Callable[..., Node]) -> None:
    node = open_node(Recorder(), Config(batch_bytes_max=100))
    run = node.submit_many([b"%03d" % at for at in range(100)]).result(10)
    assert list(run.results) == [b"%03d" % at for at in range(100)]
    assert [outcome.index for outcome in run] == [*range(1, 101)]
    assert len({outcome.slot for outcome in run}) > 1


def test_many_threads_each_get_their_own_outcome(open_node: Callable[..., Node]) -> None:
    machine = Recorder()
    node = open_node(machine)
    wrong: list[Any] = []

    def work(name: int) -> None:
        for at in range(50):
            command = b"x-%d-%d" % (name, at)
            outcome = node.propose(command, 30) if at % 2 else node.submit(command).result(30)
            if outcome.result != command.upper():
                wrong.append((command, outcome))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert [index for index, _ in machine.seen] == [*range(1, 401)]
    assert not len(node.pending)


@pytest.mark.parametrize("combining", [False, True])
def test_y3_an_exception_in_apply_stops_the_node_there(
    open_node: Callable[..., Node], combining: bool
) -> None:
    machine = Recorder()
    node = open_node(machine)
    node.propose(b"good", 10)

    def bad() -> BaseException:
        with pytest.raises(OutcomeUnknown) as caught:
            node.propose(b"bad", 10)
        return caught.value

    error = in_thread(bad) if combining else bad()
    assert isinstance(error.__cause__, ApplyFailed)
    assert "slot 2 (command 2)" in str(error) and "no such command" in str(error)
    with pytest.raises(Closed, match="stopped"):
        node.submit(b"later")
    assert machine.seen == [(1, b"good")]
    assert not node.parts.reactor.alive  # it votes no more


def test_wrong_number_of_results_stops_the_node(open_node: Callable[..., Node]) -> None:
    class Short(StateMachine):
        def apply_batch(self, commands: Any, context: ApplyContext) -> Any:
            return [None] * (len(commands) + 1)

    node = open_node(Short())
    with pytest.raises(OutcomeUnknown, match="2 results for 1 commands"):
        node.propose(b"a", 10)


def test_g4_a_timeout_after_the_hand_over_is_unknown_not_rejected(open_node: Callable[..., Node]) -> None:
    node = open_node()
    node.parts.reactor.held = True
    with pytest.raises(OutcomeUnknown):
        node.propose(b"a", 0.02)
    assert isinstance(in_thread(lambda: _error(lambda: node.propose(b"b", 0.02))), OutcomeUnknown)
    future = node.submit(b"c")
    with pytest.raises(TimeoutError):
        future.result(0.01)
    node.parts.reactor.held = False
    assert future.result(10).index == 3


def _error(function: Callable[[], Any]) -> BaseException | None:
    try:
        function()
    except Exception as error:
        return error
    return None


def test_g4_closing_rejects_what_never_left_and_only_that(open_node: Callable[..., Node]) -> None:
    node = open_node()
    reactor: FakeReactor = node.parts.reactor
    reactor.held = True
    time.sleep(0.01)  # an ongoing round of the fake ends
    left = node.submit(b"taken by the reactor, never chosen")
    assert node.parts.batcher.take_value()
    kept = [node.submit(b"a"), node.submit(b"b")]
    run = node.submit_many([b"c", b"d"])
    node.close(0.05)
    assert isinstance(left.exception(1), OutcomeUnknown)
    for future in (*kept, run):
        assert isinstance(future.exception(1), Closed)
    with pytest.raises(Closed):
        node.submit(b"late")


def test_g9_the_callers_that_wait_are_bounded_however_small_their_commands(open_node: Any) -> None:
    node = open_node(config=Config(pending_bytes_max=1 << 17, command_bytes_max=1 << 10))
    node.parts.reactor.held = True
    time.sleep(0.01)
    for _ in range(1024):
        node.submit(b"")
    with pytest.raises(Busy, match="callers"):
        node.submit(b"")


def test_busy_takes_nothing(open_node: Callable[..., Node]) -> None:
    node = open_node(config=Config(pending_bytes_max=64, command_bytes_max=64))
    node.parts.reactor.held = True
    time.sleep(0.01)
    node.submit(b"x" * 50)
    with pytest.raises(Busy):
        node.submit(b"y" * 50)
    with pytest.raises(Busy):
        node.submit_many([b"y" * 50])
    with pytest.raises(Busy):
        node.propose(b"y" * 50, 0.02)
    assert len(node.pending) == 1
    node.parts.reactor.held = False
    assert node.propose(b"y" * 50, 20).index == 2


def test_a_fault_of_the_reactor_reaches_every_caller(open_node: Callable[..., Node]) -> None:
    node = open_node()
    reactor: FakeReactor = node.parts.reactor
    reactor.held = True
    future = node.submit(b"a")
    reactor.fault = (5, "the log cannot be synced: Input/output error")
    reactor.stop()
    error = future.exception(20)
    assert isinstance(error, (OutcomeUnknown, Closed))
    assert isinstance(error.__cause__, StorageError)
    with pytest.raises(Closed, match="Input/output error"):
        node.propose(b"b", 1)


def test_close_is_idempotent_and_wakes_everybody(open_node: Callable[..., Node]) -> None:
    node = open_node()
    node.parts.reactor.held = True
    errors: list[Any] = []
    threads = [
        threading.Thread(target=lambda: errors.append(_error(lambda: node.propose(b"a", None))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(node.pending) == 4)
    closers = [threading.Thread(target=node.close, args=(0.1,)) for _ in range(3)]
    for thread in closers + threads[:0]:
        thread.start()
    for thread in threads + closers:
        thread.join(30)
    assert len(errors) == 4
    assert all(isinstance(error, (OutcomeUnknown, Closed)) for error in errors)


@pytest.fixture
def fake_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_parts(directory: Any, *, config: Config, **_: Any) -> Any:
        return fake_node(config=config).parts

    monkeypatch.setattr(replica_module, "open_parts", open_parts)


@pytest.mark.usefixtures("fake_parts")
def test_subscribe_resumes_waits_and_ends_with_the_replica(tmp_path: Any) -> None:
    replica = Replica(tmp_path)
    replica.submit_many([b"%d" % at for at in range(1000)]).result(20)
    first = replica.subscribe()
    assert [next(first).index for _ in range(600)] == [*range(1, 601)]
    again = replica.subscribe(from_index=first.next_index)
    assert next(again).index == 601
    assert replica.subscribe(1001).get(timeout=0.01) is None
    late: list[Any] = []
    reader = threading.Thread(target=lambda: late.extend(replica.subscribe(1001)))
    reader.start()
    replica.propose(b"last", 20)
    until(lambda: bool(late))
    replica.close()
    reader.join(30)
    assert [entry.command for entry in late] == [b"last"]


@pytest.mark.usefixtures("fake_parts")
def test_reading_by_index_and_range(tmp_path: Any) -> None:
    with Replica(tmp_path) as replica:
        replica.submit_many([b"%d" % at for at in range(1, 1001)]).result(20)
        assert replica.read_index(7).command == b"7"
        assert [entry.index for entry in replica.entries(995)] == [*range(995, 1001)]
        assert [entry.index for entry in replica.entries(3, 6)] == [3, 4, 5]
        assert list(replica.entries(2000)) == []
        with pytest.raises(IndexError):
            replica.read_index(1001)
        assert "1000 commands applied" in str(replica.status())
    assert replica.status().role == "stopped"
    replica.close()


@pytest.mark.usefixtures("fake_parts")
def test_the_asyncio_face(tmp_path: Any) -> None:
    async def main() -> None:
        async with aio.Replica(tmp_path) as replica:
            assert await replica.wait_ready(10)
            outcomes = await asyncio.gather(*(replica.propose(b"%d" % at, 20) for at in range(200)))
            assert [outcome.index for outcome in outcomes] == [*range(1, 201)]
            run = await replica.submit_many([b"a", b"b"])
            assert run.indices == (range(201, 203),)
            seen = []
            async for entry in replica.subscribe(200):
                seen.append(entry.index)
                if entry.index == 202:
                    break
            assert seen == [200, 201, 202]
            assert [entry.index async for entry in replica.entries(199, 202)] == [199, 200, 201]
            assert "aio.Replica" in repr(replica)
            reactor = replica.sync._node.parts.reactor
            reactor.held = True
            with pytest.raises(OutcomeUnknown):
                await replica.propose(b"slow", 0.02)
            waiting = asyncio.create_task(replica.propose(b"cancelled"))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            reactor.held = False
            assert (await replica.propose(b"after", 20)).index == 205
            assert not len(replica.sync._node.pending)  # c7: nothing of the cancelled one is left
        with pytest.raises(Closed):
            await replica.propose(b"late")

    asyncio.run(main())
