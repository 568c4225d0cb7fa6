"""Native threads without signals."""

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *old)
    int SIG_SETMASK

cdef extern from "<pthread.h>" nogil:
    int pthread_create(pthread_t *thread, void *attributes, void *(*main)(void *) noexcept nogil, void *argument)
    int pthread_setname_np(pthread_t thread, const char *name)


cdef int start_native_thread(
    pthread_t *thread, void *(*main)(void *) noexcept nogil, void *argument, const char *name
) noexcept nogil:
    cdef sigset_t all_signals
    cdef sigset_t old
    cdef int error
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &old)
    error = pthread_create(thread, NULL, main, argument)
    pthread_sigmask(SIG_SETMASK, &old, NULL)
    if error == 0:
        pthread_setname_np(thread[0], name)
    return error
