"""A whole cluster in this process: :class:`LocalCluster`, for tests and notebooks."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from paxos import validation
from paxos.errors import ConfigError
from paxos.replica import Replica
from paxos.types import Config

TRANSPORTS = ("inproc", "tcp", "ipc")


class LocalCluster:
    """``size`` replicas in this process, with disks and sockets of their own, started when built.

    Node ids are 1 .. ``size``. Durable like any other replica: give a directory to find the log again.

    Args:
        size: number of members.
        state_machine: called once for every replica (and again at its restart) for its state machine.
        directory: where the data directories go; left out, a temporary one that is removed by :meth:`close`.
        transport: ``"inproc"``, ``"tcp"`` (loopback, free ports) or ``"ipc"``.
        config: limits and periods, the same for all.
        cluster: name of the cluster.

    Example:
        >>> with LocalCluster(3) as cluster:
        ...     leader = cluster.leader(timeout=20)
        ...     leader.propose(b"one", timeout=20).index
        1
    """

    def __init__(
        self,
        size: int = 3,
        *,
        state_machine: Callable[[], Any] | None = None,
        directory: str | os.PathLike[str] | None = None,
        transport: str = "inproc",
        config: Config | None = None,
        cluster: str = "paxos",
    ) -> None:
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"size must be an int, not {size!r}")
        if not 1 <= size <= validation.MEMBERS_MAX:
            raise ConfigError(f"size must be 1..{validation.MEMBERS_MAX}, not {size}")
        if transport not in TRANSPORTS:
            raise ConfigError(f"transport must be one of {', '.join(TRANSPORTS)}, not {transport!r}")
        if state_machine is not None and not callable(state_machine):
            raise TypeError(
                "state_machine must be a class or a function that makes one: every replica needs its own"
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="paxos-") if directory is None else None
        self.directory = validation.check_directory(
            directory if self._temporary is None else self._temporary.name
        )
        """Where the data directories are: ``node-1``, ``node-2`` ..."""
        self._factory = state_machine
        self._config = config
        self._cluster = cluster
        self.replicas: dict[int, Replica] = {}
        """The replicas that run, by node id."""
        self.members = _addresses(size, transport, self.directory)
        """Address of every member, by node id."""
        self._finalizer = weakref.finalize(self, _close_all, self.replicas, self._temporary)
        try:
            for node_id in self.members:
                self.restart(node_id)
        except BaseException:
            self.close()
            raise

    def leader(self, timeout: float = 10.0) -> Replica:
        """Return the replica that leads, and that a majority of the running ones follows.

        Raises:
            TimeoutError: there is none after ``timeout`` seconds.
        """
        seconds = validation.check_timeout(timeout) or 0.0
        deadline = time.monotonic() + seconds
        while True:
            seen = {node_id: replica.status() for node_id, replica in dict(self.replicas).items()}
            for node_id, status in seen.items():
                followers = sum(other.leader == node_id for other in seen.values())
                if status.role == "leader" and 2 * followers > len(self.members):
                    return self.replicas[node_id]
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"no leader after {seconds:g} s: " + "; ".join(str(status) for status in seen.values())
                )
            time.sleep(0.005)

    def kill(self, node_id: int) -> None:
        """Stop a replica abruptly: no transfer, no clean end of its log; as near to a crash as it gets."""
        self.replicas.pop(self._check(node_id, running=True))._kill()

    def stop(self, node_id: int) -> None:
        """Close a replica properly: leadership is handed over."""
        self.replicas.pop(self._check(node_id, running=True)).close()

    def restart(self, node_id: int) -> Replica:
        """Start a replica that was killed or stopped, on its old data directory."""
        self._check(node_id, running=False)
        replica = Replica(
            self.directory / f"node-{node_id}",
            node_id=node_id,
            members=self.members,
            state_machine=None if self._factory is None else self._factory(),
            cluster=self._cluster,
            config=self._config,
        )
        self.replicas[node_id] = replica
        return replica

    def _check(self, node_id: int, *, running: bool) -> int:
        if node_id not in self.members:
            raise ConfigError(f"node {node_id!r} is no member: {sorted(self.members)}")
        if running and node_id not in self.replicas:
            raise ConfigError(f"node {node_id} does not run")
        if not running and node_id in self.replicas:
            raise ConfigError(f"node {node_id} runs already: kill or stop it first")
        return node_id

    def wait_applied(self, index: int, timeout: float = 10.0) -> None:
        """Wait until every running replica has applied command ``index``.

        Raises:
            TimeoutError: one has not after ``timeout`` seconds.
        """
        deadline = time.monotonic() + (validation.check_timeout(timeout) or 0.0)
        for replica in list(self.replicas.values()):
            if not replica._node.wait_index(index, max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError(f"command {index} is not applied everywhere: {replica.status()}")

    def close(self) -> None:
        """Close every replica; remove the directory if it was a temporary one. Idempotent."""
        self._finalizer()

    def __iter__(self) -> Iterator[Replica]:
        return iter(list(self.replicas.values()))

    def __getitem__(self, node_id: int) -> Replica:
        return self.replicas[self._check(node_id, running=True)]

    def __len__(self) -> int:
        return len(self.replicas)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<paxos.LocalCluster of {len(self.members)}, running: {sorted(self.replicas)}>"


def _close_all(replicas: dict[int, Replica], temporary: tempfile.TemporaryDirectory[str] | None) -> None:
    while replicas:
        _node_id, replica = replicas.popitem()
        # The whole cluster goes: handing leadership from one to the next would only take time.
        with contextlib.suppress(Exception):
            replica._node.close(1.0, hand_over=False)
    if temporary is not None:
        temporary.cleanup()


def _addresses(size: int, transport: str, directory: Path) -> dict[int, str]:
    node_ids = range(1, size + 1)
    if transport == "inproc":
        name = uuid.uuid4().hex
        return {node_id: f"inproc://paxos-{name}-{node_id}" for node_id in node_ids}
    if transport == "ipc":
        # In the system's temporary directory: a path of a socket must be short.
        base = tempfile.gettempdir() if len(str(directory)) > 60 else str(directory)
        name = uuid.uuid4().hex[:12]
        return {node_id: f"ipc://{base}/paxos-{name}-{node_id}" for node_id in node_ids}
    return dict(zip(node_ids, (f"tcp://127.0.0.1:{port}" for port in _free_ports(size)), strict=True))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
        return ports
