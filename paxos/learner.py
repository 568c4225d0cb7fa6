"""The learner: compiled marks below, catch-up in Python above.

A follower that missed values asks a peer for chosen ones (``FETCH_CHOSEN``), one burst at a time, and asks on
until it has reached what it heard of. The values come back to the reactor, which records them as chosen; they
do not pass through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paxos._core.learner import LearnerCore
from paxos._core.peers import Peers

BURST_SLOTS = 512
BURST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """Slots to ask ``node_id`` for, both ends included."""

    node_id: int
    first: int
    last: int


class Learner(LearnerCore):
    """The learner of one node, with the catch-up of a follower that lags."""

    _target: int = 0
    _asked: Range | None = None
    _asked_us: int = 0
    _burst_ended: bool = False
    misses: int = 0
    """Requests in a row that brought nothing."""

    def aim(self, upto: int) -> None:
        """Remember that the log is chosen up to ``upto`` somewhere."""
        self._target = max(self._target, upto)

    def next_range(
        self, chosen_upto: int, peer: int, is_lagging: bool, retry_us: int, now_us: int
    ) -> Range | None:
        """Return what to ask for now, or ``None`` while nothing is missing or an answer is still expected.

        Args:
            chosen_upto: known here.
            peer: whom to ask.
            is_lagging: this node does not advance by itself; otherwise only a running catch-up goes on.
            retry_us: how long an answer is waited for.
            now_us: the time.
        """
        asked, self._asked = self._asked, None
        has_ended, self._burst_ended = self._burst_ended, False
        if asked is not None:
            # A burst may end before what was asked for: peers send at most BURST_BYTES at a time.
            if chosen_upto >= asked.first:
                self.misses = 0
            if chosen_upto >= asked.last or (has_ended and chosen_upto >= asked.first):
                is_lagging = True
            elif now_us < self._asked_us + retry_us:
                self._asked = asked
                return None
            elif chosen_upto < asked.first:
                self.misses += 1
        if not peer or not is_lagging or chosen_upto >= self._target:
            return None
        self._asked = Range(peer, chosen_upto + 1, min(self._target, chosen_upto + BURST_SLOTS))
        self._asked_us = now_us
        return self._asked

    def end_burst(self) -> None:
        """Note that the last value of a burst has come: what is still missing may be asked for at once."""
        self._burst_ended = True

    @classmethod
    def alone(cls, node_id: int, members: Iterable[int]) -> Learner:
        """Return a learner without a node around it; see :meth:`expect` and :meth:`vote`.

        >>> learner = Learner.alone(1, members=(1, 2, 3))
        >>> learner.expect(65537, first_slot=1)
        >>> learner.vote(1, 65537, 1), learner.vote(3, 65537, 1), learner.counted_upto
        (False, True, 1)
        """
        return cls(Peers(node_id, dict.fromkeys(members)))
