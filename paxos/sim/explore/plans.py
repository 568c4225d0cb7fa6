"""The tiny configurations that are explored: each leaves out something, so that what is left can be done whole."""

from __future__ import annotations

from dataclasses import dataclass

from paxos.sim import wire
from paxos.sim.explore.table import Bounds

Kind = wire.Kind

NO_REFUSALS = frozenset({Kind.NACK})
NO_LEARNING = frozenset({Kind.NACK, Kind.ACCEPTED, Kind.DECIDE})
"""Nobody hears of votes. What is chosen is still known, from the disks; every vote and recovery can still happen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One exploration.

    Attributes:
        about: what it covers, for people.
        states_max: where to stop; ``None``: when every state within the bounds was visited.
        in_ci: small enough to be run with every change.
    """

    name: str
    about: str
    bounds: Bounds
    states_max: int | None = None
    in_ci: bool = False


PLANS = (
    Plan(
        "late",
        "2 ballots; any node crashes at any point; intents to lead come late, twice or never, as does the news of the "
        "restart",
        Bounds(rounds=(1, 1, 0), lost=NO_LEARNING),
        in_ci=True,
    ),
    Plan(
        "crash",
        "3 ballots of 3 nodes; any node crashes at any point",
        Bounds(rounds=(1, 1, 1), lost=NO_LEARNING, is_prompt=True),
        in_ci=True,
    ),
    Plan(
        "ballots",
        "4 ballots of 3 nodes, one of them tries again",
        Bounds(rounds=(2, 1, 1), crashes=0, lost=NO_LEARNING, is_prompt=True),
    ),
    Plan(
        "ballots-crash",
        "the same 4 ballots, and node 2 crashes at any point",
        Bounds(rounds=(2, 1, 1), crashers=(2,), lost=NO_LEARNING, is_prompt=True),
        states_max=1_500_000,
    ),
    Plan(
        "learning",
        "2 ballots, and everything about learning: votes are counted, choices announced, missing values fetched",
        Bounds(rounds=(1, 1, 0), crashes=0, lost=NO_REFUSALS, is_prompt=True),
    ),
    Plan(
        "everything",
        "4 ballots, any node crashes at any point, all frames, refusals too, nothing prompt",
        Bounds(rounds=(2, 1, 1), lost=frozenset()),
        states_max=500_000,
    ),
)
