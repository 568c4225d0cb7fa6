"""`Recorder`: write down what clients ask and hear, from any number of threads, with one clock."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from paxos.sim.linearizability.json_lines import encode
from paxos.sim.linearizability.operations import MISSING, Event, History, freeze


class Recorder:
    """Records histories; thread-safe.

    With a path every event is written at once as a JSON line, so that a history survives its process. Several
    processes of one machine may record a file each, under process names of their own: ``time.monotonic_ns``
    is one clock for all of them, and `History.merged` puts the files together.

    Args:
        path: file that gets every event as it happens.
        prefix: put before the numbers that `client` gives, to tell recorders apart.
        clock: returns the time of an event.

    >>> recorder = Recorder()
    >>> client = recorder.client()
    >>> client.invoke("write", 1).ok()
    >>> operation = client.invoke("write", 2)
    >>> operation.info()  # a timeout: it may still happen
    >>> [str(operation) for operation in recorder.history().operations]
    ['write 1', 'write 2 -> ?']
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        prefix: str = "",
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock = clock
        self._prefix = prefix
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._numbers = itertools.count()
        self._file: IO[str] | None = None
        if path is not None:
            self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by `close`

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if there is one. What was recorded stays."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def process(self) -> Hashable:
        """Return the name of a process that nobody had before."""
        number = next(self._numbers)
        return f"{self._prefix}{number}" if self._prefix else number

    def client(self) -> Client:
        """Return a client that does one operation at a time."""
        return Client(self)

    def invoke(self, process: Hashable, f: str, value: Any = None, *, key: Hashable = None) -> Invocation:
        """Record that ``process`` is about to ask for ``f``; call it before the operation begins."""
        event = Event("invoke", process, f, freeze(value), freeze(key))
        self._record(event)
        return Invocation(self, event)

    def _record(self, event: Event) -> None:
        with self._lock:  # the clock is read inside: the order of the events is the order of their times
            event = event._replace(time=self._clock(), line=len(self._events) + 1)
            self._events.append(event)
            if self._file is not None:
                self._file.write(encode(event) + "\n")

    @property
    def events(self) -> list[Event]:
        """Return what was recorded so far."""
        with self._lock:
            return list(self._events)

    def history(self) -> History:
        """Return the operations recorded so far; those under way are open.

        Raises:
            MalformedHistory: a process did two things at once, or went on after ``info``.
        """
        return History.of(self.events)

    def write(self, path: str | Path) -> None:
        """Write what was recorded so far as JSON lines."""
        Path(path).write_text("".join(encode(event) + "\n" for event in self.events), encoding="utf-8")


class Invocation:
    """An operation under way: say once what became of it. Saying nothing is the same as ``info``."""

    def __init__(self, recorder: Recorder, event: Event, client: Client | None = None) -> None:
        self._recorder = recorder
        self._event = event
        self._client = client
        self._told = False

    def _complete(self, kind: str, value: Any, slot: int | None) -> None:
        if self._told:
            raise RuntimeError(f"it was said before what became of {self._event.f} of {self._event.process}")
        self._told = True
        self._recorder._record(self._event._replace(type=kind, value=value, slot=slot))
        client = self._client
        if client is not None and kind != "info" and client.process == self._event.process:
            client.is_busy = False

    def ok(self, result: Any = MISSING, *, slot: int | None = None) -> None:
        """It happened; ``result`` is what a read found (``None`` is something), ``slot`` its place in the log."""
        self._complete("ok", freeze(result), slot)

    def fail(self) -> None:
        """It definitely did not happen and never will."""
        self._complete("fail", MISSING, None)

    def info(self) -> None:
        """Nobody knows: a timeout, a lost connection, a node that died."""
        self._complete("info", MISSING, None)


class Client:
    """Does one operation at a time, and becomes a new process whenever an outcome stays unknown.

    Attributes:
        process: the present name.
        is_busy: an operation has not been completed by ``ok`` or ``fail``.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.process = recorder.process()
        self.is_busy = False

    def invoke(self, f: str, value: Any = None, *, key: Hashable = None) -> Invocation:
        """Record that this client is about to ask for ``f``; an earlier operation without end stays open."""
        if self.is_busy:
            self.process = self._recorder.process()
        self.is_busy = True
        invocation = self._recorder.invoke(self.process, f, value, key=key)
        invocation._client = self
        return invocation
