"""When to try to lead: randomised back-off on top of quorum-connectivity.

The heartbeat rounds (``_core/heartbeat``) say *whether* this node may try: it is connected to a quorum, it is
not happy with a leader, and nobody whom it hears is. This class says *when*: after a random part of the
back-off, which grows with failures, so that duelling candidates separate (L5, P14). Ballots are never raised
because a higher one was heard of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paxos.types import Config

if TYPE_CHECKING:
    from random import Random

GROWTH_MAX = 4
ROUND_SEEN_PERIODS = 4
"""Heartbeat periods after which a round that began later has closed: one until it begins, three at most open."""


class Election:
    """The back-off of one candidate. Times are microseconds of one monotonic clock.

    Args:
        config: ``backoff_ms_max``, ``heartbeat_ms`` and ``priority`` are used.
        random: injected, so that a simulated run can be repeated.

    Attributes:
        patience_us: how long the rounds wait for answers at present, as the last summary told.
    """

    def __init__(self, config: Config, random: Random) -> None:
        self._random = random
        self._backoff_us = config.backoff_ms_max * 1000 // 2
        self._heartbeat_us = config.heartbeat_ms * 1000
        self._priority = config.priority
        self._failures = 0
        self._not_before_us = 0
        self.patience_us = 0
        self.deadline_us: int | None = None

    def attempt_us(self, least_us: int) -> int:
        """Return how long the next attempt may take: longer where answers were slow, and after failures.

        An attempt needs the sync of this node and then that of its peers, each of which may have to end another
        one first.
        """
        return max(least_us * (1 + self._failures), 2 * self.patience_us)

    def _round_seen_us(self) -> int:
        """Return the time after which a round that began later has closed."""
        return max(ROUND_SEEN_PERIODS * self._heartbeat_us, self._heartbeat_us + self.patience_us)

    def on_round(self, may_try: bool, is_happy: bool, now_us: int) -> None:
        """Take in how a heartbeat round ended."""
        if is_happy:
            self._failures = 0
        if not may_try:
            self.deadline_us = None
        elif self.deadline_us is None:
            self.deadline_us = max(now_us, self._not_before_us) + self._draw()

    def postpone(self, now_us: int) -> None:
        """Somebody else has begun to try: give it time to succeed, and to be seen leading.

        Where a member is cut off, a round takes three periods, and the next one begins up to one later: until
        then this node would still believe that nobody leads, and depose the new leader.
        """
        self._not_before_us = max(self._not_before_us, now_us + self._round_seen_us())
        if self.deadline_us is not None:
            self.deadline_us = self._not_before_us + self._draw()

    def on_lead(self, now_us: int) -> None:
        """Phase 1 is complete: do not try again before a round that began after it can show who leads.

        Without this, a round that closed just before the reactor acted still says "nobody leads", and the
        new leader would depose itself.
        """
        self.deadline_us = None
        self._not_before_us = max(self._not_before_us, now_us + self._round_seen_us())

    def on_failed(self, now_us: int) -> None:
        """An own attempt failed: wait longer before the next."""
        self._failures = min(self._failures + 1, GROWTH_MAX)
        self.deadline_us = None
        self._not_before_us = now_us + self._draw()

    def on_stopped(self, now_us: int) -> None:
        """This node stopped leading because it could not work: others go first."""
        self.deadline_us = None
        self._not_before_us = now_us + 2 * self._backoff_us

    def is_due(self, now_us: int) -> bool:
        """True once, when the wait is over; the caller then starts phase 1."""
        if self.deadline_us is None or now_us < self.deadline_us:
            return False
        self.deadline_us = None
        return True

    def _draw(self) -> int:
        width = self._backoff_us * (1 + self._failures)
        wait = self._random.randrange(width)
        return wait * (256 - self._priority) // 256
