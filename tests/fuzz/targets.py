"""One function for each place where bytes come in: a value or a documented error, or else it raises.

Every function takes any bytes. What it lets through unharmed is the contract; everything else (another
exception, a hang, memory without a bound) is a bug.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import lmdb

from paxos import messages
from paxos._core import codec
from paxos._core.crc32c import checksum
from paxos._core.log_reader import LogReader
from paxos.errors import PaxosError, StorageError
from paxos.membership import Configuration
from paxos.proposer import Proposer
from paxos.storage import Catalogue, cluster_id
from paxos.storage.catalogue import Located, run_length, unpack
from paxos.storage.directory import Identity
from paxos.types import Config
from tests.unit import wal_kit
from tests.unit.engine_kit import CLUSTER, Cluster

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a sync costs nothing."""
LIFE_FRAMES = 300
HELD_BYTES_MAX = 16 << 20
SMALL = Config(window_slots=8, promise_page_entries=2, window_bytes=1 << 16)
WITHIN_A_NODE = {bytes([kind]) for kind in (codec.FrameKind.ROUND_CLOSED, codec.FrameKind.STOPPED_LEADING)}
"""Frames that the engine makes for its control plane, and takes from nobody."""


class Bed:
    """A node of a cluster that works, cut off and told anything; a new one after a while, or when it stopped.

    Every other one leads.

    Attributes:
        admitted: frames that passed the gate, over all lives.
    """

    def __init__(self) -> None:
        self.taken = self.lives = self.admitted = self.faults = 0
        self._start()

    def _start(self) -> None:
        if self.lives:
            self.admitted += self.node.engine.counters()["frames"] - self._before
        cluster = Cluster(3, SMALL)
        leader = cluster.lead()
        for node in cluster.nodes.values():
            node.propose(b"some", b"more")
        cluster.run(30)
        cluster[leader].propose(b"under way")
        cluster.run(1)
        self.node = cluster[leader if self.lives % 2 else leader % 3 + 1]
        self.now_us = cluster.now_us
        self.lives += 1
        self._life_ends = self.taken + LIFE_FRAMES
        self._before = self.node.engine.counters()["frames"]

    def take(self, data: bytes, *, to_control: bool) -> None:
        """Give the node one frame, as a socket would, and now and then time and its own effects.

        Raises:
            AssertionError: it holds too much, or stopped for a reason that no frame may bring about.
        """
        self.now_us += 200
        self.taken += 1
        node = self.node
        node.engine.step(data, self.now_us)
        if to_control and data[3:4] not in WITHIN_A_NODE:
            node.intents += node.control.on_frame(data, self.now_us)
        if self.taken % 4 == 0:
            node.carry_out(self.now_us)
            for intent in node.intents:
                node.engine.act(intent)
            node.intents = node.control.tick(self.now_us)
            node.engine.tick(self.now_us)
        assert node.engine.glance()["held_bytes"] < HELD_BYTES_MAX
        if (
            node.engine.fault_code
        ):  # the one thing that a member who lies can reach: it contradicts what is chosen
            assert "I3" in node.engine.fault_text, node.engine.fault_text
            self.faults += 1
        if node.engine.fault_code or self.taken >= self._life_ends:
            self._start()


_bed: list[Bed] = []
_FIELDS = struct.Struct("<BBHQQQ")


def decoders(data: bytes) -> None:
    """Every function that reads bytes of a frame or of a value."""
    for decode in (codec.decode_frame, messages.decode, codec.decode_batch, Configuration.decode):
        try:
            decode(data)
        except ValueError:
            pass
    proposer = Proposer.alone(1, (1, 2, 3))
    proposer.prepare(round_number=1)
    try:
        proposer.on_promise(2, 1, proposer.candidate_ballot, 3, data)
        proposer.maybe_lead(3)
    except ValueError:
        pass


def frame(data: bytes) -> None:
    """One frame at a node that lives on: decoders, engine and control plane.

    An even first byte makes a well sealed frame of what follows, so that the search need not find checksums.
    """
    if not _bed:
        _bed.append(Bed())
    bed = _bed[0]
    if data and data[0] % 2 == 0:
        kind, which, detail, ballot, slot, mark = _FIELDS.unpack(
            data[1 : 1 + _FIELDS.size].ljust(_FIELDS.size, b"\0")
        )
        members = [node for node in (1, 2, 3) if node != bed.node.id]
        data = codec.encode_frame(
            kind, sender=members[which % 2], receiver=bed.node.id, cluster=CLUSTER, incarnation=1,
            detail=detail, ballot=ballot, slot=slot, mark=mark, payload=data[1 + _FIELDS.size :],
        )  # fmt: skip
    decoders(data)
    decoders(data[72:])
    bed.take(data, to_control=len(data) % 3 == 0)


_segment: list[bytes] = []


def template() -> bytes:
    """Return a real segment with a few records."""
    if not _segment:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY) as name:
            log = wal_kit.open_log(Path(name), create=True)
            for slot in range(1, 5):
                log.append([wal_kit.promise(slot << 16 | 1), wal_kit.accept(slot, mark=slot - 1)])
                log.sync()
            log.close()
            [path] = wal_kit.segments(Path(name))
            _segment.append(path.read_bytes())
    return _segment[0]


def _with(data: bytes) -> bytes:
    """Return the segment with hostile bytes in it; half of the time under a good checksum."""
    segment = bytearray(template())
    mode = data[0] if data else 0
    offset = int.from_bytes(data[1:3], "little") % 1200
    segment[offset : offset + len(data[3:])] = data[3:]
    record = wal_kit.SEGMENT_HEAD_BYTES + 8 * (mode // 4)
    if mode % 4 == 1 and record + wal_kit.RECORD_HEAD_BYTES <= len(segment):
        wal_kit.reseal(segment, record)
    elif mode % 4 == 2:
        struct.pack_into("<I", segment, 124, checksum(bytes(segment[:124])))
    elif mode % 4 == 3:
        del segment[offset:]
    return bytes(segment)


def wal(data: bytes) -> None:
    """A segment of the log with hostile bytes somewhere in it."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY) as name:
        (Path(name) / f"{1:016x}.segment").write_bytes(_with(data))
        for keep_going in (False, True):
            reader = LogReader(name, keep_going=keep_going)
            records = [record for views in reader for record in views]
            assert all(record.value is None or len(record.value) == record.length for record in records)
            reader.results()


def identity(data: bytes) -> None:
    """The file that says who a data directory belongs to."""
    try:
        Identity.decode(data, Path("identity"))
    except PaxosError:
        pass


IDENTITY = Identity(
    node_id=1, cluster="c", cluster_id=cluster_id("c"), storage="00000000-0000-4000-8000-000000000001"
)


def catalogue(data: bytes) -> None:
    """Entries of the catalogue with hostile bytes, under any key; the pages themselves are LMDB's."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY) as name:
        path = Path(name) / "c"
        Catalogue(path, IDENTITY).close()
        key = data[:8] or b"\0"
        with lmdb.open(os.fspath(path), lib_version=0, max_dbs=8) as raw:
            for database in (b"slots", b"indexes", b"configurations"):
                with raw.begin(write=True, db=raw.open_db(database)) as write:
                    write.put(key, data[8:])
        opened = Catalogue(path, IDENTITY)
        try:
            for ask in (
                opened.last_run,
                opened.first_slot,
                lambda: opened.run_at_slot(1 << 40),
                lambda: opened.run_at_index(1 << 40),
                lambda: opened.configuration_at(1 << 40),
            ):
                try:
                    ask()
                except StorageError:
                    pass
        finally:
            opened.close()
    for at in range(run_length(data)):
        assert isinstance(unpack(data, at), Located)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decoders": decoders,
    "frame": frame,
    "wal": wal,
    "identity": identity,
    "catalogue": catalogue,
}
