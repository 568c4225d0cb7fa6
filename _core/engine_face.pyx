"""The engine as Python drives it: the same object that the reactor drives natively."""

from libc.string cimport memcpy, memset
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer, buffer_from_bytes, buffer_release
from paxos._core.codec cimport HEADER_BYTES, BatchHead, FrameHeader, batch_valid, header_valid
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport (
    QUARANTINE_DAMAGED, QUARANTINE_DUPLICATE, QUARANTINE_IDENTITY, QUARANTINE_LOST, QUARANTINE_ROLLED_BACK, Ready,
    Record,
)
from paxos._core.pipeline cimport FAULT_CONTRADICTION, FAULT_DISK, FAULT_MEMORY, FAULT_NONE, FAULT_RECOVERY
from paxos._core.engine cimport EngineCore
from paxos._core.intent cimport intent_from_python

from paxos._core.ballot import text as ballot_text

FAULT_TEXTS = {
    FAULT_NONE: "",
    FAULT_DISK: "the disk refused an append or a sync; the node has stopped voting and must be restarted",
    FAULT_MEMORY: "memory is out",
    FAULT_CONTRADICTION: "I3: a leader proposed another value in a slot that is known to be chosen",
    FAULT_RECOVERY: "the log does not hold a value that it says is chosen",
}

QUARANTINE_TEXTS = {
    QUARANTINE_DAMAGED: "its log is damaged where it may have held promises or votes",
    QUARANTINE_LOST: "a part of its log is gone",
    QUARANTINE_IDENTITY: "its identity was damaged, and taken from its log",
    QUARANTINE_ROLLED_BACK: "the other members remember more of it than its directory does: an older copy was restored",
    QUARANTINE_DUPLICATE: "another process runs, or ran a moment ago, with a copy of its directory",
}


cdef class EngineFace(EngineCore):
    """:class:`EngineCore` with Python methods; times are microseconds of one monotonic clock."""

    cdef int _check(self) except -1:
        if self.ready.out_of_memory:
            raise MemoryError("no memory for the effects of a step")
        return 0

    def step(self, const uint8_t[::1] frame not None, now_us: int) -> bool:
        """Take one frame (header and payload together). False if it is no frame at all."""
        cdef FrameHeader header
        cdef Buffer *payload = NULL
        if frame.shape[0] < HEADER_BYTES or not header_valid(&frame[0], HEADER_BYTES):
            return False
        memcpy(&header, &frame[0], HEADER_BYTES)
        if frame.shape[0] > HEADER_BYTES:
            payload = buffer_from_bytes(frame[HEADER_BYTES:])
        self.on_frame(&header, payload, now_us)
        buffer_release(payload)
        self._check()
        return True

    def tick(self, now_us: int) -> None:
        """Let time pass: heartbeat rounds open and close, what got lost is sent again."""
        self.on_tick(now_us)
        self._check()

    def offer_batch(self, const uint8_t[::1] value not None) -> None:
        """Take one own sealed batch (``codec.encode_batch``). Call it only while :attr:`room`.

        Raises:
            ValueError: not a batch sealed by this node in this incarnation.
        """
        cdef BatchHead head
        if value.shape[0] == 0 or not batch_valid(&value[0], value.shape[0], &head):
            raise ValueError(f"{value.shape[0]} bytes that are not a complete batch")
        if head.origin != self.peers.node_id or head.incarnation != self.peers.incarnation:
            raise ValueError(f"the batch was sealed by node {head.origin}, incarnation {head.incarnation}")
        self.offer(buffer_from_bytes(value), crc32c(0, &value[0], value.shape[0]))
        self._check()

    def read(self, upto: int, now_us: int) -> None:
        """Say that the own reads numbered up to ``upto`` have arrived; ``effects.take_reads()`` tells their mark.

        Numbers count the reads of this incarnation: 1, 2, 3 ...; one call may stand for many readers.
        """
        self.on_read(upto, now_us)
        self._check()

    def act(self, intent: object) -> None:
        """Carry out an intent of :mod:`paxos.messages`, or drop it if it is stale."""
        self.on_intent(intent_from_python(intent))
        self._check()

    def durable(self, now_us: int) -> None:
        """Say that all of ``ready.records`` is durable (also when there are none): the step after the sync."""
        self.advance(now_us)
        self._check()

    def disk_failed(self) -> None:
        """Say that an append or a sync failed: this node never votes, answers or leads again."""
        self.poison()

    def disk_low(self, is_low: bool) -> None:
        """Say whether little disk space is left: then this node takes nothing new and does not vote in heartbeats."""
        self.is_disk_low = is_low

    def recover_record(self, record: object) -> None:
        """Replay one record of the log (an ``effects.RecordView``), in log order, before anything else."""
        cdef Record native
        memset(&native, 0, sizeof(native))
        native.kind = record.kind
        native.value_kind = record.value_kind
        native.group = record.group
        native.slot = record.slot
        native.ballot = record.ballot
        native.mark = record.mark
        native.value_crc = record.value_crc
        native.position = record.position
        native.length = record.length    # with no value: damaged
        if record.value:
            native.value = buffer_from_bytes(record.value)
            native.length = <uint32_t>native.value.size
        self.recover(&native)
        buffer_release(native.value)
        self._check()

    def quarantine(self, reason: int) -> None:
        """Never vote again in this identity (an ``effects.QuarantineReason``): only learn, and serve what is chosen.

        In force at once, and durable with the next sync (``RECORD_QUARANTINE``), so that a restart remembers it.
        Before :meth:`recover_record` it says that records may be missing: a ``RECORD_GAP`` among the records then
        marks where.
        """
        if not 1 <= reason <= 0xFFFF:
            raise ValueError(f"{reason} is no reason for a quarantine")
        self.enter_quarantine(reason)
        self._check()

    def recovered(self) -> None:
        """Say that the whole log was replayed."""
        self.finish_recovery()
        self._check()

    @property
    def effects(self) -> Ready:
        """What the node wants done; see ``_core/effects.pxd`` for the order."""
        return self.ready

    @property
    def deadline_us(self) -> int:
        """When :meth:`tick` wants to be called next."""
        return self.next_deadline_us()

    @property
    def room(self) -> bool:
        """True if another own batch may be offered now."""
        return self.has_room()

    @property
    def is_leader(self) -> bool:
        """True while this node leads and its own acceptor has promised nothing higher."""
        return self.proposer.ballot != 0

    @property
    def leader(self) -> int:
        """Node id of the leader that this node follows, itself included; 0 if it knows none."""
        return self.heartbeat.leader & 0xFFFF

    @property
    def fault_code(self) -> int:
        """0, or why the engine stopped for good."""
        return self.fault

    @property
    def fault_text(self) -> str:
        """The fault in words; empty if there is none."""
        text = FAULT_TEXTS[self.fault]
        return f"{text} (slot {self.fault_slot})" if self.fault_slot else text

    def counters(self) -> dict[str, int]:
        """Return how often what happened since the start; the names say what."""
        return {
            "frames": self.count.frames,
            "wrong_cluster": self.count.wrong_cluster,
            "wrong_receiver": self.count.wrong_receiver,
            "unknown_sender": self.count.unknown_sender,
            "wrong_storage": self.count.wrong_storage,
            "unverified": self.count.unverified,
            "refused_hellos": self.count.refused_hellos,
            "refusals": self.count.refusals,
            "no_votes": self.count.no_votes,
            "broken": self.count.broken,
            "unknown_kind": self.count.unknown_kind,
            "stale_intents": self.count.stale_intents,
            "elections": self.count.elections,
            "step_downs": self.count.step_downs,
            "forwarded": self.count.forwarded,
            "refused_forwards": self.count.refused_forwards,
            "read_rounds": self.count.read_rounds,
            "reads_confirmed": self.count.reads_confirmed,
            "refused_reads": self.count.refused_reads,
            "refused_accepts": self.acceptor.refused,
        }

    def glance(self) -> dict[str, object]:
        """Return the marks of this node. Plain numbers, each consistent in itself: safe to read from any thread."""
        return {
            "node_id": self.peers.node_id,
            "incarnation": self.peers.incarnation,
            "config_slot": self.peers.config_slot,
            "is_leader": self.proposer.ballot != 0,
            "ballot": self.proposer.ballot,
            "leader": self.heartbeat.leader & 0xFFFF,
            "leader_ballot": self.heartbeat.leader,
            "promised": self.acceptor.promised,
            "promised_durable": self.acceptor.promised_durable,
            "stream_ballot": self.acceptor.stream_ballot,
            "stream_start": self.acceptor.stream_start,
            "stream_next": self.acceptor.stream_next,
            "durable_upto": self.acceptor.durable_upto,
            "durable_ballot": self.acceptor.durable_ballot,
            "known_upto": self.learner.known_upto,
            "chosen_upto": self.learner.chosen_upto,
            "last_index": self.learner.last_index,
            "next_slot": self.proposer.next_slot,
            "own_noop_slot": self.proposer.own_noop_slot,
            "is_connected": bool(self.heartbeat.is_connected),
            "is_happy": bool(self.heartbeat.is_happy),
            "is_candidate": bool(self.heartbeat.is_candidate),
            "is_quarantined": bool(self.acceptor.is_quarantined),
            "quarantine": QUARANTINE_TEXTS.get(self.acceptor.quarantine_reason, "") if self.acceptor.is_quarantined else "",
            "quarantine_reason": self.acceptor.quarantine_reason,
            "is_settling": bool(self.is_settling),
            "heard": self.heartbeat.heard,
            "round": self.heartbeat.round,
            "trimmed": self.acceptor.trimmed,
            "outbox_batches": self.outbox.count(),
            "held_bytes": self.slots.held_bytes,
            "slots_base": self.slots.base,
            "fault": self.fault_text,
        }

    def answered(self) -> dict[int, dict[str, int]]:
        """Return who has answered the present heartbeat round, by node id; safe to read from any thread."""
        return self.heartbeat.answered()

    def inspect(self) -> dict[str, object]:
        """Return everything a person or an invariant checker wants to know. Not while a reactor drives it."""
        seen = self.glance()
        seen["accepted"] = self.slots.held()
        seen["sessions"] = self.learner.sessions.last()
        seen["members"] = self.peers.members()
        seen["promised_text"] = ballot_text(self.acceptor.promised)
        return seen
