"""A test harness must be shown to fail: each mutant breaks one rule, and some invariant must say so."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from paxos.sim import parameters as swarm
from paxos.sim.run import run_seed
from paxos.sim.world import World
from tests.sim import mutants
from tests.sim.mutants import world_with

SEEDS = range(160)

MUTANTS: dict[str, tuple[type[World], set[str]]] = {
    "sends_before_sync": (world_with(node=mutants.SendsBeforeSync), {"I6", "I7"}),
    "reuses_incarnation": (world_with(node=mutants.ReusesIncarnation), {"I10", "I4", "I12", "I17", "G3"}),
    "forgets_promises": (world_with(node=mutants.ForgetsPromises), {"I6", "I7", "I10", "ENGINE"}),
    "applies_twice": (world_with(node=mutants.AppliesTwice), {"I12"}),
    "leads_without_recovery": (world_with(node=mutants.LeadsWithoutRecovery), {"I17", "I2", "I9", "ENGINE"}),
    "hides_votes": (world_with(node=mutants.HidesVotes), {"I2", "I9", "ENGINE"}),
    "forgets_chosen_mark": (world_with(node=mutants.ForgetsChosenMark), {"I2", "I9", "ENGINE"}),
    "loses_synced_records": (world_with(disk=mutants.LosesSyncedRecords), {"I5", "I6"}),
    "wiped": (world_with(disk=mutants.Wiped), {"I4", "I5", "I6"}),
    "loses_writes": (world_with(disk=mutants.LosesWrites), {"I6", "I7"}),
    "inflates_accepted": (world_with(network=mutants.InflatesAccepted), {"I6", "I8"}),
    "inflates_decide": (world_with(network=mutants.InflatesDecide), {"I6", "I8"}),
    "changes_accepts": (world_with(network=mutants.ChangesAccepts), {"I1", "I3"}),
    "changes_chosen": (world_with(network=mutants.ChangesChosen), {"I5", "ENGINE"}),
}

# Faults that the rule is about, at a rate at which a few seeds meet them.
DAMAGE = {"flipped_header": 0.7, "victim_crash_rate": 4.0, "rot": 0.0, "wipe": 0.0}
UNDER_FAULTS: dict[str, tuple[type[World], set[str], dict[str, float]]] = {
    "votes_in_quarantine": (world_with(node=mutants.VotesInQuarantine), {"H5"}, DAMAGE),
    "syncs_again": (world_with(node=mutants.SyncsAgain), {"I6", "I7", "I8"}, {"disk_error_rate": 3.0}),
    "talks_when_poisoned": (world_with(node=mutants.TalksWhenPoisoned), {"D8"}, {"disk_error_rate": 3.0}),
    "drops_when_full": (world_with(node=mutants.DropsWhenFull), {"I6", "I7", "I8"}, {"disk_full_rate": 3.0}),
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


@pytest.mark.parametrize("name", UNDER_FAULTS)
def test_mutant_is_caught_under_its_fault(name: str) -> None:
    world_class, expected, overrides = UNDER_FAULTS[name]
    for seed in range(200):
        parameters = replace(swarm.draw(random.Random(seed), 3), **overrides)
        violation = run_seed(seed, parameters=parameters, world_class=world_class).violation
        if violation is not None:
            assert violation.split(":")[0] in expected, f"seed {seed} caught {name} as {violation}"
            return
    pytest.fail(f"200 seeds did not notice the mutant {name}")
