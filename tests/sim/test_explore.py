"""Every interleaving of tiny clusters: no violation in any state, and every broken rule is found."""

from __future__ import annotations

import re

import pytest

import paxos.sim.explore.__main__ as command
from paxos.sim import wire
from paxos.sim.explore import table
from paxos.sim.explore.plans import NO_LEARNING, NO_REFUSALS, PLANS, Plan
from paxos.sim.explore.replica import Replica
from paxos.sim.explore.search import Outcome, explore
from paxos.sim.explore.table import Bounds, Table
from tests.sim import explore_mutants as mutants

NO_DECIDE = frozenset({wire.Kind.NACK, wire.Kind.DECIDE})


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.in_ci], ids=lambda plan: plan.name)
def test_no_state_of_a_tiny_cluster_breaks_an_invariant(plan: Plan) -> None:
    outcome = explore(plan.bounds)
    assert outcome.violation is None, "\n".join(outcome.trace)
    assert outcome.is_complete and outcome.states >= 50_000
    assert outcome.rechecked > 100, "merged histories were never held against each other"
    assert outcome.ballots == sum(plan.bounds.rounds)


def test_every_state_is_the_same_in_every_run() -> None:
    bounds = Bounds(rounds=(1, 1, 0), crashes=0, lost=NO_LEARNING)
    first, second = explore(bounds), explore(bounds)
    assert (first.states, first.transitions) == (second.states, second.transitions) == (1533, 3600)


CASES: list[tuple[type[Replica], Bounds, str, str]] = [
    (
        mutants.AcceptsBelowItsPromise,
        Bounds((1, 1, 0), crashes=0, lost=NO_LEARNING, is_prompt=True),
        "I6",
        "I2",
    ),
    (mutants.ForgetsPromises, Bounds((1, 1, 0), crashers=(3,), lost=NO_LEARNING), "I6", "I3"),
    (mutants.AnswersBeforeItsSync, Bounds((1, 1, 0), crashers=(3,), lost=NO_LEARNING), "I6", "I2"),
    (mutants.CountsItselfBeforeItsSync, Bounds((1, 0, 0), lost=NO_DECIDE, is_prompt=True), "I8", "I8"),
    (
        mutants.ReportsThePromiseAsItsVote,
        Bounds((2, 2, 0), crashes=0, lost=NO_LEARNING, is_prompt=True),
        "I7",
        "I2",
    ),
    (
        mutants.TakesTheFirstReported,
        Bounds((2, 1, 0), crashes=0, lost=NO_LEARNING, is_prompt=True),
        "I2",
        "I2",
    ),
    (mutants.NeedsNobody, Bounds((1, 1, 0), crashes=0, lost=NO_LEARNING), "I2", "I2"),
    (mutants.BelievesTheMark, Bounds((1, 1, 0), crashes=0, lost=NO_REFUSALS, is_prompt=True), "I8", "I8"),
]


def broken(replica_class: type[Replica], bounds: Bounds, *, checks_claims: bool) -> Outcome:
    nodes = Table(bounds, replica_class=replica_class, checks_claims=checks_claims)
    return explore(bounds, table=nodes, states_max=1_000_000)


@pytest.mark.parametrize(
    ("mutant", "bounds", "claim", "outcome"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_a_broken_rule_is_found(mutant: type[Replica], bounds: Bounds, claim: str, outcome: str) -> None:
    """First by what the node itself says and writes, then only by what becomes of it in the whole cluster."""
    found = broken(mutant, bounds, checks_claims=True)
    assert found.violation is not None and found.violation.startswith(claim), found
    found = broken(mutant, bounds, checks_claims=False)
    assert found.violation is not None and found.violation.startswith(outcome), found
    assert 2 <= len(found.trace) <= 20
    assert all(re.match(r"node \d: ", step) for step in found.trace)


def test_a_key_that_leaves_something_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two local states may be one only if they answer every input alike; that is tried out."""
    whole = Replica.key
    monkeypatch.setattr(Replica, "key", lambda self: whole(self)[:-1])
    monkeypatch.setattr(table, "RECHECK_EVERY", 2)
    with pytest.raises(AssertionError, match="two histories with one key differ"):
        explore(Bounds(rounds=(2, 1, 0), crashes=0, lost=NO_LEARNING, is_prompt=True), states_max=20_000)


def test_the_command_counts_states_and_prints_the_history_of_a_violation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--list"]) == 0
    assert all(f"{plan.name}: {plan.about}" in capsys.readouterr().out for plan in PLANS[:1])
    assert command.main(["--plan", "ballots", "--states", "2000", "--quiet"]) == 0
    assert "0 violations in 2,00" in capsys.readouterr().out
    small = Plan("small", "a mutant", CASES[0][1])
    monkeypatch.setattr(command, "PLANS", (small,))
    monkeypatch.setattr(
        Table.__init__, "__kwdefaults__", {"replica_class": CASES[0][0], "checks_claims": True}
    )
    assert command.main(["--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "I6: node 2 wrote a vote" in printed and "1. node 1: campaigns" in printed
