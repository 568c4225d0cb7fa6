"""The running parts of one replica: threads, wiring, and what happens when one of them fails.

Four threads serve a node: the reactor (native, owns the protocol state and the disk), ZeroMQ's IO thread,
and two Python threads that live here:

* *control* takes the frames that need thought (promises, fetches, ends of heartbeat rounds), asks
  :class:`paxos.control.Control` and posts its intents back to the reactor;
* *apply* takes what is chosen and hands it to the :class:`paxos.applying.Applier`.

Nothing here refers to :class:`paxos.Replica`, so a replica that is forgotten can be collected and closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paxos._core.failpoint import reach
from paxos.advice import Advice
from paxos.applying import Applier, Pending, Run
from paxos.errors import (
    Busy,
    Closed,
    ConfigError,
    OutcomeUnknown,
    PaxosError,
    RemoteProtocolError,
    StorageError,
    as_paxos_error,
    fault_error,
)
from paxos.futures import Future, RunOutcome
from paxos.messages import Transfer
from paxos.reading import Reads
from paxos.signals import HeldBack, may_hold_back
from paxos.storage.quarantine import WAY_BACK
from paxos.subscribe import READ_AHEAD_BYTES
from paxos.types import Config, Entry, Outcome

logger = logging.getLogger("paxos")

APPLY_WAIT_S = 0.25
CONTROL_WAIT_S_MAX = 0.25
CALLER_SLICE_S = 0.05
"""A blocked caller looks at the state of the node this often."""
BUSY_RETRY_S = 0.001
TRANSFER_ATTEMPTS = 3
"""How often a closing leader tries to find an heir."""
STOP_S_MIN, STOP_S_MAX = 1.0, 5.0  # for the pass that the reactor is in: it ends with a sync, which may hang
COMBINE_WAIT_S = 0.005
"""A proposer whose command is chosen waits this long for its turn to apply before it only waits for the outcome."""
FLUSH_SLOTS = 8192
"""Places of chosen slots that gather in memory before they go to the catalogue."""
HEARD_PERIODS = 4
"""A member that answered within this many heartbeat periods counts as heard."""
CALLERS_MAX_LEAST = 1024
CALLER_BYTES = 128
"""One caller may wait for every so many bytes of ``Config.pending_bytes_max``."""


_nodes: weakref.WeakSet[Node] = weakref.WeakSet()


def _pin_after_fork() -> None:
    # The child has none of the threads: destroying what belongs to them would wait for them, or touch files and
    # sockets of the parent. So nothing of a node is ever destroyed there.
    for node in list(_nodes):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(node))


os.register_at_fork(after_in_child=_pin_after_fork)


def now_us() -> int:
    """Return microseconds on the clock that goes on counting while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


@dataclass(kw_only=True)
class Parts:
    """Everything that a node is made of, opened and recovered but not started."""

    node_id: int
    cluster: str
    cluster_id: int
    incarnation: int
    members: dict[int, str]
    config: Config
    directory: str
    engine: Any
    batcher: Any
    reactor: Any
    control: Any
    log: Any
    release: Callable[[bool], None]
    """Close sockets and files, give the data directory back; the argument: was it a clean shutdown?"""
    quarantine: str | None = None  # why this node started in quarantine
    scrub: Any = None  # looks for damage in the log; ``release`` stops it
    note_quarantine: Callable[[int, str], None] = lambda _reason, _why: None
    """Keep in the data directory, durably, that this node never votes again: a ``QuarantineReason``, and why."""


class Node:
    """A started node. Only :class:`paxos.Replica` and the asyncio face use it."""

    def __init__(self, parts: Parts, machine: Any) -> None:
        self.parts = parts
        self.pid = os.getpid()
        self.pending = Pending()
        self.failure: PaxosError | None = None
        self._reactor = parts.reactor
        self._batcher = parts.batcher
        self._advice = Advice(parts.node_id, parts.cluster, parts.members, parts.engine.counters)
        self._closing = threading.Event()
        self._closed = threading.Event()
        self._close_lock = threading.Lock()
        self._failing = threading.Lock()
        # Reentrant: a garbage collection inside may close this very node.
        self._reading = threading.RLock()
        # What small commands cost is their futures, so these are bounded, too: about 200 bytes each.
        self._callers_max = max(CALLERS_MAX_LEAST, parts.config.pending_bytes_max // CALLER_BYTES)
        self._kept_from: int | None = None
        self._released = False
        self._abrupt = False
        self._last_look: dict[str, Any] = {}
        self.quarantine = parts.quarantine
        self._answers: dict[int, tuple[float, dict[str, int]]] = {}
        self.applier = Applier(
            parts.reactor,
            parts.log,
            machine,
            self.pending,
            node_id=parts.node_id,
            incarnation=parts.incarnation,
            on_failure=self._on_apply_failure,
        )
        name = f"paxos-{parts.node_id}"
        self.reads = Reads(
            parts.reactor.reads, self.applier, why=self._situation, check_open=self.check_open,
            check_fault=self.check_fault, name=f"{name}-reads", callers_max=self._callers_max,
        )  # fmt: skip
        # Daemons: at interpreter exit close() ends them, which runs after non-daemon threads are joined.
        self._apply_thread = threading.Thread(target=self._apply_loop, name=f"{name}-apply", daemon=True)
        self._control_thread = threading.Thread(
            target=self._control_loop, name=f"{name}-control", daemon=True
        )

    def start(self) -> None:
        """Start the threads."""
        _nodes.add(self)
        self._reactor.start()
        self._apply_thread.start()
        self._control_thread.start()

    # -- threads -------------------------------------------------------------------------------------------

    def _apply_loop(self) -> None:
        try:
            log = self.parts.log
            while self.applier.wait(APPLY_WAIT_S):
                self.applier.drain()
                if log.unwritten_slots >= FLUSH_SLOTS:
                    log.flush()  # on this thread only: LMDB wants one writer
        except Exception as error:
            self.fail(as_paxos_error(error))
        finally:
            self.check_fault()
            self.applier.end()
            if not self._abrupt:
                with contextlib.suppress(Exception):  # a cache: what is missing comes back from the log
                    self.parts.log.flush()

    def _control_loop(self) -> None:
        control, reactor = self.parts.control, self._reactor
        try:
            while not self._closing.is_set():
                deadline = control.deadline_us
                wait_s = CONTROL_WAIT_S_MAX if deadline is None else (deadline - now_us()) / 1e6
                frames = reactor.take_cold(min(max(wait_s, 0.0), CONTROL_WAIT_S_MAX))
                if frames is None:
                    return
                self._advice.look_around(self.look(), self.heard())
                self._check_quarantine()
                for frame in frames:
                    reach("control.frame")
                    try:
                        intents = control.on_frame(frame, now_us())
                    except (RemoteProtocolError, StorageError) as error:
                        # A peer's mistake, or a value for a peer that cannot be read here: never fatal.
                        logger.warning("node %d could not answer a frame: %s", self.parts.node_id, error)
                        continue
                    self._post(intents)
                self._post(control.tick(now_us()))
        except Exception as error:
            logger.exception("node %d: the control thread failed", self.parts.node_id)
            self.fail(as_paxos_error(error))

    def no_outcome(self, timeout_s: float | None) -> OutcomeUnknown:
        """Return the exception for a proposal whose time is over."""
        within = "in time" if timeout_s is None else f"within {timeout_s:g} s"
        return OutcomeUnknown(
            f"no outcome {within} ({self._situation()}); the command was handed over and may yet be applied"
        )

    def _situation(self) -> str:
        return self._advice.situation(self.look(), self.heard())

    def _post(self, intents: Sequence[Any]) -> None:
        for intent in intents:
            reach("control.intents")
            self._reactor.post(intent)

    # -- failing -------------------------------------------------------------------------------------------

    def _on_apply_failure(self, error: BaseException) -> None:
        self.fail(as_paxos_error(error))

    def check_fault(self) -> None:
        """Notice that the reactor has stopped by itself."""
        fault = self._reactor.fault
        if fault is not None and self.failure is None:
            self.fail(fault_error(fault))

    def fail(self, error: PaxosError) -> None:
        """Stop voting and tell every caller why (G6). Called on any thread; the first reason stays."""
        with self._failing:
            if self.failure is not None:
                return
            self.failure = error
        if not self._closing.is_set():
            logger.error("node %d has stopped: %s", self.parts.node_id, error, exc_info=error.__cause__)
        with contextlib.suppress(Exception):
            self._batcher.close()
        with contextlib.suppress(Exception):
            self._reactor.stop()
        self._fail_pending(error)
        self.applier.end()

    def _fail_pending(self, cause: BaseException | None) -> None:
        """Tell every caller how it ended (G4). Call when the batcher is closed and the reactor has stopped.

        Nobody is missed: whoever appended before the batcher was closed registers under the lock that
        ``Pending.fail`` takes, and nobody appends after it.
        """
        why = "the replica was closed" if cause is None else f"this node has stopped: {cause}"
        first_kept = self._first_kept_ticket()

        never_left = f"{why} before the command had left it: it is certainly not applied"
        perhaps = f"the command was handed over, then {why}; it may or may not be applied"

        def error_for(ticket: int) -> BaseException:
            is_kept = first_kept is not None and ticket >= first_kept
            error: PaxosError = Closed(never_left) if is_kept else OutcomeUnknown(perhaps)
            error.__cause__ = cause
            return error

        self.pending.fail(error_for)

    def _first_kept_ticket(self) -> int | None:
        """Return the first ticket that the reactor never took from the batcher."""
        if self._reactor.alive:
            return None
        if self._kept_from is None:
            value = self._batcher.take_value()
            if value is not None:
                self._kept_from = int.from_bytes(value[8:16], "little")  # codec.BatchHead.first_ticket
        return self._kept_from

    def _check_quarantine(self) -> None:
        """Notice that this node must never vote again, write it down, and let nobody wait for what it cannot do."""
        if not (seen := self._last_look).get("quarantine_reason"):
            return
        if self.quarantine is None:
            self.quarantine = why = str(seen["quarantine"])
            self.parts.note_quarantine(int(seen["quarantine_reason"]), why)
            logger.error("node %d is in quarantine from now on: %s. %s", self.parts.node_id, why, WAY_BACK)
            self.reads.refuse()
        if len(self.pending):
            text = f"this node is in quarantine ({self.quarantine}); the command may or may not be applied"
            self.pending.fail(lambda _ticket: OutcomeUnknown(text))

    def raise_if_failed(self) -> None:
        """Raise why the node has stopped by itself, if it has."""
        if self.failure is not None:
            raise self.failure

    @property
    def closed(self) -> bool:
        """True once :meth:`close` has begun."""
        return self._closing.is_set()

    def check_process(self) -> None:
        """Raise in a process other than the one that opened this node: nothing is touched there."""
        if self.pid != os.getpid():
            raise Closed(
                f"this replica belongs to process {self.pid}; a fork() cannot use it: open it after the "
                "fork, or use multiprocessing with the 'spawn' start method"
            )

    def check_readable(self) -> None:
        """Raise unless the local log can be read."""
        self.check_process()
        if self._released:
            raise Closed("the replica is closed: open it again to read its log")

    def check_open(self) -> None:
        """Raise unless commands can be taken."""
        self.check_process()
        if self._closing.is_set():
            raise Closed("the replica is closed: it takes no commands and no reads any more")
        if self.failure is not None:
            raise Closed(f"this node has stopped and takes nothing more: {self.failure}") from self.failure
        if self.quarantine is not None:
            raise Closed(f"this node is in quarantine and takes no commands: {self.quarantine}. {WAY_BACK}")

    # -- commands ------------------------------------------------------------------------------------------

    def submit(self, command: bytes) -> Future[Outcome]:
        """Hand one command over."""
        future: Future[Outcome] = Future()
        self.enqueue(command, future)
        return future

    def enqueue(self, command: bytes, future: Any) -> int:
        """Hand one command over whose outcome ``future`` gets (``resolve`` or ``fail``); its ticket."""
        self.check_open()
        pending = self.pending
        with pending.lock:
            if len(pending) >= self._callers_max:
                raise Busy(f"{len(pending)} callers wait for outcomes already; see Config.pending_bytes_max")
            ticket: int = self._batcher.append(command)
            pending.register(ticket, 1, future)
        return ticket

    def submit_many(self, commands: Sequence[bytes]) -> Future[RunOutcome]:
        """Hand a run over, all or nothing."""
        future: Future[RunOutcome] = Future()
        self.enqueue_many(commands, future)
        return future

    def enqueue_many(self, commands: Sequence[bytes], future: Any) -> None:
        """Hand a run over, all or nothing, whose outcome ``future`` will get."""
        self.check_open()
        if not commands:
            future.resolve(RunOutcome(()))
            return
        pending = self.pending
        with pending.lock:
            ticket, count = self._batcher.append_many(commands, 0.0)
            pending.register(ticket, count, Run(future))

    def propose(self, command: bytes, timeout_s: float | None) -> Outcome:
        """Hand one command over and wait for its outcome."""
        if self.applier.is_applying_here:
            raise ConfigError(
                "propose() inside apply(), or inside a callback of a future, would wait for itself for ever: "
                "use submit() there, and do not wait for its future"
            )
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        future: Future[Outcome] = Future()
        while True:
            try:
                ticket = self.enqueue(command, future)
                break
            except Busy:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                time.sleep(BUSY_RETRY_S)
        self._combine(ticket, future, deadline)
        return self._await_outcome(future, deadline, timeout_s)

    def _combine(self, ticket: int, future: Future[Outcome], deadline: float | None) -> None:
        """Wait without the GIL until the own command is chosen, then apply it here if nobody is at it."""
        while not future.done() and self.failure is None and not self._closed.is_set():
            wait_s = CALLER_SLICE_S
            if deadline is not None:
                wait_s = min(wait_s, deadline - time.monotonic())
                if wait_s <= 0:
                    return
            if self._reactor.wait_chosen(ticket, wait_s):
                # On the main thread Ctrl-C must not be raised in the middle of a state machine.
                with HeldBack() if may_hold_back() else contextlib.nullcontext():
                    self.applier.drain(until=future, wait_s=COMBINE_WAIT_S)
                return

    def _await_outcome(
        self, future: Future[Outcome], deadline: float | None, timeout_s: float | None
    ) -> Outcome:
        while True:
            wait_s = 1.0
            if deadline is not None:
                wait_s = min(wait_s, max(deadline - time.monotonic(), 0.0))
            try:
                return future.result(wait_s)
            except TimeoutError:
                self.check_fault()
                if future.done():
                    continue
                if deadline is not None and time.monotonic() >= deadline:
                    raise self.no_outcome(timeout_s) from None

    def wait_settled(self, timeout_s: float) -> None:
        """Wait until this node leads and has applied all that the log held when it took over."""
        deadline = time.monotonic() + timeout_s
        while self.failure is None and time.monotonic() < deadline:
            seen = self.look()
            own_noop = int(seen["own_noop_slot"])
            if seen["is_leader"] and own_noop and self.applier.applied_slot >= own_noop:
                return
            self.check_fault()
            time.sleep(0.001)

    # -- reading the log -----------------------------------------------------------------------------------

    @property
    def applied_index(self) -> int:
        """Index of the last command that was applied here."""
        return self.applier.applied_index

    @property
    def ended(self) -> bool:
        """True once nothing will be applied here any more."""
        return self.applier.ended

    def wait_index(self, index: int, timeout_s: float | None) -> bool:
        """Wait until command ``index`` is applied here."""
        return self.applier.wait_index(index, timeout_s)

    def read_range(self, start: int, stop: int) -> list[Entry]:
        """Return applied commands from ``start`` on, below ``stop``: at least one if there is any."""
        stop = min(stop, self.applied_index + 1)
        if start >= stop:
            return []
        with self._reading:
            self.check_readable()
            found = []
            size = 0
            for entry in self.parts.log.entries(start, stop):
                found.append(entry)
                size += len(entry.command)
                if size >= READ_AHEAD_BYTES:
                    break
            return found

    def look(self) -> dict[str, Any]:
        """Return the reactor's status; after the end, the last one there was."""
        with self._reading:
            if not self._released:
                seen = self.parts.engine.glance()
                leads = bool(seen["is_leader"])
                self._note_answers()
                self._last_look = seen | {
                    "role": self._role(seen),
                    "leader": (self.parts.node_id if leads else seen["leader"]) or None,
                }
        return self._last_look

    @staticmethod
    def _role(seen: Mapping[str, Any]) -> str:
        if seen["is_leader"]:
            return "leader"
        if seen["is_quarantined"]:
            return "quarantined"
        return "candidate" if seen["is_candidate"] and not seen["leader"] else "follower"

    def heard(self) -> dict[int, dict[str, int]]:
        """Return what the other members that were heard of late said, by node id."""
        with self._reading:
            if not self._released:
                self._note_answers()
        since = time.monotonic() - HEARD_PERIODS * self.parts.config.heartbeat_ms / 1000
        return {node: said for node, (when, said) in dict(self._answers).items() if when >= since}

    def _note_answers(self) -> None:
        now = time.monotonic()
        for node, said in self.parts.engine.answered().items():
            self._answers[node] = (now, said)

    def inspect(self) -> dict[str, Any]:
        """Return everything that the parts say about themselves."""
        return {
            "engine": self.look(),
            "counters": self.parts.engine.counters(),
            "reactor": self._reactor.status(),
            "heard": self.heard(),
            "node_id": self.parts.node_id,
            "members": dict(self.parts.members),
            "cluster_id": self.parts.cluster_id,
            "incarnation": self.parts.incarnation,
            "applied_slot": self.applier.applied_slot,
            "applied_index": self.applied_index,
            "pending": len(self.pending),
            "fault": None if self.failure is None else str(self.failure),
            "quarantine": self.quarantine,
        }

    # -- closing -------------------------------------------------------------------------------------------

    def close(self, timeout_s: float, *, abrupt: bool = False, hand_over: bool = True) -> None:
        """Stop within about ``timeout_s`` seconds; idempotent; the second caller waits for the first.

        Args:
            hand_over: give leadership to another member first.
            abrupt: no leadership handed over, no pending command waited for, no clean end of the log.
        """
        if self.pid != os.getpid():
            return
        self._abrupt = self._abrupt or abrupt
        self._closing.set()
        with self._close_lock:
            if self._closed.is_set():
                return
            deadline = time.monotonic() + timeout_s
            reach("close.begin")
            try:
                with contextlib.suppress(Exception):
                    self._batcher.close()
                if not abrupt and self.failure is None:
                    self._finish_pending(deadline)
                    if hand_over:
                        self._hand_over(deadline)
            finally:
                self._stop_threads(abrupt, deadline)
                self._closed.set()

    def _finish_pending(self, deadline: float) -> None:
        """Let what was handed over be chosen, for half of the time."""
        until = time.monotonic() + max(deadline - time.monotonic(), 0.0) / 2
        if self.applier.is_applying_here:
            return  # closed from inside apply: nothing more is applied before this returns
        while len(self.pending) and time.monotonic() < until and self.failure is None:
            if self.look()["leader"] is None:
                return  # nobody to choose it: waiting is pointless
            time.sleep(0.002)

    def _hand_over(self, deadline: float) -> None:
        if len(self.parts.members) > 1:
            until = time.monotonic() + TRANSFER_ATTEMPTS * 2 * self.parts.config.election_timeout_ms / 1000
            self.hand_over(None, min(deadline, until))

    def hand_over(self, heir: int | None, deadline: float | None) -> bool:
        """Give leadership to ``heir``, or to the member that has the most of the log; True once it is gone.

        Asks again while this node leads: a transfer is forgotten after an election timeout if frames of it were
        lost or the heir did not make it.
        """
        again_at = 0.0
        while self.failure is None and self.look()["role"] == "leader":
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            if now >= again_at:
                again_at = now + 2 * self.parts.config.election_timeout_ms / 1000
                chosen = self._best_heir() if heir is None else heir
                if chosen is None:
                    return False  # nobody is there to take it
                self._reactor.post(Transfer(heir=chosen))
            time.sleep(0.003)
        return True

    def _best_heir(self) -> int | None:
        until = time.monotonic() + HEARD_PERIODS * self.parts.config.heartbeat_ms / 1000
        while not (heard := self.heard()) and time.monotonic() < until:
            time.sleep(0.001)  # between the opening of a round and its first answer
        return max(heard, key=lambda node: (heard[node]["chosen_upto"], -node), default=None)

    def _stop_threads(self, abrupt: bool, deadline: float) -> None:
        stopped = self._reactor.stop(max(deadline - time.monotonic(), STOP_S_MAX if abrupt else STOP_S_MIN))
        self.applier.stop()
        current = threading.current_thread()
        for thread in (self._apply_thread, self._control_thread):
            if thread is not current and thread.is_alive():
                thread.join(timeout=5.0)
                if thread.is_alive():
                    logger.error("%s does not end; is apply() stuck?", thread.name)
        self.check_fault()
        self._fail_pending(self.failure)
        self.applier.end()
        self.reads.end()
        self.look()
        # Readers of the log hold this lock while they read: the files are not closed under them.
        with self._reading:
            self._released = True
            if stopped:
                reach("close.release")
                self.parts.release(not abrupt and self.failure is None)
            else:
                text = "node %d: the disk does not answer; its files stay open until the process ends"
                logger.error(text, self.parts.node_id)


__all__ = ["Node", "Parts", "now_us"]
