"""The channel between a node that ``paxos serve`` runs and the programs that ask it something.

A Unix socket ``control.sock`` in the node's data directory, so that whoever may read the directory may ask,
and nobody else. Both sides send one JSON object a line. A request has an ``id`` of the asker's choice and an
``op``; its answer has the same ``id``, ``ok``, and either what was asked for or ``error`` (a class of
:mod:`paxos.errors`) and ``message``. Answers come in the order in which things get done, not in which they
were asked.

===========  ===========================  =================================================================
op           asks with                    answered with
===========  ===========================  =================================================================
propose      command                      index, slot: when it is chosen, and durable on a majority
read         start, limit                 entries: a list of [index, slot, command], as applied at this node
status                                    status: the fields of :class:`paxos.Status`
inspect                                   inspect: everything that the parts of the node say about themselves
===========  ===========================  =================================================================

A command is any bytes; in JSON it is a string with one character per byte (Latin-1).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paxos import errors
from paxos.errors import ConfigError, PaxosError

if TYPE_CHECKING:
    from paxos.replica import Replica

SOCKET_NAME = "control.sock"
UNANSWERED_MAX = 4096
READ_ENTRIES_MAX = 5000

Request = dict[str, Any]
Answer = dict[str, Any]


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """Yield an address of the directory's socket that fits into the 108 bytes which the system allows."""
    path = str(directory / SOCKET_NAME)
    if len(os.fsencode(path)) < 100:
        yield path
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET_NAME}"
    finally:
        os.close(handle)


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"


class ChannelServer:
    """Answers on the socket of a data directory until closed. Requests of one connection start in order.

    Args:
        replica: the open replica; its lock on the directory is what makes the socket ours.
        directory: its data directory.
    """

    def __init__(self, replica: Replica, directory: Path) -> None:
        self._replica = replica
        self._path = directory / SOCKET_NAME
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _address(directory) as address:
            self._listener.bind(address)
        self._path.chmod(0o600)
        self._listener.listen()
        threading.Thread(target=self._accept, name="channel", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=_Conversation(self._replica, connection).run, daemon=True).start()

    def close(self) -> None:
        """Take no new connections and remove the socket; answers that are still due may be lost."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)


class _Conversation:
    """One connection: this thread reads and starts requests, a second one writes answers."""

    def __init__(self, replica: Replica, connection: socket.socket) -> None:
        self._replica = replica
        self._connection = connection
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(UNANSWERED_MAX)

    def run(self) -> None:
        threading.Thread(target=self._write, daemon=True).start()
        with contextlib.suppress(OSError), self._connection.makefile("rb") as lines:
            for line in lines:
                self._room.acquire()
                self._start(line)
        self._answers.put(None)

    def _write(self) -> None:
        lost = False
        while (answer := self._answers.get()) is not None:
            try:
                if not lost:
                    self._connection.sendall(_encode(answer))
            except OSError:
                lost = True  # the asker is gone; what it proposed goes on without it
            self._room.release()
        with contextlib.suppress(OSError):
            self._connection.close()

    def _start(self, line: bytes) -> None:
        request_id: object = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ConfigError("a request is one JSON object a line")
            request_id = request.get("id")
            handler = {
                "propose": self._propose,
                "read": self._read,
                "status": self._status,
                "inspect": self._inspect,
            }.get(str(request.get("op")))
            if handler is None:
                raise ConfigError(f"unknown op {request.get('op')!r}: propose, read, status or inspect")
            handler(request)
        except Exception as error:  # whatever it is, the asker must hear of it
            self._refuse(request_id, error)

    def _refuse(self, request_id: object, error: BaseException) -> None:
        name = type(error).__name__
        self._answers.put({"id": request_id, "ok": False, "error": name, "message": str(error)})

    def _propose(self, request: Request) -> None:
        request_id = request.get("id")
        future = self._replica.submit(str(request["command"]).encode("latin-1"))

        def done(finished: Any) -> None:
            try:
                outcome = finished.result()
            except BaseException as error:
                self._refuse(request_id, error)
            else:
                self._answers.put(
                    {"id": request_id, "ok": True, "index": outcome.index, "slot": outcome.slot}
                )

        future.add_done_callback(done)

    def _read(self, request: Request) -> None:
        start, limit = int(request.get("start", 1)), int(request.get("limit", 1000))
        found = self._replica.entries(start, start + min(limit, READ_ENTRIES_MAX))
        entries = [[entry.index, entry.slot, bytes(entry.command).decode("latin-1")] for entry in found]
        self._answers.put({"id": request.get("id"), "ok": True, "entries": entries})

    def _status(self, request: Request) -> None:
        self._answers.put({"id": request.get("id"), "ok": True, "status": asdict(self._replica.status())})

    def _inspect(self, request: Request) -> None:
        self._answers.put({"id": request.get("id"), "ok": True, "inspect": self._replica.inspect()})


class NodeGone(PaxosError):
    """The node does not answer any more: what was proposed through it and not answered is unknown."""


class ChannelClient:
    """One connection to a node. Answers are handed to callbacks on a thread of the connection.

    Args:
        directory: the node's data directory.
        timeout_s: how long :meth:`ask` waits for an answer.

    Raises:
        NodeGone: no node runs on this directory.
    """

    def __init__(self, directory: Path, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _address(directory) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise NodeGone(f"no node answers at {directory / SOCKET_NAME}: {error.strerror}") from error
        self._lock = threading.Lock()
        # A lock of its own: answers must be taken while a send waits for the node to read.
        self._sending = threading.Lock()
        self._waiting: dict[int, Callable[[Answer | None], None]] = {}
        self._next_id = 1
        self._gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._socket.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                with self._lock:
                    callback = self._waiting.pop(answer["id"], None)
                if callback is not None:
                    callback(answer)
        with self._lock:
            self._gone = True
            left, self._waiting = list(self._waiting.values()), {}
        for callback in left:
            callback(None)

    def send(self, op: str, callback: Callable[[Answer | None], None], **arguments: object) -> None:
        """Send a request; ``callback`` gets the answer, or ``None`` when the node is gone without one."""
        with self._lock:
            if self._gone:
                raise NodeGone("the node has closed the connection")
            request_id, self._next_id = self._next_id, self._next_id + 1
            self._waiting[request_id] = callback
        try:
            with self._sending:
                self._socket.sendall(_encode({"id": request_id, "op": op, **arguments}))
        except OSError as error:
            with self._lock:
                told = self._waiting.pop(request_id, None) is None
            if not told:
                raise NodeGone(f"the node is gone: {error.strerror}") from error

    def ask(self, op: str, timeout_s: float | None = None, **arguments: object) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            NodeGone: the node went away, or did not answer in time.
            PaxosError: what the node refused with.
        """
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self.send(op, answers.put, **arguments)
        seconds = self._timeout_s if timeout_s is None else timeout_s
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise NodeGone(f"no answer to {op!r} within {seconds:g} s") from None
        if answer is None:
            raise NodeGone(f"the node went away before it answered {op!r}")
        if not answer["ok"]:
            raise error_from(answer)
        return answer

    def propose(self, command: bytes, callback: Callable[[Answer | None], None]) -> None:
        """Propose a command through this node; the callback gets the answer, ``None`` for an unknown outcome."""
        self.send("propose", callback, command=command.decode("latin-1"))

    def read(self, start: int = 1) -> Iterator[tuple[int, bytes]]:
        """Iterate over index and command of what this node has applied from ``start`` on."""
        while True:
            entries = self.ask("read", start=start, limit=READ_ENTRIES_MAX)["entries"]
            if not entries:
                return
            for index, _slot, command in entries:
                yield index, command.encode("latin-1")
            start = entries[-1][0] + 1

    def close(self) -> None:
        """Leave; the node goes on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=5)
        self._socket.close()


def error_from(answer: Answer) -> PaxosError:
    """Return the exception that a refusal stands for."""
    kind = getattr(errors, str(answer.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, PaxosError):
        return kind(str(answer.get("message")))
    return PaxosError(f"{answer.get('error')}: {answer.get('message')}")
