"""The reactor with everything real around it: engine, log, sockets. Loopback and inproc only."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from paxos._core.batch import Batcher
from paxos._core.codec import FrameKind, encode_frame
from paxos._core.engine_face import EngineFace
from paxos._core.load import NativeLoad
from paxos._core.reactor import Reactor
from paxos.errors import Busy, Closed, ConfigError
from paxos.messages import Resign
from tests.unit.native_node import CLUSTER, DEADLINE_S, NativeCluster, NativeNode, wait_for

# Where a test asserts that nobody was elected, a busy machine must not be the reason for one.
PATIENT: dict[str, Any] = {"heartbeat_ms": 100, "election_timeout_ms": 5000, "backoff_ms_max": 100}


def propose(node: NativeNode, command: bytes) -> int:
    ticket = node.batcher.append(command, timeout_s=DEADLINE_S)
    assert node.reactor.wait_chosen(ticket, DEADLINE_S), node.reactor.fault
    return ticket


@pytest.mark.parametrize(
    ("count", "scheme"), [(1, "tcp"), (3, "tcp"), (3, "ipc"), (3, "inproc"), (5, "inproc")]
)
def test_commands_reach_every_node_once_and_in_one_order(count: int, scheme: str, tmp_path: Path) -> None:
    with NativeCluster(tmp_path, count, scheme) as cluster:
        cluster.leader()
        for node in cluster.nodes.values():
            for i in range(10):
                propose(node, b"%d:%d" % (node.node_id, i))
        run = [b"x" * 5000 + b"%d" % i for i in range(500)]
        follower = list(cluster.nodes.values())[-1]
        first, _ = follower.batcher.append_many(run)
        assert follower.reactor.wait_chosen(first + len(run) - 1, DEADLINE_S)
        commands = cluster.settle(10 * count + len(run))
        assert sorted(commands) == sorted(
            [b"%d:%d" % (n, i) for n in cluster.members for i in range(10)] + run
        )
        assert [c for c in commands if len(c) > 4000] == run
        assert all(node.reactor.fault is None for node in cluster.nodes.values())


def test_values_beyond_the_zero_copy_limit_survive_the_end_of_their_sender(tmp_path: Path) -> None:
    """X4: libzmq and the peers hold on to buffers of a node that stops while they are under way."""
    for scheme in ("tcp", "inproc"):
        directory = tmp_path / scheme
        directory.mkdir()
        with NativeCluster(directory, 3, scheme) as cluster:
            leader = cluster.leader()
            run = [os.urandom(200_000) for _ in range(40)]
            first, _ = leader.batcher.append_many(run)
            leader.reactor.wait_chosen(first + 3, DEADLINE_S)
            leader.stop()
            others = [node for node in cluster.nodes.values() if node is not leader]
            propose(others[0], b"after")
            commands = cluster.settle(1, last=b"after")
            assert commands[: len(commands) - 1] == run[: len(commands) - 1]


def test_blocking_proposers_wake_when_their_own_command_is_chosen(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc") as cluster:
        leader = cluster.leader()
        failures: list[BaseException] = []

        def caller(node: NativeNode, who: int) -> None:
            try:
                for i in range(30):
                    ticket = propose(node, b"%d:%d" % (who, i))
                    assert node.reactor.chosen_ticket >= ticket
            except BaseException as error:
                failures.append(error)

        nodes = [leader, leader, cluster.follower(), cluster.follower()]
        callers = [threading.Thread(target=caller, args=(n, who)) for who, n in enumerate(nodes * 2)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(DEADLINE_S)
        assert not failures
        commands = cluster.settle(30 * len(callers))
        for who in range(len(callers)):
            mine = [c for c in commands if c.startswith(b"%d:" % who)]
            assert mine == [b"%d:%d" % (who, i) for i in range(30)]
        assert leader.reactor.status()["combined"] > 0


def test_waiting_for_a_ticket_ends_at_the_timeout_and_at_the_stop(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc") as cluster:
        node = cluster.leader()
        propose(node, b"one")
        assert node.reactor.wait_chosen(1, 0.0) and not node.reactor.wait_chosen(2, 0.0)
        assert not node.reactor.wait_chosen(1000, 0.02)
        for bad in (-1.0, float("nan")):
            with pytest.raises(ConfigError, match="seconds"):
                node.reactor.wait_chosen(1000, bad)
        results: list[bool] = []
        waiters = [
            threading.Thread(target=lambda t=t: results.append(node.reactor.wait_chosen(t, None)))
            for t in (1003, 1001, 1002)
        ]
        for waiter in waiters:
            waiter.start()
        propose(node, b"two")
        assert not results
        assert node.reactor.stop(DEADLINE_S)
        for waiter in waiters:
            waiter.join(DEADLINE_S)
        assert results == [False, False, False]


def test_x7_a_signal_ends_the_wait_of_the_main_thread(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def handler(*_: object) -> None:
        raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach only the main thread")
    with NativeCluster(tmp_path, 1, "inproc") as cluster:
        node = cluster.leader()
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            for wait in (
                lambda: node.reactor.wait_chosen(99, None),
                lambda: node.reactor.wait_unapplied(None),
                lambda: node.reactor.take_cold(None),
            ):
                timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
                with pytest.raises(Interrupted):
                    while True:
                        wait()
                timer.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        propose(node, b"still there")


def test_d8_fsync_is_never_retried_and_nothing_is_said_after_it_failed(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc") as cluster:
        leader = cluster.leader()
        propose(leader, b"before")
        sent = leader.reactor.status()["sent_by_kind"].get("decide", 0)
        leader.wal.inject_failure("sync", errno.EIO)
        waiter_result: list[bool] = []
        ticket = leader.batcher.append(b"during")
        waiter = threading.Thread(
            target=lambda: waiter_result.append(leader.reactor.wait_chosen(ticket, None))
        )
        waiter.start()
        wait_for(lambda: not leader.reactor.alive, "the reactor to stop by itself")
        waiter.join(DEADLINE_S)
        assert waiter_result == [False]
        code, text = leader.reactor.fault or (0, "")
        assert code == 1 and "fdatasync" in text and "errno 5" in text
        syncs = leader.wal.stats()["syncs"]
        assert leader.wal.is_poisoned
        with pytest.raises(Closed):
            leader.batcher.append(b"after")
        wait_for(lambda: leader.reactor.take_chosen(0.0) is None, "the queue to end")
        assert leader.reactor.take_cold(0.0) is None
        assert leader.reactor.status()["sent_by_kind"].get("decide", 0) <= sent + 2
        assert leader.wal.stats()["syncs"] == syncs
        # The others go on without it, and what was told as chosen is there.
        others = [node for node in cluster.nodes.values() if node is not leader]
        propose(others[0], b"without it")
        commands = cluster.settle(2, last=b"without it")
        assert commands[0] == b"before" and commands[-1] == b"without it"


def test_d7_a_full_disk_stops_a_node_without_a_fault_and_it_goes_on_when_there_is_space(
    tmp_path: Path,
) -> None:
    with NativeCluster(tmp_path, 1, "inproc", segment_bytes=1 << 16) as cluster:
        node = cluster.leader()
        propose(node, b"before")
        node.wal.inject_failure("space", errno.ENOSPC)
        tickets = [node.batcher.append(b"%d" % i + b"x" * 50_000) for i in range(40)]
        wait_for(lambda: node.reactor.status()["disk_is_full"], "the disk to be full")
        assert node.reactor.fault is None and node.reactor.alive
        assert not node.reactor.wait_chosen(tickets[-1], 0.0)
        node.wal.inject_failure("space", 0)
        assert node.reactor.wait_chosen(tickets[-1], DEADLINE_S)
        assert [c.split(b"x")[0] for c in cluster.settle(41)[1:]] == [b"%d" % i for i in range(40)]


def test_a_full_disk_does_not_keep_stop_from_ending(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 1, "inproc", segment_bytes=1 << 16) as cluster:
        node = cluster.leader()
        node.wal.inject_failure("space", errno.ENOSPC)
        for i in range(40):
            node.batcher.append(b"%d" % i + b"x" * 50_000)
        wait_for(lambda: node.reactor.status()["disk_is_full"], "the disk to be full")
        assert node.reactor.stop(DEADLINE_S)


def test_g9_y6_a_slow_state_machine_holds_callers_back_but_neither_votes_nor_heartbeats(
    tmp_path: Path,
) -> None:
    limits = dict.fromkeys(("unapplied_bytes_max", "pending_bytes_max", "command_bytes_max"), 1 << 20)
    limits["batch_bytes_max"] = 1 << 16
    with NativeCluster(tmp_path, 3, "inproc", **limits, **PATIENT) as cluster:
        leader = cluster.leader()
        elections = leader.engine.counters()["elections"]
        for node in cluster.nodes.values():
            node.apply_gate.clear()
        taken = 0
        with pytest.raises(Busy):
            while True:
                leader.batcher.append(b"%06d" % taken + b"x" * 5000, timeout_s=0.5)
                taken += 1
        status = leader.reactor.status()
        assert 1 << 20 < status["unapplied_bytes"] < 1 << 23
        rounds = leader.engine.glance()["round"]
        wait_for(lambda: leader.engine.glance()["round"] > rounds + 10, "heartbeats")
        assert leader.leads and leader.engine.counters()["elections"] == elections
        for node in cluster.nodes.values():
            node.apply_gate.set()
        commands = cluster.settle(taken)
        assert [int(c[:6]) for c in commands] == list(range(taken))


def test_values_that_were_let_go_are_read_back_from_the_log(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 1, "inproc", unapplied_bytes_max=20_000) as cluster:
        node = cluster.leader()
        node.apply_gate.clear()
        run = []
        while node.reactor.status()["unapplied_slots"] == 0:  # the apply thread may still take one
            run.append(b"%03d" % len(run))
            propose(node, run[-1])
        # What one pass of the reactor takes is bounded, not cut at the limit: some of it must be let go.
        more = [b"%03d" % i + b"y" * 1000 for i in range(300)]
        node.batcher.append_many(more)
        wait_for(lambda: node.reactor.status()["values_evicted"], "values to be let go")
        node.apply_gate.set()
        assert cluster.settle(len(run) + 300) == run + more


def test_g9_a_stuck_control_thread_costs_cold_frames_and_no_commits(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc", **PATIENT) as cluster:
        leader, follower = cluster.leader(), cluster.follower()
        propose(leader, b"before")
        follower.control_gate.clear()
        elections = [node.engine.counters()["elections"] for node in (leader, follower)]
        with Stranger(follower, leader) as send:

            def overflown() -> bool:
                for slot in range(500):
                    send(FrameKind.FETCH_CHOSEN, slot=slot, mark=slot)
                return follower.reactor.status()["cold_dropped"] > 100

            wait_for(overflown, "the queue of cold frames to overflow")
            for i in range(20):
                propose(follower, b"%d" % i)
        follower.control_gate.set()
        cluster.settle(21)
        assert elections == [node.engine.counters()["elections"] for node in (leader, follower)]


class Stranger:
    """Sends well-formed frames to ``target`` that claim to come from ``claimed``."""

    def __init__(self, target: NativeNode, claimed: NativeNode) -> None:
        self.target, self.claimed = target, claimed
        inproc = target.transport.bound.startswith("inproc")
        self.own_context: zmq.Context[Any] | None = None if inproc else zmq.Context()
        self.context: zmq.Context[Any] = self.own_context or target.transport._context
        self.socket: zmq.Socket[Any] = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(target.transport.address)

    def __enter__(self) -> Any:
        return self.send

    def send(self, kind: int, payload: bytes = b"", **fields: int) -> None:
        data = encode_frame(
            kind,
            sender=self.claimed.node_id,
            receiver=self.target.node_id,
            cluster=CLUSTER,
            incarnation=self.claimed.batcher.incarnation,
            payload=payload,
            **fields,
        )
        self.socket.send_multipart([data[:72], payload] if payload else [data])

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        if self.own_context is not None:
            self.own_context.term()


def test_f17_garbage_at_every_router_is_counted_while_commits_go_on(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "tcp", **PATIENT) as cluster:
        leader = cluster.leader()
        elections = {n.node_id: n.engine.counters()["elections"] for n in cluster.nodes.values()}
        context: zmq.Context[Any] = zmq.Context()
        sockets = []
        try:
            for node in cluster.nodes.values():
                socket = context.socket(zmq.DEALER)
                socket.setsockopt(zmq.LINGER, 0)
                socket.connect(node.transport.address)
                sockets.append(socket)
            good = encode_frame(
                FrameKind.ACCEPT, sender=1, receiver=2, cluster=CLUSTER, payload=b"abc", ballot=1 << 62
            )
            unknown = [encode_frame(kind, sender=2, receiver=1, cluster=CLUSTER) for kind in (0, 99, 255)]
            for i in range(100):
                for socket in sockets:
                    socket.send_multipart([os.urandom(i * 7)])
                    socket.send_multipart([good[:72]])
                    socket.send_multipart([good[:72], b"abd"])
                    socket.send_multipart([good[:72], b"abc", b"", b""])
                    socket.send_multipart([b"", good[:72], b"abc"])
                    for frame in unknown:
                        socket.send_multipart([frame])
                propose(leader, b"%d" % i)
            assert cluster.settle(100) == [b"%d" % i for i in range(100)]
            for node in cluster.nodes.values():
                wait_for(
                    lambda node=node: node.reactor.status()["frames_malformed"] >= 400,
                    "garbage to be counted",
                )
                assert node.reactor.fault is None
                assert node.engine.counters()["elections"] == elections[node.node_id]
        finally:
            for socket in sockets:
                socket.close()
            context.term()


def test_the_leader_stops_another_takes_over_and_the_stopped_one_catches_up(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "tcp") as cluster:
        for round_number in range(3):
            leader = cluster.leader()
            for i in range(20):
                propose(leader, b"%d:%d" % (round_number, i))
            leader.stop()
            survivor = cluster.leader()
            propose(survivor, b"%d:by the new leader" % round_number)
            cluster.restart(leader.node_id)
        commands = cluster.settle(63)
        expected = [
            c
            for r in range(3)
            for c in [*(b"%d:%d" % (r, i) for i in range(20)), b"%d:by the new leader" % r]
        ]
        assert commands == expected


def test_a_posted_intent_reaches_the_engine(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc") as cluster:
        leader = cluster.leader()
        steps = leader.engine.counters()["step_downs"]
        leader.reactor.post(Resign())
        wait_for(lambda: leader.engine.counters()["step_downs"] == steps + 1, "the leader to resign")
        with pytest.raises(TypeError, match="not an intent"):
            leader.reactor.post("resign")
        propose(cluster.leader(), b"goes on")


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[NativeNode]:
    cluster = NativeCluster(tmp_path, 1, "inproc")
    yield cluster.nodes[1]
    cluster.stop()


def test_a_reactor_starts_once_and_stops_any_number_of_times(lone: NativeNode) -> None:
    assert lone.reactor.stop() and not lone.reactor.alive
    lone.start()
    with pytest.raises(ConfigError, match="once"):
        lone.reactor.start()
    assert lone.reactor.alive
    assert lone.reactor.stop() and lone.reactor.stop() and not lone.reactor.alive
    with pytest.raises(ConfigError, match="once"):
        lone.reactor.start()
    assert lone.reactor.take_chosen(0.0) in ([], None)
    assert lone.reactor.fault is None


def test_wrong_parts_are_refused(lone: NativeNode) -> None:
    parts: list[Any] = [lone.engine, lone.wal, lone.batcher, lone.transport.links]
    for i in range(4):
        for wrong in (None, "x"):
            with pytest.raises(TypeError):
                Reactor(*parts[:i], wrong, *parts[i + 1 :])
    with pytest.raises(ConfigError, match="limit"):
        lone.reactor.take_chosen(0.0, 0)
    assert isinstance(lone.engine, EngineFace) and isinstance(lone.batcher, Batcher)


def test_z7_a_forked_child_sees_a_dead_reactor_and_leaves_the_parents_alone(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 1, "tcp") as cluster:
        node = cluster.leader()
        propose(node, b"before")
        child = os.fork()
        if child == 0:
            fine = not node.reactor.alive and node.reactor.stop()
            node.transport.close()
            os._exit(0 if fine else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        propose(node, b"after")
        assert cluster.settle(2) == [b"before", b"after"]


def test_x9_two_clusters_in_one_process_do_not_hear_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with NativeCluster(tmp_path / "a", 3, "inproc") as one, NativeCluster(tmp_path / "b", 3, "inproc") as two:
        propose(one.leader(), b"one")
        propose(two.leader(), b"two")
        assert one.settle(1) == [b"one"] and two.settle(1) == [b"two"]


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_a_native_load_commits_and_is_measured(at: str, tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc") as cluster:
        node = cluster.leader() if at == "leader" else cluster.follower()
        load = NativeLoad(node.reactor, 50, command_bytes=16)
        load.start()
        assert load.join(DEADLINE_S)
        assert load.completed == 50 and not load.failed and not load.running
        assert len(load.latencies_us) == len(load.finished_us) == 50 and min(load.latencies_us) > 0
        assert [int.from_bytes(c[:8], "little") for c in cluster.settle(50)] == list(range(1, 51))
        with pytest.raises(ConfigError, match="once"):
            load.start()
        endless = NativeLoad(node.reactor, 10**6, pause_us=100)
        endless.start()
        wait_for(lambda: endless.completed > 5, "some commits")
        assert endless.stop(DEADLINE_S) and endless.completed < 10**6
        for bad in ({"count": 0}, {"count": 1, "command_bytes": 7}, {"count": 1, "pause_us": -1}):
            with pytest.raises(ConfigError):
                NativeLoad(node.reactor, **bad)


def test_a_native_load_ends_when_its_node_does(tmp_path: Path) -> None:
    with NativeCluster(tmp_path, 3, "inproc") as cluster:
        node = cluster.leader()
        load = NativeLoad(node.reactor, 10**6)
        load.start()
        wait_for(lambda: load.completed > 5, "some commits")
        assert node.reactor.stop(DEADLINE_S)
        assert load.join(DEADLINE_S) and load.failed
