"""The table that makes a batch count once, however often it was proposed."""

cimport cython
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


@cython.final
cdef class Sessions:
    """Last admitted ticket of every origin, as the chosen prefix says."""

    def __dealloc__(self):
        free(self.items)

    cdef Session *find(self, uint16_t origin) noexcept nogil:
        cdef int i
        for i in range(self.count):
            if self.items[i].origin == origin:
                return &self.items[i]
        return NULL

    cdef bint would_admit(self, const BatchHead *head) noexcept nogil:
        cdef Session *session = self.find(head.origin)
        if session == NULL or head.incarnation > session.incarnation:
            return head.first_ticket == 1
        return head.incarnation == session.incarnation and head.first_ticket == session.last_ticket + 1

    cdef int admit(self, const BatchHead *head) noexcept nogil:
        cdef Session *session
        cdef Session *grown
        if not self.would_admit(head):
            return 0
        session = self.find(head.origin)
        if session == NULL:
            if self.count == self.capacity:
                grown = <Session *>realloc(self.items, (self.capacity + 16) * sizeof(Session))
                if grown == NULL:
                    return -1
                self.items = grown
                self.capacity += 16
            session = &self.items[self.count]
            session.origin = head.origin
            self.count += 1
        session.incarnation = head.incarnation
        session.last_ticket = head.first_ticket + head.count - 1
        return 1

    cdef bint copy_from(self, Sessions other) noexcept nogil:
        cdef Session *grown
        if self.capacity < other.count:
            grown = <Session *>realloc(self.items, other.count * sizeof(Session))
            if grown == NULL:
                return False
            self.items = grown
            self.capacity = other.count
        if other.count:
            memcpy(self.items, other.items, other.count * sizeof(Session))
        self.count = other.count
        return True

    cdef bint load(self, const uint8_t *packed, int count) noexcept nogil:
        cdef Session *grown
        cdef int i
        if self.capacity < count:
            grown = <Session *>realloc(self.items, count * sizeof(Session))
            if grown == NULL:
                return False
            self.items = grown
            self.capacity = count
        for i in range(count):
            memcpy(&self.items[i].origin, packed, 2)
            memcpy(&self.items[i].incarnation, packed + 2, 8)
            memcpy(&self.items[i].last_ticket, packed + 10, 8)
            packed += PACKED_SESSION_BYTES
        self.count = count
        return True

    def last(self) -> dict[int, tuple[int, int]]:
        """Return ``{origin: (incarnation, last ticket)}``."""
        return {
            self.items[i].origin: (self.items[i].incarnation, self.items[i].last_ticket)
            for i in range(self.count)
        }
