"""ZeroMQ: what is sent arrives or is counted; what is hostile is dropped whole; closing never hangs."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos._core import links as core_links
from paxos._core.codec import FrameKind, encode_frame
from paxos.errors import ConfigError
from paxos.transport import ZmqTransport, native, parse_address

VALUE_BYTES_MAX = 1 << 22
DEADLINE_S = 30.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.001)
    return result


def frame(payload: bytes = b"", **fields: int) -> bytes:
    return encode_frame(FrameKind.ACCEPT, sender=1, receiver=2, payload=payload, **fields)


def deliver(sender: ZmqTransport, receiver: ZmqTransport, data: bytes) -> bytes:
    wait_for(lambda: sender.links.try_send(data), "a connection")
    received: bytes = wait_for(receiver.links.try_receive, "the frame")
    return received


def addresses(scheme: str, tmp_path: Path) -> tuple[str, str]:
    if scheme == "tcp":
        return "tcp://127.0.0.1:0", "tcp://127.0.0.1:0"
    if scheme == "ipc":
        return f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b"
    return f"inproc://{tmp_path}/a", f"inproc://{tmp_path}/b"


@pytest.fixture
def opened() -> Iterator[Callable[..., ZmqTransport]]:
    transports: list[ZmqTransport] = []

    def open_one(bind: str = "tcp://127.0.0.1:0", **options: Any) -> ZmqTransport:
        transports.append(ZmqTransport(bind, value_bytes_max=VALUE_BYTES_MAX, **options))
        return transports[-1]

    yield open_one
    for transport in transports:
        transport.close()


Opener = Callable[..., ZmqTransport]


@pytest.mark.parametrize("scheme", ["tcp", "ipc", "inproc"])
def test_frames_of_every_size_arrive_unchanged_and_in_order(
    scheme: str, tmp_path: Path, opened: Opener
) -> None:
    first, second = addresses(scheme, tmp_path)
    a, b = opened(first), opened(second)
    a.connect(2, b.address)
    sizes = (0, 1, 33, 34, 2048, 2049, 8191, 8192, 8193, 100_000, VALUE_BYTES_MAX)
    for size in sizes:
        data = frame(os.urandom(size), slot=size)
        assert deliver(a, b, data) == data
    for slot in range(200):
        assert a.links.try_send(frame(b"x" * (slot * 37), slot=slot))
    for slot in range(200):
        assert wait_for(b.links.try_receive, "the frame") == frame(b"x" * (slot * 37), slot=slot)
    wait_for(lambda: a.links.peer_counters(2)["in_flight_bytes"] == 0, "libzmq to give the values back")
    counts = b.links.counters()
    assert counts["received_frames"] == len(sizes) + 200
    assert not any(value for name, value in counts.items() if name.startswith("dropped"))


def test_a_port_of_zero_gives_the_bound_port_and_the_advertised_address_stands_apart(opened: Opener) -> None:
    a = opened()
    assert parse_address(a.address).port not in (0, None) and a.address == a.bound
    b = opened("tcp://127.0.0.1:0", advertised="tcp://replica-2.example:7001")
    assert b.address == "tcp://replica-2.example:7001" and b.bound.startswith("tcp://127.0.0.1:")


def test_frames_for_unknown_receivers_are_dropped_and_counted(opened: Opener) -> None:
    a = opened()
    assert not a.links.try_send(frame())
    assert a.links.counters()["dropped_unknown_receiver"] == 1


def raw_router(transport_options: dict[int, int]) -> tuple[zmq.Context[Any], zmq.Socket[Any], str]:
    context: zmq.Context[Any] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    for option, value in transport_options.items():
        router.setsockopt(option, value)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    return context, router, f"tcp://127.0.0.1:{port}"


def test_z1_a_peer_that_does_not_read_costs_frames_and_never_blocks(opened: Opener) -> None:
    context, router, address = raw_router({zmq.RCVHWM: 1, zmq.RCVBUF: 4096})
    try:
        a = opened(frames_max=1)
        a.connect(2, address)
        wait_for(lambda: a.links.try_send(frame(b"x" * 2000)), "a connection")

        def full() -> bool:
            for _ in range(1000):
                a.links.try_send(frame(b"x" * 2000))
            return a.links.peer_counters(2)["dropped_full"] > 1000

        wait_for(full, "the queue to be full")
        assert a.links.peer_counters(2)["send_errors"] == 0
    finally:
        router.close()
        context.term()


def test_z1_every_frame_is_either_sent_or_counted_as_dropped(opened: Opener) -> None:
    """One frame of high-water mark, and a peer that reads nothing: no frame disappears without a count."""
    context, router, address = raw_router({zmq.RCVHWM: 1, zmq.RCVBUF: 4096})
    try:
        a = opened(frames_max=1, in_flight_bytes_max=1 << 20)
        a.connect(2, address)
        wait_for(lambda: a.links.try_send(frame(b"x")), "a connection")
        before = a.links.peer_counters(2)
        accepted = 0
        for size in range(2000):
            accepted += a.links.try_send(frame(b"x" * (size * 10)))
        after = a.links.peer_counters(2)
        counted = {name: after[name] - before[name] for name in after}
        assert counted["sent_frames"] == accepted < 2000
        assert (
            counted["dropped_full"] + counted["dropped_bytes_max"] + counted["send_errors"] == 2000 - accepted
        )
        assert after["in_flight_bytes"] <= 1 << 20
    finally:
        router.close()
        context.term()


def test_z2_nothing_is_queued_for_a_dead_peer_so_nothing_stale_arrives(opened: Opener) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    a = opened()
    a.connect(2, address)
    for slot in range(1, 1000):
        assert not a.links.try_send(frame(slot=slot, payload=b"stale" * 1000))
    b = opened(address)
    assert deliver(a, b, frame(slot=5000)) == frame(slot=5000)
    assert a.links.peer_counters(2)["dropped_full"] >= 999
    b.close()
    wait_for(lambda: not a.links.try_send(frame(slot=6000)), "the connection to break")
    again = opened(address)
    while (got := deliver(a, again, frame(slot=7000))) != frame(slot=7000):
        pytest.fail(f"stale frame {got!r}")


def test_z3_bytes_in_flight_are_bounded_per_peer(opened: Opener) -> None:
    context, router, address = raw_router({zmq.RCVHWM: 1, zmq.RCVBUF: 4096})
    try:
        a = opened(in_flight_bytes_max=1 << 22)
        a.connect(2, address)
        big = frame(b"x" * (1 << 20))
        wait_for(lambda: a.links.try_send(big), "a connection")
        wait_for(
            lambda: not a.links.try_send(big) and a.links.peer_counters(2)["dropped_bytes_max"],
            "the byte limit",
        )
        for _ in range(100):
            a.links.try_send(big)
        assert a.links.peer_counters(2)["in_flight_bytes"] <= 1 << 22
        # A small frame is not held up by the limit: heartbeats pass while values do not.
        assert a.links.try_send(frame(b"small"))

        def drained() -> bool:
            while router.poll(0):
                router.recv_multipart()
            return a.links.peer_counters(2)["in_flight_bytes"] == 0

        wait_for(drained, "everything to be given back")
        assert a.links.try_send(big)
    finally:
        router.close()
        context.term()


def test_heartbeats_do_not_wait_behind_values(opened: Opener) -> None:
    context, router, address = raw_router({zmq.RCVHWM: 1, zmq.RCVBUF: 4096})
    try:
        a = opened(in_flight_bytes_max=1 << 24)
        a.connect(2, address)
        ping = encode_frame(FrameKind.PING, sender=1, receiver=2, payload=b"p" * 40)
        wait_for(lambda: a.links.try_send(frame(b"x" * (1 << 20))), "a connection")
        wait_for(lambda: not a.links.try_send(frame(b"x" * (1 << 20))), "the values to pile up")
        waiting = a.links.peer_counters(2)["sent_frames"]
        assert waiting >= 16
        wait_for(lambda: a.links.try_send(ping), "the urgent connection")
        seen = 0
        while router.recv_multipart()[1][3] != FrameKind.PING:
            seen += 1
        assert seen < waiting // 2
    finally:
        router.close()
        context.term()


class Stranger:
    """Somebody who speaks ZeroMQ to us, but not our protocol."""

    def __init__(self, address: str, **options: bytes) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(address)

    def __enter__(self) -> zmq.Socket[Any]:
        return self.socket

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.context.term()


def broken(at: int) -> bytes:
    data = bytearray(frame())
    data[at] ^= 1
    return bytes(data)


GOOD = frame()
WITH_PAYLOAD = frame(b"payload")
HEADER = WITH_PAYLOAD[:72]
GARBAGE: dict[str, list[bytes]] = {
    "empty": [b""],
    "two empty parts": [b"", b""],
    "short": [b"x"],
    "long": [b"x" * 100_000],
    "zeros": [bytes(72)],
    "wrong magic": [broken(0)],
    "wrong version": [broken(2)],
    "wrong checksum": [broken(71)],
    "header cut": [GOOD[:71]],
    "header with more": [GOOD + b"\0"],
    "unannounced payload": [GOOD, b"x"],
    "payload missing": [HEADER],
    "payload empty": [HEADER, b""],
    "payload short": [HEADER, b"payloa"],
    "payload long": [HEADER, b"payload!"],
    "part after the payload": [HEADER, b"payload", b""],
    "delimiter first": [b"", GOOD],
    "many parts": [b"x"] * 1000,
    "header then many parts": [GOOD, *[b"x"] * 1000],
    "two frames in one": [GOOD, GOOD],
}


@pytest.mark.parametrize("name", GARBAGE)
def test_g10_garbage_is_dropped_whole_and_the_next_frame_of_the_same_peer_arrives(
    name: str, opened: Opener
) -> None:
    a = opened()
    with Stranger(a.address) as stranger:
        stranger.send_multipart(GARBAGE[name])
        stranger.send_multipart([HEADER, b"payload"])
        assert wait_for(a.links.try_receive, "the good frame") == WITH_PAYLOAD
    counts = a.links.counters()
    assert counts["dropped_malformed_header"] + counts["dropped_malformed_payload"] == 1
    assert counts["received_frames"] == 1


parts = st.one_of(
    st.binary(max_size=100),
    st.sampled_from([GOOD, HEADER, b"payload", b"", GOOD[:71]]),
    st.integers(0, 71).map(broken),
)


def test_f17_any_mixture_of_messages_gives_exactly_the_well_formed_frames(opened: Opener) -> None:
    a = opened()
    with Stranger(a.address) as stranger:

        @given(st.lists(st.lists(parts, min_size=1, max_size=4), max_size=20))
        @settings(max_examples=100, deadline=None)
        def check(messages: list[list[bytes]]) -> None:
            expected = []
            for message in messages:
                stranger.send_multipart(message)
                if message == [GOOD]:
                    expected.append(GOOD)
                elif message[0] == HEADER and [len(part) for part in message[1:]] == [len(b"payload")]:
                    expected.append(b"".join(message))  # what the payload says is the engine's to check
            last = frame(slot=77)
            stranger.send_multipart([last])
            got = []
            while (data := wait_for(a.links.try_receive, "a frame")) != last:
                got.append(data)
            assert got == expected

        check()


def test_z4_strangers_with_chosen_routing_ids_do_not_disturb_a_peer(opened: Opener) -> None:
    a, b = opened(), opened()
    a.connect(2, b.address)
    assert deliver(a, b, frame(slot=1)) == frame(slot=1)
    with Stranger(b.address, ROUTING_ID=b"node-1") as one, Stranger(b.address, ROUTING_ID=b"node-1") as two:
        for stranger in (one, two):
            stranger.send_multipart([b"garbage"])
        for slot in range(2, 200):
            assert deliver(a, b, frame(slot=slot)) == frame(slot=slot)


def test_z4_a_peer_that_restarts_at_once_is_reached_again(opened: Opener) -> None:
    """Nobody waits until the dead connection is noticed: the new life has another routing id."""
    a, b = opened(), opened()
    address = b.bound
    a.connect(2, address)
    b.connect(1, a.bound)
    assert deliver(a, b, frame(slot=1)) == frame(slot=1)
    for life in range(2, 7):
        b.close()
        b = opened(address)
        b.connect(1, a.bound)
        answer = encode_frame(FrameKind.ACCEPTED, sender=2, receiver=1, slot=life)
        assert deliver(b, a, answer) == answer
        heard = None
        while heard is None:  # until the broken connection is noticed, what is sent into it is lost
            wait_for(partial(a.links.try_send, frame(slot=life)), "a connection")
            heard = b.links.try_receive()


def test_z7_a_message_over_the_limit_ends_that_connection_and_no_other(opened: Opener) -> None:
    a, b = opened(), opened()
    a.connect(2, b.address)
    assert deliver(a, b, frame(slot=1)) == frame(slot=1)
    with Stranger(b.address) as stranger:
        stranger.send_multipart([HEADER, bytes(VALUE_BYTES_MAX + (1 << 20))])
        for slot in range(2, 50):
            assert deliver(a, b, frame(slot=slot)) == frame(slot=slot)
    assert b.links.counters()["received_frames"] == 49


def test_bytes_that_are_not_zeromq_at_all_disturb_nobody(opened: Opener) -> None:
    a, b = opened(), opened()
    a.connect(2, b.address)
    port = parse_address(b.address).port
    with socket.create_connection(("127.0.0.1", port or 0)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(1000))
        assert deliver(a, b, frame()) == frame()


@pytest.mark.parametrize("scheme", ["tcp", "ipc", "inproc"])
def test_z7_closing_with_dead_peers_and_unsent_values_takes_less_than_two_seconds(
    scheme: str, tmp_path: Path
) -> None:
    first, second = addresses(scheme, tmp_path)
    a = ZmqTransport(first, value_bytes_max=VALUE_BYTES_MAX)
    b = ZmqTransport(second, value_bytes_max=VALUE_BYTES_MAX)
    a.connect(2, b.address)
    for dead in range(3, 6):
        a.connect(
            dead, {"tcp": f"tcp://127.0.0.1:{dead}", "ipc": f"ipc://{tmp_path}/no{dead}"}.get(scheme, second)
        )
    wait_for(lambda: a.links.try_send(frame(b"x" * VALUE_BYTES_MAX)), "a connection")
    for _ in range(20):
        a.links.try_send(frame(b"x" * VALUE_BYTES_MAX))
    done = threading.Event()

    def close_both() -> None:
        a.close(timeout_s=2.0)
        b.close(timeout_s=2.0)
        a.close()
        done.set()

    threading.Thread(target=close_both, daemon=True).start()
    assert done.wait(DEADLINE_S)


def test_z7_a_forked_child_is_told_and_harms_nothing(opened: Opener) -> None:
    a, b = opened(), opened()
    a.connect(2, b.address)
    assert deliver(a, b, frame(slot=1)) == frame(slot=1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            a.connect(3, b.address)
        except ConfigError as error:
            a.close()
            status = 0 if "fork" in str(error) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert deliver(a, b, frame(slot=2)) == frame(slot=2)


def test_x9_nodes_in_one_process_share_inproc_and_close_one_by_one(tmp_path: Path, opened: Opener) -> None:
    nodes = {i: opened(f"inproc://{tmp_path}/{i}") for i in (1, 2, 3)}
    for i, node in nodes.items():
        for j, other in nodes.items():
            if i != j:
                node.connect(j, other.address)
    nodes[3].close()
    assert deliver(nodes[1], nodes[2], frame(b"y" * 5000)) == frame(b"y" * 5000)
    again = opened(f"inproc://{tmp_path}/3")
    assert again.address == f"inproc://{tmp_path}/3"


@pytest.mark.parametrize("scheme", ["tcp", "ipc", "inproc"])
def test_an_address_in_use_is_refused_with_what_to_do(scheme: str, tmp_path: Path, opened: Opener) -> None:
    a = opened(addresses(scheme, tmp_path)[0])
    with pytest.raises(ConfigError, match=r"in use. Stop the process .* or choose another"):
        opened(a.bound)
    b = opened(addresses(scheme, tmp_path)[1])
    b.connect(2, a.address)
    assert deliver(b, a, frame()) == frame()


def test_ipc_takes_over_a_dead_socket_file_and_refuses_other_files(tmp_path: Path, opened: Opener) -> None:
    left_over = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left_over.bind(str(tmp_path / "s"))
    left_over.close()
    assert opened(f"ipc://{tmp_path}/s").address == f"ipc://{tmp_path}/s"
    with pytest.raises(ConfigError, match="directory of the socket does not exist"):
        opened(f"ipc://{tmp_path}/missing/s")


def test_an_address_of_another_machine_is_refused_with_what_to_do(opened: Opener) -> None:
    with pytest.raises(ConfigError, match=r"no address 203\.0\.113\.7.*tcp://\*:7001"):
        opened("tcp://203.0.113.7:7001")


@pytest.mark.parametrize(
    "text",
    ["", "tcp", "tcp://", "tcp://host", "tcp://host:", "tcp://host:x", "tcp://host:70000", "tcp://:80", "tcp://*:80",
     "tcp://host:0", "http://host:80", "udp://h:1", "ipc://", "inproc://", "tcp://a b:1", "tcp://[::1:80",
     "ipc://" + "x" * 108, "tcp://host:80/path", "tcp://host:1\n", 7, None, b"tcp://host:80"],
)  # fmt: skip
def test_addresses_that_do_not_parse_say_what_was_expected(text: Any) -> None:
    with pytest.raises(ConfigError, match="address|expected"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "tcp://10.0.0.1:7001",
        "tcp://replica-1.example.com:7001",
        "tcp://[::1]:7001",
        "ipc:///run/p",
        "inproc://n",
    ],
)
def test_good_addresses_come_back_unchanged(text: str) -> None:
    assert str(parse_address(text)) == text


def test_wildcards_are_for_listening_only() -> None:
    assert parse_address("tcp://*:0", bind=True).port == 0


def test_connecting_twice_or_across_contexts_is_refused(tmp_path: Path, opened: Opener) -> None:
    a, b = opened(), opened()
    a.connect(2, b.address)
    with pytest.raises(ConfigError, match="node id 2"):
        a.connect(2, b.address)
    with pytest.raises(ConfigError, match="inproc"):
        a.connect(3, f"inproc://{tmp_path}/x")
    a.close()
    with pytest.raises(ConfigError, match="closed"):
        a.connect(4, b.address)


def test_the_functions_come_from_the_libzmq_that_pyzmq_loaded() -> None:
    assert set(native.load()) == set(core_links.FUNCTION_NAMES)
    assert all(native.load().values()) and native.backend_files()


def test_an_unreachable_libzmq_is_an_import_error_that_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "backend_files", lambda: ["/nonexistent/backend.so"])
    with pytest.raises(ImportError, match=r"pip install.*nonexistent"):
        native.load()
