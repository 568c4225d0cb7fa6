# A Buffer is one immutable run of bytes with an atomic reference count. The bytes of a value live in one
# Buffer from the moment they are sealed or received: it is checksummed, appended, sent to every peer and
# read by `apply`. Whoever stores a Buffer pointer owns one reference; the last release frees it, on any
# thread (ZeroMQ releases on its IO thread).

from libc.stdint cimport int32_t, uint8_t

cdef extern from *:
    """
    #ifndef PAXOS_BUFFER_H
    #define PAXOS_BUFFER_H
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>

    typedef struct PaxosBuffer {
        int32_t references;
        size_t size;
        uint8_t *data;
        void (*on_free)(struct PaxosBuffer *);  /* releases what `owner` holds; NULL: data follows the struct */
        uint64_t owner[8];                      /* room for a zmq_msg_t whose payload `data` points into */
    } PaxosBuffer;

    static inline PaxosBuffer *paxos_buffer_new(size_t size) {
        PaxosBuffer *buffer = (PaxosBuffer *)malloc(sizeof(PaxosBuffer) + size);
        if (buffer != NULL) {
            buffer->references = 1;
            buffer->size = size;
            buffer->data = (uint8_t *)(buffer + 1);
            buffer->on_free = NULL;
        }
        return buffer;
    }
    static inline PaxosBuffer *paxos_buffer_copy(const void *data, size_t size) {
        PaxosBuffer *buffer = paxos_buffer_new(size);
        if (buffer != NULL && size != 0)
            memcpy(buffer->data, data, size);
        return buffer;
    }
    static inline PaxosBuffer *paxos_buffer_retain(PaxosBuffer *buffer) {
        if (buffer != NULL)
            __atomic_fetch_add(&buffer->references, 1, __ATOMIC_RELAXED);
        return buffer;
    }
    static inline void paxos_buffer_release(PaxosBuffer *buffer) {
        if (buffer != NULL && __atomic_fetch_sub(&buffer->references, 1, __ATOMIC_ACQ_REL) == 1) {
            if (buffer->on_free != NULL)
                buffer->on_free(buffer);
            free(buffer);
        }
    }
    #endif
    """
    ctypedef struct Buffer "PaxosBuffer":
        int32_t references
        size_t size
        uint8_t *data
        void (*on_free)(Buffer *) noexcept nogil
        unsigned long long owner[8]

    # One reference for the caller; NULL when memory is out. `buffer_copy` copies `data` in.
    Buffer *buffer_new "paxos_buffer_new"(size_t size) noexcept nogil
    Buffer *buffer_copy "paxos_buffer_copy"(const void *data, size_t size) noexcept nogil
    # Take one more reference and return the argument; give one back. Both allow NULL.
    Buffer *buffer_retain "paxos_buffer_retain"(Buffer *buffer) noexcept nogil
    void buffer_release "paxos_buffer_release"(Buffer *buffer) noexcept nogil


cdef class BufferView:
    """A read-only Python view of a Buffer (buffer protocol); holds one reference."""
    cdef Buffer *buffer
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]


# A view that takes over the caller's reference.
cdef BufferView buffer_view(Buffer *buffer)
# A Buffer with a copy of `data`; raises MemoryError.
cdef Buffer *buffer_from_bytes(const uint8_t[::1] data) except NULL
cdef bytes buffer_bytes(const Buffer *buffer)
