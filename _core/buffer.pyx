"""Reference-counted, immutable runs of bytes shared between the threads of a node."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_WRITABLE


@cython.final
cdef class BufferView:
    def __cinit__(self):
        self.buffer = NULL

    def __dealloc__(self):
        buffer_release(self.buffer)

    def __len__(self) -> int:
        return <Py_ssize_t>self.buffer.size

    def __bytes__(self) -> bytes:
        return buffer_bytes(self.buffer)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("values in the log are read-only")
        self.shape[0] = <Py_ssize_t>self.buffer.size
        self.strides[0] = 1
        view.buf = <void *>self.buffer.data
        view.obj = self
        view.len = self.shape[0]
        view.readonly = 1
        view.itemsize = 1
        view.format = "B"
        view.ndim = 1
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL

    def __releasebuffer__(self, Py_buffer *view):
        pass


cdef BufferView buffer_view(Buffer *buffer):
    cdef BufferView view = BufferView.__new__(BufferView)
    view.buffer = buffer
    return view


cdef Buffer *buffer_from_bytes(const uint8_t[::1] data) except NULL:
    cdef size_t size = data.shape[0]
    cdef Buffer *buffer = buffer_copy(&data[0] if size else NULL, size)
    if buffer == NULL:
        raise MemoryError(f"no memory for a buffer of {size} bytes")
    return buffer


cdef bytes buffer_bytes(const Buffer *buffer):
    return PyBytes_FromStringAndSize(<const char *>buffer.data, <Py_ssize_t>buffer.size)


def copy_of(const uint8_t[::1] data not None) -> BufferView:
    """Return a view of a fresh copy of ``data``.

    >>> bytes(copy_of(b"abc")), len(copy_of(b"abc"))
    (b'abc', 3)
    """
    return buffer_view(buffer_from_bytes(data))
