"""The chosen log: values by slot, commands by index.

The apply thread appends what was chosen, in slot order; anybody reads. Values stay where the write-ahead log
put them; only their places are kept here: the newest in memory, the rest in the catalogue.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from paxos._core import codec
from paxos.errors import InvariantViolation, StorageError
from paxos.storage.catalogue import (
    ITEM_BYTES,
    RUN_SLOTS_MAX,
    Catalogue,
    Located,
    pack,
    run_length,
    unpack,
)
from paxos.types import Entry

FLUSH_SLOTS = 8 * RUN_SLOTS_MAX
"""Slots kept in memory before they go to the catalogue by themselves."""
UNWRITTEN_SLOTS_MAX = 1 << 20
"""Slots kept in memory while the catalogue cannot be written (disk full); beyond it the log stops."""

Reader = Callable[[int, int, int], bytes]
"""``(position, length, value_crc) -> value``, checked."""


class ChosenSlot(Protocol):
    """What is appended: one chosen slot, as the reactor or the simulator hands it on."""

    @property
    def slot(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def value_crc(self) -> int: ...


class SlotReader(Protocol):
    """What catch-up needs from a log."""

    @property
    def first_slot(self) -> int: ...
    @property
    def last_slot(self) -> int: ...
    def read_slots(
        self, first_slot: int, last_slot: int, limit_bytes: int
    ) -> list[tuple[int, int, bytes]]: ...


class _Log:
    """Reading by slot and by index, over whatever knows where a slot lies."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._last_slot = 0
        self._next_index = 1
        self._first_slot = 1

    @property
    def first_slot(self) -> int:
        """The lowest slot that can be read; 1 until trimming exists."""
        return self._first_slot

    @property
    def last_slot(self) -> int:
        """The highest slot that was appended; 0 if none."""
        return self._last_slot

    @property
    def last_index(self) -> int:
        """The index of the last command; 0 if none."""
        return self._next_index - 1

    def _locate(self, slot: int) -> Located:
        raise NotImplementedError

    def _slot_of_index(self, index: int) -> int:
        raise NotImplementedError

    def _place(self, item: ChosenSlot) -> Located:
        """Return where the item lies, counting indexes: a slot without commands gets the next one's index."""
        if item.slot != self._last_slot + 1:
            raise InvariantViolation(
                f"I11: slot {item.slot} follows slot {self._last_slot} in the chosen log"
            )
        count = item.count if item.index else 0
        if item.index and item.index != self._next_index:
            raise InvariantViolation(
                f"I11: index {item.index} in slot {item.slot}, expected {self._next_index}"
            )
        return Located(item.position, self._next_index, item.length, item.value_crc, count, item.kind)

    def _value(self, slot: int, item: Located) -> bytes:
        return self._read(item.position, item.length, item.value_crc) if item.length else b""

    def read_slots(self, first_slot: int, last_slot: int, limit_bytes: int) -> list[tuple[int, int, bytes]]:
        """Return ``(slot, kind, value)`` for the slots that are here, in order.

        Stops before ``limit_bytes`` is exceeded, but returns at least one slot; stops before a slot whose
        value
        is damaged on this disk.

        Raises:
            StorageError: the first of them is damaged.
        """
        slots: list[tuple[int, int, bytes]] = []
        taken = 0
        for slot in range(max(first_slot, self._first_slot), min(last_slot, self._last_slot) + 1):
            item = self._locate(slot)
            if slots and taken + item.length > limit_bytes:
                break
            try:
                value = self._value(slot, item)
            except StorageError:
                if not slots:
                    raise
                break
            taken += item.length
            slots.append((slot, item.kind, value))
        return slots

    def entries(self, start_index: int, stop_index: int) -> Iterator[Entry]:
        """Yield the commands with ``start_index <= index < stop_index`` that are here, in order.

        Raises:
            StorageError: a value is damaged on this disk.
        """
        index = max(start_index, 1)
        if index >= stop_index or index > self.last_index:
            return
        slot = self._slot_of_index(index)
        while index < stop_index and slot <= self._last_slot:
            item = self._locate(slot)
            if item.command_count:
                commands = codec.decode_batch(self._value(slot, item))[3]
                for command in commands[index - item.first_index : stop_index - item.first_index]:
                    yield Entry(index, slot, bytes(command))
                    index += 1
            slot += 1

    def read_index(self, index: int) -> Entry:
        """Return the command with this index.

        Raises:
            IndexError: there is none, or not yet, on this node.
            StorageError: its value is damaged on this disk.
        """
        if not 1 <= index <= self.last_index:
            raise IndexError(f"index {index} is not in the log, which holds 1 to {self.last_index}")
        for entry in self.entries(index, index + 1):
            return entry
        raise StorageError(f"index {index} is missing between its neighbours; run `paxos log verify`")


class ChosenLog(_Log):
    """The chosen log of a node on disk.

    Args:
        read: gives a value by ``(position, length, value_crc)``; the write-ahead log's ``read_value``.
        catalogue: where places go; may already hold a prefix of the log.
        log_end: position behind the last record of the write-ahead log.

    Raises:
        StorageError: the catalogue knows of values behind the end of the log, which was cut or rolled back.
    """

    def __init__(self, read: Reader, catalogue: Catalogue, *, log_end: int | None = None) -> None:
        super().__init__(read)
        self._catalogue = catalogue
        self._lock = threading.Lock()  # of the three below
        self._run: bytearray = bytearray()
        self._run_slot = 1
        self._cached: tuple[int, bytes] | None = None
        self._tail: tuple[int, bytes] | None = None  # the last run in the catalogue, while it may still grow
        last = catalogue.last_run()
        if last is None:
            return
        first_slot, run = last
        item = unpack(run, run_length(run) - 1)
        places = (unpack(run, at).position for at in range(run_length(run)))
        if log_end is not None and max(places) >= log_end:
            raise StorageError(
                f"slot {first_slot + run_length(run) - 1} had been written behind the present end of "
                "the log: the log was cut, or restored from an older copy. This node must not vote: "
                "replace it under a new id"
            )
        self._last_slot = first_slot + run_length(run) - 1
        self._next_index = item.first_index + item.command_count
        self._run_slot = self._last_slot + 1
        self._tail = last
        self._first_slot = catalogue.first_slot()

    def append(self, items: Iterable[ChosenSlot], *, flush: bool = True) -> None:
        """Take over chosen slots, in order; those that are already here are passed over.

        Args:
            items: of one thread at a time.
            flush: write to the catalogue when much has gathered; only the one thread that flushes may ask for it.
        """
        for item in items:
            if item.slot <= self._last_slot:
                continue
            located = self._place(item)
            with self._lock:
                self._run += pack(located)
                self._last_slot = item.slot
                self._next_index = located.first_index + located.command_count
        if flush and self.unwritten_slots >= FLUSH_SLOTS:
            self.flush()

    @property
    def unwritten_slots(self) -> int:
        """Slots that are only in memory; after a crash they come back from the write-ahead log."""
        return self._last_slot + 1 - self._run_slot

    def flush(self) -> None:
        """Write what is in memory to the catalogue. Apply thread only, when it has nothing better to do.

        Raises:
            StorageError: the catalogue cannot be written and too much waits in memory.
        """
        with self._lock:
            run, first_slot = bytes(self._run), self._run_slot
        if not run:
            return
        end = first_slot + run_length(run)
        if self._tail is not None and run_length(self._tail[1]) < RUN_SLOTS_MAX:
            first_slot, run = self._tail[0], self._tail[1] + run
        size = ITEM_BYTES * RUN_SLOTS_MAX
        runs = [
            (first_slot + RUN_SLOTS_MAX * (at // size), run[at : at + size])
            for at in range(0, len(run), size)
        ]
        try:
            self._catalogue.add_runs(runs)
        except StorageError:
            if self.unwritten_slots >= UNWRITTEN_SLOTS_MAX:
                raise
            return
        self._tail = runs[-1]
        with self._lock:
            del self._run[: ITEM_BYTES * (end - self._run_slot)]
            self._run_slot = end

    def _locate(self, slot: int) -> Located:
        with self._lock:
            if slot >= self._run_slot:
                return unpack(self._run, slot - self._run_slot)
            cached = self._cached
        if cached is None or not cached[0] <= slot < cached[0] + run_length(cached[1]):
            cached = self._catalogue.run_at_slot(slot)
            if cached is None or slot >= cached[0] + run_length(cached[1]):
                raise StorageError(
                    f"slot {slot} is missing in the catalogue: delete it, and start again; it is rebuilt"
                )
            with self._lock:
                self._cached = cached
        return unpack(cached[1], slot - cached[0])

    def _slot_of_index(self, index: int) -> int:
        with self._lock:
            found = (
                (self._run_slot, bytes(self._run))
                if self._run and unpack(self._run, 0).first_index <= index
                else None
            )
        if found is None:
            found = self._catalogue.run_at_index(index)
        if found is None:
            raise StorageError(
                f"index {index} is missing in the catalogue: delete it, and start again; it is rebuilt"
            )
        first_slot, run = found
        # Slots without commands share the index of the next one: the last of equals holds the command.
        offset = bisect_right(range(run_length(run)), index, key=lambda at: unpack(run, at).first_index) - 1
        return first_slot + max(offset, 0)


class MemoryLog(_Log):
    """The in-memory twin of :class:`ChosenLog`, for the simulator and tests.

    Args:
        read: gives a value that an appended item does not carry (``item.value is None``).
    """

    def __init__(self, read: Reader | None = None) -> None:
        super().__init__(read if read is not None else self._nowhere)
        self._items: list[Located] = []
        self._values: list[bytes | None] = []

    @staticmethod
    def _nowhere(position: int, length: int, value_crc: int) -> bytes:
        raise StorageError(f"the value at position {position} ({length} bytes) was not kept")

    def append(self, items: Iterable[ChosenSlot]) -> None:
        """Take over chosen slots, in order; those that are already here are passed over."""
        for item in items:
            if item.slot <= self._last_slot:
                continue
            located = self._place(item)
            value: bytes | None = getattr(item, "value", None)
            self._items.append(located)
            self._values.append(value)
            self._last_slot = item.slot
            self._next_index = located.first_index + located.command_count

    def flush(self) -> None:
        """Do nothing: there is no disk."""

    def _value(self, slot: int, item: Located) -> bytes:
        value = self._values[slot - 1]
        return super()._value(slot, item) if value is None else value

    def _locate(self, slot: int) -> Located:
        return self._items[slot - 1]

    def _slot_of_index(self, index: int) -> int:
        return bisect_right(self._items, index, key=lambda item: item.first_index)
