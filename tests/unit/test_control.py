"""The control plane alone: cold frames and time in, intents out (protocol sections 3 and 6)."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos._core import ballot as ballots
from paxos._core.codec import FetchStatus, FrameKind, NackReason, RoundFlag, ValueKind, decode_frame
from paxos.control import Control
from paxos.engine import Engine
from paxos.membership import Configuration, Member
from paxos.messages import Campaign, Configure, Intent, Lead, Send, Transfer
from paxos.types import Config
from tests.unit.engine_kit import CLUSTER, AppliedLog, frame, storage_of
from tests.unit.test_proposer import page

SUMMARY = struct.Struct("<QQQQQQQIHHQ")
CANDIDATE, HAPPY, LAGGING, ALL, LEADS = (
    RoundFlag.ROUND_CANDIDATE,
    RoundFlag.ROUND_HAPPY,
    RoundFlag.ROUND_LAGGING,
    RoundFlag.ROUND_ALL_HEARD,
    RoundFlag.ROUND_LEADS,
)


class Rig:
    """One control plane, with a clock that only moves when told to."""

    def __init__(self, config: Config | None = None) -> None:
        config = config or Config()
        engine = Engine(1, CLUSTER, 1, storage_of(1), dict.fromkeys((1, 2, 3)), config)
        self.log = AppliedLog()
        self.control = Control(
            node_id=1, cluster=CLUSTER, incarnation=1, members={n: f"inproc://{n}" for n in (1, 2, 3)},
            proposer=engine.proposer_role, learner=engine.learner_role, log=self.log, config=config,
            random=Random(1),
        )  # fmt: skip
        self.now = 1_000_000

    def frame(self, kind: int, sender: int = 1, **fields: Any) -> list[Intent]:
        return self.control.on_frame(frame(kind, sender, 1, **fields), self.now)

    def round(self, flags: int = 0, **fields: int) -> list[Intent]:
        """Say how a heartbeat round ended."""
        known = {"promised": 0, "chosen": 0, "ballot": 0, "leader": 0, "best": 0, "config": 0, "peer": 0}
        v = known | fields
        data = SUMMARY.pack(
            1, v["promised"], v["chosen"], v["ballot"], v["leader"], v["best"], v["config"], flags, v["peer"], 3,
            v.get("patience", 0),
        )  # fmt: skip
        return self.frame(FrameKind.ROUND_CLOSED, payload=data)

    def wait(self, ms: int = 2000) -> list[Intent]:
        """Let time pass until something is wanted."""
        for _ in range(ms):
            self.now += 1000
            intents = self.control.tick(self.now)
            if intents:
                return intents
        return []

    def campaign(self, flags: int = CANDIDATE | ALL, **fields: int) -> int:
        """Bring it to campaign; return the ballot."""
        self.round(flags, **fields)
        [intent] = self.wait()
        assert isinstance(intent, Campaign)
        return intent.ballot

    def promise(self, sender: int, ballot: int, chosen: int = 0, **fields: Any) -> list[Intent]:
        data = page(fields.pop("votes", {}), sender=sender, **fields)
        return self.frame(FrameKind.PROMISE, sender, ballot=ballot, mark=chosen, payload=data)


def fetches(intents: list[Intent]) -> list[dict[str, Any]]:
    return [decode_frame(intent.frame) for intent in intents if isinstance(intent, Send)]


def test_a_candidate_campaigns_after_a_back_off() -> None:
    rig = Rig()
    rig.round(CANDIDATE | ALL, promised=ballots.make(4, 2))
    [intent] = rig.wait()
    assert intent == Campaign(ballot=ballots.make(5, 1), from_slot=1)


def test_nobody_campaigns_who_is_not_a_candidate() -> None:
    rig = Rig()
    rig.round(HAPPY | ALL)
    assert rig.wait() == []


def test_a_candidate_that_is_happy_again_before_its_time_stays_quiet() -> None:
    """Section 6: it waits, checks again, and starts phase 1."""
    rig = Rig()
    rig.round(CANDIDATE | ALL)
    rig.round(HAPPY | ALL)
    assert rig.wait() == []


def test_h13_before_the_first_configuration_everybody_must_be_heard() -> None:
    rig = Rig()
    rig.round(CANDIDATE)
    assert rig.wait() == []
    rig.campaign(CANDIDATE | ALL)


def test_h13_the_first_leader_binds_the_storage_that_each_member_showed() -> None:
    rig = Rig()
    ballot = rig.campaign()
    assert rig.promise(1, ballot) == rig.promise(2, ballot) == []
    [lead] = rig.promise(3, ballot)
    assert isinstance(lead, Lead)
    [(kind, value)] = lead.values
    bound = Configuration.decode(value).members
    assert kind == ValueKind.CONFIGURATION and {n: m.storage for n, m in bound.items()} == {
        n: storage_of(n) for n in (1, 2, 3)
    }


def test_a_chosen_configuration_is_installed_once() -> None:
    rig = Rig()
    members = {n: Member(address=f"inproc://{n}", storage=storage_of(n)) for n in (1, 2, 3)}
    value = Configuration(members=members, prepare_size=2, accept_size=2).encode()
    chosen = {"slot": 1, "detail": ValueKind.CONFIGURATION, "payload": value}
    assert rig.frame(FrameKind.CHOSEN, **chosen) == [
        Configure(slot=1, members={n: storage_of(n) for n in (1, 2, 3)})
    ]
    assert rig.frame(FrameKind.CHOSEN, **chosen) == []


def test_phase_1_is_repeated_while_answers_are_missing_and_given_up_in_the_end() -> None:
    """Section 3.1: whoever waits asks again on a timer; a new attempt takes a new ballot."""
    rig = Rig()
    ballot = rig.campaign(config=1)
    repeated = rig.wait(200)
    assert repeated == [Campaign(ballot=ballot, from_slot=1)]
    for _ in range(20):
        rig.round(CANDIDATE | ALL, promised=ballot, config=1)
        for intent in rig.wait(200):
            if isinstance(intent, Campaign) and intent.ballot != ballot:
                assert intent.ballot > ballot
                return
    pytest.fail("no second attempt")


def test_h1_a_candidate_catches_up_with_whoever_reports_more() -> None:
    """Section 3.2: K first; the reporter is asked for the chosen values."""
    rig = Rig()
    ballot = rig.campaign(config=1, chosen=1)
    rig.promise(1, ballot, chosen=1)
    [asked] = fetches(rig.promise(2, ballot, chosen=9))
    assert (asked["kind"], asked["receiver"], asked["slot"], asked["mark"]) == (
        FrameKind.FETCH_CHOSEN, 2, 2, 9,
    )  # fmt: skip
    [lead] = [i for i in rig.round(CANDIDATE, chosen=9, config=1) if isinstance(i, Lead)]
    assert lead == Lead(ballot=ballot, first_slot=10, values=())


def test_missing_values_are_fetched_and_then_led_with() -> None:
    rig = Rig()
    ballot = rig.campaign(config=1)
    old = ballots.make(1, 2)
    rig.promise(1, ballot)
    [asked] = fetches(rig.promise(2, ballot, votes={1: old}, length=1))
    assert (asked["kind"], asked["receiver"], asked["slot"], asked["ballot"]) == (FrameKind.FETCH, 2, 1, old)
    detail = FetchStatus.FETCH_OK << 8 | ValueKind.BATCH
    [lead] = rig.frame(FrameKind.FETCHED, 2, slot=1, ballot=old, detail=detail, payload=b"v")
    assert lead == Lead(ballot=ballot, first_slot=1, values=((ValueKind.BATCH, b"v"),))


def test_a_value_that_was_replaced_ends_the_attempt() -> None:
    """Section 3.4: a higher ballot is about."""
    rig = Rig()
    ballot = rig.campaign(config=1)
    old = ballots.make(1, 2)
    rig.promise(1, ballot)
    rig.promise(2, ballot, votes={1: old}, length=1)
    rig.frame(FrameKind.FETCHED, 2, slot=1, ballot=old, detail=FetchStatus.FETCH_REPLACED << 8)
    assert rig.promise(3, ballot) == []


def test_a_late_answer_to_an_earlier_fetch_does_not_end_an_attempt() -> None:
    rig = Rig()
    ballot = rig.campaign(config=1)
    rig.promise(1, ballot)
    detail = FetchStatus.FETCH_REPLACED << 8
    assert rig.frame(FrameKind.FETCHED, 2, slot=1, ballot=ballots.make(1, 2), detail=detail) == []
    [lead] = rig.promise(2, ballot)
    assert isinstance(lead, Lead)


@pytest.mark.parametrize("reason", [1, 2, 3])
def test_a_nack_of_the_attempt_ends_it(reason: int) -> None:
    rig = Rig()
    ballot = rig.campaign(config=1)
    rig.promise(1, ballot)
    rig.frame(FrameKind.NACK, 2, ballot=ballot, detail=reason, mark=ballots.make(70, 2))
    assert rig.promise(3, ballot) == []
    again = rig.campaign(config=1)
    assert again == ballots.make(71 if reason == NackReason.NACK_PROMISED else 2, 1)


def test_a_nack_of_another_ballot_ends_nothing() -> None:
    rig = Rig()
    ballot = rig.campaign(config=1)
    rig.promise(1, ballot)
    rig.frame(FrameKind.NACK, 2, ballot=ballot - 1, detail=2)
    assert rig.promise(3, ballot) == [Lead(ballot=ballot, first_slot=1, values=())]


def test_p12_a_forged_ballot_at_the_end_of_the_range_is_refused_cleanly() -> None:
    """P12: no wrap-around: the node stays quiet."""
    rig = Rig()
    rig.round(CANDIDATE | ALL, promised=ballots.MAX, config=1)
    assert rig.wait() == []


def test_p14_another_candidate_makes_this_one_wait() -> None:
    rig = Rig()
    ballot = rig.campaign(config=1)
    rig.frame(FrameKind.PREPARE, 2, ballot=ballot + 1 + (1 << 16))
    assert rig.promise(2, ballot) == []


def test_h20_a_leader_takes_a_member_back_that_promised_more() -> None:
    """h20: phase 1 again above that promise, once, not at once, and only while it still leads."""
    rig = Rig()
    ballot = ballots.make(3, 1)
    rig.round(LEADS | HAPPY, ballot=ballot, promised=ballot, config=1)
    assert rig.frame(FrameKind.NACK, 2, ballot=ballot, detail=1, mark=ballots.make(8, 2)) == []
    [intent] = rig.wait()
    assert isinstance(intent, Campaign) and intent.ballot == ballots.make(9, 1)
    rig = Rig()
    rig.round(LEADS | HAPPY, ballot=ballot, promised=ballot, config=1)
    rig.frame(FrameKind.NACK, 2, ballot=ballot, detail=1, mark=ballots.make(8, 2))
    rig.frame(FrameKind.STOPPED_LEADING, ballot=ballot)
    assert rig.wait(400) == []


def test_h20_a_new_lead_settles_what_an_older_ballot_was_refused() -> None:
    rig = Rig()
    ballot = ballots.make(3, 1)
    rig.round(LEADS | HAPPY, ballot=ballot, promised=ballot, config=1)
    rig.frame(FrameKind.TRANSFER, 2, ballot=ballot, slot=1)  # any other reason to begin phase 1
    higher = rig.control.proposer.candidate_ballot
    rig.frame(FrameKind.NACK, 2, ballot=ballot, detail=1, mark=ballots.make(4, 2))
    rig.promise(1, higher)
    [lead] = rig.promise(2, higher)
    assert isinstance(lead, Lead)
    rig.round(LEADS | HAPPY, ballot=higher, promised=higher, config=1)
    assert rig.wait(1000) == []


def test_a_transfer_starts_phase_1_at_once() -> None:
    rig = Rig()
    rig.round(HAPPY | ALL, config=1)
    [intent] = rig.frame(FrameKind.TRANSFER, 2, ballot=ballots.make(1, 2), slot=1)
    assert isinstance(intent, Campaign)


def test_leadership_is_handed_to_another_member() -> None:
    rig = Rig()
    assert rig.control.hand_over((1, 9, 3)) == [Transfer(heir=3)]
    assert rig.control.hand_over((1, 9)) == []


def test_a_lagging_node_asks_the_peer_that_knows_most() -> None:
    rig = Rig()
    [asked] = fetches(rig.round(LAGGING, chosen=3, best=7, peer=2, config=1))
    assert (asked["receiver"], asked["slot"], asked["mark"]) == (2, 4, 7)


def test_chosen_values_are_served_in_one_burst() -> None:
    rig = Rig()
    rig.log.values = [(slot, ValueKind.BATCH, b"%d" % slot) for slot in range(1, 6)]
    served = fetches(rig.frame(FrameKind.FETCH_CHOSEN, 2, slot=2, mark=4))
    assert [(f["slot"], f["mark"], f["payload"]) for f in served] == [
        (2, 4, b"2"),
        (3, 4, b"3"),
        (4, 4, b"4"),
    ]
    assert rig.frame(FrameKind.FETCH_CHOSEN, 2, slot=2**63, mark=2**64 - 1) == []


def test_trimmed_values_are_said_to_be_gone() -> None:
    rig = Rig()
    rig.log.first_slot = 5
    [gone] = fetches(rig.frame(FrameKind.FETCH_CHOSEN, 2, slot=1, mark=9))
    assert (gone["kind"], gone["mark"]) == (FrameKind.CHOSEN_GONE, 4)


def test_every_cold_kind_has_a_handler_and_the_others_are_empty_on_purpose() -> None:
    """Dispatch: what the engine passes on, and nothing else."""
    cold = {
        FrameKind.ROUND_CLOSED, FrameKind.STOPPED_LEADING, FrameKind.PREPARE, FrameKind.PROMISE, FrameKind.NACK,
        FrameKind.FETCHED, FrameKind.FETCH_CHOSEN, FrameKind.CHOSEN, FrameKind.CHOSEN_GONE, FrameKind.TRANSFER,
    }  # fmt: skip
    assert set(Rig().control._handlers) == cold
    for kind in set(FrameKind) - cold:
        assert Rig().frame(kind, 2, slot=1, payload=bytes(80)) == []


@pytest.mark.parametrize("status", FetchStatus)
def test_a_late_fetched_of_an_earlier_life_is_no_error(status: int) -> None:
    """The asker restarted meanwhile: nothing is under way, and the control thread goes on."""
    assert Rig().frame(FrameKind.FETCHED, 2, slot=1, ballot=5, detail=status << 8 | ValueKind.BATCH) == []


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([k for k in FrameKind if k not in (FrameKind.ROUND_CLOSED, FrameKind.FETCH_CHOSEN)]),
    st.integers(1, 3), st.integers(0, 0xFFFF),
    st.sampled_from((0, 1, 5, (1 << 16) | 1, (2 << 16) | 1, 2**63 - 1, 2**63, 2**64 - 1)),
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=120), st.booleans(),
)  # fmt: skip
def test_g10_any_cold_frame_is_survived(
    kind: int, sender: int, detail: int, ballot: int, slot: int, mark: int, payload: bytes, tries: bool
) -> None:
    """G10: whatever passes the checksums leads to intents or to nothing, never to an exception."""
    rig = Rig()
    if tries:
        ballot = rig.campaign(config=1) if detail % 2 else ballot
    rig.frame(kind, sender, detail=detail, ballot=ballot, slot=slot, mark=mark, payload=payload)
    rig.round(CANDIDATE | LAGGING, config=1, best=mark, peer=2)
    rig.control.tick(rig.now)
