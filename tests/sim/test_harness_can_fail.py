"""A test harness must be shown to fail: each mutant breaks one rule, and some invariant must say so."""

from __future__ import annotations

import pytest

from paxos.sim.run import run_seed
from paxos.sim.world import World
from tests.sim import mutants
from tests.sim.mutants import world_with

SEEDS = range(40)

MUTANTS: dict[str, tuple[type[World], set[str]]] = {
    "sends_before_sync": (world_with(node=mutants.SendsBeforeSync), {"I6", "I7"}),
    "reuses_incarnation": (world_with(node=mutants.ReusesIncarnation), {"I10", "I4", "I12", "G3"}),
    "forgets_promises": (world_with(node=mutants.ForgetsPromises), {"I6", "I7", "I10", "ENGINE"}),
    "applies_twice": (world_with(node=mutants.AppliesTwice), {"I12"}),
    "leads_without_recovery": (world_with(node=mutants.LeadsWithoutRecovery), {"I2", "I9", "ENGINE"}),
    "hides_votes": (world_with(node=mutants.HidesVotes), {"I2", "I9", "ENGINE"}),
    "forgets_chosen_mark": (world_with(node=mutants.ForgetsChosenMark), {"I2", "I9", "ENGINE"}),
    "loses_synced_records": (world_with(disk=mutants.LosesSyncedRecords), {"I5", "I6"}),
    "wiped": (world_with(disk=mutants.Wiped), {"I5", "I6"}),
    "loses_writes": (world_with(disk=mutants.LosesWrites), {"I6", "I7"}),
    "inflates_accepted": (world_with(network=mutants.InflatesAccepted), {"I6", "I8"}),
    "inflates_decide": (world_with(network=mutants.InflatesDecide), {"I6", "I8"}),
    "changes_accepts": (world_with(network=mutants.ChangesAccepts), {"I1", "I3"}),
    "changes_chosen": (world_with(network=mutants.ChangesChosen), {"I5", "ENGINE"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    world_class, expected = MUTANTS[name]
    for seed in SEEDS:
        violation = run_seed(seed, nodes=3, world_class=world_class).violation
        if violation is not None:
            assert violation.split(":")[0] in expected, f"seed {seed} caught {name} as {violation}"
            return
    pytest.fail(f"{len(SEEDS)} seeds did not notice the mutant {name}")
