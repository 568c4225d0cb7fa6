"""The asyncio face: the same replica, the same outcomes, ``await`` instead of waiting threads.

Commands are appended in the event loop's thread (that never waits); outcomes come back from the apply
thread in bulk, with one wake-up of the loop however many there are.

Example:
    >>> import asyncio, tempfile
    >>> async def main(directory):
    ...     async with Replica(directory) as replica:
    ...         outcome = await replica.propose(b"hello", timeout=10)
    ...         async for entry in replica.subscribe():
    ...             return outcome.index, entry.command
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(main(directory))
    (1, b'hello')
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import islice
from types import TracebackType
from typing import Any

from paxos import replica as blocking
from paxos import validation
from paxos.errors import Busy, Closed
from paxos.futures import RunOutcome
from paxos.node import Node
from paxos.status import Status
from paxos.subscribe import READ_AHEAD_ENTRIES
from paxos.types import Config, Entry, Outcome

BUSY_RETRY_S = 0.002


class _Bridge:
    """Carries outcomes from the apply thread into one event loop, in bulk."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._scheduled = False

    def post(self, future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
        """Queue one outcome. Any thread."""
        self._done.append((future, outcome, error))
        # Appended before the look; _flush lowers the flag before it looks at the queue: nothing is left
        # lying.
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        done = self._done
        while done:
            future, outcome, error = done.popleft()
            if future.done():  # cancelled meanwhile
                continue
            if error is None:
                future.set_result(outcome)
            else:
                future.set_exception(error)


class _Caller:
    """What the node resolves in place of a thread's future."""

    __slots__ = ("bridge", "future")

    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge
        self.future: asyncio.Future[Any] = bridge.loop.create_future()

    def resolve(self, outcome: Any) -> None:
        self.bridge.post(self.future, outcome, None)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, StopIteration):  # which no future of asyncio takes
            cause, error = error, RuntimeError("the reader's function raised StopIteration")
            error.__cause__ = cause
        self.bridge.post(self.future, None, error)


class Replica:
    """An asyncio :class:`paxos.Replica`: the same arguments, used as ``async with``.

    It belongs to the event loop in which it was entered. Cancelling a task that awaits an outcome stops the
    waiting, not the command: its outcome is then unknown to that task.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        node_id: int | None = None,
        members: Mapping[int, str] | Iterable[tuple[int, str]] | None = None,
        state_machine: Any = None,
        cluster: str = "paxos",
        bind: str | None = None,
        config: Config | None = None,
    ) -> None:
        """Keep the arguments of :class:`paxos.Replica`; nothing is opened before ``async with``."""
        self._open_replica = functools.partial(
            blocking.Replica,
            directory,
            node_id=node_id,
            members=members,
            state_machine=state_machine,
            cluster=cluster,
            bind=bind,
            config=config,
        )
        self._replica: blocking.Replica | None = None
        self._bridge: _Bridge | None = None

    async def __aenter__(self) -> Replica:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the replica in the running loop. Raises what :class:`paxos.Replica` raises."""
        if self._replica is not None:
            return
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(None, self._open_replica)
        try:
            self._replica = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Whoever cancels must not find the directory locked by a replica that nobody holds.
            with contextlib.suppress(Exception):
                await loop.run_in_executor(None, (await opening).close)
            raise
        self._bridge = _Bridge(loop)

    @property
    def sync(self) -> blocking.Replica:
        """The blocking face of the same replica."""
        if self._replica is None:
            raise Closed("the replica is not open: use 'async with paxos.aio.Replica(...) as replica'")
        return self._replica

    def _node(self) -> tuple[Node, _Bridge]:
        node = self.sync._node
        assert self._bridge is not None
        return node, self._bridge

    def submit(self, command: bytes) -> asyncio.Future[Outcome]:
        """Append one command; return a future of its outcome. Raises as :meth:`paxos.Replica.submit`."""
        node, bridge = self._node()
        checked = validation.check_command(command, self.sync.config.command_bytes_max)
        caller = _Caller(bridge)
        node.enqueue(checked, caller)
        return caller.future

    def submit_many(self, commands: Iterable[bytes]) -> asyncio.Future[RunOutcome]:
        """Append a run of commands; return one future. Raises as :meth:`paxos.Replica.submit_many`."""
        if isinstance(commands, bytes | bytearray | str):
            raise TypeError("submit_many takes a sequence of commands; use submit for one")
        node, bridge = self._node()
        caller = _Caller(bridge)
        node.enqueue_many(commands if isinstance(commands, list | tuple) else list(commands), caller)
        return caller.future

    async def propose(self, command: bytes, timeout: float | None = None) -> Outcome:
        """Append one command; return when it is chosen, durable on a majority and applied here.

        Raises:
            Busy, Closed, TypeError, ConfigError: not taken.
            OutcomeUnknown: the time is over, or the node stopped, after the command was handed over.
        """
        if timeout is None:
            return await (await self._submit_until(command, None))
        validation.check_timeout(timeout)
        deadline = time.monotonic() + timeout
        future = await self._submit_until(command, deadline)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                return await future
        except TimeoutError:
            node, _bridge = self._node()
            raise node.no_outcome(timeout) from None

    async def _submit_until(self, command: bytes, deadline: float | None) -> asyncio.Future[Outcome]:
        while True:
            try:
                return self.submit(command)
            except Busy:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(BUSY_RETRY_S)

    async def read(self, function: Callable[[Any], Any] | None = None, timeout: float | None = None) -> Any:
        """Run ``function(state_machine)`` on the latest state, as :meth:`paxos.Replica.read`.

        The function runs on a thread of the node, not in the event loop. Raises as :meth:`paxos.Replica.read`, and
        ``Busy`` if too many reads wait already.
        """
        node, bridge = self._node()
        seconds = validation.check_timeout(timeout)
        caller = _Caller(bridge)
        node.reads.enqueue(validation.check_function(function), caller)
        try:
            async with asyncio.timeout(seconds):
                return await caller.future
        except TimeoutError:
            if caller.future.cancelled():
                raise node.reads.not_in_time(seconds) from None
            raise  # the function's own

    async def subscribe(self, from_index: int = 1) -> AsyncIterator[Entry]:
        """Follow the log from ``from_index`` on, as :meth:`paxos.Replica.subscribe`."""
        node, bridge = self._node()
        loop = bridge.loop
        at = validation.check_index(from_index, "from_index")
        moved = asyncio.Event()

        def wake() -> None:
            if not moved.is_set():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(moved.set)

        node.applier.watch(wake)
        try:
            while True:
                moved.clear()
                if node.applied_index < at:
                    if node.ended:
                        node.raise_if_failed()
                        return
                    await moved.wait()
                    continue
                try:
                    found = await loop.run_in_executor(None, node.read_range, at, at + READ_AHEAD_ENTRIES)
                except Closed:
                    return
                for entry in found:
                    at = entry.index + 1
                    yield entry
        finally:
            node.applier.unwatch(wake)

    async def read_index(self, index: int) -> Entry:
        """Return command ``index`` as applied here. Raises as :meth:`paxos.Replica.read_index`."""
        replica = self.sync
        return await asyncio.get_running_loop().run_in_executor(None, replica.read_index, index)

    async def entries(self, start: int = 1, stop: int | None = None) -> AsyncIterator[Entry]:
        """Iterate over commands that are applied here, as :meth:`paxos.Replica.entries`; never waits for more."""
        loop = asyncio.get_running_loop()
        found = self.sync.entries(start, stop)
        while run := await loop.run_in_executor(None, lambda: list(islice(found, READ_AHEAD_ENTRIES))):
            for entry in run:
                yield entry

    async def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until this node knows a leader; False if it knows none after ``timeout`` seconds."""
        seconds = validation.check_timeout(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.sync.wait_ready(0):
            if self.sync._node.closed or (deadline is not None and time.monotonic() >= deadline):
                return False
            await asyncio.sleep(0.005)
        return True

    async def transfer_leadership(self, to: int | None = None, timeout: float | None = 5.0) -> bool:
        """Hand leadership over, as :meth:`paxos.Replica.transfer_leadership`."""
        replica = self.sync
        return await asyncio.get_running_loop().run_in_executor(
            None, lambda: replica.transfer_leadership(to, timeout)
        )

    @property
    def node_id(self) -> int:
        """This node's id."""
        return self.sync.node_id

    @property
    def leader(self) -> int | None:
        """Node id of the leader that this node follows or is."""
        return self.sync.leader

    @property
    def is_leader(self) -> bool:
        """True if this node believes that it leads."""
        return self.sync.is_leader

    def status(self) -> Status:
        """Return one look at this node."""
        return self.sync.status()

    def inspect(self) -> dict[str, Any]:
        """Return everything that the parts say about themselves."""
        return self.sync.inspect()

    def __repr__(self) -> str:
        return (
            "<paxos.aio.Replica, not open>"
            if self._replica is None
            else repr(self._replica).replace(".", ".aio.", 1)
        )

    async def close(self, timeout: float = blocking.CLOSE_TIMEOUT_S) -> None:
        """Close the replica, as :meth:`paxos.Replica.close`; also completed when this task is cancelled."""
        replica = self._replica
        if replica is None:
            return
        loop = asyncio.get_running_loop()
        closing = loop.run_in_executor(None, replica.close, timeout)
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise
