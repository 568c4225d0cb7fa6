"""Restart: replay a write-ahead log into an engine, natively and with bounded memory."""

from paxos._core.buffer cimport buffer_release
from paxos._core.effects cimport Record
from paxos._core.engine cimport EngineCore
from paxos._core.log_reader cimport LogReader
from paxos._core.pipeline cimport FAULT_MEMORY
from paxos._core.wal cimport Wal


cdef int replay_one(void *context, const Record *record) noexcept nogil:
    return replay_into(<EngineCore>context, record)


cdef int replay_into(EngineCore engine, const Record *record) noexcept nogil:
    cdef size_t handed_on = engine.ready.chosen.count
    engine.recover(record)
    # Chosen values are read from the log again when they are applied: a long log would not fit into memory.
    for handed_on in range(handed_on, engine.ready.chosen.count):
        buffer_release(engine.ready.chosen.items[handed_on].value)
        engine.ready.chosen.items[handed_on].value = NULL
    if engine.ready.out_of_memory or engine.fault:
        return FAULT_MEMORY
    return 0


def examine(LogReader reader not None, EngineCore engine not None) -> int:
    """Replay a log into the engine as far as ``reader`` goes, without changing anything on disk.

    Returns 0, or the errno that ended it; ``EUCLEAN``: damage that may hide promises.
    """
    cdef int status
    cdef void *context = <void *>engine
    with nogil:
        status = reader.run(replay_one, context)
        reader.release()
        if status == 0 or reader.keep_going:
            engine.finish_recovery()
    return status


def recover(Wal wal not None, EngineCore engine not None) -> int:
    """Replay the whole log into the engine and return how many slots are known to be chosen.

    The first replay of a log cuts its torn tail; without it nothing can be appended.

    Raises:
        StorageError: damage that may hide promises; nothing was changed.
        MemoryError: what is accepted and not known to be chosen does not fit.
    """
    cdef int status
    cdef void *context = <void *>engine
    with nogil:
        status = wal.scan(replay_one, context)
        if status == 0:
            engine.finish_recovery()
    if engine.ready.out_of_memory:
        raise MemoryError("the log's accepted values do not fit into memory")
    wal._check(status, "reading the log")
    return engine.learner.chosen_upto
