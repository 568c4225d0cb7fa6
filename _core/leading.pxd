# What the control thread asks of the reactor (_core/intent), checked and carried out.

from libc.stdint cimport uint16_t, uint64_t

from paxos._core.intent cimport Intent
from paxos._core.pipeline cimport PipelineCore

cdef class LeadingCore(PipelineCore):
    # Takes the intent over and frees it.
    cdef void on_intent(self, Intent *intent) noexcept nogil

    cdef void _campaign(self, const Intent *intent) noexcept nogil
    cdef bint _somebody_leads(self) noexcept nogil
    cdef void _lead(self, Intent *intent) noexcept nogil
    cdef void _trim(self, uint64_t upto) noexcept nogil
    cdef void _install(self, const Intent *intent) noexcept nogil
    cdef void _transfer(self, uint16_t heir) noexcept nogil
