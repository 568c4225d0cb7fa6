"""The state machines of the examples, without a cluster: what a command does, twice, late, or malformed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paxos

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def examples_on_the_path() -> Iterator[None]:
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def load(name: str) -> ModuleType:
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


MACHINES = [("kv_store", "KeyValueStore"), ("lock", "LockService"), ("leader_election", "Election")]


def machine(name: str) -> Any:
    return getattr(load(name), dict(MACHINES)[name])()


class Log:
    """Feed a machine the way a log does: every command has the next index."""

    def __init__(self, state_machine: Any) -> None:
        self.machine = state_machine
        self.encode = load("toolkit").encode
        self.commands: list[bytes] = []
        self.places: dict[int, int] = {}

    def raw(self, command: bytes) -> Any:
        self.commands.append(command)
        index = len(self.commands)
        return self.machine.apply(command, paxos.ApplyContext(index, index + 2, 1))

    def open(self) -> int:
        session: int = self.raw(self.encode("open")).token
        self.places[session] = 0
        return session

    def call(self, session: int, *fields: str | int) -> Any:
        self.places[session] += 1
        return self.raw(self.encode(session, self.places[session], *fields))

    def state(self) -> bytes:
        return b"".join(self.machine.snapshot())


def test_a_repeated_command_is_answered_and_not_applied_again() -> None:
    log = Log(machine("kv_store"))
    session = log.open()
    first = log.call(session, "put", "k", "1")
    state = log.state()
    assert log.raw(log.commands[-1]) == first
    assert log.state() == state


def test_a_late_copy_of_an_earlier_command_changes_nothing() -> None:
    log = Log(machine("lock"))
    session = log.open()
    grant = log.call(session, "acquire", "door")
    late = log.commands[-1]
    assert log.call(session, "release", "door", grant.token).ok
    assert not log.raw(late).ok
    assert not log.machine.held


def test_a_gap_in_a_session_is_refused_and_can_be_filled() -> None:
    log = Log(machine("kv_store"))
    session = log.open()
    assert "expected 1" in log.raw(log.encode(session, 2, "put", "k", "2")).error
    assert log.call(session, "put", "k", "1").ok
    assert log.call(session, "put", "k", "2").ok


def test_sessions_are_bounded_and_a_forgotten_one_is_refused_not_guessed_about() -> None:
    log = Log(machine("kv_store"))
    type(log.machine).sessions_max = 2
    try:
        silent, busy = log.open(), log.open()
        log.call(silent, "put", "k", "1")
        log.call(busy, "put", "k", "2")
        newest = log.open()
        assert list(log.machine.sessions) == [busy, newest]
        assert "forgotten" in log.raw(log.encode(silent, 1, "put", "k", "1")).error
        assert log.machine.values["k"][1] == "2"
    finally:
        del type(log.machine).sessions_max


@pytest.mark.parametrize("name", [name for name, _ in MACHINES])
@pytest.mark.parametrize(
    "command",
    [b"", b"x", b"\xff" * 40, b"\x00\x00\x00\x05abc", b"\x00\x00\x00\x01\xff", b"\x00\x00\x00\x00" * 9],
)
def test_bytes_that_are_no_command_are_answered(name: str, command: bytes) -> None:
    log = Log(machine(name))
    log.open()
    state = log.state()
    answer = log.raw(command)
    assert not answer.ok and answer.error
    assert log.state() == state


@pytest.mark.parametrize("name", [name for name, _ in MACHINES])
@pytest.mark.parametrize(
    "fields", [("fly",), ("put",), ("acquire", ""), ("release", "a", "-1"), ("campaign", ""), ("resign", "²")]
)
def test_a_command_that_makes_no_sense_is_answered(name: str, fields: tuple[str, ...]) -> None:
    log = Log(machine(name))
    answer = log.call(log.open(), *fields)
    assert not answer.ok and answer.error


@pytest.mark.parametrize("name", [name for name, _ in MACHINES])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_history_leaves_equal_replicas_and_a_snapshot_that_restores(
    name: str, data: st.DataObject
) -> None:
    words = st.sampled_from(
        [
            "put",
            "get",
            "replace",
            "delete",
            "acquire",
            "release",
            "steal",
            "show",
            "campaign",
            "resign",
            "who",
        ]
    )
    field = st.one_of(words, st.integers(0, 12).map(str), st.text(max_size=3), st.just("k"))
    encode = load("toolkit").encode
    commands = data.draw(
        st.lists(
            st.one_of(
                st.just(encode("open")),
                st.lists(field, max_size=5).map(lambda fields: encode(*fields)),
                st.tuples(st.integers(1, 3), st.integers(1, 4), st.lists(field, min_size=1, max_size=4)).map(
                    lambda parts: encode(parts[0], parts[1], *parts[2])
                ),
                st.binary(max_size=12),
            ),
            max_size=30,
        )
    )
    one, other = Log(machine(name)), Log(machine(name))
    for command in commands:
        assert one.raw(command) == other.raw(command)
    assert one.state() == other.state()
    copy = machine(name)
    copy.restore(one.machine.snapshot())
    assert b"".join(copy.snapshot()) == one.state()


def test_a_version_guards_against_writes_of_others() -> None:
    log = Log(machine("kv_store"))
    session = log.open()
    written = log.call(session, "put", "k", "1")
    assert log.call(session, "replace", "k", written.token, "2").ok
    refused = log.call(session, "replace", "k", written.token, "3")
    assert (refused.ok, refused.value) == (False, "2")
    assert log.call(session, "replace", "new", 0, "1").ok
    assert log.call(session, "delete", "k").value == "2"
    assert not log.call(session, "get", "k").ok


def test_s6_a_stale_holder_of_a_lock_is_refused_by_what_it_protects() -> None:
    lock = load("lock")
    log = Log(machine("lock"))
    alice, bob = log.open(), log.open()
    grant = log.call(alice, "acquire", "door")
    assert log.call(alice, "acquire", "door").token == grant.token
    assert not log.call(bob, "acquire", "door").ok
    stolen = log.call(bob, "steal", "door", grant.token)
    assert stolen.ok and stolen.token > grant.token
    assert not log.call(alice, "release", "door", grant.token).ok
    assert not log.call(alice, "steal", "door", grant.token).ok
    warehouse = lock.Warehouse()
    assert [warehouse.write(token, "") for token in (grant.token, stolen.token, grant.token)] == [
        True,
        True,
        False,
    ]


def test_a_term_ends_by_the_log_or_by_its_leader_and_epochs_grow() -> None:
    election = load("leader_election")
    log = Log(machine("leader_election"))
    ada, ben = log.open(), log.open()
    term = log.call(ada, "campaign", "Ada")
    for _ in range(election.LEASE_COMMANDS):
        assert not log.call(ben, "campaign", "Ben").ok
    assert log.call(ada, "campaign", "Ada") == term
    for _ in range(election.LEASE_COMMANDS):
        assert not log.call(ben, "campaign", "Ben").ok
    second = log.call(ben, "campaign", "Ben")
    assert second.ok and second.token > term.token
    assert not log.call(ada, "resign", term.token).ok
    assert log.call(ben, "resign", second.token).ok
    third = log.call(ada, "campaign", "Ada")
    assert third.ok and third.token > second.token


class Unreliable:
    """A replica whose answers get lost, before or after the command is applied."""

    def __init__(self, log: Log, losses: list[str]) -> None:
        self.log = log
        self.losses = losses
        self.held_back: list[bytes] = []

    def propose(self, command: bytes, timeout: float | None = None) -> paxos.Outcome:
        what = self.losses.pop(0) if self.losses else "fine"
        if what == "refused":
            raise paxos.Busy("no room")
        if what == "late":
            self.held_back.append(command)
            raise paxos.OutcomeUnknown("lost before")
        answer = self.log.raw(command)
        if what == "lost after":
            raise paxos.OutcomeUnknown("lost after")
        while self.held_back:
            self.log.raw(self.held_back.pop())
        return paxos.Outcome(len(self.log.commands), len(self.log.commands) + 2, answer)


@given(st.lists(st.sampled_from(["fine", "refused", "late", "lost after"]), max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_client_counts_once_whatever_gets_lost(losses: list[str]) -> None:
    toolkit = load("toolkit")
    toolkit.RETRY_S = 0.0
    log = Log(machine("kv_store"))
    replica = Unreliable(log, losses)
    client = toolkit.Session(lambda: [replica])
    version = 0
    for i in range(4):
        reply = client.call("replace", "k", version, str(i))
        assert reply.ok, reply
        version = reply.token
    assert log.machine.values["k"][1] == "3"


def test_a_command_that_was_given_up_is_settled_before_the_next() -> None:
    toolkit = load("toolkit")
    log = Log(machine("kv_store"))
    replica = Unreliable(log, [])
    client = toolkit.Session(lambda: [replica], patience_s=0.0)
    replica.losses = ["late"]
    with pytest.raises(paxos.OutcomeUnknown):
        client.call("put", "k", "1")
    assert client.call("put", "k", "2").ok
    assert log.machine.values["k"][1] == "2"


def test_the_doctests_of_the_toolkit_are_true() -> None:
    import doctest

    assert doctest.testmod(load("toolkit")).failed == 0
