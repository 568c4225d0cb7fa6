"""One simulated node: the production engine and control plane, driven in the order of ``_core/effects.pxd``.

A node is two actors, as in production. The *reactor* drains its inbox, steps the engine, sends what may
leave at once, appends and syncs, and only then lets acknowledgements out; while its disk syncs it does
nothing else. The *control thread* gets cold frames later, and its intents reach the reactor later still.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from typing import TYPE_CHECKING, Any

from paxos import messages
from paxos._core import codec
from paxos._core.effects import ChosenView, QuarantineReason, RecordView
from paxos.control import Control
from paxos.engine import Engine
from paxos.membership import first_incarnation
from paxos.sim import wire
from paxos.sim.clock import Clock
from paxos.sim.disk import MemoryDisk
from paxos.sim.history import CHOSEN_SNAPSHOT, RECORD_INCARNATION, RECORD_MARK, RECORD_TRIM, Marks
from paxos.sim.invariants import (
    Violation,
    d8_poisoned_is_silent,
    i7_recovered_state_is_the_disk,
    s1_foreign_frame_is_not_admitted,
)
from paxos.sim.reads import Reads
from paxos.sim.snapshot import MemoryLog, Snapshot

if TYPE_CHECKING:
    from paxos.sim.world import World

CLUSTER = 0x5EED
FAR_FUTURE_US = 1 << 62
TICK_US_MIN = 100
CLOCK_US_MAX = 1 << 40
DISK_FULL_RETRY_US = 5_000
UNRELIABLE = (messages.Campaign, messages.Lead, messages.Send, messages.Trim, messages.InstallSnapshot)
"""Intents that may come twice or not at all."""


class CrashPoint(enum.Enum):
    """Where in its next round of effects a node loses power."""

    NOW = "now"
    AFTER_APPEND = "after_append"
    AFTER_SYNC = "after_sync"


class Foreign(bytes):
    """A frame that was sent from a storage which no configuration has bound to the sender's id."""


class Node:
    """A replica in the simulated world.

    Attributes:
        up: it runs (perhaps paused or waiting for its disk).
        incarnation: grows with every start, durable before the first frame.
        config: its own limits.
        storage: identity of its directory.
        disk: survives crashes; everything else does not.
        clock: what it believes to be the time; every life has another.
        disk_error: its next sync, or the present one, will fail.
        disk_low_until, disk_full_from: its disk has little space, and from when on none at all.
    """

    def __init__(self, world: World, node_id: int) -> None:
        self.world = world
        self.id = node_id
        self.config = world.parameters.config_of(node_id)
        self.storage = node_id.to_bytes(2, "big") * 8
        self.disk: MemoryDisk = world.disk_class()
        self.up = False
        self.life = 0
        self.incarnation = 0
        self.paused_until = 0
        self.control_stalled_until = 0
        self.disk_hangs_until = 0
        self.disk_low_until = 0
        self.disk_full_from = FAR_FUTURE_US
        self.disk_error = False
        self.clock = Clock()
        self.crash_point: CrashPoint | None = None
        self.engine: Any = None
        self.control: Any = None
        self.snapshot: Snapshot | None = None
        self.log = MemoryLog()
        self._reset()

    def _reset(self) -> None:
        self.inbox: deque[bytes] = deque()
        self.mailbox: deque[Any] = deque()
        self.control_inbox: deque[bytes] = deque()
        self.waiting: deque[bytes] = deque()
        self.reads = Reads(self)
        self.next_ticket = 1
        self.syncing = False
        self.disk_error = False
        self._sync_number = 0
        self._touched_us = 0
        self._mark_at = FAR_FUTURE_US
        self._segment_records = 0
        self._run_at = FAR_FUTURE_US
        self._control_at = FAR_FUTURE_US
        self._cold_last = 0
        self._intent_last = 0

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Recover from the disk under a new incarnation and begin to run."""
        world = self.world
        self._reset()
        self.life += 1
        self.up = True
        self.crash_point = None
        self.paused_until = self.control_stalled_until = self.disk_hangs_until = 0
        world.damage.before_start(self)
        records, is_untrusted = self.disk.read()
        snapshot = self.snapshot.upto if self.snapshot is not None else 0
        world.observer.on_restart(self.id, records, snapshot, is_untrusted)
        self.incarnation = self._next_incarnation()
        self.clock = Clock(world.now_us, world.rng.randrange(CLOCK_US_MAX), world.drift_ppm(self))
        self.engine = self.build_engine()
        if is_untrusted:
            self.engine.quarantine(int(QuarantineReason.QUARANTINE_DAMAGED))
            world.count("quarantine")
        self.marks = Marks()
        self.recover(records)
        self._check_recovery()
        self._write_incarnation()
        self.log = MemoryLog(self.snapshot.upto + 1 if self.snapshot is not None else 1)
        self.control = self.build_control()
        world.trace_event(
            "start", self.id, incarnation=self.incarnation, records=len(records), quarantined=is_untrusted
        )
        if world.chance(world.parameters.slow_start):
            world.count("slow_start")
            world.pause(self, int(world.rng.uniform(10_000, 400_000)))
        self.wake(world.now_us)
        self._wake_control(world.now_us)

    def recover(self, records: list[RecordView]) -> None:
        """Replay what the disk gives back into the new engine, on top of the snapshot if there is one."""
        if self.snapshot is not None:
            self.engine.act(self.snapshot.intent())
        for record in records:
            self.engine.recover_record(record)
        self.engine.recovered()

    def _check_recovery(self) -> None:
        seen = self.engine.inspect()
        accepted = {slot: held[0] for slot, held in seen["accepted"].items()}
        i7_recovered_state_is_the_disk(self.world.history, self.id, accepted, seen["slots_base"])

    def _next_incarnation(self) -> int:
        """Return a number above every incarnation that the disk knows; a new directory starts with its own."""
        known = max((r.slot for r in self.disk.durable if r.kind == RECORD_INCARNATION), default=0)
        return known + 1 if known else first_incarnation(self.storage)

    def _write_incarnation(self) -> None:
        (position,) = self.disk.reserve(1)
        record = RecordView(RECORD_INCARNATION, 0, 0, self.incarnation, 0, 0, 0, position, None)
        self.disk.append([record])
        self.world.observer.on_durable(self.id, self.disk.sync())

    def build_engine(self) -> Engine:
        """Return the engine of this life."""
        members = dict.fromkeys(self.world.nodes, None)
        return Engine(self.id, CLUSTER, self.incarnation, self.storage, members, self.config)

    def build_control(self) -> Control:
        """Return the control plane of this life, with randomness of its own."""
        return Control(
            node_id=self.id,
            cluster=CLUSTER,
            incarnation=self.incarnation,
            members={member: f"sim://{member}" for member in self.world.nodes},
            proposer=self.engine.proposer_role,
            learner=self.engine.learner_role,
            log=self.log,
            config=self.config,
            random=random.Random(self.world.rng.getrandbits(64)),
        )

    def crash(self, keep: int | None = None) -> None:
        """Lose power now; of what was appended since the last sync, a prefix may survive."""
        world = self.world
        before, torn = self.disk.lost, self.disk.torn
        kept = self.disk.crash(world.rng, keep)
        world.observer.on_durable(self.id, kept)
        lost = self.disk.lost - before
        world.count("crash")
        if lost:
            world.count("crash_lost_records")
        if lost and kept:
            world.count("crash_torn_group")
        world.counts["crash_torn_record"] += self.disk.torn - torn
        world.trace_event("crash", self.id, kept=len(kept), lost=lost)
        self.up = False
        self.life += 1
        self.reads.lose()
        self.engine = self.control = None
        self._reset()

    # --- the reactor -----------------------------------------------------------------------------------------

    def deliver(self, frame: bytes) -> None:
        """Take a frame from the network."""
        if self.up:
            self.inbox.append(frame)
            self.wake(self.world.now_us)

    def submit(self, command: bytes) -> None:
        """Take a client's command; its ticket is its place in this incarnation's sequence."""
        self.world.observer.on_submitted(self.id, self.incarnation, command)
        self.waiting.append(command)
        self.wake(self.world.now_us)

    def wake(self, at_us: int) -> None:
        """See to it that the reactor runs at ``at_us`` or before."""
        at_us = max(at_us, self.world.now_us, self.paused_until)
        if at_us < self._run_at and not self.syncing:
            self._run_at = at_us
            self.world.schedule(at_us, self._run, self.life, at_us)

    def _run(self, life: int, at_us: int) -> None:
        """One round of the reactor, up to the sync (steps 1 and 2 of effects.pxd)."""
        if life != self.life or at_us != self._run_at or self.syncing:
            return
        world = self.world
        now = world.now_us
        self._run_at = FAR_FUTURE_US
        if now < self.paused_until:
            self.wake(self.paused_until)
            return
        engine = self.engine
        local_us = self.clock.read(now)
        engine.disk_low(now < self.disk_low_until)
        while self.inbox:
            frame = self.inbox.popleft()
            if type(frame) is Foreign:
                self._step_foreign(frame, local_us)
            else:
                engine.step(frame, local_us)
        while self.mailbox:
            engine.act(self.mailbox.popleft())
        engine.tick(local_us)
        self._offer()
        self.reads.tell(engine, local_us)
        self._check_fault()
        self.carry_out()

    def _step_foreign(self, frame: bytes, local_us: int) -> None:
        """Step a frame from a disk that this node must refuse, and see that it does."""
        is_bound = bool(self.engine.glance()["config_slot"])
        before = self.engine.counters()["frames"]
        self.engine.step(frame, local_us)
        if is_bound:
            s1_foreign_frame_is_not_admitted(self.id, frame, self.engine.counters()["frames"] - before)
            self.world.count("foreign_frame_refused")

    def carry_out(self) -> None:
        """Send what may leave at once, append, and start the sync."""
        ready = self.engine.effects
        self.send(ready.take_send_now())
        self.reads.take(self.engine)
        records = ready.records
        if not records:
            self.finish()
            return
        self.append(records)

    def append(self, records: list[RecordView]) -> None:
        """Append one group and start its sync; a full disk takes nothing until there is space again."""
        world = self.world
        now = world.now_us
        if self.disk_full_from <= now < self.disk_low_until:
            world.count("disk_full_waits")
            self.syncing = True
            world.schedule(now + DISK_FULL_RETRY_US, self._append_again, self.life, records)
            return
        self.syncing = False
        self._begin_segment(len(records))
        positions = self.disk.reserve(len(records))
        placed = []
        for index, record in enumerate(records):
            self.engine.effects.set_position(index, positions[index])
            placed.append(record._replace(position=positions[index]))
        self.disk.append(placed)
        world.trace_records(self.id, placed)
        if self.crash_point is CrashPoint.AFTER_APPEND:
            world.count("crash_after_append")
            world.crash(self)
            return
        delay = world.sync_delay_us(self)
        if delay == 0:
            self.synced()
        else:
            self.syncing = True
            world.schedule(now + delay, self._sync_done, self.life, self._sync_number)

    def end_hang(self) -> None:
        """Let a sync that hangs come back now."""
        now = self.world.now_us
        self.disk_hangs_until = min(self.disk_hangs_until, now)
        self.disk_low_until = min(self.disk_low_until, now)
        if self.syncing and self.disk.pending:
            self.world.schedule(now, self._sync_done, self.life, self._sync_number)

    def _append_again(self, life: int, records: list[RecordView]) -> None:
        if life != self.life:
            return
        if self.world.now_us < self.paused_until:
            self.world.schedule(self.paused_until, self._append_again, life, records)
            return
        self.append(records)

    def _begin_segment(self, count: int) -> None:
        """Repeat at the head of each new segment what the log has said so far, as the real log does."""
        limit = self.world.parameters.segment_records
        self._segment_records += count
        if limit and self._segment_records > limit:
            self._segment_records = count
            self.world.count("new_segment")
            self._append_mark()

    def _append_mark(self) -> None:
        """Append a record that says what is promised and how far is chosen."""
        roles = self.engine
        (position,) = self.disk.reserve(1)
        mark = RecordView(
            kind=RECORD_MARK,
            value_kind=0,
            group=0,
            slot=roles.acceptor_role.trimmed,
            ballot=self.world.history.durable[self.id].promised,
            mark=roles.learner_role.chosen_upto,
            value_crc=0,
            position=position,
            value=None,
        )
        self.disk.append([mark])
        self.world.trace_records(self.id, [mark])

    def _sync_done(self, life: int, number: int) -> None:
        if life != self.life or number != self._sync_number:
            return
        if self.world.now_us < self.paused_until:
            self.world.schedule(self.paused_until, self._sync_done, life, number)
            return
        self._sync_number += 1
        self.syncing = False
        self.synced()

    def synced(self) -> None:
        """The records are durable: check them, then let go what waited for that."""
        if self.disk_error:
            self.fail_disk()
            return
        self._note_sync()
        synced = self.disk.sync()
        self.world.trace_event("sync", self.id, records=len(synced))
        self.world.observer.on_durable(self.id, synced)
        for record in synced:
            if record.kind == RECORD_TRIM and self.world.chance(self.world.parameters.compaction):
                self.world.counts["compacted_records"] += self.disk.compact(record.slot)
        if self.crash_point is CrashPoint.AFTER_SYNC:
            self.world.count("crash_after_sync")
            self.world.crash(self)
            return
        self.finish()

    def fail_disk(self) -> None:
        """The append or the sync has failed: nothing of that group is ever said, and the node stops [D8].

        What of it reached the disk is open, as after a crash.
        """
        world = self.world
        self.disk_error = False
        world.count("disk_error")
        engine = self.engine
        engine.effects.take_chosen()  # from the disk, not from what failed
        engine.disk_failed()
        local_us = self.clock.read(world.now_us)
        for frame in list(self.inbox)[:3]:
            engine.step(frame, local_us)
        engine.durable(local_us)
        engine.tick(local_us + 1_000_000)
        ready = engine.effects
        left = [*ready.take_send_now(), *ready.take_send_after_sync(), *ready.records, *ready.take_chosen()]
        d8_poisoned_is_silent(self.id, left, bool(engine.is_leader))
        world.crash(self)

    def _note_sync(self) -> None:
        """After a while without another sync the log says how far it was synced."""
        self._touched_us = self.world.now_us
        if self._mark_at == FAR_FUTURE_US:
            self._mark_at = self.world.now_us + self.config.idle_mark_ms * 1000
            self.world.schedule(self._mark_at, self._mark_idle, self.life)

    def _mark_idle(self, life: int) -> None:
        if life != self.life:
            return
        now = self.world.now_us
        due = max(self._touched_us + self.config.idle_mark_ms * 1000, self.paused_until)
        if self.syncing or now < due:
            self._mark_at = max(due, now + 1000)
            self.world.schedule(self._mark_at, self._mark_idle, life)
            return
        self._mark_at = FAR_FUTURE_US
        if self.disk_full_from <= now < self.disk_low_until:
            return  # the next sync asks for another one
        self._append_mark()
        self.world.count("idle_mark")
        self.world.observer.on_durable(self.id, self.disk.sync())

    def finish(self) -> None:
        """Steps 3 to 6 of effects.pxd."""
        world = self.world
        engine = self.engine
        engine.durable(self.clock.read(world.now_us))
        self._check_fault()
        ready = engine.effects
        self.send(ready.take_send_after_sync())
        self.send(ready.take_send_now())
        for chosen in ready.take_chosen():
            self.apply(chosen)
        self.reads.take(engine)
        self.reads.serve()
        for frame in ready.take_cold():
            self._to_control(frame)
        if self.inbox or self.mailbox or ready.records or (self.waiting and engine.room):
            self.wake(world.now_us + 1)
        else:
            self.wake(max(self.clock.when(engine.deadline_us), world.now_us + TICK_US_MIN))
        world.after_step(self)

    def _offer(self) -> None:
        """Seal what has gathered, as the batcher does, while the engine has room."""
        limit = self.config.batch_bytes_max
        while self.waiting and self.engine.room:
            commands = [self.waiting.popleft()]
            size = len(commands[0]) + 4
            while self.waiting and size + len(self.waiting[0]) + 4 <= limit:
                size += len(self.waiting[0]) + 4
                commands.append(self.waiting.popleft())
            value = codec.encode_batch(
                commands, origin=self.id, incarnation=self.incarnation, first_ticket=self.next_ticket
            )
            self.next_ticket += len(commands)
            self.engine.offer_batch(value)

    def send(self, frames: list[tuple[int, bytes]]) -> None:
        """Hand frames to the network, past the observer."""
        is_foreign = self.id in self.world.history.foreign
        for _, data in frames:
            self.world.on_send(self, wire.view(Foreign(data) if is_foreign else data))

    def apply(self, chosen: ChosenView) -> None:
        """Feed one chosen slot to the state machine (the observer keeps the hash chain)."""
        if chosen.kind == CHOSEN_SNAPSHOT:
            self.log.trim(chosen.slot)
            self.world.observer.on_installed(self.id, self.incarnation, chosen.slot, chosen.index)
            self.world.trace_event("install", self.id, slot=chosen.slot)
            return
        value = chosen.value
        if value is None:
            value = self.disk.value_at(chosen.position) if chosen.length else b""
        self.world.observer.on_applied(self.id, self.incarnation, chosen, value)
        self.log.values.append((chosen.kind, value))
        self.world.trace_event("apply", self.id, slot=chosen.slot, index=chosen.index, count=chosen.count)

    def _check_fault(self) -> None:
        if self.engine.fault_code:
            self.world.on_engine_fault(self, self.engine.fault_code, self.engine.fault_text)

    @property
    def leads(self) -> bool:
        """True if this node leads, in its own opinion."""
        return self.up and bool(self.engine.is_leader)

    @property
    def leads_firmly(self) -> bool:
        """True if this node leads and something was chosen at its ballot."""
        if not self.leads:
            return False
        ballot = self.engine.glance()["ballot"]
        return ballot in self.world.history.chosen_ballot.values()

    # --- snapshots -------------------------------------------------------------------------------------------

    def trim(self, upto: int) -> None:
        """Make a snapshot of what is applied, durable at once, and ask the reactor to let go up to ``upto``."""
        learner = self.engine.learner_role
        applied = self.world.history.applied_upto[self.id]
        if not applied:
            return
        if self.snapshot is None or self.snapshot.upto < applied:
            config_slot, configuration = self.world.history.configuration_at(applied)
            self.keep_snapshot(
                Snapshot(applied, learner.last_index, learner.sessions.last(), config_slot, configuration)
            )
        if 0 < upto <= applied:
            self.log.trim(upto)
            self.post(messages.Trim(upto=upto))

    def keep_snapshot(self, snapshot: Snapshot) -> None:
        """Make a snapshot durable: data, then rename, then directory; here it takes no time."""
        self.snapshot = snapshot
        self.world.observer.on_snapshot(self.id, snapshot.upto, snapshot.last_index)
        self.world.trace_event("snapshot", self.id, slot=snapshot.upto)

    def fetch_snapshot(self, sender: int) -> None:
        """A peer has trimmed what this node lacks: get a copy of its snapshot, if it is there to give one."""
        peer = self.world.nodes[sender]
        if not self.world.parameters.snapshots or not peer.up or peer.snapshot is None:
            return
        if self.snapshot is None or self.snapshot.upto < peer.snapshot.upto:
            self.world.count("snapshot_fetched")
            self.keep_snapshot(peer.snapshot)
        assert self.snapshot is not None
        self.post(self.snapshot.intent())

    # --- the control thread ----------------------------------------------------------------------------------

    def _to_control(self, frame: bytes) -> None:
        """Queue a cold frame for the control thread, which looks at it a little later, in order."""
        world = self.world
        arrival = max(self._cold_last, world.now_us + world.control_delay_us(), self.control_stalled_until)
        self._cold_last = arrival
        self.control_inbox.append(frame)
        self._wake_control(arrival)

    def _wake_control(self, at_us: int) -> None:
        at_us = max(at_us, self.world.now_us, self.paused_until, self.control_stalled_until)
        if at_us < self._control_at:
            self._control_at = at_us
            self.world.schedule(at_us, self._run_control, self.life, at_us)

    def _run_control(self, life: int, at_us: int) -> None:
        if life != self.life or at_us != self._control_at:
            return
        world = self.world
        now = world.now_us
        self._control_at = FAR_FUTURE_US
        blocked = max(self.paused_until, self.control_stalled_until)
        if now < blocked:
            self._wake_control(blocked)
            return
        for intent in self._ask_control(now):
            self.post(intent)
        deadline = self.control.deadline_us
        if deadline is not None:
            self._wake_control(max(self.clock.when(deadline), now + TICK_US_MIN))

    def _ask_control(self, now: int) -> list[Any]:
        """Feed the control plane; an exception there would end the control thread for good."""
        intents: list[Any] = []
        local_us = self.clock.read(now)
        try:
            while self.control_inbox:
                frame = self.control_inbox.popleft()
                intents.extend(self.control.on_frame(frame, local_us))
                if wire.view(frame).kind == wire.Kind.CHOSEN_GONE:
                    self.fetch_snapshot(wire.view(frame).sender)
            intents.extend(self.control.tick(local_us))
        except Exception as error:
            raise Violation("CONTROL", f"node {self.id}: {type(error).__name__}: {error}") from error
        return intents

    def post(self, intent: Any) -> None:
        """Put an intent into the reactor's mailbox: late, and now and then twice or not at all."""
        world = self.world
        name = type(intent).__name__
        world.count(f"intent_{name.lower()}")
        unreliable = isinstance(intent, UNRELIABLE)
        if unreliable and world.chance(world.parameters.intent_drop):
            world.count("intent_dropped")
            return
        arrival = max(self._intent_last, world.now_us + world.control_delay_us())
        self._intent_last = arrival
        world.schedule(arrival, self._intent_arrives, self.life, intent)
        if unreliable and world.chance(world.parameters.intent_duplicate):
            world.count("intent_duplicated")
            later = arrival + int(world.rng.expovariate(1.0) * 50_000)
            world.schedule(later, self._intent_arrives, self.life, intent)

    def _intent_arrives(self, life: int, intent: Any) -> None:
        if life == self.life:
            self.mailbox.append(intent)
            self.wake(self.world.now_us)
