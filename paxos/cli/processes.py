"""Three replicas as three processes on this machine: start, kill, start again, stop, leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from paxos.cli.channel import ChannelClient, NodeGone
from paxos.errors import PaxosError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0


class NodeFailed(PaxosError):
    """A node did not start, or ended by itself; the message ends with what it said last."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class NodeProcess:
    """One ``paxos serve`` process, its data directory and what it prints."""

    def __init__(self, node_id: int, directory: Path, members: dict[int, str]) -> None:
        self.node_id = node_id
        self.directory = directory
        self._messages = directory.with_suffix(".messages")
        self._members = members
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process; it is open when :meth:`wait_ready` returns."""
        command = [sys.executable, "-m", "paxos.cli", "serve", "--until-stdin-closes"]
        command += ["--id", str(self.node_id), "--data", str(self.directory)]
        for node_id, address in self._members.items():
            command += ["--member", f"{node_id}={address}"]
        package_root = str(Path(__file__).parents[2])
        python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        with self._messages.open("ab") as messages:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closes when we are gone, however that happens
                stdout=subprocess.PIPE,
                stderr=messages,
                env=os.environ | {"PYTHONPATH": python_path},
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
            )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait for the line that says that the node is open.

        Raises:
            NodeFailed: it ended instead, or said nothing in time.
        """
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            seen = b""
            while b"\n" not in seen:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise NodeFailed(
                        f"node {self.node_id} is not ready after {timeout_s:g} s. {self.last_words()}"
                    )
                chunk = os.read(self._process.stdout.fileno(), 4096)
                if not chunk:
                    raise NodeFailed(f"node {self.node_id} did not start. {self.last_words()}")
                seen += chunk

    def last_words(self) -> str:
        """Return the end of what the node wrote to standard error."""
        text = self._messages.read_text(errors="replace") if self._messages.exists() else ""
        return "It said: " + text[-2000:].strip() if text.strip() else "It said nothing."

    def connect(self, timeout_s: float = 10.0) -> ChannelClient:
        """Open a connection to ask something."""
        return ChannelClient(self.directory, timeout_s)

    def status(self) -> dict[str, object]:
        """Return the node's status; raises :class:`NodeGone` if it does not answer."""
        client = self.connect()
        try:
            answer: dict[str, object] = client.ask("status")["status"]
            return answer
        finally:
            client.close()

    def kill(self) -> None:
        """SIGKILL: what the process had not made durable is lost."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> int:
        """SIGTERM: hand leadership over and close; return the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._reap()

    def _reap(self) -> int:
        assert self._process is not None
        code = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        return code


class ThreeNodes:
    """The cluster of the demonstration. As a context manager it kills whatever is still running at the end."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        ports = free_ports(count)
        members = {node_id: f"tcp://127.0.0.1:{port}" for node_id, port in enumerate(ports, start=1)}
        self.nodes = [NodeProcess(node_id, directory / f"node{node_id}", members) for node_id in members]

    def __enter__(self) -> ThreeNodes:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()

    def start(self) -> None:
        """Start all nodes and wait until all are open (a new cluster begins when all of its members are up)."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()

    @property
    def running(self) -> list[NodeProcess]:
        """The nodes whose process runs."""
        return [node for node in self.nodes if node.pid is not None]

    def leader(self, timeout_s: float = READY_TIMEOUT_S) -> NodeProcess:
        """Wait until one of the nodes says that it leads, and return it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for node in self.running:
                with contextlib.suppress(NodeGone):
                    if node.status()["role"] == "leader":
                        return node
            time.sleep(0.02)
        raise NodeFailed(f"no leader after {timeout_s:g} s. " + self.last_words())

    def last_words(self) -> str:
        """Return what the nodes wrote to standard error."""
        return " ".join(f"Node {node.node_id}: {node.last_words()}" for node in self.nodes)
