"""The simulated world: virtual time, one event queue, one source of randomness, all nodes in one process."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from paxos._core.effects import RecordView
from paxos.sim import invariants, wire
from paxos.sim.clients import Clients
from paxos.sim.damage import Damage
from paxos.sim.disk import MemoryDisk
from paxos.sim.faults import Faults
from paxos.sim.history import History, Marks
from paxos.sim.network import Network
from paxos.sim.node import Node
from paxos.sim.observer import Observer
from paxos.sim.parameters import Parameters
from paxos.sim.trace import Trace
from paxos.sim.watch import Watch, content


class World:
    """One cluster, its network, its clients and its bad luck.

    Args:
        parameters: sizes, limits and rates.
        rng: the one source of randomness; it decides everything.
        trace: receives every event, or ``None`` (faster).

    Attributes:
        now_us: virtual time, starting at one second.
        steps: events carried out so far.
        damage: what happens to the disks of a fixed minority.
        counts: faults and other things that happened, by name.
        node_class, disk_class, network_class: replaced by tests that break a rule on purpose.
    """

    node_class: type[Node] = Node
    disk_class: type[MemoryDisk] = MemoryDisk
    network_class: type[Network] = Network

    def __init__(self, parameters: Parameters, rng: random.Random, *, trace: Trace | None = None) -> None:
        self.parameters = parameters
        self.rng = rng
        self.trace = trace
        self.now_us = 1_000_000
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self.restart_crashed = True
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        members = list(range(1, parameters.nodes + 1))
        self.history = History(members)
        self.history.time = lambda: self.now_us
        self.observer = Observer(self.history)
        self.damage = Damage(self)
        self.network = self.network_class(self)
        self.nodes: dict[int, Node] = {id: self.node_class(self, id) for id in members}
        self.clients = Clients(self)
        self.faults = Faults(self)
        self.watch = Watch(self) if trace is not None else None
        self._frames_sent = 0

    # --- time ------------------------------------------------------------------------------------------------

    def schedule(self, at_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action(*arguments)`` at virtual time ``at_us``; ties go in the order of this call."""
        self._sequence += 1
        heapq.heappush(self._events, (at_us, self._sequence, action, arguments))

    def step(self) -> bool:
        """Carry out the next event; False if there is none."""
        if not self._events:
            return False
        at_us, _, action, arguments = heapq.heappop(self._events)
        self.now_us = max(self.now_us, at_us)
        self.steps += 1
        action(*arguments)
        if self.watch is not None:
            self.watch.look()
        return True

    def run(
        self, duration_us: int, until: Callable[[], bool] | None = None, steps_max: int = 1 << 60
    ) -> bool:
        """Run for ``duration_us`` of virtual time, or until ``until()``; return what ``until`` says then."""
        end = self.now_us + duration_us
        check_at = 0
        while self._events and self._events[0][0] <= end and self.steps < steps_max:
            if until is not None and self.steps >= check_at:
                if until():
                    return True
                check_at = self.steps + 5
            self.step()
        else:
            if self.steps < steps_max:
                self.now_us = end
        return until() if until is not None else True

    # --- luck ------------------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``."""
        return probability > 0 and self.rng.random() < probability

    def sync_delay_us(self, node: Node) -> int:
        """Return how long the disk of ``node`` takes for the sync that begins now."""
        mean = self.parameters.sync_us_of(node.id)
        delay = int(self.rng.expovariate(1.0) * mean) if mean else 0
        return max(delay, node.disk_hangs_until - self.now_us)

    def drift_ppm(self, node: Node) -> int:
        """Return how fast the clock of ``node`` is in its next life."""
        bound = self.parameters.drift_ppm
        return self.rng.randint(-bound, bound) if bound else 0

    def control_delay_us(self) -> int:
        """Return how long something takes on its way to or from a control thread."""
        mean = self.parameters.control_us
        return int(self.rng.expovariate(1.0) * mean) if mean else 0

    # --- nodes -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all nodes."""
        for node in self.nodes.values():
            node.start()

    def deliver(self, frame: wire.Frame) -> None:
        """Hand a frame that has crossed the network to its receiver."""
        if self.trace is not None:
            self.trace_event(
                "receive", frame.receiver, id=frame.number, kind=wire.KIND_NAMES[frame.kind], sender=frame.sender,
                down=not self.nodes[frame.receiver].up,
            )  # fmt: skip
        self.nodes[frame.receiver].deliver(frame.data)

    def on_send(self, node: Node, frame: wire.Frame) -> None:
        """A frame leaves ``node``: let the observer see it, then the network take it."""
        if self.trace is not None:
            self._frames_sent += 1
            frame = frame._replace(number=self._frames_sent)
            self.trace_event(
                "send", node.id, id=frame.number, kind=wire.KIND_NAMES[frame.kind], to=frame.receiver,
                ballot=frame.ballot, slot=frame.slot, mark=frame.mark, detail=frame.detail,
                incarnation=frame.incarnation, bytes=len(frame.data), **content(frame),
            )  # fmt: skip
        self.observer.on_send(frame)
        self.network.send(frame)

    def on_drop(self, frame: wire.Frame, why: str) -> None:
        """A frame is lost: on its way, or because it has none."""
        self.trace_event(
            "drop",
            frame.sender,
            id=frame.number,
            kind=wire.KIND_NAMES[frame.kind],
            to=frame.receiver,
            why=why,
        )

    def crash(self, node: Node, keep: int | None = None) -> None:
        """Crash ``node``; unless a scenario says otherwise it comes back after a while."""
        node.crash(keep)
        if self.restart_crashed:
            delay = int(self.rng.choice([1_000, 50_000, 300_000]) * self.rng.uniform(0.5, 2.0))
            self.schedule(self.now_us + delay, self.restart, node, node.life)

    def restart(self, node: Node, life: int) -> None:
        """Start a crashed node again, unless somebody else has."""
        if not node.up and node.life == life:
            self.count("restart")
            node.start()

    def pause(self, node: Node, length_us: int) -> None:
        """Stop ``node`` for ``length_us``, as SIGSTOP does."""
        node.paused_until = max(node.paused_until, self.now_us + length_us)
        self.trace_event("pause", node.id, length_us=length_us)

    def leader(self) -> Node | None:
        """Return the running node that leads with the highest ballot, as the wire tells."""
        best = max(self.history.leaders, default=0)
        if not best:
            return None
        node = self.nodes[best & wire.NODE_MASK]
        return node if node.up else None

    def on_engine_fault(self, node: Node, code: int, text: str) -> None:
        """No fault that the simulator injects may stop an engine for good."""
        raise invariants.Violation("ENGINE", f"node {node.id} stopped with fault {code}: {text}")

    def after_step(self, node: Node) -> None:
        """Check what only the node itself can tell (I5, I11)."""
        engine = node.engine
        learner = engine.learner_role
        marks = Marks(
            engine.acceptor_role.promised_durable,
            engine.acceptor_role.trimmed,
            self.history.applied_upto[node.id],
            learner.chosen_upto,
            learner.known_upto,
            learner.slots.top,
        )
        if marks != node.marks:
            invariants.i5_marks_never_go_back(node.id, node.marks, marks)
            invariants.i6_own_promise_is_durable(self.history, node.id, marks)
            invariants.i11_state_order(node.id, marks)
            node.marks = marks

    # --- records of the run ----------------------------------------------------------------------------------

    def count(self, event: str) -> None:
        """Note that something happened, for the coverage report."""
        self.counts[event] += 1

    def trace_event(self, event: str, node: int, **details: object) -> None:
        """Add an event to the trace, if there is one."""
        if self.trace is not None:
            self.trace.add(self.now_us, event, node, **details)

    def trace_records(self, node: int, records: list[RecordView]) -> None:
        """Add appended records to the trace, if there is one."""
        if self.trace is not None:
            for record in records:
                self.trace.add(
                    self.now_us,
                    "append",
                    node,
                    kind=int(record.kind),
                    slot=record.slot,
                    ballot=record.ballot,
                    mark=record.mark,
                )
