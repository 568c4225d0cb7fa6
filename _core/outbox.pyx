"""Own batches on their way to being chosen."""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from paxos._core.buffer cimport buffer_release
from paxos._core.codec cimport BatchHead


@cython.final
cdef class Outbox:
    """A queue of sealed batches, oldest first."""

    def __dealloc__(self):
        cdef uint64_t i
        for i in range(self.head, self.tail):
            buffer_release(self.at(i).value)
        free(self.items)

    cdef uint64_t count(self) noexcept nogil:
        return self.tail - self.head

    cdef Pending *at(self, uint64_t place) noexcept nogil:
        return &self.items[place & (self.capacity - 1)]

    cdef bint push(self, Buffer *value, uint32_t crc) noexcept nogil:
        cdef uint64_t larger, i
        cdef Pending *grown
        cdef BatchHead head
        if self.tail - self.head == self.capacity:
            larger = 2 * self.capacity if self.capacity else 64
            grown = <Pending *>malloc(larger * sizeof(Pending))
            if grown == NULL:
                buffer_release(value)
                return False
            for i in range(self.head, self.tail):
                grown[i & (larger - 1)] = self.items[i & (self.capacity - 1)]
            free(self.items)
            self.items = grown
            self.capacity = larger
        memcpy(&head, value.data, sizeof(head))
        self.items[self.tail & (self.capacity - 1)].value = value
        self.items[self.tail & (self.capacity - 1)].crc = crc
        self.items[self.tail & (self.capacity - 1)].last_ticket = head.first_ticket + head.count - 1
        self.tail += 1
        self.held_bytes += value.size
        return True

    cdef void drop_upto(self, uint64_t ticket, uint64_t now_us) noexcept nogil:
        cdef Pending *item
        while self.head < self.tail:
            item = self.at(self.head)
            if item.last_ticket > ticket:
                return
            self.held_bytes -= item.value.size
            buffer_release(item.value)
            self.head += 1
            self.sent_us = now_us
            self.has_moved = True
            if self.sent < self.head:
                self.sent = self.head
