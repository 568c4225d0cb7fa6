# Threads of our own that no signal is ever delivered to: Python's handlers belong to the main thread.

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_join(pthread_t thread, void **result)

# Start a thread named `name`. 0 or an errno.
cdef int start_native_thread(
    pthread_t *thread, void *(*main)(void *) noexcept nogil, void *argument, const char *name
) noexcept nogil
