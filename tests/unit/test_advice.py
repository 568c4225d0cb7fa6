"""A node says once what keeps it from working, and whom to look at."""

from __future__ import annotations

import pytest

from paxos import advice
from paxos.advice import Advice

MEMBERS = {1: "tcp://127.0.0.1:7001", 2: "tcp://127.0.0.1:7002", 3: "tcp://127.0.0.1:7003"}
QUIET = dict.fromkeys(advice.STRANGERS, 0)


def test_a_forgotten_member_of_the_first_start_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "SILENCE_S", -1.0)
    one = Advice(1, "paxos", MEMBERS, lambda: QUIET)
    for _ in range(3):
        one.look_around({"leader": None, "chosen_upto": 0}, {2})
    [record] = caplog.records
    assert "knows no leader; not heard: 3 (tcp://127.0.0.1:7003)" in record.getMessage()
    assert "all of its members must be up" in record.getMessage()


def test_a_node_with_a_leader_has_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    one = Advice(1, "paxos", MEMBERS, lambda: QUIET)
    one.look_around({"leader": 2, "chosen_upto": 7}, {2, 3})
    assert not caplog.records
    assert one.situation({"leader": 2, "chosen_upto": 7}, {2, 3}) == "node 2 leads"


def test_strangers_are_told_with_what_this_node_was_started_with(caplog: pytest.LogCaptureFixture) -> None:
    one = Advice(1, "ledger", MEMBERS, lambda: QUIET | {"wrong_cluster": 5})
    for _ in range(2):
        one.look_around({"leader": None, "chosen_upto": 0}, ())
    [record] = caplog.records
    assert "another cluster" in record.getMessage() and "'ledger'" in record.getMessage()
    assert "2=tcp://127.0.0.1:7002" in record.getMessage()
