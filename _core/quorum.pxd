# Quorum arithmetic, in one place. A quorum of n members is floor(n/2) + 1 unless a configuration says
# otherwise; any two sizes q1 (prepare) and q2 (accept) with q1 + q2 > n keep agreement (Howard et al.,
# Flexible Paxos). docs/protocol.md numbers the invariants.

from libc.stdint cimport uint64_t

cdef enum:
    MEMBERS_MAX = 63   # members and observers of one configuration


cdef inline int majority(int members) noexcept nogil:
    return members // 2 + 1


# The k-th largest of `count` marks (k from 1): the highest mark that k members have reached; 0 if there are
# fewer than k. Members are few, so an insertion sort on the stack is the fast way.
cdef uint64_t reached_by(const uint64_t *marks, int count, int k) noexcept nogil
