"""What the learner counts is what counting by hand gives, for every number of members up to seven (P10)."""

from __future__ import annotations

import random

import pytest

from paxos._core import ballot as ballots
from paxos.learner import Learner

BALLOTS = [ballots.make(round_number, node) for round_number in (1, 2, 3) for node in (1, 2)]
STRANGERS = [8, 9, 65535]


class Twin:
    """Keeps every vote as it came, and counts anew each time."""

    def __init__(self, members: list[int]) -> None:
        self.members = members
        self.ballot = 0
        self.votes: list[tuple[int, int, int]] = []

    def chosen_upto(self) -> int:
        """The highest slot for which more than half of the members voted at the present ballot."""
        marks = [upto for _, ballot, upto in self.votes if ballot == self.ballot]
        for slot in sorted(marks, reverse=True):
            voters = {m for m, ballot, upto in self.votes if ballot == self.ballot and upto >= slot}
            if 2 * len(voters & set(self.members)) > len(self.members):
                return slot
        return 0


@pytest.mark.parametrize("count", range(1, 8))
def test_p10_the_learner_counts_like_its_twin(count: int) -> None:
    """Votes of any ballot, repeated, reordered, falling back, of members and of strangers."""
    for seed in range(60):
        follow_twin(count, seed)


def follow_twin(count: int, seed: int) -> None:
    """Give a learner and its twin the same random votes."""
    chance = random.Random(seed * 8 + count)
    members = sorted(chance.sample(range(1, 8), count))
    learner = Learner.alone(members[0], members)
    twin = Twin(members)
    for _ in range(120):
        if chance.random() < 0.05 or not twin.ballot:
            ballot = chance.choice([ballot for ballot in BALLOTS if ballot >= twin.ballot])
            # Each leader counts from nothing: what it was told before is of another attempt.
            twin.ballot, twin.votes = ballot, []
            learner.expect(ballot, 1)
        before = twin.chosen_upto()
        vote = (
            chance.choice(members * 3 + STRANGERS),
            chance.choice([*BALLOTS, *[twin.ballot] * 10, ballots.NONE]),
            chance.randrange(20),
        )
        twin.votes.append(vote)
        assert learner.vote(*vote) == (twin.chosen_upto() > before)
        assert learner.counted_upto == twin.chosen_upto()
