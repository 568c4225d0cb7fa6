"""Clusters of member processes that tests start, kill, stop, cut off and ask."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paxos.cli.processes import free_ports

ROOT = Path(__file__).parents[2]
TIMES = int(os.environ.get("PAXOS_PROCESS", "1"))
"""The process tests do so many times as much as in CI."""
WAIT_S = 60.0
"""How long anything may take on a machine that is busy with something else."""
ANSWER_S = 30.0
POLL_S = 0.005

Answer = dict[str, Any]


class Gone(Exception):
    """The member has ended, or does not answer."""


class Refused(Exception):
    """The member answered with an error; ``kind`` is the name of its type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Poll until ``condition`` returns something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what}")
        time.sleep(POLL_S)
    return found


class Life:
    """One life of a member: from its fork to its end."""

    def __init__(self, node_id: int, pid: int, connection: socket.socket) -> None:
        self.node_id = node_id
        self.pid = pid
        self._connection = connection
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._waiting: dict[int, Callable[[Answer | None], None]] = {}
        self._next_id = 1
        self.gone = self.is_open = False
        self.opened: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._waiting[0] = self.opened.put
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._connection.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                with self._lock:
                    callback = self._waiting.pop(answer["id"], None)
                if callback is not None:
                    callback(answer)
        with self._lock:
            self.gone = True
            left, self._waiting = list(self._waiting.values()), {}
        for callback in left:
            callback(None)

    def send(self, do: str, callback: Callable[[Answer | None], None], **arguments: Any) -> None:
        """Ask for something; ``callback`` gets the answer, or ``None`` when the process has ended."""
        with self._lock:
            if self.gone:
                raise Gone(f"member {self.node_id} has ended")
            request_id, self._next_id = self._next_id, self._next_id + 1
            self._waiting[request_id] = callback
        try:
            with self._sending:
                self._connection.sendall(
                    json.dumps({"id": request_id, "do": do, **arguments}).encode() + b"\n"
                )
        except OSError as error:
            with self._lock:
                told = self._waiting.pop(request_id, None) is None
            if not told:
                raise Gone(f"member {self.node_id} has ended") from error

    def ask(self, do: str, timeout_s: float = ANSWER_S, **arguments: Any) -> Answer:
        """Ask and wait.

        Raises:
            Gone: the process has ended, or has not answered in time.
            Refused: it answered with an error.
        """
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self.send(do, answers.put, **arguments)
        try:
            answer = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise Gone(f"member {self.node_id} has not answered {do} within {timeout_s:g} s") from None
        if answer is None:
            raise Gone(f"member {self.node_id} ended before it answered {do}")
        if not answer["ok"]:
            raise Refused(answer["error"], answer["message"])
        return answer

    def leave(self) -> None:
        """Close the connection; the process, if it still runs, ends."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(10)
        self._connection.close()


class Node:
    """A member by its node id, through all of its lives."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.node_id = node_id
        self.directory = cluster.directory / f"node{node_id}"
        self.output = cluster.directory / f"node{node_id}.txt"
        self.routes: dict[int, str] = {}
        self.config: dict[str, Any] = {}
        self.stale = False
        self.lives = 0
        self.life: Life | None = None
        self._cluster = cluster
        ours, theirs = socket.socketpair()
        with theirs:
            environment = os.environ | {
                "PYTHONPATH": str(ROOT),
                "PYTHONHASHSEED": str(node_id),
                "PAXOS_DISK_FAULTS": str(cluster.directory / f"disk{node_id}"),
                "PAXOS_DISK_UNDER": str(self.directory),
            }
            self._incubator = subprocess.Popen(
                [sys.executable, "-m", "tests.process.member", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment | cluster.environment,
                start_new_session=True,
            )
        self._control = ours
        self._control.settimeout(WAIT_S)

    # -- life and death -----------------------------------------------------------------------------------

    def spawn(self, failing: str = "") -> None:
        """Fork a new life with these failpoints armed, without waiting for it to open."""
        assert self.life is None, "it lives"
        ours, theirs = socket.socketpair()
        request = {
            "do": "spawn",
            "node_id": self.node_id,
            "directory": str(self.directory),
            "members": self._cluster.members,
            "routes": self.routes,
            "config": self._cluster.config | self.config,
            "output": str(self.output),
            "stale": self.stale,
            "environment": {"PAXOS_FAILPOINTS": failing},
        }
        with theirs:
            socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        pid = json.loads(self._control.recv(4096))["pid"]
        self.lives += 1
        self.life = Life(self.node_id, pid, ours)

    def wait_open(self) -> Answer:
        """Wait until the replica is open.

        Raises:
            Gone: the process ended instead.
            Refused: it could not be opened, and said why.
        """
        assert self.life is not None
        if self.life.is_open:
            return {}
        try:
            answer = self.life.opened.get(timeout=WAIT_S)
        except queue.Empty:
            raise Gone(f"member {self.node_id} does not open. {self.last_words()}") from None
        if answer is None:
            raise Gone(f"member {self.node_id} ended while it opened. {self.last_words()}")
        if not answer["ok"]:
            raise Refused(answer["error"], answer["message"])
        self.life.is_open = True
        return answer

    def start(self) -> None:
        """Begin a new life and wait until it is open."""
        self.spawn()
        self.wait_open()

    @property
    def pid(self) -> int:
        assert self.life is not None, f"member {self.node_id} does not live"
        return self.life.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.life is not None:
            self.signal(signal.SIGKILL)
            self.reap()

    def reap(self) -> int:
        """Wait until the process has ended, and return its exit code (negative: the signal)."""
        life, self.life = self.life, None
        assert life is not None
        self._control.sendall(json.dumps({"do": "wait", "pid": life.pid}).encode())
        code: int = json.loads(self._control.recv(4096))["code"]
        life.leave()
        return code

    def wait_gone(self, timeout_s: float = WAIT_S) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        assert self.life is not None
        life = self.life
        wait_for(lambda: life.gone, f"member {self.node_id} ends", timeout_s)
        return self.reap()

    def close_incubator(self) -> None:
        with contextlib.suppress(AssertionError, OSError, ValueError):
            self.kill()
        self._control.close()
        self._incubator.kill()
        self._incubator.wait()
        if self.life is not None:
            self.life.leave()

    # -- asking -------------------------------------------------------------------------------------------

    def ask(self, do: str, timeout_s: float = ANSWER_S, **arguments: Any) -> Answer:
        life = self.life
        if life is None:
            raise Gone(f"member {self.node_id} does not live")
        return life.ask(do, timeout_s, **arguments)

    def status(self) -> Answer:
        """Return the member's status, or an empty dictionary if it does not answer."""
        with contextlib.suppress(Gone, Refused):
            return self.ask("status", 5.0)
        return {}

    def entries(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield index and command of everything that the member has applied."""
        start = 1
        while found := self.ask("entries", WAIT_S, start=start, limit=2000)["entries"]:
            for index, command in found:
                yield index, json.loads(command)
            start = found[-1][0] + 1

    def last_words(self) -> str:
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return f"It said: {text[-1500:].strip()}" if text.strip() else "It said nothing."


class Cluster:
    """Members 1 to ``count`` under ``directory``, not started. As a context manager it leaves no process behind.

    Args:
        config: fields of `paxos.Config` for every member.
        environment: of the incubators, and so of every member.
    """

    def __init__(
        self,
        directory: Path,
        count: int = 3,
        *,
        config: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config or {}
        self.environment = environment or {}
        ports = free_ports(count)
        self.members = {node: f"tcp://127.0.0.1:{port}" for node, port in enumerate(ports, start=1)}
        self.nodes: dict[int, Node] = {}
        try:
            for node in self.members:
                self.nodes[node] = Node(self, node)
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            for node in self.nodes.values():
                error.add_note(f"Node {node.node_id}, {node.lives} lives: {node.last_words()}")
        self.end()

    def end(self) -> None:
        """Kill everything."""
        for node in self.nodes.values():
            node.close_incubator()

    def start(self) -> None:
        """Start every member that does not live, and wait until all are open."""
        new = [node for node in self.nodes.values() if node.life is None]
        for node in new:
            node.spawn()
        for node in new:
            node.wait_open()

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.life is not None]

    def leader(self, among: list[Node] | None = None, timeout_s: float = WAIT_S) -> Node:
        """Wait until a living member says that it leads (the highest ballot counts), and return it."""

        def find() -> Node | None:
            leading = {
                status["ballot"]: node
                for node in among or self.living
                if (status := node.status()).get("role") == "leader"
            }
            return leading[max(leading)] if leading else None

        found: Node = wait_for(find, self.situation, timeout_s)
        return found

    def followers(self, leader: Node) -> list[Node]:
        return [node for node in self.living if node is not leader]

    def wait_level(self, timeout_s: float = WAIT_S) -> int:
        """Wait until every living member has applied the same number of commands, and return it."""

        def level() -> int | None:
            seen = [node.status() for node in self.living]
            if any(not each for each in seen) or len({each["last_index"] for each in seen}) != 1:
                return None
            if len({each["chosen_upto"] for each in seen}) != 1:
                return None
            return int(seen[0]["last_index"]) or -1

        return max(int(wait_for(level, self.situation, timeout_s)), 0)

    def situation(self) -> str:
        """Return what every member says about itself, for the message of a failure."""
        return "; ".join(
            f"{node.node_id}: {node.status() or node.last_words()}" for node in self.nodes.values()
        )
