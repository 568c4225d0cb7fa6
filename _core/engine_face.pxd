# The Python face of the engine: for the simulator, for tests, and for setting a node up. The reactor uses
# EngineCore alone.

from paxos._core.engine cimport EngineCore


cdef class EngineFace(EngineCore):
    cdef int _check(self) except -1
