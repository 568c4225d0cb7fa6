"""Three replicas as three processes on tcp loopback, each with its data directory and fsync on."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from benchmarks.worker import Worker, WorkerFailed, wait_for

REPLICAS = 3
CLUSTER_NAME = "benchmark"


class Cluster:
    """Node ids are 1 .. 3. As a context manager it leaves no process behind."""

    def __init__(self, directory: Path, *, apply: str = "batch") -> None:
        self._directory = directory
        self._apply = apply
        self.members = {
            node_id: f"tcp://127.0.0.1:{port}" for node_id, port in enumerate(free_ports(REPLICAS), start=1)
        }
        self.nodes: dict[int, Worker] = {}

    def __enter__(self) -> Cluster:
        try:
            for node_id in range(1, REPLICAS + 1):
                self.start(node_id)
            wait_for(lambda: self.find_leader() is not None, "a leader that all three follow")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in list(self.nodes.values()):
            node.close()
        self.nodes.clear()

    def start(self, node_id: int) -> None:
        """Start a node on its data directory; do not wait for it."""
        arguments = ["--id", str(node_id), "--data", str(self._directory / f"node-{node_id}")]
        for member in self.members.values():
            arguments += ["--member", member]
        self.nodes[node_id] = Worker("benchmarks.node", *arguments, "--apply", self._apply)

    def kill(self, node_id: int) -> None:
        """SIGKILL."""
        self.nodes.pop(node_id).kill()

    def statuses(self) -> dict[int, dict[str, Any]]:
        """Ask every running node at once."""
        for node in self.nodes.values():
            node.begin("status")
        return {node_id: node.finish() for node_id, node in self.nodes.items()}

    def find_leader(self) -> int | None:
        """Return the node that leads if every running node follows it."""
        seen = self.statuses()
        leaders = {status["leader"] for status in seen.values()}
        if len(leaders) == 1 and (leader := leaders.pop()) in seen and seen[leader]["role"] == "leader":
            return int(leader)
        return None

    def leader(self) -> int:
        """Wait for a leader that everybody follows."""
        found: list[int] = []

        def look() -> bool:
            leader = self.find_leader()
            found[:] = [leader] if leader is not None else []
            return bool(found)

        wait_for(look, "a leader that every node follows")
        return found[0]

    def wait_equal(self, *, digests: bool = True) -> dict[str, Any]:
        """Wait until every node has applied the same number of commands, and check that they are the same.

        Raises:
            WorkerFailed: they never do, or have applied different commands.
        """
        last: dict[int, dict[str, Any]] = {}

        def equal() -> bool:
            last.update(self.statuses())
            return len({status["last_index"] for status in last.values()}) == 1

        wait_for(equal, "all replicas to have applied the same number of commands")
        if digests:
            wait_for(lambda: self._digests_agree(last), "the state machines to agree", 10.0)
        return next(iter(last.values()))

    def _digests_agree(self, last: dict[int, dict[str, Any]]) -> bool:
        last.update(self.statuses())
        seen = {(status["last_index"], status["digest"]) for status in last.values()}
        if len({index for index, _ in seen}) == 1 and len(seen) > 1:
            raise WorkerFailed(f"the replicas have applied different commands: {last}")
        return len(seen) == 1


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
