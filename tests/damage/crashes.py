"""Power loss at every operation of a log: whatever the disk kept of the rest, what was acknowledged is there.

The model of the disk: what was written since the last sync of a file may be lost, kept or torn, sector by sector, in
any order; a new name may be lost until the directory is synced (F4, D9).
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from paxos import failpoints
from paxos._core.effects import RecordKind, RecordView
from paxos._core.log_reader import LogReader
from paxos.errors import StorageError
from paxos.storage.wal import WriteAheadLog
from tests.damage.logs import CLUSTER, NODE, STORAGE, WrongAnswer, record

SECTOR = 512
SUBSETS = 8
Files = dict[str, bytes]


def files_of(log: Path) -> Files:
    """Return name and content of every segment, those that wait for a name included."""
    return {path.name: path.read_bytes() for path in sorted(log.glob("*.segment"))}


class Crashes:
    """A scripted workload on a log of tiny segments, and what every loss of power may leave of it.

    Args:
        directory: for the log.
        seed: of the workload and of the subsets.
    """

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.directory = directory
        self.rng = random.Random(seed)
        self.written: list[RecordView] = []
        self.synced = 0
        self.states: Counter[str] = Counter()
        self._replica = directory / "crashed" / "log"
        self._replica.mkdir(parents=True)
        self._there: Files = {}

    def run(self, steps: int) -> Counter[str]:
        """Do ``steps`` appends, each with its sync, and look at every state that power loss may leave."""
        wal = self._open(create=True)
        durable = files_of(self.directory / "log")
        slot = 0
        for step in range(steps):
            group = []
            for _ in range(self.rng.randint(1, 3)):
                slot += 1
                value = self.rng.randbytes(self.rng.randint(1, 700))
                group.append(record(RecordKind.RECORD_ACCEPT, slot, 1 << 16 | 1, max(slot - 4, 0), value))
            before = wal.stats()["segment"]
            self.written += group
            wal.append(group)
            now = files_of(self.directory / "log")
            if wal.stats()["segment"] != before:
                # All that was written before the new segment was synced before it got its name.
                durable = self._with_new_segment(durable, now)
            self._look_at(durable, now, "append")
            wal.sync()
            self.synced = len(self.written)
            durable = files_of(self.directory / "log")
            self._look(durable, "sync")
            if step % 40 == 39:
                wal = self._crash_in_a_roll(wal)
                durable = files_of(self.directory / "log")
        wal.close(mark=False)
        return self.states

    def _open(self, *, create: bool = False) -> WriteAheadLog:
        wal = WriteAheadLog(
            self.directory, node_id=NODE, cluster=CLUSTER, storage=STORAGE, segment_bytes=8192, create=create
        )
        if not create:
            wal.scan()
        return wal

    def _with_new_segment(self, durable: Files, now: Files) -> Files:
        """Return what is durable when a segment has just been begun: its head, synced under another name before."""
        self._look(durable, "new segment: its name is lost")
        newest = [name for name in now if not name.startswith("ready-")][-1]
        kept = now | {newest: now[newest][:SECTOR] + bytes(len(now[newest]) - SECTOR)}
        self._look(kept, "new segment: it is empty")
        return kept

    def _crash_in_a_roll(self, wal: WriteAheadLog) -> WriteAheadLog:
        """End the life of the log at each step of beginning a segment, and go on behind it."""
        for place in ("segment.begin", "segment.head", "segment.rename", "segment.directory"):
            size = int(wal.stats()["segment_bytes"]) - (int(wal.stats()["appended"]) & 0xFFFFFFFF)
            big = record(RecordKind.RECORD_ACCEPT, 1 << 20, 1 << 16 | 1, 0, bytes(max(size, 100)))
            with failpoints.armed(place, "error(EIO)"):
                try:
                    wal.append([big])
                except StorageError:
                    pass
                else:
                    raise WrongAnswer(f"{place}: the append went through")
            wal.close(mark=False)
            now = files_of(self.directory / "log")
            self._look(now, place)
            # The name, too, may be lost until the directory is synced; nothing in that segment was acknowledged.
            named = [name for name in now if not name.startswith("ready-")]
            if place == "segment.directory":
                self._look({name: data for name, data in now.items() if name != named[-1]}, f"{place}, lost")
            wal = self._open()
        return wal

    def _look_at(self, durable: Files, now: Files, what: str) -> None:
        """Look at what may be left of the change from ``durable`` to ``now``."""
        sectors = [
            (name, at)
            for name, data in now.items()
            for at in range(0, len(data), SECTOR)
            if data[at : at + SECTOR] != durable.get(name, b"")[at : at + SECTOR]
        ]
        self._look(durable, f"{what}: nothing")
        self._look(now, f"{what}: all")
        for cut in sorted({1, len(sectors) // 2, len(sectors) - 1} & set(range(1, len(sectors)))):
            self._look(self._mixed(durable, now, sectors[:cut]), f"{what}: torn")
        for _ in range(SUBSETS):
            chosen = [sector for sector in sectors if self.rng.random() < 0.5]
            self._look(self._mixed(durable, now, chosen), f"{what}: out of order")

    @staticmethod
    def _mixed(durable: Files, now: Files, sectors: list[tuple[str, int]]) -> Files:
        images = {name: bytearray(data) for name, data in durable.items()}
        for name, at in sectors:
            image = images.setdefault(name, bytearray(len(now[name])))
            image[at : at + SECTOR] = now[name][at : at + SECTOR]
        return {name: bytes(image) for name, image in images.items()}

    def _look(self, files: Files, what: str) -> None:
        for name in self._there.keys() - files.keys():
            (self._replica / name).unlink()
        for name, data in files.items():
            if self._there.get(name) != data:
                (self._replica / name).write_bytes(data)
        self._there = dict(files)
        reader = LogReader(self._replica, node_id=NODE, cluster=CLUSTER, storage=STORAGE)
        found = [r for views in reader for r in views if r.position & 0xFFFFFFFF]
        if reader.is_damaged:
            raise WrongAnswer(f"{what}: {reader.damage}")
        values = [(r.slot, r.value) for r in found if r.kind == RecordKind.RECORD_ACCEPT and r.slot < 1 << 20]
        expected = [(r.slot, r.value) for r in self.written]
        if values != expected[: len(values)] or len(values) < self.synced:
            raise WrongAnswer(f"{what}: {len(values)} records are left, {self.synced} were acknowledged")
        self.states[what] += 1
