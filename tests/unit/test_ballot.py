"""Ballots: integer order is the protocol's order, and it never wraps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos._core import ballot

ROUND_MAX = ballot.MAX >> 16
rounds = st.integers(0, ROUND_MAX)
nodes = st.integers(1, 0xFFFF)


@given(rounds, nodes)
def test_taking_apart_gives_what_was_put_together(round_number: int, node: int) -> None:
    made = ballot.make(round_number, node)
    assert (ballot.round_of(made), ballot.node_of(made)) == (round_number, node)


@given(rounds, nodes, rounds, nodes)
def test_p7_order_is_by_round_then_by_node(r1: int, n1: int, r2: int, n2: int) -> None:
    assert (ballot.make(r1, n1) < ballot.make(r2, n2)) == ((r1, n1) < (r2, n2))


@given(st.integers(0, ROUND_MAX - 1), nodes, nodes)
def test_next_above_is_above_and_owned(round_number: int, node: int, other: int) -> None:
    old = ballot.make(round_number, node)
    new = ballot.next_above(old, other)
    assert new > old
    assert ballot.node_of(new) == other
    assert ballot.round_of(new) == round_number + 1


def test_none_is_below_and_chosen_above_every_ballot() -> None:
    assert ballot.NONE < ballot.make(0, 1)
    assert ballot.make(ROUND_MAX, 0xFFFF) <= ballot.MAX < ballot.CHOSEN


@pytest.mark.parametrize("node", [1, 7, 0xFFFF])
def test_p12_a_used_up_counter_is_refused_and_never_wraps(node: int) -> None:
    last = ballot.make(ROUND_MAX, node)
    with pytest.raises(ValueError, match="round"):
        ballot.next_above(last, node)
    with pytest.raises(ValueError, match="round"):
        ballot.next_above(ballot.MAX, node)


@pytest.mark.parametrize("forged", [2**63 - 1, 2**63, 2**64 - 1])
def test_p12_a_forged_huge_ballot_is_refused(forged: int) -> None:
    with pytest.raises(ValueError, match="round"):
        ballot.next_above(forged, 1)


@pytest.mark.parametrize("node", [-1, 0, 0x10000])
def test_node_ids_outside_the_range_are_refused(node: int) -> None:
    with pytest.raises(ValueError, match="node id"):
        ballot.make(1, node)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_x3_what_does_not_fit_into_64_bits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        ballot.round_of(number)


def test_text_is_for_people() -> None:
    assert ballot.text(ballot.make(12, 3)) == "12.3"
    assert ballot.text(ballot.NONE) == "-"
    assert ballot.text(ballot.CHOSEN) == "chosen"
