"""The one bundle in which all effects of the roles leave: :class:`Ready`."""

cimport cython
from libc.stdlib cimport free, realloc


from paxos._core.buffer cimport buffer_bytes, buffer_release
from paxos._core.codec cimport HEADER_BYTES

from typing import NamedTuple


class RecordView(NamedTuple):
    """One entry of the write-ahead log, as Python sees it."""

    kind: int
    value_kind: int
    group: int
    slot: int
    ballot: int
    mark: int
    value_crc: int
    position: int
    value: bytes | None
    length: int = 0

    @property
    def is_damaged(self) -> bool:
        """True for a scanned record whose header is good and whose value is not: it has a length, and no value."""
        return self.value is None and self.length > 0


class ChosenView(NamedTuple):
    """One slot that became known to be chosen, as Python sees it."""

    slot: int
    kind: int
    index: int
    count: int
    origin: int
    incarnation: int
    first_ticket: int
    position: int
    length: int
    value_crc: int
    value: bytes | None


cdef bint reserve(void **items, size_t *capacity, size_t count, size_t item_bytes) noexcept nogil:
    """Make room for one more item; False when memory is out."""
    cdef size_t larger
    cdef void *moved
    if count < capacity[0]:
        return True
    larger = 2 * capacity[0] if capacity[0] else 16
    moved = realloc(items[0], larger * item_bytes)
    if moved == NULL:
        return False
    items[0] = moved
    capacity[0] = larger
    return True


@cython.final
cdef class Ready:
    """The effects that the roles of one node want, in the order in which a driver must carry them out.

    See the head of ``_core/effects.pxd`` for that order. The Python properties copy; they serve the
    simulator, tests and people.
    """

    def __dealloc__(self):
        self.clear_records()
        self.clear_outgoing(&self.send_now)
        self.clear_outgoing(&self.send_after_sync)
        self.clear_outgoing(&self.cold)
        self.clear_chosen()
        free(self.records.items)
        free(self.send_now.items)
        free(self.send_after_sync.items)
        free(self.cold.items)
        free(self.chosen.items)

    cdef void add_record(self, const Record *record) noexcept nogil:
        if not reserve(<void **>&self.records.items, &self.records.capacity, self.records.count, sizeof(Record)):
            buffer_release(record.value)
            self.out_of_memory = True
            return
        self.records.items[self.records.count] = record[0]
        self.records.count += 1

    cdef bint _add_outgoing(self, OutgoingList *outgoing, const Outgoing *item) noexcept nogil:
        if not reserve(<void **>&outgoing.items, &outgoing.capacity, outgoing.count, sizeof(Outgoing)):
            buffer_release(item.payload)
            self.out_of_memory = True
            return False
        outgoing.items[outgoing.count] = item[0]
        outgoing.count += 1
        return True

    cdef void add_now(self, const Outgoing *outgoing) noexcept nogil:
        self._add_outgoing(&self.send_now, outgoing)

    cdef void add_after_sync(self, const Outgoing *outgoing) noexcept nogil:
        self._add_outgoing(&self.send_after_sync, outgoing)

    cdef void add_cold(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef Outgoing item
        item.header = header[0]
        item.payload = payload
        self._add_outgoing(&self.cold, &item)

    cdef void add_chosen(self, const Chosen *chosen) noexcept nogil:
        if not reserve(<void **>&self.chosen.items, &self.chosen.capacity, self.chosen.count, sizeof(Chosen)):
            buffer_release(chosen.value)
            self.out_of_memory = True
            return
        self.chosen.items[self.chosen.count] = chosen[0]
        self.chosen.count += 1

    cdef void clear_records(self) noexcept nogil:
        cdef size_t i
        for i in range(self.records.count):
            buffer_release(self.records.items[i].value)
        self.records.count = 0

    cdef void clear_outgoing(self, OutgoingList *outgoing) noexcept nogil:
        cdef size_t i
        for i in range(outgoing.count):
            buffer_release(outgoing.items[i].payload)
        outgoing.count = 0

    cdef void clear_chosen(self) noexcept nogil:
        cdef size_t i
        for i in range(self.chosen.count):
            buffer_release(self.chosen.items[i].value)
        self.chosen.count = 0

    cdef list _frames(self, OutgoingList *outgoing):
        cdef size_t i
        cdef const Outgoing *item
        frames = []
        for i in range(outgoing.count):
            item = &outgoing.items[i]
            frame = (<const uint8_t *>&item.header)[:HEADER_BYTES]
            if item.payload != NULL:
                frame += buffer_bytes(item.payload)
            frames.append((item.header.receiver, frame))
        self.clear_outgoing(outgoing)
        return frames

    @property
    def records(self) -> list[RecordView]:
        """Log records to append and sync, in order, BEFORE anything of ``send_after_sync`` leaves."""
        cdef size_t i
        cdef const Record *r
        out = []
        for i in range(self.records.count):
            r = &self.records.items[i]
            out.append(RecordView(
                r.kind, r.value_kind, r.group, r.slot, r.ballot, r.mark, r.value_crc, r.position,
                buffer_bytes(r.value) if r.value != NULL else None, r.length,
            ))
        return out

    def set_position(self, index: int, position: int) -> None:
        """Say where record ``index`` lies in the log (what an append does)."""
        if not 0 <= index < <Py_ssize_t>self.records.count:
            raise IndexError(f"record {index} of {self.records.count}")
        self.records.items[<size_t>index].position = position

    def take_send_now(self) -> list[tuple[int, bytes]]:
        """Remove and return ``(receiver, frame)`` pairs that may leave at once."""
        return self._frames(&self.send_now)

    def take_send_after_sync(self) -> list[tuple[int, bytes]]:
        """Remove and return ``(receiver, frame)`` pairs that may leave only AFTER the records are durable."""
        return self._frames(&self.send_after_sync)

    def take_cold(self) -> list[bytes]:
        """Remove and return the frames for the control thread."""
        return [frame for _, frame in self._frames(&self.cold)]

    def take_chosen(self) -> list[ChosenView]:
        """Remove and return the slots that became known to be chosen, in order."""
        cdef size_t i
        cdef const Chosen *c
        out = []
        for i in range(self.chosen.count):
            c = &self.chosen.items[i]
            out.append(ChosenView(
                c.slot, c.kind, c.index, c.count, c.origin, c.incarnation, c.first_ticket, c.position,
                c.length, c.value_crc, buffer_bytes(c.value) if c.value != NULL else None,
            ))
        self.clear_chosen()
        return out

    def take_reads(self) -> tuple[int, int] | None:
        """Remove and return ``(number, mark)``: own reads up to that number may be served once ``mark`` is applied."""
        cdef uint64_t upto = self.reads_upto
        self.reads_upto = 0
        return (upto, self.read_mark) if upto else None

    @property
    def is_empty(self) -> bool:
        """True if nothing waits to be carried out."""
        return (
            self.records.count == 0 and self.send_now.count == 0 and self.send_after_sync.count == 0
            and self.cold.count == 0 and self.chosen.count == 0 and self.reads_upto == 0
        )
