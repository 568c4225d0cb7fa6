"""How a follower that lags asks for what it missed: one burst at a time, and on as soon as one has ended."""

from __future__ import annotations

from paxos.learner import BURST_SLOTS, Learner, Range

RETRY_US = 90_000


def learner(target: int) -> Learner:
    found = Learner.alone(1, members=(1, 2, 3))
    found.aim(target)
    return found


def test_l7_a_short_burst_is_followed_by_the_next_request_at_once() -> None:
    asking = learner(10)
    assert asking.next_range(0, 2, True, RETRY_US, 0) == Range(2, 1, 10)
    asking.end_burst()  # the peer sent what fits into a burst: slots 1 to 3
    assert asking.next_range(3, 2, False, RETRY_US, 10) == Range(2, 4, 10)


def test_a_request_under_way_is_waited_for_and_then_repeated() -> None:
    asking = learner(10)
    asking.next_range(0, 2, True, RETRY_US, 0)
    assert asking.next_range(3, 2, True, RETRY_US, RETRY_US - 1) is None
    assert asking.next_range(3, 3, True, RETRY_US, RETRY_US) == Range(3, 4, 10)


def test_a_burst_that_brought_nothing_is_not_asked_for_in_a_loop() -> None:
    asking = learner(10)
    asking.next_range(0, 2, True, RETRY_US, 0)
    asking.end_burst()
    assert asking.next_range(0, 2, True, RETRY_US, 10) is None


def test_one_request_covers_a_bounded_number_of_slots_and_the_next_goes_on() -> None:
    asking = learner(2 * BURST_SLOTS)
    assert asking.next_range(0, 2, True, RETRY_US, 0) == Range(2, 1, BURST_SLOTS)
    assert asking.next_range(BURST_SLOTS, 2, False, RETRY_US, 1) == Range(2, BURST_SLOTS + 1, 2 * BURST_SLOTS)
    assert asking.next_range(2 * BURST_SLOTS, 2, False, RETRY_US, 2) is None


def test_nothing_is_asked_for_without_need() -> None:
    asking = learner(5)
    assert asking.next_range(0, 2, False, RETRY_US, 0) is None
    assert asking.next_range(5, 2, True, RETRY_US, 0) is None
    assert asking.next_range(0, 0, True, RETRY_US, 0) is None
