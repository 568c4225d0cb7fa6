"""One member of a replicated log, inside your process: :class:`Replica`."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from paxos import validation
from paxos.errors import ConfigError
from paxos.futures import Future, RunOutcome
from paxos.node import Node
from paxos.opening import open_parts
from paxos.state_machine import check_defines_apply
from paxos.status import PeerStatus, Status
from paxos.subscribe import READ_AHEAD_ENTRIES, Subscription
from paxos.types import Config, Entry, Outcome

CLOSE_TIMEOUT_S = 5.0
SETTLE_S_MAX = 5.0
"""A one-node log waits this long at most to have applied, when opened, all that it holds."""


class Replica:
    """A replica of the log: durable on this machine's disk, agreed upon with the other members.

    All methods may be called from any thread. A replica does not survive ``fork()``: open it in the child.

    Args:
        directory: this node's data directory; made if it does not exist. It belongs to one node and to one
            process at a time.
        node_id: 1..65535, unique in the cluster and never used again for another node.
        members: address of every member by node id, this one included: ``tcp://host:port``, ``ipc://path``
            or ``inproc://name``. Left out: a one-node log, or what the directory was started with.
        state_machine: what commands are applied to; left out, results are ``None`` and all there is is the
            log.
        cluster: name of the cluster; the same on every member, for ever.
        bind: address to listen on, where it differs from the own address in ``members`` (``tcp://*:7001``).
        config: limits and periods.

    Raises:
        ConfigError, TypeError: an argument does not fit; nothing was opened.
        StorageError: the directory is in use, belongs to another node or cluster, or is damaged; the message
            says what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Replica(directory) as replica:
        ...         replica.propose(b"hello").index
        ...         [entry.command for entry in replica.entries(1)]
        1
        [b'hello']
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
        path = validation.check_directory(directory)
        if node_id is not None:
            validation.check_node_id(node_id)
        if members is not None:
            if node_id is None:
                raise ConfigError("members without node_id: say which of them this node is")
            members = validation.check_members(members, node_id)
        if bind is not None:
            if members is None:
                raise ConfigError("bind without members: a one-node log listens on nothing")
            validation.check_bind(bind)
        self._config = validation.check_config(config)
        machine = validation.check_state_machine(state_machine)
        check_defines_apply(machine)
        parts = open_parts(
            path,
            node_id=node_id,
            members=members,
            cluster=validation.check_cluster_name(cluster),
            bind=bind,
            config=self._config,
        )
        self._node = Node(parts, machine)
        self._state_machine = machine
        # Closes when the replica is collected, and at interpreter exit.
        self._finalizer = weakref.finalize(self, Node.close, self._node, CLOSE_TIMEOUT_S)
        try:
            self._node.start()
            if parts.scrub is not None and self._config.scrub_mb_per_s:
                parts.scrub.start()
            if len(parts.members) == 1:
                self._node.wait_settled(SETTLE_S_MAX)
        except BaseException:
            self._node.close(0.0, abrupt=True)
            raise

    # -- commands ------------------------------------------------------------------------------------------

    def propose(self, command: bytes, timeout: float | None = None) -> Outcome:
        """Append one command to the log; return when it is chosen, durable on a majority and applied here.

        Works on every member: a follower forwards to the leader. Without a leader it waits for one.

        Args:
            command: at most ``Config.command_bytes_max`` bytes; may be empty.
            timeout: seconds; ``None`` waits for ever.

        Raises:
            TypeError, ConfigError: not bytes, or too long; not taken.
            Busy: too much waits already, for all of the time given; not taken.
            Closed: the replica is closed or has stopped; not taken.
            OutcomeUnknown: the time is over, or the node stopped, after the command was handed over: it may
                be applied, also later. Look at the log, or make commands idempotent.
        """
        checked = validation.check_command(command, self._config.command_bytes_max)
        return self._node.propose(checked, validation.check_timeout(timeout))

    def submit(self, command: bytes) -> Future[Outcome]:
        """Append one command to the log; return at once with a future of its :class:`Outcome`.

        Commands that one thread submits are chosen in that order. ``future.result(timeout)`` raises
        ``TimeoutError`` when the time is over: the outcome is then unknown, and may still come.

        Raises:
            TypeError, ConfigError, Busy, Closed: the command was not taken; ``Busy`` when
                ``Config.pending_bytes_max`` would be exceeded.
        """
        return self._node.submit(validation.check_command(command, self._config.command_bytes_max))

    def submit_many(self, commands: Iterable[bytes]) -> Future[RunOutcome]:
        """Append a run of commands, in order; return one future for all of them.

        Either all are taken or none. Once taken they are chosen in order, in one batch or in several, between
        which commands of others may come: see :attr:`RunOutcome.indices`.

        Raises:
            TypeError, ConfigError, Busy, Closed: none of the commands was taken.
        """
        if isinstance(commands, bytes | bytearray | str):
            raise TypeError("submit_many takes a sequence of commands; use submit for one")
        if not isinstance(commands, Iterable):
            raise TypeError(f"submit_many takes an iterable of bytes, not {type(commands).__name__}")
        items = commands if isinstance(commands, list | tuple) else list(commands)
        return self._node.submit_many(items)

    # -- the state -----------------------------------------------------------------------------------------

    def read(self, function: Callable[[Any], Any] | None = None, timeout: float | None = None) -> Any:
        """Run ``function(state_machine)`` on the latest state, without writing to the log; return what it returns.

        The state holds every command that was acknowledged anywhere before this call, and everything that an
        earlier read has seen (a *linearizable* read). Works on every member: a quorum confirms to the leader that
        nobody has taken over, then this node waits until it has applied as much as the leader had. Without a leader
        it waits for one.

        Args:
            function: called on this thread while nothing is applied: keep it short, and copy what you return. It
                must not change the state, or the replicas diverge, and must not wait for an outcome: nothing is
                applied until it has returned. Left out, the result is the index of the last
                command that is applied here.
            timeout: seconds; ``None`` waits for ever.

        Raises:
            ReadTimeout: no quorum confirmed it in time, or this node lags too far behind; nothing was read.
            Closed: the replica is closed or has stopped.
            ConfigError: called inside ``apply`` or inside another reader's function.

        Example:
            >>> import tempfile
            >>> class Total:
            ...     value = 0
            ...     def apply(self, command, context):
            ...         self.value += int(command)
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     with Replica(directory, state_machine=Total()) as replica:
            ...         outcome = replica.propose(b"5", timeout=10)
            ...         replica.read(lambda total: total.value, timeout=10)
            5
        """
        checked = validation.check_function(function)
        return self._node.reads.read(checked, validation.check_timeout(timeout))

    # -- the log -------------------------------------------------------------------------------------------

    def subscribe(self, from_index: int = 1) -> Subscription:
        """Follow the log from ``from_index`` on: an iterator that waits for what is not there yet.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as directory, Replica(directory) as replica:
            ...     outcome = replica.submit_many([b"a", b"b", b"c"]).result(10)
            ...     subscription = replica.subscribe(from_index=2)
            ...     next(subscription).command, next(subscription).command
            (b'b', b'c')
        """
        self._node.check_process()
        return Subscription(self._node, validation.check_index(from_index, "from_index"), self)

    def read_index(self, index: int) -> Entry:
        """Return command ``index`` of the log as applied here (this node may lag behind the others).

        Raises:
            ConfigError: below 1.
            IndexError: not applied here yet.
        """
        self._node.check_readable()
        found = self._node.read_range(validation.check_index(index), index + 1)
        if not found:
            raise IndexError(
                f"command {index} is not applied here: the last one is {self._node.applied_index}"
            )
        return found[0]

    def entries(self, start: int = 1, stop: int | None = None) -> Iterator[Entry]:
        """Iterate over the commands ``start`` .. ``stop - 1`` that are applied here; never waits.

        Args:
            start: first index, at least 1.
            stop: index after the last one; left out, up to what is applied at the time of the call.
        """
        self._node.check_readable()
        validation.check_index(start, "start")
        last = self._node.applied_index + 1
        return self._entries(start, last if stop is None else min(validation.check_index(stop, "stop"), last))

    def _entries(self, start: int, stop: int) -> Iterator[Entry]:
        while start < stop:
            found = self._node.read_range(start, min(start + READ_AHEAD_ENTRIES, stop))
            yield from found
            start += len(found)

    # -- looking at it -------------------------------------------------------------------------------------

    @property
    def node_id(self) -> int:
        """This node's id."""
        return self._node.parts.node_id

    @property
    def state_machine(self) -> Any:
        """The state machine that was passed, or ``None``; the apply thread's while the replica is open."""
        return self._state_machine

    @property
    def config(self) -> Config:
        """Limits and periods."""
        return self._config

    @property
    def leader(self) -> int | None:
        """Node id of the leader that this node follows or is; ``None`` if it knows none."""
        return self.status().leader

    @property
    def is_leader(self) -> bool:
        """True if this node believes that it leads. Another may have taken over meanwhile."""
        return self.status().role == "leader"

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until this node knows a leader; return False if it knows none after ``timeout`` seconds.

        Raises the reason if the node has stopped by itself.
        """
        seconds = validation.check_timeout(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            self._node.check_process()
            self._node.check_fault()
            self._node.raise_if_failed()
            if self._node.closed:
                return False
            if self.status().leader is not None:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.005)

    def status(self) -> Status:
        """Return one look at this node, for people; works on a closed or stopped replica, too."""
        node = self._node
        parts = node.parts
        node.check_process()
        node.check_fault()
        seen = node.look()
        stopped = node.closed or node.failure is not None
        leader = seen.get("leader")
        heard = node.heard()
        return Status(
            node_id=parts.node_id,
            role="stopped" if stopped else str(seen.get("role", "follower")),
            leader=None if stopped else leader,
            ballot=int(seen.get("promised", 0)),
            chosen_upto=int(seen.get("chosen_upto", 0)),
            applied_slot=node.applier.applied_slot,
            last_index=node.applied_index,
            pending=len(node.pending),
            incarnation=parts.incarnation,
            cluster=parts.cluster,
            cluster_id=parts.cluster_id,
            directory=parts.directory,
            peers=tuple(
                PeerStatus(
                    node_id=peer,
                    address=parts.members.get(peer),
                    heard=peer in heard,
                    leads=peer == leader,
                    chosen_upto=heard[peer]["chosen_upto"] if peer in heard else 0,
                )
                for peer in sorted(parts.members)
                if peer != parts.node_id
            ),
            fault=None if node.failure is None else str(node.failure),
            quarantine=node.quarantine,
            damaged_records=len(parts.scrub.damaged) if parts.scrub is not None else 0,
        )

    def inspect(self) -> dict[str, Any]:
        """Return everything that the parts say about themselves, for tools; keys may change."""
        self._node.check_process()
        scrub = self._node.parts.scrub
        found = scrub and {"passes": scrub.passes, "damaged": dict(scrub.damaged)}
        return self._node.inspect() | {"scrub": found}

    # -- leaving -------------------------------------------------------------------------------------------

    def transfer_leadership(self, to: int | None = None, timeout: float | None = 5.0) -> bool:
        """Hand leadership to member ``to``, or to the one that has the most of the log.

        Returns:
            True once this node does not lead (also if it never did); False when the time is over.
        """
        seconds = validation.check_timeout(timeout)
        self._node.check_open()
        if to is not None:
            validation.check_node_id(to)
            if to not in self._node.parts.members:
                raise ConfigError(f"node {to} is no member: {sorted(self._node.parts.members)}")
            if to == self.node_id:
                raise ConfigError(f"node {to} is this node: name another member")
        return self._node.hand_over(to, None if seconds is None else time.monotonic() + seconds)

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Hand leadership over, finish what can be finished, stop; idempotent.

        Callers that still wait then get ``OutcomeUnknown``, or ``Closed`` where their command never left this
        node. Everything that was acknowledged is on disk. Takes about ``timeout`` seconds at most, and a second more
        if the disk hangs in a sync: then the log says so, and the files stay open until the process ends.
        """
        seconds = validation.check_timeout(timeout)
        self._node.close(CLOSE_TIMEOUT_S if seconds is None else seconds)
        self._finalizer.detach()

    def _kill(self) -> None:
        """Stop as abruptly as one process allows: no transfer, no clean end of the log. For tests."""
        self._node.close(0.0, abrupt=True)
        self._finalizer.detach()

    def __enter__(self) -> Replica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = self._node.parts
        state = "closed" if self._node.closed else "stopped" if self._node.failure else "open"
        return f"<paxos.Replica {parts.node_id} of {parts.cluster!r} in {parts.directory!r}, {state}>"
