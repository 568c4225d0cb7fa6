"""A member of a cluster as a process that can be killed: a key-value store over `paxos.Replica`.

``python -m tests.process.member FD`` is an *incubator*: it imports everything once and forks a member for each
request on the Unix socket FD, so that a restart takes milliseconds and the kills of a test are many. A member
is a process like any other: it has its own data directory, sockets and threads, and nothing of an earlier life.

A member is told what to do in JSON lines on a socket of its own, and answers in any order. It ends when that
socket closes, and is killed by the kernel when its incubator ends, as that one is when the test ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import paxos
from paxos import failpoints
from paxos.transport.zmq_transport import ZmqTransport

PR_SET_PDEATHSIG = 1
READERS = 8


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that happens."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended in between
        os._exit(1)


class KeyValueMachine(paxos.StateMachine):
    """Strings by key: ``get``, ``put``, ``append`` and ``cas``; a command is a JSON list."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def read(self, key: str) -> str | None:
        """Return a value without the log."""
        return self.values.get(key)

    def apply(self, command: bytes, context: paxos.ApplyContext) -> Any:
        _id, f, key, value = json.loads(command)
        old = self.values.get(key)
        if f == "get":
            return old
        if f == "cas":
            expected, new = value
            if old != expected:
                return False
            self.values[key] = new
            return True
        self.values[key] = (old or "") + value if f == "append" else value
        return True


class StaleMachine(KeyValueMachine):
    """A mutant for the test of the tests: whoever reads sees what was there at the first read."""

    def __init__(self) -> None:
        self.seen: dict[str, str | None] = {}
        super().__init__()

    def read(self, key: str) -> str | None:
        return self.seen.setdefault(key, self.values.get(key))


class Member:
    """One life of a member: opens the replica, does what it is told, ends."""

    def __init__(self, connection: socket.socket, specification: dict[str, Any]) -> None:
        self._connection = connection
        self._specification = specification
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._machine = StaleMachine() if specification["stale"] else KeyValueMachine()
        self._closing = threading.Lock()
        self._readers = ThreadPoolExecutor(READERS)

    def run(self) -> int:
        """Return the exit code."""
        specification = self._specification
        threading.Thread(target=self._write, daemon=True).start()
        routes = {int(node): address for node, address in specification["routes"].items()}
        if routes:  # to its peers by way of a proxy
            connect = ZmqTransport.connect
            ZmqTransport.connect = lambda transport, node, address: connect(  # type: ignore[method-assign]
                transport, node, routes.get(node, address)
            )
        try:
            self._replica = paxos.Replica(
                specification["directory"],
                node_id=specification["node_id"],
                members={int(node): address for node, address in specification["members"].items()},
                state_machine=self._machine,
                config=paxos.Config(**specification["config"]),
            )
        except (paxos.PaxosError, OSError) as error:
            self._say({"id": 0, "ok": False, "error": type(error).__name__, "message": str(error)})
            self._answers.put(None)
            time.sleep(0.05)
            return 1
        self._say({"id": 0, "ok": True, "incarnation": self._replica.status().incarnation})
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._close(0, {}))
        with self._connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                try:
                    self._start(request)
                except Exception as error:
                    self._refuse(request["id"], error)
        os._exit(0)  # the test has gone

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.put(answer)

    def _write(self) -> None:
        while (answer := self._answers.get()) is not None:
            try:
                self._connection.sendall(json.dumps(answer, default=str).encode() + b"\n")
            except OSError:
                return

    def _refuse(self, request_id: int, error: BaseException) -> None:
        self._say({"id": request_id, "ok": False, "error": type(error).__name__, "message": str(error)})

    def _start(self, request: dict[str, Any]) -> None:
        match request["do"]:
            case "command":
                self._command(request)
            case "read":
                self._readers.submit(self._read, request)
            case "close" | "entries" | "transfer":
                threading.Thread(target=self._slowly, args=(request,), daemon=True).start()
            case other:
                self._say({"id": request["id"], "ok": True} | getattr(self, f"_{other}")(request))

    def _command(self, request: dict[str, Any]) -> None:
        request_id = request["id"]
        future = self._replica.submit(json.dumps(request["command"]).encode())

        def done(finished: paxos.Future[paxos.Outcome]) -> None:
            try:
                outcome = finished.result()
            except BaseException as error:
                self._refuse(request_id, error)
            else:
                self._say({"id": request_id, "ok": True, "index": outcome.index, "result": outcome.result})

        future.add_done_callback(done)

    def _read(self, request: dict[str, Any]) -> None:
        key = request["key"]
        try:
            found = self._replica.read(lambda machine: machine.read(key), request["timeout"])
            self._say({"id": request["id"], "ok": True, "result": found})
        except Exception as error:
            self._refuse(request["id"], error)

    def _slowly(self, request: dict[str, Any]) -> None:
        try:
            if request["do"] == "close":
                self._close(request["id"], request)
            elif request["do"] == "transfer":
                moved = self._replica.transfer_leadership(request.get("to"), 5.0)
                self._say({"id": request["id"], "ok": True, "moved": moved})
            else:
                found = self._replica.entries(request["start"], request["start"] + request["limit"])
                commands = [[entry.index, entry.command.decode()] for entry in found]
                self._say({"id": request["id"], "ok": True, "entries": commands})
        except Exception as error:
            self._refuse(request["id"], error)

    def _close(self, request_id: int, request: dict[str, Any]) -> None:
        """Close and end; say how long it took."""
        if not self._closing.acquire(blocking=False):
            return
        began = time.monotonic()
        self._replica.close(request.get("timeout", 5.0))
        self._say({"id": request_id, "ok": True, "seconds": time.monotonic() - began})
        while not self._answers.empty():
            time.sleep(0.001)
        os._exit(0)

    def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        status = self._replica.status()
        return {
            "role": status.role,
            "leader": status.leader,
            "ballot": status.ballot,
            "chosen_upto": status.chosen_upto,
            "last_index": status.last_index,
            "incarnation": status.incarnation,
            "fault": status.fault,
        }

    def _inspect(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"inspect": self._replica.inspect()}

    def _values(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"values": self._machine.values}

    def _arm(self, request: dict[str, Any]) -> dict[str, Any]:
        failpoints.arm_all(request["points"])
        return {}

    def _disarm(self, request: dict[str, Any]) -> dict[str, Any]:
        failpoints.disarm(request.get("point"))
        return {}

    def _hits(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"hits": failpoints.hits()}


def spawn(connection: socket.socket, specification: dict[str, Any]) -> int:
    """Fork a member and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = live(connection, specification)
    finally:
        os._exit(code)


def live(connection: socket.socket, specification: dict[str, Any]) -> int:
    """Be a member until the end."""
    die_with_parent()
    said = os.open(specification["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.update(specification["environment"])
    try:
        return Member(connection, specification).run()
    except BaseException:
        import traceback

        traceback.print_exc()
        return 2


def incubate(control: socket.socket) -> NoReturn:
    """Fork a member for each request; wait for one when asked."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        data, descriptors, _flags, _address = socket.recv_fds(control, 65536, 1)
        if not data:
            os._exit(0)
        request = json.loads(data)
        if request["do"] == "spawn":
            [descriptor] = descriptors
            with socket.socket(fileno=descriptor) as connection:
                answer = {"pid": spawn(connection, request)}
        else:
            _pid, status = os.waitpid(request["pid"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        control.sendall(json.dumps(answer).encode())


if __name__ == "__main__":
    incubate(socket.socket(fileno=int(sys.argv[1])))
