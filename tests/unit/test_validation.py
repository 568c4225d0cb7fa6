"""Bad input: each mistake gets its exception before anything is opened, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paxos
from paxos import validation
from paxos.errors import ConfigError
from paxos.state_machine import StateMachine, check_defines_apply

A, B = "tcp://127.0.0.1:7001", "tcp://127.0.0.1:7002"


@pytest.mark.parametrize(
    ("members", "error", "text"),
    [
        ({}, ConfigError, "empty"),
        ({2: A}, ConfigError, "do not include this node"),
        ([(1, A), (1, B)], ConfigError, "occurs twice"),
        ({1: A, 2: A}, ConfigError, "same address"),
        ({1: A, 0: B}, ConfigError, "1..65535"),
        ({1: A, 65536: B}, ConfigError, "1..65535"),
        ({1: A, "2": B}, TypeError, "must be an int"),
        ([(1, A), (True, B)], TypeError, "must be an int"),
        ({1: A, 2: None}, TypeError, "must be a str"),
        ("tcp://a:1", TypeError, "mapping"),
        (5, TypeError, "mapping"),
        ([1, 2], TypeError, "no such pair"),
        ({number: f"tcp://h:{number}" for number in range(1, 66)}, ConfigError, "at most"),
    ],
)
def test_members(members: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        validation.check_members(members, 1)


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:1", "tcp://", "tcp://host", "tcp://host:", "tcp://:1", "tcp://host:0", "tcp://host:65536",
     "tcp://*:7001", "tcp://a b:1", "tcp://host:7001/x", "udp://host:1", "ipc://", "inproc://", "http://a:1",
     "ipc:///" + "x" * 200],
)  # fmt: skip
def test_addresses_that_do_not_parse(address: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        validation.check_address(address)


@pytest.mark.parametrize(
    "address", [A, "tcp://[::1]:1", "tcp://host-1.example:65535", "ipc:///tmp/x", "inproc://x"]
)
def test_addresses_that_do(address: str) -> None:
    assert validation.check_address(address) == address
    assert validation.check_bind("tcp://*:7001") == "tcp://*:7001"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda path: paxos.Replica(5), TypeError),  # type: ignore[arg-type]
        (lambda path: paxos.Replica(""), ConfigError),
        (lambda path: paxos.Replica(path, node_id="1"), TypeError),  # type: ignore[arg-type]
        (lambda path: paxos.Replica(path, node_id=0), ConfigError),
        (lambda path: paxos.Replica(path, members={1: A}), ConfigError),
        (lambda path: paxos.Replica(path, node_id=1, members={}), ConfigError),
        (lambda path: paxos.Replica(path, cluster=""), ConfigError),
        (lambda path: paxos.Replica(path, cluster=b"x"), TypeError),  # type: ignore[arg-type]
        (lambda path: paxos.Replica(path, config={}), TypeError),  # type: ignore[arg-type]
        (lambda path: paxos.Replica(path, bind=A), ConfigError),
        (lambda path: paxos.Replica(path, node_id=1, members={1: A}, bind="x"), ConfigError),
        (lambda path: paxos.Replica(path, state_machine=paxos.StateMachine), TypeError),
        (lambda path: paxos.Replica(path, state_machine=object()), TypeError),
        (lambda path: paxos.LocalCluster(0), ConfigError),
        (lambda path: paxos.LocalCluster("3"), TypeError),  # type: ignore[arg-type]
        (lambda path: paxos.LocalCluster(3, transport="udp"), ConfigError),
        (lambda path: paxos.LocalCluster(3, state_machine=5), TypeError),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_opens_nothing(tmp_path: Path, call: Callable[[Path], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        call(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        paxos.Replica(tmp_path / "file")


@pytest.mark.parametrize(
    ("command", "error"), [("text", TypeError), (5, TypeError), (None, TypeError), (b"x" * 11, ConfigError)]
)
def test_commands(command: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        validation.check_command(command, 10)


def test_commands_in_any_kind_of_bytes() -> None:
    for command in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        assert validation.check_command(command, 10) == b"abc"


@pytest.mark.parametrize(
    ("timeout", "error"), [("1", TypeError), (-1, ConfigError), (float("nan"), ConfigError)]
)
def test_timeouts(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        validation.check_timeout(timeout)


def test_the_cluster_id_depends_on_name_and_members_only() -> None:
    one = validation.cluster_id("paxos", {1: A, 2: B})
    assert one == validation.cluster_id("paxos", {2: B, 1: A})
    assert (
        len({one, validation.cluster_id("other", {1: A, 2: B}), validation.cluster_id("paxos", {1: A, 3: B})})
        == 3
    )
    assert 0 < one < 1 << 64


def test_the_exports_are_pinned() -> None:
    assert sorted(paxos.__all__) == [
        "Acceptor",
        "ApplyContext",
        "ApplyFailed",
        "Busy",
        "Closed",
        "Config",
        "ConfigError",
        "Entry",
        "Future",
        "InvariantViolation",
        "Learner",
        "LocalCluster",
        "NotLeader",
        "Outcome",
        "OutcomeUnknown",
        "PaxosError",
        "PeerStatus",
        "Proposer",
        "ReadTimeout",
        "Rejected",
        "RemoteProtocolError",
        "Replica",
        "RunOutcome",
        "StateMachine",
        "Status",
        "StorageError",
        "Subscription",
        "__version__",
        "aio",
    ]
    for name in paxos.__all__:
        assert getattr(paxos, name) is not None


def test_a_state_machine_whose_apply_is_misspelt_is_noticed_before_anything_is_opened() -> None:
    class Misspelt(StateMachine):
        def aply(self, command: bytes, context: object) -> None: ...

    class Batches(StateMachine):
        def apply_batch(self, commands: object, context: object) -> None: ...

    with pytest.raises(TypeError, match="Misspelt overrides neither"):
        check_defines_apply(Misspelt())
    check_defines_apply(Batches())
    check_defines_apply(None)
