# The learner's compiled half: which slots are chosen, which commands they carry, what their index is.
#
# Two marks, both contiguous from slot 1:
#   known_upto    chosen, and the chosen value is held here (appended, perhaps not yet durable)
#   chosen_upto   ... and durable here: handed on, reported to peers [h3]
# At the leader the learner also counts the votes: it is the distinguished learner of the paper.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.codec cimport BatchHead
from paxos._core.effects cimport Ready
from paxos._core.peers cimport Peers
from paxos._core.quorum cimport MEMBERS_MAX
from paxos._core.sessions cimport Sessions
from paxos._core.slots cimport SlotTable

cdef class LearnerCore:
    cdef readonly Ready ready
    cdef readonly SlotTable slots
    cdef readonly Peers peers
    cdef readonly Sessions sessions       # after the slots up to chosen_upto
    cdef readonly uint64_t known_upto
    cdef readonly uint64_t chosen_upto
    cdef readonly uint64_t last_index     # index of the last command in the slots up to chosen_upto
    cdef readonly uint64_t config_slot    # newest configuration among the slots up to chosen_upto
    # What the leader of `stream_ballot` announced: values accepted here at that ballot, up to it, are chosen.
    cdef readonly uint64_t stream_ballot
    cdef readonly uint64_t stream_start
    cdef readonly uint64_t announced
    # Votes at `counting_ballot`, by place: every slot in [counting_from, votes] is durable there.
    cdef readonly uint64_t counting_ballot
    cdef readonly uint64_t counting_from
    cdef uint64_t votes[MEMBERS_MAX]
    cdef readonly uint64_t counted_upto   # what q2 members have

    cdef void on_announced(self, uint64_t ballot, uint64_t start, uint64_t upto) noexcept nogil
    cdef void start_counting(self, uint64_t ballot, uint64_t first_slot) noexcept nogil
    # A member's durable mark at `ballot`. True if more slots are chosen by it.
    cdef bint on_accepted(self, uint16_t member, uint64_t ballot, uint64_t upto) noexcept nogil
    # Move known_upto over what is held; call after every step that may have changed it.
    cdef void advance_known(self) noexcept nogil
    # Everything appended is durable: hand on the slots up to known_upto. False when memory is out.
    cdef bint advance_durable(self) noexcept nogil
    # A snapshot holds everything up to `upto`, whose last index is `last_index`; the sessions are loaded apart.
    cdef void start_from(self, uint64_t upto, uint64_t last_index, uint64_t config_slot) noexcept nogil
    # True if `known_upto + 1` was chosen somewhere and only a fetch can bring its value.
    cdef bint has_gap(self) noexcept nogil

    cdef bint _hand_on(self, uint64_t slot) noexcept nogil
