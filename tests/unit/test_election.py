"""When to try to lead (protocol section 6)."""

from __future__ import annotations

from random import Random

from paxos.election import GROWTH_MAX, Election
from paxos.types import Config

CONFIG = Config()


def election(seed: int = 1, **fields: int) -> Election:
    return Election(Config(**fields), Random(seed))


def test_the_wait_is_random_and_bounded() -> None:
    """P14: candidates separate."""
    waits = set()
    for seed in range(50):
        tried = election(seed)
        tried.on_round(True, False, 1000)
        assert tried.deadline_us is not None
        waits.add(tried.deadline_us - 1000)
    assert len(waits) > 40 and 0 <= min(waits) <= max(waits) <= CONFIG.backoff_ms_max * 1000


def test_a_wait_goes_on_over_rounds() -> None:
    """It is drawn once: rounds that come meanwhile must not push it back for ever."""
    tried = election()
    tried.on_round(True, False, 1000)
    first = tried.deadline_us
    tried.on_round(True, False, 30_000)
    assert tried.deadline_us == first


def test_it_is_due_once() -> None:
    tried = election()
    tried.on_round(True, False, 0)
    assert tried.deadline_us is not None
    at = tried.deadline_us
    assert not tried.is_due(at - 1) and tried.is_due(at) and not tried.is_due(at)


def test_who_may_no_longer_try_waits_for_nothing() -> None:
    tried = election()
    tried.on_round(True, False, 0)
    tried.on_round(False, True, 1)
    assert tried.deadline_us is None and not tried.is_due(10**9)


def test_p14_failures_make_the_wait_longer_up_to_a_bound() -> None:
    def widest(failures: int) -> int:
        waits = []
        for seed in range(200):
            tried = election(seed)
            for _ in range(failures):
                tried.on_failed(0)
            tried._not_before_us = 0
            tried.on_round(True, False, 0)
            waits.append(tried.deadline_us or 0)
        return max(waits)

    spread = [widest(failures) for failures in (0, 1, 2, GROWTH_MAX, GROWTH_MAX + 5)]
    assert spread[0] < spread[1] < spread[2] < spread[3]
    assert spread[4] <= CONFIG.backoff_ms_max * 1000 // 2 * (1 + GROWTH_MAX)


def test_a_higher_priority_waits_less() -> None:
    low, high = election(priority=0), election(priority=255)
    low.on_round(True, False, 0)
    high.on_round(True, False, 0)
    assert (high.deadline_us or 0) < (low.deadline_us or 0)


def test_somebody_elses_attempt_gets_its_time() -> None:
    tried = election()
    tried.on_round(True, False, 0)
    tried.postpone(0)
    assert tried.deadline_us is not None and tried.deadline_us >= 2 * CONFIG.heartbeat_ms * 1000


def test_h22_who_stopped_because_it_could_not_work_lets_others_go_first() -> None:
    """h22: it waits the longest back-off before it tries again."""
    tried = election()
    tried.on_stopped(0)
    tried.on_round(True, False, 0)
    assert tried.deadline_us is not None and tried.deadline_us >= CONFIG.backoff_ms_max * 1000
