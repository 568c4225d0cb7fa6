"""The acceptor alone, one test for a rule (Lamport, *Paxos Made Simple*, section 2.2; protocol section 2)."""

from __future__ import annotations

import pytest

from paxos._core import ballot as ballots
from paxos._core.codec import FetchStatus, NackReason, ValueKind, decode_frame
from paxos._core.effects import RecordKind
from paxos.acceptor import Acceptor
from paxos.messages import (
    Accept,
    Accepted,
    Fetch,
    Fetched,
    Message,
    Nack,
    Open,
    Prepare,
    Promise,
    Reported,
    encode,
)
from paxos.proposer import Proposer

LOW, HIGH = ballots.make(1, 1), ballots.make(2, 3)
BATCH = ValueKind.BATCH


def acceptor(page_entries: int = 1024) -> Acceptor:
    return Acceptor(Acceptor.alone(2, (1, 2, 3)).peers, page_entries=page_entries)


def stream(role: Acceptor, ballot: int, start: int, *values: bytes) -> list[Message]:
    """Open a stream and send values; return the last answers."""
    sender = ballots.node_of(ballot)
    answers = role.receive(Open(sender=sender, ballot=ballot, start=start))
    for slot, value in enumerate(values, start):
        answers = role.receive(Accept(sender=sender, ballot=ballot, slot=slot, kind=BATCH, value=value))
    return answers


def reported(role: Acceptor, ballot: int = ballots.make(9, 3)) -> dict[int, int]:
    """Return slot to accepted ballot, as a Promise says."""
    answers = role.receive(Prepare(sender=ballots.node_of(ballot), ballot=ballot))
    return {vote.slot: vote.ballot for page in answers if isinstance(page, Promise) for vote in page.reported}


def test_p1a_a_prepare_above_every_promise_is_promised() -> None:
    """P1a, P1b: it may respond to a prepare request at any time, and promises if the ballot is higher."""
    [promise] = acceptor().receive(Prepare(sender=1, ballot=LOW))
    assert isinstance(promise, Promise) and promise.ballot == LOW and promise.reported == ()


def test_p1a_a_prepare_below_the_promise_is_refused() -> None:
    role = acceptor()
    role.receive(Prepare(sender=3, ballot=HIGH))
    [nack] = role.receive(Prepare(sender=1, ballot=LOW))
    assert nack == Nack(sender=2, ballot=LOW, reason=NackReason.NACK_PROMISED, promised=HIGH)


def test_p1a_a_repeated_prepare_is_answered_again() -> None:
    """Section 2: the Promise may have been lost; nothing is written twice."""
    role = acceptor()
    role.receive(Prepare(sender=1, ballot=LOW))
    role.step(encode(Prepare(sender=1, ballot=LOW), 2))
    assert role.ready.records == []
    role.durable()
    assert len(role.ready.take_send_after_sync()) == 1


def test_p1_the_promise_is_durable_before_it_is_told() -> None:
    """P1, I6, h7: a record of its own; nothing leaves before the sync."""
    role = acceptor()
    role.step(encode(Prepare(sender=1, ballot=LOW), 2))
    assert role.ready.take_send_now() == []
    assert [(record.kind, record.ballot) for record in role.ready.records] == [
        (RecordKind.RECORD_PROMISE, LOW)
    ]


def test_p1_d3_a_refusal_that_names_a_promise_waits_for_it_too() -> None:
    """I6, D3: no frame of any kind reports more than is durable."""
    role = acceptor()
    role.step(encode(Prepare(sender=3, ballot=HIGH), 2))
    role.step(encode(Prepare(sender=1, ballot=LOW), 2))
    assert role.ready.take_send_now() == []


def test_p2_an_accepted_value_is_durable_before_it_is_told() -> None:
    """P2, D2: Accepted comes out of durable(), not out of step()."""
    role = acceptor()
    stream(role, LOW, 1)
    role.step(encode(Accept(sender=1, ballot=LOW, slot=1, kind=BATCH, value=b"v"), 2))
    assert role.ready.take_send_now() == role.ready.take_send_after_sync() == []
    assert role.durable_upto == 0
    role.durable()
    [(receiver, data)] = role.ready.take_send_after_sync()
    assert (receiver, decode_frame(data)["slot"]) == (1, 1)


def test_p4_opening_above_the_promise_raises_it() -> None:
    """P4: accepting promises, with a record of its own before the values (h7)."""
    role = acceptor()
    stream(role, HIGH, 1, b"v")
    assert role.promised == HIGH
    [nack] = role.receive(Prepare(sender=1, ballot=LOW))
    assert isinstance(nack, Nack)


def test_p4_nothing_is_accepted_below_the_promise() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"v")
    role.receive(Prepare(sender=3, ballot=HIGH))
    [nack] = role.receive(Accept(sender=1, ballot=LOW, slot=2, kind=BATCH, value=b"w"))
    assert nack == Nack(sender=2, ballot=LOW, reason=NackReason.NACK_PROMISED, promised=HIGH)
    [nack] = role.receive(Open(sender=1, ballot=LOW, start=1))
    assert isinstance(nack, Nack) and set(reported(role)) == {1}


def test_p5_a_promise_reports_the_ballot_of_each_vote() -> None:
    """P5: promised and accepted are two variables."""
    role = acceptor()
    stream(role, LOW, 1, b"a", b"b")
    stream(role, HIGH, 2, b"c")
    assert reported(role) == {1: LOW, 2: HIGH}


def test_i7_a_promise_describes_the_values() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"abc")
    [promise] = role.receive(Prepare(sender=3, ballot=HIGH))
    assert isinstance(promise, Promise)
    [vote] = promise.reported
    assert isinstance(vote, Reported) and (vote.slot, vote.kind, vote.length) == (1, BATCH, 3)


@pytest.mark.parametrize("page_entries", [1, 2, 3, 7])
def test_p6_a_promise_comes_in_pages_that_lose_no_vote(page_entries: int) -> None:
    """P6, h2: pages of any size, holes in between: each vote is reported exactly once."""
    role = acceptor(page_entries)
    stream(role, LOW, 1, b"1", b"2")
    stream(role, HIGH, 5, b"5", b"6", b"7")
    answers = role.receive(Prepare(sender=3, ballot=ballots.make(9, 3)))
    slots = [vote.slot for page in answers if isinstance(page, Promise) for vote in page.reported]
    assert slots == [1, 2, 5, 6, 7] and len(answers) == -(-5 // page_entries)


def test_a_promise_starts_where_it_was_asked_to() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"1", b"2", b"3")
    answers = role.receive(Prepare(sender=3, ballot=HIGH, from_slot=3))
    assert [v.slot for p in answers if isinstance(p, Promise) for v in p.reported] == [3]


@pytest.mark.parametrize("slot", [2**64 - 1, 2**63])
def test_a_promise_from_a_slot_far_away_is_one_empty_page(slot: int) -> None:
    role = acceptor()
    stream(role, LOW, 1, b"1")
    [promise] = role.receive(Prepare(sender=3, ballot=HIGH, from_slot=slot))
    assert isinstance(promise, Promise) and promise.reported == ()


def test_values_are_taken_in_slot_order_only() -> None:
    """Section 2: slot > next is refused with the slot that is expected; it is asked for once."""
    role = acceptor()
    stream(role, LOW, 1, b"1")
    [nack] = role.receive(Accept(sender=1, ballot=LOW, slot=3, kind=BATCH, value=b"3"))
    assert nack == Nack(sender=2, ballot=LOW, reason=NackReason.NACK_GAP, promised=LOW, expected=2)
    assert role.receive(Accept(sender=1, ballot=LOW, slot=4, kind=BATCH, value=b"4")) == []
    assert set(reported(role)) == {1}


def test_a_value_without_a_stream_is_refused() -> None:
    """Section 2: what was accepted without an Open could be counted without having been sent at this ballot."""
    [nack] = acceptor().receive(Accept(sender=1, ballot=LOW, slot=1, kind=BATCH, value=b"v"))
    assert nack == Nack(sender=2, ballot=LOW, reason=NackReason.NACK_STREAM, promised=0, expected=1)


def test_h17_a_repeated_accept_is_answered_again_and_not_written_again() -> None:
    """h17: the Accepted may have been lost."""
    role = acceptor()
    stream(role, LOW, 1, b"v")
    role.step(encode(Accept(sender=1, ballot=LOW, slot=1, kind=BATCH, value=b"v"), 2))
    assert role.ready.records == []
    role.durable()
    [(_, data)] = role.ready.take_send_after_sync()
    assert decode_frame(data)["slot"] == 1


def test_a_stream_opened_again_at_another_start_forgets_the_old_mark() -> None:
    """Section 2: Open(b, other start) sets the stream anew, upto goes back; the votes stay."""
    role = acceptor()
    stream(role, LOW, 1, b"1", b"2")
    [accepted] = role.receive(Open(sender=1, ballot=LOW, start=2))
    assert accepted == Accepted(sender=2, ballot=LOW, upto=1)
    [accepted] = role.receive(Open(sender=1, ballot=LOW, start=9))
    assert accepted == Accepted(sender=2, ballot=LOW, upto=8)
    assert reported(role) == {1: LOW, 2: LOW}


def test_a_repeated_open_changes_nothing() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"1", b"2")
    [accepted] = role.receive(Open(sender=1, ballot=LOW, start=1))
    assert accepted == Accepted(sender=2, ballot=LOW, upto=2)


def test_one_sync_answers_many_values() -> None:
    """Section 2: Accepted(b, upto) once for all records of one sync."""
    role = acceptor()
    stream(role, LOW, 1)
    for slot in (1, 2, 3):
        role.step(encode(Accept(sender=1, ballot=LOW, slot=slot, kind=BATCH, value=b"v"), 2))
    role.durable()
    [(_, data)] = role.ready.take_send_after_sync()
    assert decode_frame(data)["slot"] == 3


def test_votes_before_a_promise_of_the_same_sync_are_told_in_it() -> None:
    """I7: accept at b, then promise b' > b, one sync: the promise reports the vote."""
    role = acceptor()
    stream(role, LOW, 1)
    role.step(encode(Accept(sender=1, ballot=LOW, slot=1, kind=BATCH, value=b"v"), 2))
    assert reported(role, HIGH) == {1: LOW}


def test_fetch_gives_the_value_of_exactly_that_ballot() -> None:
    role = acceptor()
    stream(role, LOW, 1, b"v")
    [fetched] = role.receive(Fetch(sender=3, slot=1, ballot=LOW))
    assert fetched == Fetched(sender=2, slot=1, ballot=LOW, status=0, kind=BATCH, value=b"v")
    [fetched] = role.receive(Fetch(sender=3, slot=1, ballot=HIGH))
    assert isinstance(fetched, Fetched)
    assert (fetched.status, fetched.value) == (FetchStatus.FETCH_REPLACED, b"")
    # P7, I1: what is held now was accepted at a higher ballot and may be another value.
    stream(role, HIGH, 1, b"w")
    [fetched] = role.receive(Fetch(sender=3, slot=1, ballot=LOW))
    assert isinstance(fetched, Fetched)
    assert (fetched.status, fetched.value) == (FetchStatus.FETCH_REPLACED, b"")


@pytest.mark.parametrize("slot", [0, 2, 2**63, 2**64 - 1])
def test_fetch_of_what_is_not_there_is_answered(slot: int) -> None:
    role = acceptor()
    stream(role, LOW, 1, b"v")
    [fetched] = role.receive(Fetch(sender=3, slot=slot, ballot=LOW))
    assert isinstance(fetched, Fetched) and fetched.status != FetchStatus.FETCH_OK


@pytest.mark.parametrize("start", [2**63, 2**64 - 1])
def test_a_stream_far_away_stores_nothing(start: int) -> None:
    """G9, G10: a slot number cannot eat the memory."""
    role = acceptor()
    stream(role, LOW, start)
    role.receive(Accept(sender=1, ballot=LOW, slot=start, kind=BATCH, value=b"v"))
    assert role.ready.records == [] and role.slots.held() == {}


def test_h5_quarantine_is_silent() -> None:
    """h5: no Promise, no Accepted, not even a refusal."""
    role = acceptor()
    stream(role, LOW, 1, b"v")
    role.quarantine()
    assert role.receive(Prepare(sender=3, ballot=HIGH)) == []
    assert role.receive(Open(sender=3, ballot=HIGH, start=2)) == []
    assert role.receive(Accept(sender=1, ballot=LOW, slot=2, kind=BATCH, value=b"w")) == []
    assert role.promised == LOW


def test_a_happy_acceptor_promises_nothing_to_others() -> None:
    """Section 6, L5: a working leader exists."""
    role = acceptor()
    role.step(encode(Prepare(sender=3, ballot=HIGH), 2), True)
    role.durable()
    [(_, data)] = role.ready.take_send_after_sync()
    assert decode_frame(data)["detail"] == NackReason.NACK_HAPPY and role.promised == 0


def test_a_frame_that_is_not_for_an_acceptor_is_an_error() -> None:
    with pytest.raises(ValueError, match="not for an acceptor"):
        acceptor().step(encode(Accepted(sender=1, ballot=LOW, upto=1), 2))
    with pytest.raises(ValueError, match="valid frame header"):
        acceptor().step(b"\0" * 72)


def test_both_halves_agree_on_a_page() -> None:
    """What the compiled half writes, the Python half of a proposer reads."""
    role = acceptor(2)
    stream(role, LOW, 1, b"1", b"2", b"3")
    proposer = Proposer.alone(3, (1, 2, 3))
    for answer in role.receive(proposer.prepare(9)):
        proposer.receive(answer)
    assert set(proposer.promises[2].votes) == {1, 2, 3} and proposer.promises[2].is_complete
