"""The channel of ``paxos serve``: requests and answers over the socket, against a replica of a few lines."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paxos.cli.channel import SOCKET_NAME, ChannelClient, ChannelServer, NodeGone
from paxos.errors import Busy, ConfigError
from paxos.types import Entry, Outcome


@dataclass(frozen=True)
class FakeStatus:
    node_id: int = 1
    role: str = "leader"


class FakeReplica:
    """A log in a list. ``hold`` keeps what is proposed unanswered; ``error`` refuses it."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.hold = False
        self.error: Exception | None = None

    def submit(self, command: bytes) -> Future[Outcome]:
        if self.error is not None:
            raise self.error
        future: Future[Outcome] = Future()
        self.log.append(command)
        if not self.hold:
            future.set_result(Outcome(len(self.log), len(self.log)))
        return future

    def entries(self, start: int, stop: int) -> list[Entry]:
        numbered = list(enumerate(self.log, start=1))
        return [Entry(index, index, command) for index, command in numbered[start - 1 : stop - 1]]

    def status(self) -> FakeStatus:
        return FakeStatus()

    def inspect(self) -> dict[str, Any]:
        return {"bytes": b"not json by itself"}


@pytest.fixture
def replica() -> FakeReplica:
    return FakeReplica()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    deep = tmp_path / ("long" * 30)  # too long for a socket address
    deep.mkdir()
    return deep


@pytest.fixture
def server(replica: FakeReplica, directory: Path) -> Iterator[ChannelServer]:
    server = ChannelServer(replica, directory)  # type: ignore[arg-type]
    yield server
    server.close()


@pytest.fixture
def client(server: ChannelServer, directory: Path) -> Iterator[ChannelClient]:
    client = ChannelClient(directory)
    yield client
    client.close()


def test_every_byte_of_a_command_survives(client: ChannelClient, replica: FakeReplica) -> None:
    command = bytes(range(256))
    assert client.ask("propose", command=command.decode("latin-1"))["index"] == 1
    assert replica.log == [command]
    assert list(client.read()) == [(1, command)]


def test_status_and_inspect_are_told(client: ChannelClient) -> None:
    assert client.ask("status")["status"] == {"node_id": 1, "role": "leader"}
    assert "bytes" in client.ask("inspect")["inspect"]


def test_reading_goes_on_over_pages(client: ChannelClient, replica: FakeReplica) -> None:
    replica.log = [b"%d" % number for number in range(12_345)]
    assert [command for _, command in client.read(3)] == replica.log[2:]


def test_a_refusal_keeps_its_class(client: ChannelClient, replica: FakeReplica) -> None:
    replica.error = Busy("too much waits")
    with pytest.raises(Busy, match="too much waits"):
        client.ask("propose", command="x")


def test_an_unknown_request_is_refused_and_the_connection_lives(client: ChannelClient) -> None:
    with pytest.raises(ConfigError, match="unknown op 'nonsense'"):
        client.ask("nonsense")
    assert client.ask("status")["ok"]


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[]\n", b"7\n", b'{"op":"propose"}\n', b"\xff\xfe\n"])
def test_broken_lines_are_answered_and_do_no_harm(
    server: ChannelServer, directory: Path, line: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        client = ChannelClient(directory)  # borrow its way to address a long path
        client.close()
        import os

        handle = os.open(directory, os.O_RDONLY)
        raw.connect(f"/proc/self/fd/{handle}/{SOCKET_NAME}")
        os.close(handle)
        raw.sendall(line + b'{"id":9,"op":"status"}\n')
        with raw.makefile("rb") as answers:
            assert json.loads(answers.readline())["ok"] is False
            assert json.loads(answers.readline())["id"] == 9


def test_many_requests_are_in_flight_at_a_time(client: ChannelClient) -> None:
    done = threading.Semaphore(0)
    indices = []

    def answered(answer: dict[str, Any] | None) -> None:
        assert answer is not None
        indices.append(answer["index"])
        done.release()

    for number in range(2000):
        client.propose(b"%d" % number, answered)
    for _ in range(2000):
        assert done.acquire(timeout=20)
    assert indices == list(range(1, 2001))


def test_what_was_in_flight_is_unknown_when_the_node_goes_away(
    replica: FakeReplica, client: ChannelClient, server: ChannelServer, directory: Path
) -> None:
    replica.hold = True
    told: list[object] = []
    event = threading.Event()

    def answered(answer: dict[str, Any] | None) -> None:
        told.append(answer)
        event.set()

    client.propose(b"x", answered)
    client.ask("status")
    client._socket.shutdown(socket.SHUT_RDWR)
    assert event.wait(10)
    assert told == [None]
    with pytest.raises(NodeGone):
        client.ask("status")


def test_no_node_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NodeGone, match="no node answers"):
        ChannelClient(tmp_path)


def test_closing_removes_the_socket_and_a_left_over_one_is_replaced(
    replica: FakeReplica, tmp_path: Path
) -> None:
    (tmp_path / SOCKET_NAME).touch()
    server = ChannelServer(replica, tmp_path)  # type: ignore[arg-type]
    client = ChannelClient(tmp_path)
    assert client.ask("status")["ok"]
    client.close()
    server.close()
    assert not (tmp_path / SOCKET_NAME).exists()
