"""Quorum sizes and the mark that a quorum has reached."""

cdef uint64_t reached_by(const uint64_t *marks, int count, int k) noexcept nogil:
    cdef uint64_t sorted_marks[MEMBERS_MAX]
    cdef uint64_t mark
    cdef int i, j
    if k < 1 or k > count or count > MEMBERS_MAX:
        return 0
    for i in range(count):
        mark = marks[i]
        j = i
        while j > 0 and sorted_marks[j - 1] < mark:
            sorted_marks[j] = sorted_marks[j - 1]
            j -= 1
        sorted_marks[j] = mark
    return sorted_marks[k - 1]


def size(members: int) -> int:
    """Return the majority of ``members``: 2 of 3, 3 of 4, 3 of 5.

    Raises:
        ValueError: there are no members, or more than 63.

    >>> [size(n) for n in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    if not 1 <= members <= MEMBERS_MAX:
        raise ValueError(f"{members} members; there can be 1 to {MEMBERS_MAX}")
    return majority(members)


def intersects(members: int, prepare_size: int, accept_size: int) -> bool:
    """Tell whether every prepare quorum meets every accept quorum (Flexible Paxos, section 3)."""
    return 1 <= prepare_size <= members and 1 <= accept_size <= members and prepare_size + accept_size > members


def mark_reached_by(marks: list[int], k: int) -> int:
    """Return the highest mark that at least ``k`` of ``marks`` have reached; 0 if there are fewer.

    >>> mark_reached_by([5, 9, 7], 2)
    7
    """
    cdef uint64_t values[MEMBERS_MAX]
    cdef int i
    cdef int count = len(marks)
    if count > MEMBERS_MAX:
        raise ValueError(f"{count} marks; there can be at most {MEMBERS_MAX}")
    for i in range(count):
        values[i] = marks[i]
    return reached_by(values, count, k)
