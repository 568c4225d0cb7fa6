# Restart: the write-ahead log is replayed into the engine without Python objects for its records.

from paxos._core.effects cimport Record
from paxos._core.engine cimport EngineCore

# One record of the log, in log order; 0, or a fault that ends the replay. Values of slots that are handed on are
# let go: they are read from the log again when they are applied.
cdef int replay_into(EngineCore engine, const Record *record) noexcept nogil
