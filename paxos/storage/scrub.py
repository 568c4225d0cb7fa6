"""Look for damage before it is needed: the closed segments of a running node are read again, slowly (K6).

What rots in an old segment is noticed otherwise only when a peer or an application asks for it, when perhaps the other
copies have rotted, too. Nothing is changed here: a damaged value is marked and fetched from a peer at the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from paxos._core.crc32c import checksum
from paxos._core.log_reader import segment_numbers
from paxos.errors import StorageError

logger = logging.getLogger("paxos")

PAUSE_S = 60.0
"""Between two passes."""
_GENERATION = struct.Struct("<Q")
_HEAD_BYTES, _RECORD_BYTES, _SECTOR = 128, 72, 512
_VALUE_BYTES_MAX = 1 << 28


class Scrub:
    """Reads the closed segments in ``log`` again and again, on a thread of its own.

    Args:
        log: where the segments lie.
        bytes_per_s: how much is read in a second, about.
        open_segment: number of the segment that is written to; it and later ones are left alone.

    Attributes:
        passes: how often all segments were read.
        damaged: what was found, in words, by position.
    """

    def __init__(self, log: Path, bytes_per_s: int, open_segment: Callable[[], int]) -> None:
        self._log = log
        self._bytes_per_s = bytes_per_s
        self._open_segment = open_segment
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.passes = 0
        self.damaged: dict[int, str] = {}

    def start(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._run, name="paxos-scrub", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; before the log is closed."""
        self._end.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.run_once()
            except (
                OSError,
                StorageError,
                struct.error,
            ) as error:  # whatever it is, the log itself will meet it
                logger.warning("the scrub of %s stopped early: %s", self._log, error)
            self._end.wait(PAUSE_S)

    def run_once(self) -> None:
        """Read every closed segment once."""
        for number in segment_numbers(self._log):
            if self._end.is_set() or number >= self._open_segment():
                break
            with contextlib.suppress(FileNotFoundError):  # it was recycled meanwhile
                self._read(number)
        self.passes += 1

    def _read(self, number: int) -> None:
        path = self._log / f"{number:016x}.segment"
        with open(self._log / f"{number + 1:016x}.segment", "rb") as following:
            head = following.read(_HEAD_BYTES)
        (previous_end,) = struct.unpack_from("<Q", head, 88)
        end = previous_end & 0xFFFFFFFF if previous_end >> 32 == number else 0
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            if checksum(head[:-4]) != int.from_bytes(head[-4:], "little"):
                self._found(file.fileno(), path, number << 32, "its head is damaged")
                return
            (generation,) = _GENERATION.unpack_from(head, 24)
            offset = _SECTOR
            while offset < end and not self._end.is_set():
                size = self._record(file.fileno(), path, number << 32 | offset, generation)
                if not size:
                    return
                offset += size
                self._end.wait(size / self._bytes_per_s)

    def _record(self, descriptor: int, path: Path, position: int, generation: int) -> int:
        """Check one record; return its size, or 0 if nothing behind it can be found."""
        offset = position & 0xFFFFFFFF
        head = os.pread(descriptor, _RECORD_BYTES, offset)
        fields = struct.unpack("<IBBHIIQQQQQQII", head) if len(head) == _RECORD_BYTES else None
        if fields is None or fields[0] != checksum(head[4:]) or fields[9:11] != (position, generation):
            self._found(descriptor, path, position, "the header of a record is damaged")
            return 0
        length, slot, value_crc = int(fields[5]), fields[6], fields[12]
        if (
            length <= _VALUE_BYTES_MAX
            and checksum(os.pread(descriptor, length, offset + _RECORD_BYTES)) != value_crc
        ):
            self._found(descriptor, path, position, f"the value of slot {slot} is damaged")
        return _RECORD_BYTES + (length + 7) // 8 * 8

    def _found(self, descriptor: int, path: Path, position: int, what: str) -> None:
        """Keep what was found, unless the file has been given up since and is used for something else."""
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino and position not in self.damaged:
                self.damaged[position] = what
                logger.error(
                    "%s, offset %d: %s. The members have copies: see `paxos log verify`; a restart fetches what is "
                    "damaged, or shows that this member must be replaced", path, position & 0xFFFFFFFF, what,
                )  # fmt: skip
