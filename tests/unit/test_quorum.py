"""Quorum arithmetic against a brute-force twin (P10)."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from paxos._core import quorum


def brute_mark(marks: tuple[int, ...], k: int) -> int:
    """Return the highest m such that k members reached it: try all of them."""
    return max((m for m in marks if sum(other >= m for other in marks) >= k), default=0)


@pytest.mark.parametrize("count", range(1, 8))
def test_p10_the_mark_of_a_quorum_is_what_counting_says(count: int) -> None:
    """P10: for every size up to 7, every k, and every order of few marks, ties and zeros included."""
    levels = 4 if count <= 5 else 3
    for marks in product(range(levels), repeat=count):
        for k in range(1, count + 1):
            assert quorum.mark_reached_by(list(marks), k) == brute_mark(marks, k)


@pytest.mark.parametrize("count", range(1, 8))
def test_any_two_majorities_meet(count: int) -> None:
    size = quorum.size(count)
    assert all(
        set(a) & set(b) for a in combinations(range(count), size) for b in combinations(range(count), size)
    )
    assert (
        size == 1
        or not all(
            set(a) & set(b)
            for a in combinations(range(count), size - 1)
            for b in combinations(range(count), size - 1)
        )
        or count % 2 == 0
    )  # one less may still meet itself only where n is even
    assert quorum.intersects(count, size, size)


@pytest.mark.parametrize("count", range(1, 8))
def test_flexible_quorums_meet_iff_they_add_up_to_more_than_n(count: int) -> None:
    """Flexible Paxos, section 3: every q1 set meets every q2 set iff q1 + q2 > n."""
    for q1, q2 in product(range(count + 2), repeat=2):
        possible = 1 <= q1 <= count and 1 <= q2 <= count
        meets = possible and all(
            set(a) & set(b) for a in combinations(range(count), q1) for b in combinations(range(count), q2)
        )
        assert quorum.intersects(count, q1, q2) == meets


def test_too_few_marks_reach_nothing() -> None:
    assert quorum.mark_reached_by([9], 2) == quorum.mark_reached_by([9, 8], 0) == 0
    assert quorum.mark_reached_by([], 1) == 0
    assert quorum.mark_reached_by([2**64 - 1, 2**64 - 1, 0], 2) == 2**64 - 1


@pytest.mark.parametrize("members", [0, -1, 64])
def test_sizes_out_of_range_are_refused(members: int) -> None:
    with pytest.raises(ValueError, match="there can be"):
        quorum.size(members)


def test_more_marks_than_members_can_be_are_refused() -> None:
    assert quorum.mark_reached_by([1] * 63, 63) == 1
    with pytest.raises(ValueError, match="at most"):
        quorum.mark_reached_by([1] * 64, 1)
