"""How a follower that lags asks for what it missed: one burst at a time, and on as soon as one has ended."""

from __future__ import annotations

import random
from typing import Any

from paxos._core.codec import FrameKind, ValueKind, decode_frame, encode_frame
from paxos.control import Control
from paxos.errors import StorageError
from paxos.learner import BURST_SLOTS, Learner, Range
from paxos.messages import Send
from paxos.proposer import Proposer
from paxos.types import Config

RETRY_US = 90_000


def learner(target: int) -> Learner:
    found = Learner.alone(1, members=(1, 2, 3))
    found.aim(target)
    return found


def test_l7_a_short_burst_is_followed_by_the_next_request_at_once() -> None:
    asking = learner(10)
    assert asking.next_range(0, 2, True, RETRY_US, 0) == Range(2, 1, 10)
    asking.end_burst()  # the peer sent what fits into a burst: slots 1 to 3
    assert asking.next_range(3, 2, False, RETRY_US, 10) == Range(2, 4, 10)


def test_a_request_under_way_is_waited_for_and_then_repeated() -> None:
    asking = learner(10)
    asking.next_range(0, 2, True, RETRY_US, 0)
    assert asking.next_range(3, 2, True, RETRY_US, RETRY_US - 1) is None
    assert asking.next_range(3, 3, True, RETRY_US, RETRY_US) == Range(3, 4, 10)


def test_a_burst_that_brought_nothing_is_not_asked_for_in_a_loop() -> None:
    asking = learner(10)
    asking.next_range(0, 2, True, RETRY_US, 0)
    asking.end_burst()
    assert asking.next_range(0, 2, True, RETRY_US, 10) is None


def test_one_request_covers_a_bounded_number_of_slots_and_the_next_goes_on() -> None:
    asking = learner(2 * BURST_SLOTS)
    assert asking.next_range(0, 2, True, RETRY_US, 0) == Range(2, 1, BURST_SLOTS)
    assert asking.next_range(BURST_SLOTS, 2, False, RETRY_US, 1) == Range(2, BURST_SLOTS + 1, 2 * BURST_SLOTS)
    assert asking.next_range(2 * BURST_SLOTS, 2, False, RETRY_US, 2) is None


def test_nothing_is_asked_for_without_need() -> None:
    asking = learner(5)
    assert asking.next_range(0, 2, False, RETRY_US, 0) is None
    assert asking.next_range(5, 2, True, RETRY_US, 0) is None
    assert asking.next_range(0, 0, True, RETRY_US, 0) is None


class Log:
    """Slots 1 to 4 are here; the value of ``damaged`` cannot be read."""

    first_slot = 1

    def __init__(self, damaged: int = 0) -> None:
        self.damaged = damaged

    def read_slots(self, first_slot: int, last_slot: int, limit_bytes: int) -> list[tuple[int, int, bytes]]:
        slots = list(range(first_slot, min(last_slot, 4) + 1))
        if slots and slots[0] == self.damaged:
            raise StorageError("damaged")
        return [(slot, int(ValueKind.NOOP), b"") for slot in slots if slot != self.damaged]


def control(log: Log) -> Control:
    members = {1: "tcp://a:1", 2: "tcp://b:1", 3: "tcp://c:1"}
    return Control(
        node_id=1, cluster=0, incarnation=1, members=members, proposer=Proposer.alone(1, members),
        learner=Learner.alone(1, members), log=log, config=Config(), random=random.Random(1),
    )  # fmt: skip


def ask(of: Control, first: int, last: int) -> list[dict[str, Any]]:
    """Ask as node 2 and return the frames that are sent."""
    frame = encode_frame(FrameKind.FETCH_CHOSEN, sender=2, receiver=1, incarnation=1, slot=first, mark=last)
    intents = of.on_frame(frame, 0)
    return [decode_frame(intent.frame) for intent in intents if isinstance(intent, Send)]


def test_chosen_values_are_served_in_order_and_the_last_says_so() -> None:
    served = ask(control(Log()), 2, 100)
    assert [(fields["slot"], fields["mark"]) for fields in served] == [(2, 4), (3, 4), (4, 4)]


def test_g7_a_value_damaged_here_does_not_stop_the_node_that_is_asked() -> None:
    assert ask(control(Log(damaged=2)), 2, 4) == []


def test_g7_who_asks_in_vain_turns_to_another_member() -> None:
    asking = control(Log())
    asking.learner.aim(9)
    asked = []
    for at in range(4):
        for intent in asking._catch_up(2, True, at * 3 * RETRY_US):
            assert isinstance(intent, Send)
            asked.append(decode_frame(intent.frame)["receiver"])
    assert asked[0] == 2 and set(asked) == {2, 3}
