"""The proposer: phase 1 in Python, phase 2 compiled (protocol sections 3 and 4)."""

from __future__ import annotations

import struct

import pytest

from paxos._core import ballot as ballots
from paxos._core.codec import FrameKind, NackReason, ValueKind
from paxos.messages import PROMISE_ENTRY, PROMISE_HEAD, Accept, Lead, Open
from paxos.proposer import SLOTS_REPORTED_MAX, Proposer, Wanted
from paxos.types import Config
from tests.unit.engine_kit import KIND, Node, batch, frame, pong, storage_of
from tests.unit.test_engine import leading, open_round

MINE = ballots.make(5, 1)
PATIENT = Config(election_timeout_ms=100_000)
NOOP, BATCH = ValueKind.NOOP, ValueKind.BATCH
A, B, C = ballots.make(1, 2), ballots.make(2, 3), ballots.make(3, 2)


def candidate(members: int = 3, *, needs_all: bool = False) -> Proposer:
    proposer = Proposer.alone(1, range(1, members + 1))
    proposer.start_phase_1(MINE, frozenset(range(1, members + 1)), needs_all=needs_all)
    return proposer


def page(
    votes: dict[int, int], *, number: int = 0, pages: int = 1, report: int = 1, trimmed: int = 0,
    damaged: tuple[int, ...] = (), sender: int = 2, length: int = 0,
) -> bytes:  # fmt: skip
    head = PROMISE_HEAD.pack(trimmed, 0, number, pages, len(votes), report, storage_of(sender))
    return head + b"".join(
        PROMISE_ENTRY.pack(slot, ballot, length, 0, BATCH, int(slot in damaged), 0)
        for slot, ballot in votes.items()
    )


def promise(
    proposer: Proposer, sender: int, votes: dict[int, int] | None = None, chosen: int = 0, life: int = 1,
    **fields: object,
) -> bool:  # fmt: skip
    return proposer.on_promise(sender, life, MINE, chosen, page(votes or {}, sender=sender, **fields))  # type: ignore[arg-type]


# ---- phase 1 ------------------------------------------------------------------------------------------------------


def test_phase_1_needs_a_quorum() -> None:
    proposer = candidate()
    promise(proposer, 1)
    assert proposer.maybe_lead(0) is None
    promise(proposer, 2)
    assert proposer.maybe_lead(0) == Lead(ballot=MINE, first_slot=1, values=())


def test_p10_strangers_repetitions_and_other_ballots_are_no_quorum() -> None:
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 1)
    assert not promise(proposer, 9)
    assert not proposer.on_promise(2, 1, A, 0, page({}))
    assert proposer.maybe_lead(0) is None


def test_p6_a_promise_counts_when_all_its_pages_have_come() -> None:
    """P6: phase 2 does not begin on half a report."""
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2, {1: A}, number=0, pages=2)
    promise(proposer, 2, {1: A}, number=0, pages=2)
    assert proposer.maybe_lead(0) is None
    promise(proposer, 2, {2: A}, number=1, pages=2)
    lead = proposer.maybe_lead(0)
    assert isinstance(lead, Lead) and len(lead.values) == 2


def test_p10_two_pages_of_one_promise_are_not_two_promises() -> None:
    """P10, P6: all that the pages name so far is chosen already, and what the missing one names is not."""
    proposer = candidate()
    promise(proposer, 1, chosen=5)
    promise(proposer, 2, {5: A}, number=0, pages=2)
    assert proposer.maybe_lead(5) is None
    promise(proposer, 2, {6: A}, number=1, pages=2)
    lead = proposer.maybe_lead(5)
    assert isinstance(lead, Lead) and (lead.first_slot, len(lead.values)) == (6, 1)


def test_h2_p6_pages_of_two_reports_never_make_one_promise() -> None:
    """P6, h2: what a page covers depends on what was chosen when it was built."""
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2, {1: A}, number=0, pages=2, report=1)
    promise(proposer, 2, {3: A}, number=1, pages=2, report=2)
    assert proposer.maybe_lead(0) is None
    assert not promise(proposer, 2, {2: A}, number=1, pages=2, report=1)
    promise(proposer, 2, {2: A}, number=0, pages=2, report=2)
    lead = proposer.maybe_lead(0)
    assert isinstance(lead, Lead) and len(lead.values) == 3


def test_p6_pages_of_two_lives_never_make_one_promise() -> None:
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2, {1: A}, number=0, pages=2, report=9, life=1)
    promise(proposer, 2, {2: A}, number=1, pages=2, report=1, life=2)
    assert proposer.maybe_lead(0) is None


def test_p7_the_value_of_the_highest_ballot_is_taken_not_the_most_frequent() -> None:
    """P7: by ballot, not by count nor by order of arrival."""
    proposer = candidate(5)
    for sender, vote in ((2, A), (3, C), (4, A), (1, B)):
        promise(proposer, sender, {1: vote}, length=1)
    assert proposer.maybe_lead(0) == [Wanted(1, C, 3)]
    proposer.on_fetched(1, A, BATCH, b"a")
    proposer.on_fetched(1, C, BATCH, b"c")
    lead = proposer.maybe_lead(0)
    assert isinstance(lead, Lead) and lead.values == ((BATCH, b"c"),)


def test_p7_a_value_reported_as_chosen_ranks_above_every_ballot() -> None:
    proposer = candidate()
    promise(proposer, 1, {1: C}, length=1)
    promise(proposer, 2, {1: ballots.CHOSEN}, length=1)
    assert proposer.maybe_lead(0) == [Wanted(1, ballots.CHOSEN, 2)]


def test_p8_a_gap_is_filled_with_a_no_op() -> None:
    """P8: holes below the highest slot reported get no-ops, before anything new."""
    proposer = candidate()
    promise(proposer, 1, {4: A})
    promise(proposer, 2, {2: B})
    lead = proposer.maybe_lead(0)
    assert isinstance(lead, Lead)
    assert [kind for kind, _ in lead.values] == [NOOP, BATCH, NOOP, BATCH]


@pytest.mark.parametrize("known", ["chosen", "trimmed"])
def test_h1_phase_1_waits_until_the_candidate_knows_what_anybody_reports_as_chosen(known: str) -> None:
    """h1, P13: K is the largest chosen_upto or trimmed in any page, also of an incomplete promise."""
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2)
    fields = {"chosen": 7} if known == "chosen" else {"trimmed": 7}
    promise(proposer, 3, number=0, pages=2, **fields)  # type: ignore[arg-type]
    assert proposer.best_chosen == (7, 3)
    assert proposer.maybe_lead(6) is None
    assert proposer.maybe_lead(7) == Lead(ballot=MINE, first_slot=8, values=())


def test_h6_a_damaged_slot_counts_for_m_and_not_as_sound() -> None:
    """h6: a slot that somebody holds damaged needs a quorum of others."""
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2, {1: A}, damaged=(1,))
    assert proposer.maybe_lead(0) is None
    promise(proposer, 3)
    lead = proposer.maybe_lead(0)
    assert isinstance(lead, Lead) and lead.values == ((NOOP, b""),)


def test_a_value_that_turns_out_damaged_makes_the_promise_unsound() -> None:
    """Section 3.4: damaged: that promise is not sound at x, ask another."""
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2, {1: A}, length=1)
    assert proposer.maybe_lead(0) == [Wanted(1, A, 2)]
    proposer.on_fetch_failed(1, 2)
    assert proposer.maybe_lead(0) is None
    promise(proposer, 3, {1: A}, length=1)
    assert proposer.maybe_lead(0) == [Wanted(1, A, 3)]


def test_h13_before_the_first_configuration_everybody_must_promise() -> None:
    proposer = candidate(needs_all=True)
    promise(proposer, 1)
    promise(proposer, 2)
    assert proposer.maybe_lead(0, (ValueKind.CONFIGURATION, b"c")) is None
    promise(proposer, 3)
    lead = proposer.maybe_lead(0, (ValueKind.CONFIGURATION, b"c"))
    assert isinstance(lead, Lead) and lead.values == ((ValueKind.CONFIGURATION, b"c"),)


def test_h13_a_vote_in_slot_1_goes_before_the_own_configuration() -> None:
    proposer = candidate(needs_all=True)
    for sender in (1, 2):
        promise(proposer, sender)
    promise(proposer, 3, {1: A})
    lead = proposer.maybe_lead(0, (ValueKind.CONFIGURATION, b"c"))
    assert isinstance(lead, Lead) and lead.values == ((BATCH, b""),)


def test_a_new_attempt_forgets_the_old_one() -> None:
    proposer = candidate()
    promise(proposer, 1)
    promise(proposer, 2)
    proposer.start_phase_1(ballots.make(6, 1), frozenset((1, 2, 3)))
    assert proposer.maybe_lead(0) is None
    proposer.abandon()
    assert not proposer.on_promise(2, 1, ballots.make(6, 1), 0, page({}))


@pytest.mark.parametrize("size", [0, 1, PROMISE_HEAD.size - 1])
def test_g10_a_torn_page_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="page"):
        candidate().on_promise(2, 1, MINE, 0, page({})[:size])


@pytest.mark.parametrize("slot", [0, SLOTS_REPORTED_MAX + 1, 2**62, 2**64 - 1])
def test_g10_a_vote_for_a_slot_that_nobody_can_hold_is_refused(slot: int) -> None:
    """G10: one forged number must not make phase 1 fill 2**62 slots."""
    proposer = candidate()
    with pytest.raises(ValueError, match="vote for slot"):
        promise(proposer, 2, {1: A, slot: A})
    assert not proposer.promises


def test_g10_a_page_number_beyond_the_pages_or_a_wrong_count_is_refused() -> None:
    proposer = candidate()
    with pytest.raises(ValueError, match="page"):
        promise(proposer, 2, number=1, pages=1)
    head = struct.pack("<QQIIII16s", 0, 0, 0, 1, 2**32 - 1, 1, bytes(16))
    with pytest.raises(ValueError, match="page"):
        proposer.on_promise(2, 1, MINE, 0, head)


# ---- phase 2 ------------------------------------------------------------------------------------------------------


def test_p11_a_ballot_is_used_once_and_by_its_owner() -> None:
    proposer = Proposer.alone(1, (1, 2, 3))
    proposer.start_phase_2(MINE, 1)
    with pytest.raises(ValueError, match="fresh ballot"):
        proposer.start_phase_2(MINE, 1)
    with pytest.raises(ValueError, match="fresh ballot"):
        proposer.start_phase_2(ballots.make(9, 2), 1)


def test_values_get_consecutive_slots_behind_an_open() -> None:
    proposer = Proposer.alone(1, (1, 2, 3))
    proposer.start_phase_2(MINE, 7)
    assert [proposer.propose(BATCH, b"a"), proposer.propose(BATCH, b"b")] == [7, 8]
    to_2 = [message for receiver, message in proposer.take_messages() if receiver == 2]
    assert to_2 == [
        Open(sender=1, ballot=MINE, start=7),
        Accept(sender=1, ballot=MINE, slot=7, kind=BATCH, value=b"a", chosen_upto=6),
        Accept(sender=1, ballot=MINE, slot=8, kind=BATCH, value=b"b", chosen_upto=6),
    ]


def test_a_first_slot_far_away_takes_no_time() -> None:
    proposer = Proposer.alone(1, (1, 2, 3))
    proposer.start_phase_2(MINE, 2**62)
    assert proposer.propose(BATCH, b"a") == 2**62


def test_g9_the_window_bounds_what_is_unchosen() -> None:
    node, ballot = leading(Config(window_slots=2))
    for ticket in range(1, 6):
        node.step(frame(KIND.FORWARD, 2, 1, payload=batch(2, ticket, b"x")))
    assert node.next_slot == 3
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=2))
    assert node.next_slot == 5


def test_g9_the_backlog_is_bounded_in_bytes() -> None:
    node, _ = leading(Config(window_slots=1, window_bytes=300, batch_bytes_max=100))
    for ticket in range(1, 40):
        node.step(frame(KIND.FORWARD, 2, 1, payload=batch(2, ticket, b"x" * 40)))
    assert node.engine.counters()["refused_forwards"] > 30


def kinds(frames: list[dict[str, object]], receiver: int = 2) -> list[tuple[object, object]]:
    return [(f["kind"], f["slot"]) for f in frames if f["receiver"] == receiver and f["kind"] != KIND.DECIDE]


def nack(ballot: int, reason: int, slot: int) -> bytes:
    return frame(KIND.NACK, 2, 1, ballot=ballot, detail=reason, slot=slot, mark=ballot)


def proposing(count: int = 3) -> tuple[Node, int]:
    """Return a leader that has streamed its no-op and ``count`` batches; member 2 has answered its Open."""
    node, ballot = leading(PATIENT)
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=0))
    for ticket in range(1, count + 1):
        node.step(frame(KIND.FORWARD, 3, 1, payload=batch(3, ticket, b"x")))
    return node, ballot


def test_a_gap_is_sent_again_from_the_slot_that_is_expected() -> None:
    node, ballot = proposing()
    sent = node.step(nack(ballot, NackReason.NACK_GAP, 2))
    assert kinds(sent) == [(FrameKind.ACCEPT, slot) for slot in (2, 3, 4)]


def test_a_lost_stream_is_opened_once_for_any_number_of_refusals() -> None:
    node, ballot = proposing()
    refused = nack(ballot, NackReason.NACK_STREAM, 1)
    sent = node.step(refused, refused, refused)
    assert kinds(sent)[0] == (FrameKind.OPEN, 1) and len(kinds(sent)) == 5


@pytest.mark.parametrize("slot", [0, 5, 2**63, 2**64 - 1])
def test_g10_a_gap_outside_of_what_was_sent_is_ignored(slot: int) -> None:
    node, ballot = proposing()
    assert kinds(node.step(nack(ballot, NackReason.NACK_GAP, slot))) == []


def test_a_refusal_of_another_ballot_is_ignored() -> None:
    """Section 4: a Nack is heeded only for the present ballot."""
    node, _ = proposing()
    assert kinds(node.step(nack(ballots.make(0, 1), NackReason.NACK_STREAM, 1))) == []


def test_a_refusal_is_never_an_acknowledgement() -> None:
    node, ballot = proposing()
    node.step(nack(ballot, NackReason.NACK_GAP, 4))
    assert node.chosen_upto == 0


def test_what_two_rounds_leave_unanswered_is_sent_again() -> None:
    """Section 4: from the Pong's durable mark on; with an Open if its stream is not of this ballot."""
    node, ballot = proposing()
    node.step(frame(KIND.ACCEPTED, 2, 1, ballot=ballot, slot=2))
    sent = []
    for now in range(1, 6):
        number = open_round(node, now * 100_000)
        data = pong(2, 1, round=number, promised=ballot, stream=(ballot, 1, 2), chosen=0)
        sent = node.step(data, now_us=now * 100_000 + 1)
        if kinds(sent):
            break
    assert kinds(sent) == [(FrameKind.ACCEPT, 3), (FrameKind.ACCEPT, 4)] and now <= 4
    for now in range(6, 10):
        number = open_round(node, now * 100_000)
        sent = node.step(pong(2, 1, round=number, promised=ballot), now_us=now * 100_000 + 1)
        if kinds(sent):
            break
    assert kinds(sent)[0] == (FrameKind.OPEN, 3)


@pytest.mark.parametrize("upto", [2**63, 2**64 - 1])
def test_g10_a_pong_with_a_mark_beyond_everything_is_no_vote(upto: int) -> None:
    node, ballot = proposing()
    for now in range(1, 8):
        number = open_round(node, now * 100_000)
        node.step(
            pong(2, 1, round=number, promised=ballot, stream=(ballot, 1, upto)), now_us=now * 100_000 + 1
        )
    assert node.chosen_upto == 0
