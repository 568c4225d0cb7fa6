"""The runtime's side of a read: who waits, who runs the function, and how it ends (R6)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paxos import aio
from paxos.errors import ApplyFailed, Busy, Closed, ConfigError, ReadTimeout
from paxos.futures import Future
from paxos.node import Node
from paxos.types import Config
from tests.unit.face_fakes import FakeDesk, fake_node


class Halves:
    """A state machine that can be stopped half-way through a command."""

    def __init__(self) -> None:
        self.left = self.right = 0
        self.between = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.inner: Callable[[], object] | None = None

    def apply(self, command: bytes, _context: Any) -> int:
        self.left += 1
        self.between.set()
        assert self.go_on.wait(30)
        if command == b"raise":
            raise RuntimeError("half-way")
        if self.inner is not None:
            self.inner()
        self.right += 1
        return self.right


@pytest.fixture
def machine() -> Halves:
    return Halves()


@pytest.fixture
def node(machine: Halves) -> Iterator[Node]:
    node = fake_node(machine)
    node.start()
    yield node
    machine.go_on.set()
    node.close(1.0)


def desk(node: Node) -> FakeDesk:
    found = node.parts.reactor.reads
    assert isinstance(found, FakeDesk)
    return found


def pair(machine: Halves) -> tuple[int, int]:
    return machine.left, machine.right


class Background(threading.Thread):
    """Runs one call and keeps what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def end(self) -> Any:
        self.join(30)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def test_a_read_sees_the_state_and_returns_what_its_function_returns(node: Node) -> None:
    node.propose(b"x", 10)
    assert node.reads.read(pair, 10) == (1, 1)
    assert node.reads.read(None, 10) == 1


def test_r6_a_read_never_sees_a_command_half_applied(node: Node, machine: Halves) -> None:
    machine.go_on.clear()
    future = node.submit(b"x")
    assert machine.between.wait(30)
    reader = Background(lambda: node.reads.read(pair, 30))
    with pytest.raises(ReadTimeout, match="not applied here"):
        node.reads.read(pair, 0.05)
    machine.go_on.set()
    assert reader.end() == (1, 1)
    assert future.result(10).result == 1


def test_a_read_waits_until_the_confirmed_slots_are_applied(node: Node) -> None:
    desk(node).confirm(1)
    reader = Background(lambda: node.reads.read(pair, 30))
    with pytest.raises(ReadTimeout, match=r"slot 1 was not applied here within 0\.05 s \(slot 0 is\)"):
        node.reads.read(pair, 0.05)
    node.propose(b"x", 10)
    assert reader.end() == (1, 1)


def test_a_read_that_no_quorum_confirms_says_so(node: Node) -> None:
    desk(node).confirm(None)
    with pytest.raises(ReadTimeout, match="no quorum confirmed the read within 0 s") as caught:
        node.reads.read(pair, 0)
    assert isinstance(caught.value, TimeoutError)


def test_an_exception_of_the_reader_is_the_readers_own(node: Node) -> None:
    with pytest.raises(ZeroDivisionError):
        node.reads.read(lambda _machine: 1 // 0, 10)
    future: Future[Any] = Future()
    node.reads.enqueue(lambda _machine: 1 // 0, future)
    with pytest.raises(ZeroDivisionError):
        future.result(10)
    node.propose(b"x", 10)
    assert node.reads.read(pair, 10) == (1, 1)


def test_reads_inside_apply_and_inside_reads_are_refused(node: Node, machine: Halves) -> None:
    caught: list[BaseException] = []

    def inner() -> None:
        try:
            node.reads.read(pair, 10)
        except ConfigError as error:
            caught.append(error)

    machine.inner = inner
    node.propose(b"x", 10)
    node.reads.read(lambda _machine: inner(), 10)
    assert len(caught) == 2


def test_a_failed_state_machine_is_not_read(node: Node) -> None:
    with pytest.raises(Exception, match="half-way"):
        node.propose(b"raise", 10)
    with pytest.raises(Closed, match="half-way") as closed:
        node.reads.read(pair, 10)
    assert isinstance(closed.value.__cause__, ApplyFailed)
    with pytest.raises(Closed):
        node.applier.run_between(pair, 10)


def test_close_ends_the_reads_that_wait(node: Node) -> None:
    desk(node).confirm(None)
    readers = [Background(lambda: node.reads.read(pair, None)) for _ in range(3)]
    future: Future[Any] = Future()
    node.reads.enqueue(pair, future)
    while desk(node).asked < 4:
        time.sleep(0.001)
    node.close(1.0)
    for reader in readers:
        with pytest.raises(Closed):
            reader.end()
    with pytest.raises(Closed):
        future.result(10)
    with pytest.raises(Closed):
        node.reads.read(pair, 10)
    with pytest.raises(Closed):
        node.reads.enqueue(pair, Future())


def test_close_ends_a_read_that_is_confirmed_and_not_applied(node: Node) -> None:
    desk(node).confirm(10)
    reader = Background(lambda: node.reads.read(pair, None))
    future: Future[Any] = Future()
    node.reads.enqueue(pair, future)
    while desk(node).asked < 2:
        time.sleep(0.001)
    node.close(1.0)
    with pytest.raises(Closed):
        reader.end()
    with pytest.raises(Closed):
        future.result(10)


def test_reads_that_wait_for_the_nodes_thread_are_bounded() -> None:
    node = fake_node(Halves(), Config(pending_bytes_max=1024, command_bytes_max=1024))
    node.start()
    try:
        desk(node).confirm(None)
        futures: list[Future[Any]] = []
        with pytest.raises(Busy, match="1024 reads wait"):
            for _ in range(2000):
                futures.append(Future())
                node.reads.enqueue(pair, futures[-1])
        desk(node).confirm(0)
        assert [future.result(10) for future in futures[:-1]] == [(0, 0)] * 1024
    finally:
        node.close(1.0)


def test_the_event_loop_face_reads_times_out_and_passes_errors_on(node: Node) -> None:
    async def main() -> None:
        replica = aio.Replica("nowhere")
        bridge = aio._Bridge(asyncio.get_running_loop())
        replica._node = lambda: (node, bridge)  # type: ignore[method-assign]
        assert await replica.read(pair, timeout=10) == (0, 0)
        assert await asyncio.gather(*(replica.read(pair, timeout=10) for _ in range(50))) == [(0, 0)] * 50
        with pytest.raises(ZeroDivisionError):
            await replica.read(lambda _machine: 1 // 0, timeout=10)

        def own_timeout(_machine: Any) -> None:
            raise TimeoutError("the reader's own")

        with pytest.raises(TimeoutError, match="the reader's own"):
            await replica.read(own_timeout, timeout=10)
        desk(node).confirm(None)
        with pytest.raises(ReadTimeout, match=r"no quorum confirmed the read within 0\.05 s"):
            await replica.read(pair, timeout=0.05)
        desk(node).confirm(0)
        assert await replica.read(pair, timeout=10) == (0, 0)
        with pytest.raises(TypeError):
            await replica.read("not a function", timeout=10)  # type: ignore[arg-type]

    asyncio.run(main())


def test_what_a_readers_function_raises_ends_no_read_but_its_own(node: Node) -> None:
    """Not even what no future of asyncio takes, or what is no Exception."""

    async def main() -> None:
        replica = aio.Replica("nowhere")
        bridge = aio._Bridge(asyncio.get_running_loop())
        replica._node = lambda: (node, bridge)  # type: ignore[method-assign]

        def cancelled(_machine: Any) -> None:
            raise asyncio.CancelledError

        ended, gone, good = await asyncio.gather(
            replica.read(lambda _machine: next(iter(())), timeout=10),
            replica.read(cancelled, timeout=10),
            replica.read(pair, timeout=10),
            return_exceptions=True,
        )
        assert isinstance(ended, RuntimeError) and isinstance(ended.__cause__, StopIteration)
        assert isinstance(gone, asyncio.CancelledError)
        assert good == (0, 0)
        assert await replica.read(pair, timeout=10) == (0, 0)

    asyncio.run(main())


def test_h5_quarantine_ends_the_reads_that_wait(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers a node in quarantine: a reader without a timeout would wait for ever."""
    desk(node).confirm(None)
    reader = Background(lambda: node.reads.read(pair, None))
    future: Future[Any] = Future()
    node.reads.enqueue(pair, future)
    while desk(node).asked < 2:
        time.sleep(0.001)
    seen = node.look() | {"is_quarantined": True, "quarantine": "rolled back", "quarantine_reason": 3}
    monkeypatch.setattr(node, "look", lambda: seen)
    monkeypatch.setattr(node, "_last_look", seen)
    with pytest.raises(Closed, match="rolled back"):
        reader.end()
    with pytest.raises(Closed, match="rolled back"):
        future.result(30)


def test_no_readers_function_runs_when_close_has_returned(node: Node) -> None:
    """Behind close() the application may close what its state machine stands on."""
    inside, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def slow(_machine: Any) -> None:
        inside.set()
        assert go_on.wait(30)
        order.append("read")

    reader = Background(lambda: node.reads.read(slow, 30))
    assert inside.wait(30)
    closer = Background(lambda: (node.close(1.0), order.append("closed")))
    while not node.applier.ended:
        time.sleep(0.001)
    go_on.set()
    closer.end()
    reader.end()
    assert order == ["read", "closed"]
    with pytest.raises(Closed):
        node.applier.run_between(slow, 10)
