"""Phase 1 with pages of promises that were built at different moments (P6, h2)."""

from __future__ import annotations

from paxos._core import ballot as ballots
from paxos._core.codec import ValueKind
from paxos._core.peers import Peers
from paxos.messages import Lead
from paxos.proposer import Proposer
from paxos.sim import wire

OLD = ballots.make(1, 3)
BALLOT = ballots.make(2, 1)


def page(number: int, pages: int, report: int, slots: list[int]) -> bytes:
    head = wire.PROMISE_HEAD.pack(0, 1, number, pages, len(slots), report, bytes(16))
    return head + b"".join(wire.PROMISE_ENTRY.pack(slot, OLD, 0, 0, ValueKind.NOOP, 0, 0) for slot in slots)


def candidate() -> Proposer:
    proposer = Proposer(Peers(1, {1: None, 2: None, 3: None}))
    proposer.start_phase_1(BALLOT, frozenset({1, 2, 3}))
    assert proposer.on_promise(1, 1, BALLOT, 1, page(0, 1, 1, []))
    return proposer


def test_h2_p6_pages_of_two_reports_never_make_one_promise() -> None:
    # Between the two reports slot 1 became chosen at node 2, so the second one begins a slot later:
    # its last page and the first page of the other leave out slot 3.
    proposer = candidate()
    proposer.on_promise(2, 1, BALLOT, 0, page(0, 2, 1, [1, 2]))
    proposer.on_promise(2, 1, BALLOT, 1, page(1, 2, 2, [4]))
    assert proposer.maybe_lead(1) is None
    proposer.on_promise(2, 1, BALLOT, 1, page(0, 2, 2, [2, 3]))
    lead = proposer.maybe_lead(1)
    assert isinstance(lead, Lead)
    assert (lead.first_slot, len(lead.values)) == (2, 3)


def test_p6_a_late_page_of_an_older_report_does_not_count() -> None:
    proposer = candidate()
    proposer.on_promise(2, 1, BALLOT, 1, page(0, 2, 2, [2, 3]))
    assert not proposer.on_promise(2, 1, BALLOT, 0, page(1, 2, 1, [3, 4]))
    assert proposer.maybe_lead(1) is None


def test_p3_a_page_of_an_earlier_incarnation_does_not_count() -> None:
    proposer = candidate()
    proposer.on_promise(2, 7, BALLOT, 1, page(0, 2, 1, [2]))
    assert not proposer.on_promise(2, 6, BALLOT, 1, page(1, 2, 9, [3]))
    assert proposer.maybe_lead(1) is None
