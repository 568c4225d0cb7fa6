"""Seeds that run in every build: no invariant may break, and the seeds together must have met every fault."""

from __future__ import annotations

import pytest

from paxos.sim.coverage import Coverage
from paxos.sim.run import run_seed

SEEDS_IN_A_GROUP = 15
GROUPS = 24


@pytest.mark.parametrize("group", range(GROUPS))
def test_f1_f2_f5_f13_seeds_break_no_invariant(group: int) -> None:
    first = group * SEEDS_IN_A_GROUP
    for seed in range(first, first + SEEDS_IN_A_GROUP):
        result = run_seed(seed)
        assert result.violation is None, (
            f"seed {seed}: {result.violation}\nreproduce: python -m paxos.sim --seed {seed}"
        )


def test_a_run_of_seeds_meets_every_fault_and_frame() -> None:
    coverage = Coverage()
    for seed in range(1000, 1600):
        coverage.add([run_seed(seed)])
        if seed % 10 == 9 and not coverage.missing():
            break
    assert coverage.missing() == []
