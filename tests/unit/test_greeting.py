"""What members remember of each other: a directory that was rolled back or runs twice never votes [S3, S4, h5]."""

from __future__ import annotations

import struct
from typing import Any

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos._core.codec import HelloFlag, RefuseReason
from paxos._core.effects import QuarantineReason, RecordKind
from paxos.engine import Engine
from paxos.messages import Campaign, Configure
from paxos.types import Config
from tests.unit.engine_kit import CLUSTER, KIND, Node, frame, hello, ping, pong, storage_of

HELLO = struct.Struct("<HHI16sQQQQ")
REFUSE = struct.Struct("<QQQQQII")
NONCE = 0xABCDEF


def greeting(
    sender: int = 2, *, incarnation: int = 1, nonce: int = 7, promised: int = 0, position: int = 0, answers: int = 0,
    flags: int = 0, life: int = 0,
) -> bytes:  # fmt: skip
    payload = HELLO.pack(1, 1, flags, storage_of(sender, life), nonce, answers, promised, position)
    return frame(KIND.HELLO, sender, 1, incarnation=incarnation, payload=payload)


def refusal(
    reason: int, *, sender: int = 2, incarnation: int = 1, nonce: int = NONCE, life: int = 1
) -> bytes:
    payload = REFUSE.pack(incarnation, nonce, 9, 9, 9, reason, 0)
    return frame(KIND.REFUSE, sender, 1, incarnation=life, payload=payload)


def engine(nonce: int = NONCE, incarnation: int = 1) -> Any:
    members = dict.fromkeys((1, 2, 3))
    return Engine(1, CLUSTER, incarnation, storage_of(1), members, Config(), nonce=nonce)


def node(records: tuple[Any, ...] = ()) -> Any:
    """Return node 1 with a nonce of its own, as production gives it one."""
    made = Node(1)
    made.disk = list(records)
    made.engine = engine()
    for record in records:
        made.engine.recover_record(record)
    made.engine.recovered()
    made.carry_out(0)
    return made


def refused(answers: list[dict[str, Any]]) -> list[int]:
    """Return why the sender was refused, if it was."""
    return [REFUSE.unpack(f["payload"])[5] for f in answers if f["kind"] == KIND.REFUSE]


def vote(one: Any, incarnation: int, round: int = 0) -> int:
    """Let member 2 answer the present round as a voter; return how many voters are counted."""
    one.engine.tick(10_000_000 + 1_000_000 * incarnation)
    one.carry_out(10_000_000 + 1_000_000 * incarnation)
    data = pong(2, 1, round=one.engine.glance()["round"], incarnation=incarnation)
    one.step(data, now_us=10_000_000 + 1_000_000 * incarnation)
    answered: int = one.engine.answered().get(2, {"flags": 0})["flags"]
    return answered


def seen(
    incarnation: int = 5, nonce: int = 50, promised: int = 300, position: int = 9000, bound: bool = False
) -> Any:
    """Return node 1, which has seen so much of member 2."""
    one = node()
    if bound:
        one.engine.act(Configure(slot=1, members={n: storage_of(n) for n in (1, 2, 3)}))
    one.step(greeting(incarnation=incarnation, nonce=nonce))
    assert one.engine.counters()["refused_hellos"] == 0
    one.step(pong(2, 1, round=1, incarnation=incarnation, promised=promised, position=position))
    return one


def silence(one: Any) -> Any:
    """Let so much time pass that member 2 counts as gone."""
    for now in range(1, 8):
        one.engine.tick(now * 1_000_000)
        one.carry_out(now * 1_000_000)
    return one


def test_s4_an_incarnation_that_goes_back_is_refused() -> None:
    answers = silence(seen()).step(greeting(incarnation=4, nonce=40))
    assert refused(answers) == [RefuseReason.REFUSE_ROLLED_BACK]
    # Whatever else it shows: no life of a directory comes before another one that has been.
    answers = silence(seen()).step(greeting(incarnation=4, nonce=40, promised=301, position=9001))
    assert refused(answers) == [RefuseReason.REFUSE_ROLLED_BACK]


def test_s3_an_older_process_beside_a_later_one_is_refused() -> None:
    assert refused(seen().step(greeting(incarnation=4, nonce=40))) == [RefuseReason.REFUSE_DUPLICATE]


def test_s4_an_incarnation_that_comes_again_is_refused() -> None:
    one = seen()
    assert refused(one.step(greeting(incarnation=5, nonce=51))) == [RefuseReason.REFUSE_DUPLICATE]
    assert refused(one.step(greeting(incarnation=5, nonce=50))) == []


def test_s4_a_later_start_that_shows_a_lower_promise_or_a_shorter_log_is_refused() -> None:
    """The number of starts since the copy hides the old incarnation; the marks do not lie."""
    for promised, position in ((299, 9000), (300, 8999)):
        answers = seen().step(greeting(incarnation=9, nonce=90, promised=promised, position=position))
        assert refused(answers) == [RefuseReason.REFUSE_ROLLED_BACK]
    assert refused(seen().step(greeting(incarnation=9, nonce=90, promised=300, position=9000))) == []


def test_s4_a_member_without_marks_of_an_older_release_is_taken() -> None:
    one = seen()
    one.step(hello(2, 1, incarnation=9))
    assert one.engine.counters()["refused_hellos"] == 0


def test_s3_neither_of_two_processes_with_one_identity_votes_here() -> None:
    """Nothing tells their frames apart, so nothing counts until a start with a new incarnation."""
    one = seen()
    one.step(greeting(incarnation=5, nonce=51))
    before = one.engine.counters()["no_votes"]
    one.step(frame(KIND.ACCEPTED, 2, 1, incarnation=5, ballot=ballots.make(1, 1), slot=1))
    assert one.engine.counters()["no_votes"] == before + 1
    one.step(greeting(incarnation=6, nonce=60, promised=300, position=9000))
    one.step(frame(KIND.ACCEPTED, 2, 1, incarnation=6, ballot=ballots.make(1, 1), slot=1))
    assert one.engine.counters()["no_votes"] == before + 1


def test_h13_a_directory_that_is_bound_to_nothing_yet_may_be_replaced() -> None:
    """What the wiped one had shown is no measure for the new one: no start of a cluster is spoilt by it."""
    for incarnation in (4, 5, 6):  # numbers of two directories have nothing to do with each other
        for before in (seen(), silence(seen())):
            answers = before.step(greeting(incarnation=incarnation, nonce=40, life=1))
            assert refused(answers) == [] and before.engine.counters()["refused_hellos"] == 0
            assert vote(before, incarnation)


def test_h13_late_frames_of_a_wiped_directory_refuse_nobody() -> None:
    one = seen()
    one.step(greeting(incarnation=4, nonce=40, life=1))
    one.step(greeting(incarnation=5, nonce=50, life=0))  # on its way for long
    one.engine.tick(1_000_000)
    one.carry_out(1_000_000)
    answers = one.step(ping(2, 1, incarnation=4), now_us=1_000_001)
    assert [f["kind"] for f in answers] == [KIND.HELLO], "who is it?"
    assert refused(one.step(greeting(incarnation=4, nonce=40, life=1))) == []
    assert vote(one, 4)


def noted(one: Any) -> list[Any]:
    """Let node 1 write down what it has seen of member 2; return its disk."""
    now = 50_000_000
    one.engine.tick(now - 1_000_000)
    one.carry_out(now - 1_000_000)
    one.engine.step(frame(KIND.PREPARE, 2, 1, incarnation=5, ballot=ballots.make(2, 2), slot=1), now)
    one.engine.tick(now)
    one.carry_out(now)
    disk: list[Any] = one.disk
    assert [r.slot for r in disk if r.kind == RecordKind.RECORD_PEER] == [5]
    return disk


def test_h13_a_note_about_a_wiped_directory_says_nothing_about_the_next() -> None:
    later = node(tuple(noted(seen())))
    assert refused(later.step(greeting(incarnation=4, nonce=40, life=1))) == []
    same = node(tuple(noted(seen())))
    assert refused(same.step(greeting(incarnation=4, nonce=40))) == [RefuseReason.REFUSE_ROLLED_BACK]


def test_s1_what_another_storage_has_shown_is_not_held_against_the_one_that_is_bound() -> None:
    one = seen()
    one.engine.act(Configure(slot=1, members={n: storage_of(n, life=int(n == 2)) for n in (1, 2, 3)}))
    assert refused(one.step(greeting(incarnation=4, nonce=40, life=1))) == []
    assert refused(one.step(greeting(incarnation=5, nonce=50))) == [RefuseReason.REFUSE_STORAGE]


def test_s3_a_process_that_was_superseded_is_told_so_once_a_round() -> None:
    one = seen(bound=True)
    one.engine.tick(1_000_000)
    one.carry_out(1_000_000)
    told = [refused(one.step(ping(2, 1, incarnation=4), now_us=1_000_001)) for _ in range(3)]
    assert told == [[RefuseReason.REFUSE_DUPLICATE], [], []]


def test_s4_what_was_seen_outlives_a_restart() -> None:
    one = seen()
    one.step(frame(KIND.PREPARE, 2, 1, incarnation=5, ballot=ballots.make(1, 2), slot=1))
    now = 50_000_000
    one.engine.step(frame(KIND.PREPARE, 2, 1, incarnation=5, ballot=ballots.make(2, 2), slot=1), now)
    one.engine.tick(now)
    one.carry_out(now)
    [note] = [r for r in one.disk if r.kind == RecordKind.RECORD_PEER]
    assert (note.slot, note.ballot) == (5, 300)
    later = node(tuple(one.disk))
    assert refused(later.step(greeting(incarnation=4, nonce=40))) == [RefuseReason.REFUSE_ROLLED_BACK]
    assert refused(later.step(greeting(incarnation=5, nonce=51))) == [RefuseReason.REFUSE_ROLLED_BACK]
    assert refused(later.step(greeting(incarnation=6, nonce=60))) == [RefuseReason.REFUSE_ROLLED_BACK]
    assert refused(later.step(greeting(incarnation=5, nonce=50))) == []


def test_h5_whoever_is_refused_stops_voting_durably() -> None:
    for reason, expected in (
        (RefuseReason.REFUSE_ROLLED_BACK, QuarantineReason.QUARANTINE_ROLLED_BACK),
        (RefuseReason.REFUSE_DUPLICATE, QuarantineReason.QUARANTINE_DUPLICATE),
    ):
        one = node()
        one.step(greeting(), greeting(3))
        answers = one.step(refusal(reason))
        assert one.is_quarantined
        assert [r.slot for r in one.disk if r.kind == RecordKind.RECORD_QUARANTINE] == [expected]
        told = [HELLO.unpack(f["payload"]) for f in answers if f["kind"] == KIND.HELLO]
        assert len(told) == 2 and all(fields[2] & HelloFlag.HELLO_QUARANTINED for fields in told)
        prepare = frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), slot=1)
        assert one.step(prepare) == [], "no promise"
        again = node(tuple(one.disk))
        assert again.is_quarantined and again.step(greeting()) == [] and again.step(prepare) == []


def test_a_refusal_that_means_another_life_changes_nothing() -> None:
    one = node()
    one.step(greeting())
    for data in (
        refusal(RefuseReason.REFUSE_ROLLED_BACK, incarnation=2),
        refusal(RefuseReason.REFUSE_ROLLED_BACK, nonce=NONCE + 1),
        refusal(RefuseReason.REFUSE_DUPLICATE, sender=3, nonce=0),  # of whom nothing is known
        refusal(RefuseReason.REFUSE_STORAGE),
        frame(KIND.REFUSE, 2, 1, payload=b"short"),
    ):
        one.step(data)
        assert not one.is_quarantined


def test_h5_what_was_about_to_leave_is_not_sent_any_more() -> None:
    one = node()
    one.step(greeting())
    one.engine.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), slot=1), 0)
    one.engine.step(refusal(RefuseReason.REFUSE_ROLLED_BACK), 0)
    kinds = [codec.decode_frame(data)["kind"] for _, data in one.carry_out(0)]
    assert kinds and set(kinds) == {KIND.HELLO}


def test_h5_nothing_that_a_member_in_quarantine_sends_is_a_vote() -> None:
    one = seen()
    one.step(greeting(incarnation=6, nonce=60, flags=HelloFlag.HELLO_QUARANTINED))
    assert one.engine.counters()["refused_hellos"] == 1, "the other life still runs"
    one = silence(seen())
    one.step(greeting(incarnation=6, nonce=60, flags=HelloFlag.HELLO_QUARANTINED))
    assert one.engine.counters()["refused_hellos"] == 0, "it may learn, whatever it has forgotten"
    assert vote(one, 6) == 0
    for kind in (
        KIND.PROMISE,
        KIND.ACCEPTED,
        KIND.PREPARE,
        KIND.OPEN,
        KIND.ACCEPT,
        KIND.FORWARD,
        KIND.TRANSFER,
    ):
        before = one.engine.counters()["no_votes"]
        assert one.step(frame(kind, 2, 1, incarnation=6, ballot=ballots.make(1, 2), slot=1)) == []
        assert one.engine.counters()["no_votes"] == before + 1


def test_s4_a_restarted_node_asks_before_it_votes() -> None:
    first = node()
    first.step(greeting())
    first.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), slot=1))
    later = node(tuple(first.disk))
    prepare = frame(KIND.PREPARE, 2, 1, ballot=ballots.make(2, 2), slot=1)
    assert later.engine.glance()["is_settling"]
    later.step(greeting(), now_us=1)
    assert later.step(prepare, now_us=2) == []
    later.step(greeting(answers=NONCE), greeting(3, answers=NONCE), now_us=3)
    assert not later.engine.glance()["is_settling"]
    assert [f["kind"] for f in later.step(prepare, now_us=4)] == [KIND.PROMISE]


def test_s4_a_restarted_node_asks_before_it_leads() -> None:
    """Its own promise is a vote, too, also when a leader names it the heir at once."""
    first = node()
    first.step(greeting())
    first.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), slot=1))
    later = node(tuple(first.disk))
    campaign = Campaign(ballot=ballots.make(2, 1), from_slot=1)
    later.engine.act(campaign)
    assert later.carry_out(1) == [] and later.engine.counters()["stale_intents"] == 1
    later.step(greeting(answers=NONCE), greeting(3, answers=NONCE), now_us=2)
    later.engine.act(campaign)
    kinds = [codec.decode_frame(data)["kind"] for _, data in later.carry_out(3)]
    assert kinds == [KIND.PREPARE, KIND.PREPARE]


def test_s4_nobody_waits_for_members_that_are_gone() -> None:
    first = node()
    first.step(greeting())
    first.step(frame(KIND.PREPARE, 2, 1, ballot=ballots.make(1, 2), slot=1))
    later = node(tuple(first.disk))
    period_us = Config().heartbeat_ms * 1000
    later.engine.tick(1_000_000)
    assert later.engine.glance()["is_settling"]
    later.engine.tick(1_000_000 + 3 * period_us)
    assert not later.engine.glance()["is_settling"]


def test_s4_a_learner_that_has_forgotten_is_told_and_taken() -> None:
    """A node that is only being repaired does not vote now, but will: what it learns must not hide the gap."""
    flags = HelloFlag.HELLO_QUARANTINED
    for promised, position, expected in (
        (300, 8999, [RefuseReason.REFUSE_ROLLED_BACK]),
        (299, 9000, [RefuseReason.REFUSE_ROLLED_BACK]),
        (300, 9000, []),
    ):
        one = silence(seen())
        for _ in range(2):  # what told it so the first time may have been lost
            told = one.step(
                greeting(incarnation=9, nonce=90, promised=promised, position=position, flags=flags)
            )
            assert refused(told) == expected
        assert one.engine.counters()["refused_hellos"] == 0


def test_s4_who_only_learns_for_now_and_is_refused_never_votes_again() -> None:
    for reason, expected in (
        (RefuseReason.REFUSE_ROLLED_BACK, [QuarantineReason.QUARANTINE_ROLLED_BACK]),
        (
            RefuseReason.REFUSE_DUPLICATE,
            [],
        ),  # another life was heard of late: that says nothing about this one
    ):
        one = node()
        one.engine.acceptor_role.quarantine()  # as for a repair: in memory only
        one.step(greeting(), refusal(reason))
        assert [r.slot for r in one.disk if r.kind == RecordKind.RECORD_QUARANTINE] == expected
