"""Replicas end to end: real disks, real sockets, one to three nodes; what was acknowledged is never lost."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paxos
from paxos.errors import Closed, ConfigError, OutcomeUnknown, PaxosError, StorageError

WAIT_S = 60.0


class Recorder(paxos.StateMachine):
    """Remembers what it applied; `poison` raises."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def apply(self, command: bytes, context: paxos.ApplyContext) -> Any:
        if command == b"poison":
            raise ValueError("cannot digest this")
        self.seen.append(command)
        return (context.index, command.upper())


def until(condition: Callable[[], Any], what: str = "the condition") -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} was not met in time"
        time.sleep(0.005)


def commands_of(replica: paxos.Replica) -> list[bytes]:
    return [entry.command for entry in replica.entries()]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# -- one node ------------------------------------------------------------------------------------------------


def test_a_one_node_log_keeps_everything_over_restarts(tmp_path: Path) -> None:
    expected = []
    first = 0
    for start in range(3):
        machine = Recorder()
        with paxos.Replica(tmp_path / "data", state_machine=machine) as replica:
            first = first or replica.status().incarnation
            for at in range(10):
                command = b"%d-%d" % (start, at)
                expected.append(command)
                outcome = replica.propose(command, WAIT_S)
                assert outcome.index == len(expected)
                assert outcome.result == (outcome.index, command.upper())
            run = [b"run-%d-%d" % (start, at) for at in range(2000)]
            expected += run
            assert replica.submit_many(run).result(WAIT_S).count == 2000
            assert machine.seen == expected
            assert commands_of(replica) == expected
            assert replica.status().incarnation == first + start
            assert replica.read_index(1).command == b"0-0"


def test_results_reach_blocking_callers_on_any_thread(tmp_path: Path) -> None:
    with paxos.Replica(tmp_path, state_machine=Recorder()) as replica:
        wrong: list[Any] = []

        def work(name: int) -> None:
            for at in range(30):
                command = b"t-%d-%d" % (name, at)
                outcome = replica.propose(command, WAIT_S)
                if outcome.result != (outcome.index, command.upper()):
                    wrong.append(outcome)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert not wrong
        assert len(commands_of(replica)) == 240


CHILD = """
    import sys, paxos
    replica = paxos.Replica(sys.argv[1])
    number = int(sys.argv[2])
    while True:
        outcome = replica.propose(b"command %d" % number, 60)
        print(number, outcome.index, flush=True)
        number += 1
"""


def test_p2_kill_9_loses_no_acknowledged_command(tmp_path: Path) -> None:
    acknowledged: dict[int, int] = {}
    number = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "data"), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        killed = False
        for line in child.stdout:  # to the end: what is left in the pipe was acknowledged, too
            if not line.endswith("\n"):
                break
            number, index = map(int, line.split())
            acknowledged[number] = index
            if len(acknowledged) % 40 == 0 and not killed:
                child.send_signal(signal.SIGKILL)
                killed = True
        child.stdout.close()
        child.wait(WAIT_S)
        number += 2  # the one after the last may or may not have made it
    with paxos.Replica(tmp_path / "data") as replica:
        for number, index in acknowledged.items():
            assert replica.read_index(index).command == b"command %d" % number
        found = commands_of(replica)
        assert len(set(found)) == len(found)


def test_y3_an_exception_in_apply_stops_the_node_and_a_restart_meets_it_again(tmp_path: Path) -> None:
    replica = paxos.Replica(tmp_path, state_machine=Recorder())
    replica.propose(b"fine", WAIT_S)
    with pytest.raises(OutcomeUnknown, match="cannot digest this"):
        replica.propose(b"poison", WAIT_S)
    status = replica.status()
    assert status.role == "stopped" and "cannot digest this" in (status.fault or "")
    with pytest.raises(Closed, match="cannot digest this"):
        replica.propose(b"later", WAIT_S)
    replica.close()
    again = paxos.Replica(tmp_path, state_machine=Recorder())
    until(lambda: again.status().fault, "the stop at the same slot")
    again.close()
    with paxos.Replica(tmp_path) as without:  # the log itself is sound
        until(lambda: without.status().last_index == 2)
        assert commands_of(without) == [b"fine", b"poison"]


def test_d8_f6_a_failed_fsync_stops_the_node_and_says_so(tmp_path: Path) -> None:
    replica = paxos.Replica(tmp_path)
    replica.propose(b"safe", WAIT_S)
    replica._node.parts.reactor.wal.inject_failure("sync", errno.EIO)
    with pytest.raises(OutcomeUnknown) as caught:
        replica.propose(b"lost?", WAIT_S)
    assert isinstance(caught.value.__cause__, StorageError)
    with pytest.raises(Closed, match="Input/output error"):
        replica.submit(b"later")
    assert "Input/output error" in (replica.status().fault or "")
    replica.close()
    with paxos.Replica(tmp_path) as again:
        assert again.wait_ready(WAIT_S)
        assert again.propose(b"on", WAIT_S).index in (2, 3)
        assert commands_of(again)[0] == b"safe"


def test_d7_f7_a_full_disk_refuses_and_resumes(tmp_path: Path) -> None:
    with paxos.Replica(tmp_path, config=paxos.Config(segment_bytes=1 << 16)) as replica:
        replica.propose(b"before", WAIT_S)
        wal = replica._node.parts.reactor.wal
        wal.inject_failure("space", errno.ENOSPC)
        futures = [replica.submit(bytes([at]) * 30_000) for at in range(40)]
        time.sleep(0.2)
        wal.inject_failure("space", 0)
        assert [future.result(WAIT_S).index for future in futures] == [*range(2, 42)]


# -- three nodes ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["inproc", "tcp", "ipc"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[paxos.LocalCluster]:
    with paxos.LocalCluster(
        3, state_machine=Recorder, directory=tmp_path, transport=request.param
    ) as cluster:
        cluster.leader(WAIT_S)
        yield cluster


@pytest.fixture
def tcp_cluster(tmp_path: Path) -> Iterator[paxos.LocalCluster]:
    with paxos.LocalCluster(3, state_machine=Recorder, directory=tmp_path, transport="tcp") as cluster:
        cluster.leader(WAIT_S)
        yield cluster


def test_three_nodes_agree_survive_their_leader_and_take_it_back(cluster: paxos.LocalCluster) -> None:
    leader = cluster.leader(WAIT_S)
    follower = next(replica for replica in cluster if replica is not leader)
    assert leader.propose(b"one", WAIT_S).result == (1, b"ONE")
    assert follower.propose(b"two", WAIT_S).result == (2, b"TWO")
    run = [b"%d" % at for at in range(3000)]
    assert follower.submit_many(run).result(WAIT_S).indices == (range(3, 3003),)
    cluster.wait_applied(3002, WAIT_S)
    dead = leader.node_id
    cluster.kill(dead)
    assert follower.propose(b"after", WAIT_S).index == 3003
    assert cluster.leader(WAIT_S).node_id != dead
    returned = cluster.restart(dead)
    assert returned.propose(b"returned", WAIT_S).index == 3004
    cluster.wait_applied(3004, WAIT_S)
    expected = [b"one", b"two", *run, b"after", b"returned"]
    for replica in cluster:
        assert commands_of(replica) == expected
        assert replica.state_machine.seen == expected


def test_closing_the_leader_hands_leadership_over(tcp_cluster: paxos.LocalCluster) -> None:
    leader = tcp_cluster.leader(WAIT_S)
    leader.propose(b"one", WAIT_S)
    tcp_cluster.wait_applied(1, WAIT_S)
    ballots = {replica.status().ballot for replica in tcp_cluster}
    tcp_cluster.stop(leader.node_id)
    successor = tcp_cluster.leader(WAIT_S)
    assert successor.node_id != leader.node_id
    assert successor.status().ballot > max(ballots)
    assert leader.status().role == "stopped"
    assert successor.propose(b"two", WAIT_S).index == 2


def test_leadership_can_be_transferred(tcp_cluster: paxos.LocalCluster) -> None:
    leader = tcp_cluster.leader(WAIT_S)
    heir = next(replica.node_id for replica in tcp_cluster if replica is not leader)
    with pytest.raises(ConfigError):
        leader.transfer_leadership(99)
    with pytest.raises(ConfigError):
        leader.transfer_leadership(leader.node_id)
    assert leader.transfer_leadership(heir, timeout=WAIT_S)
    until(lambda: tcp_cluster[heir].is_leader, "the heir's leadership")
    assert leader.propose(b"one", WAIT_S).index == 1


def test_g4_c2_a_minority_never_says_rejected(tcp_cluster: paxos.LocalCluster) -> None:
    leader = tcp_cluster.leader(WAIT_S)
    others = [replica.node_id for replica in tcp_cluster if replica is not leader]
    for other in others:
        tcp_cluster.kill(other)
    with pytest.raises(OutcomeUnknown):
        leader.propose(b"maybe", 0.05)
    future = leader.submit(b"maybe, too")
    until(lambda: leader.status().role != "leader", "stepping down without a quorum")
    tcp_cluster.restart(others[0])
    outcome = future.result(WAIT_S)  # a quorum is back: what was unknown is decided
    assert leader.read_index(outcome.index).command == b"maybe, too"


def test_y3_f18_g6_every_replica_stops_at_the_same_slot(tcp_cluster: paxos.LocalCluster) -> None:
    leader = tcp_cluster.leader(WAIT_S)
    leader.propose(b"fine", WAIT_S)
    with pytest.raises(OutcomeUnknown):
        leader.propose(b"poison", WAIT_S)
    # The others elect a new leader, which stops at the same slot; the third may be left without a quorum then.
    until(lambda: sum(replica.status().fault is not None for replica in tcp_cluster) >= 2, "the second stop")
    assert all(replica.state_machine.seen == [b"fine"] for replica in tcp_cluster)
    faults = {replica.status().fault for replica in tcp_cluster} - {None}
    assert len(faults) == 1 and "cannot digest this in slot" in faults.pop()


def test_many_threads_on_every_node_while_the_leader_dies(tcp_cluster: paxos.LocalCluster) -> None:
    leader = tcp_cluster.leader(WAIT_S)
    acknowledged: list[tuple[int, bytes]] = []
    unknown: list[bytes] = []
    stop = threading.Event()

    def work(replica: paxos.Replica, name: int) -> None:
        at = 0
        while not stop.is_set():
            command = b"%d-%d-%d" % (replica.node_id, name, at)
            at += 1
            try:
                outcome = replica.propose(command, WAIT_S)
            except OutcomeUnknown:
                unknown.append(command)
            except Closed:
                return
            else:
                acknowledged.append((outcome.index, command))

    threads = [
        threading.Thread(target=work, args=(replica, name)) for replica in tcp_cluster for name in range(3)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 200, "200 commands")
    tcp_cluster.kill(leader.node_id)
    seen = len(acknowledged)
    until(lambda: len(acknowledged) > seen + 200, "200 commands after the leader died")
    stop.set()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    last = max(index for index, _ in acknowledged)
    tcp_cluster.restart(leader.node_id)
    tcp_cluster.wait_applied(last, WAIT_S)
    logs = [commands_of(replica)[:last] for replica in tcp_cluster]
    assert logs[0] == logs[1] == logs[2]
    assert len(set(logs[0])) == len(logs[0]), "a command was applied twice"
    for index, command in acknowledged:
        assert logs[0][index - 1] == command


def test_subscribers_see_every_command_once_on_every_node(tcp_cluster: paxos.LocalCluster) -> None:
    seen: dict[int, list[bytes]] = {replica.node_id: [] for replica in tcp_cluster}

    def follow(replica: paxos.Replica) -> None:
        for entry in replica.subscribe(from_index=3):
            seen[replica.node_id].append(entry.command)

    threads = [threading.Thread(target=follow, args=(replica,)) for replica in tcp_cluster]
    for thread in threads:
        thread.start()
    run = [b"%d" % at for at in range(1, 501)]
    for at in range(0, 500, 100):
        tcp_cluster.leader(WAIT_S).submit_many(run[at : at + 100]).result(WAIT_S)
    until(lambda: all(len(commands) == 498 for commands in seen.values()), "all commands at all subscribers")
    tcp_cluster.close()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert all(commands == run[2:] for commands in seen.values())


def test_the_asyncio_face_on_three_nodes(tmp_path: Path) -> None:
    members = {node: f"tcp://127.0.0.1:{free_port()}" for node in (1, 2, 3)}

    async def main() -> None:
        replicas = [
            paxos.aio.Replica(tmp_path / str(node), node_id=node, members=members, state_machine=Recorder())
            for node in members
        ]
        await asyncio.gather(*(replica.open() for replica in replicas))
        try:
            assert await replicas[0].wait_ready(WAIT_S)
            outcomes = await asyncio.gather(
                *(replicas[at % 3].propose(b"%d" % at, WAIT_S) for at in range(300))
            )
            assert sorted(outcome.index for outcome in outcomes) == [*range(1, 301)]
            seen = []
            async for entry in replicas[1].subscribe():
                seen.append(entry.command)
                if len(seen) == 300:
                    break
            assert {outcome.index: b"%d" % at for at, outcome in enumerate(outcomes)} == dict(
                enumerate(seen, 1)
            )
        finally:
            await asyncio.gather(*(replica.close() for replica in replicas))

    asyncio.run(main())


# -- bad days ------------------------------------------------------------------------------------------------


def test_proposing_inside_apply_is_refused_instead_of_hanging(tmp_path: Path) -> None:
    class Greedy(paxos.StateMachine):
        replica: paxos.Replica | None = None

        def apply(self, command: bytes, context: paxos.ApplyContext) -> Any:
            assert self.replica is not None
            try:
                self.replica.propose(b"more", WAIT_S)
            except ConfigError as error:
                return str(error)
            return "went through"

    machine = Greedy()
    with paxos.Replica(tmp_path, state_machine=machine) as replica:
        machine.replica = replica
        assert "for ever" in replica.propose(b"x", WAIT_S).result


def test_a_replica_that_is_only_followed_stays_open(tmp_path: Path) -> None:
    with paxos.Replica(tmp_path) as replica:
        replica.submit_many([b"a", b"b"]).result(WAIT_S)
    subscription = paxos.Replica(tmp_path).subscribe()
    assert [next(subscription).command for _ in range(2)] == [b"a", b"b"]
    del subscription
    until(lambda: _opens(tmp_path), "the directory")


def test_status_and_inspect_before_and_after_the_end(tmp_path: Path) -> None:
    replica = paxos.Replica(tmp_path)
    replica.propose(b"x", WAIT_S)
    for role in ("leader", "stopped"):
        assert replica.status().role == role
        assert replica.inspect()["applied_index"] == 1
        assert repr(replica) and str(replica.status())
        replica.close()


def test_y6_closing_does_not_wait_for_a_slow_state_machine(tmp_path: Path) -> None:
    class Slow(paxos.StateMachine):
        slots = 0

        def apply_batch(self, commands: Any, context: paxos.ApplyContext) -> None:
            self.slots += 1
            time.sleep(0.05)

    machine = Slow()
    replica = paxos.Replica(tmp_path, state_machine=machine, config=paxos.Config(batch_bytes_max=1 << 16))
    future = replica.submit_many([b"x" * 50_000] * 400)
    until(lambda: machine.slots > 2)
    replica.close(timeout=0.2)
    assert machine.slots < 400
    assert isinstance(future.exception(WAIT_S), OutcomeUnknown)
    with paxos.Replica(tmp_path) as again:
        until(lambda: again.status().last_index == 400)


def test_w1_two_replicas_of_one_directory(tmp_path: Path) -> None:
    with paxos.Replica(tmp_path) as replica:
        with pytest.raises(StorageError, match="in use"):
            paxos.Replica(tmp_path)
        assert replica.propose(b"still alive", WAIT_S).index == 1


def test_s1_a_directory_of_another_node_or_cluster_or_membership(tmp_path: Path) -> None:
    members = {node: f"tcp://127.0.0.1:{free_port()}" for node in (1, 2)}
    with paxos.Replica(tmp_path, cluster="one") as replica:
        replica.propose(b"x", WAIT_S)
    with pytest.raises(ConfigError, match="belongs to node 1"):
        paxos.Replica(tmp_path, node_id=2, cluster="one")
    with pytest.raises(ConfigError, match="belongs to cluster 'one'"):
        paxos.Replica(tmp_path, cluster="two")
    with pytest.raises(ConfigError, match="members"):
        paxos.Replica(tmp_path, node_id=1, cluster="one", members=members)
    with paxos.Replica(tmp_path, cluster="one") as replica:  # nothing was changed by all that
        until(lambda: replica.status().last_index == 1)


def test_an_address_in_use(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match="in use"):
            paxos.Replica(tmp_path, node_id=1, members={1: f"tcp://127.0.0.1:{port}"})
    with paxos.Replica(tmp_path, node_id=1, members={1: f"tcp://127.0.0.1:{port}"}) as replica:
        assert replica.propose(b"now it works", WAIT_S).index == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError):
        paxos.Replica(tmp_path / "data")


def test_a_disk_that_nobody_may_write_to() -> None:
    with pytest.raises(StorageError, match="cannot"):
        paxos.Replica("/proc/paxos-data")


def test_g9_large_commands_are_read_in_bounded_pieces(tmp_path: Path) -> None:
    with paxos.Replica(tmp_path) as replica:
        run = [bytes([at]) * 3_000_000 for at in range(8)]
        replica.submit_many(run).result(WAIT_S)
        assert len(replica._node.read_range(1, 9)) == 2
        assert commands_of(replica) == run
        subscription = replica.subscribe()
        assert [next(subscription).command for _ in run] == run


def test_bad_commands_and_a_closed_replica(tmp_path: Path) -> None:
    replica = paxos.Replica(tmp_path, config=paxos.Config(command_bytes_max=100))
    with pytest.raises(TypeError):
        replica.propose("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        replica.submit_many([b"fine", "text"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        replica.submit_many(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        replica.submit_many([b"fine", b"x" * 101])
    with pytest.raises(ConfigError):
        replica.submit(b"x" * 101)
    assert replica.propose(b"", WAIT_S).index == 1
    assert replica.submit_many([]).result(WAIT_S).count == 0
    replica.close()
    replica.close()
    for call in (
        lambda: replica.propose(b"x"),
        lambda: replica.submit(b"x"),
        lambda: replica.submit_many([b"x"]),
    ):
        with pytest.raises(Closed):
            call()
    with pytest.raises(Closed):
        replica.read_index(1)
    assert list(replica.subscribe()) == []


def test_c7_a_forked_child_cannot_use_a_replica_and_hurts_nobody(tmp_path: Path) -> None:
    script = """
        import os, sys, paxos
        replica = paxos.Replica(sys.argv[1])
        replica.propose(b"parent", 60)
        child = os.fork()
        if child == 0:
            try:
                replica.propose(b"child", 1)
            except paxos.Closed as error:
                print("refused:", error, flush=True)
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        print("child", os.waitstatus_to_exitcode(status), flush=True)
        print("parent", replica.propose(b"again", 60).index, flush=True)
        replica.close()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert result.returncode == 0, result.stderr
    assert "refused: this replica belongs to process" in result.stdout
    assert "child 7" in result.stdout and "parent 2" in result.stdout


@pytest.mark.parametrize("how", ["forgotten", "unhandled exception", "sys.exit"])
def test_x8_a_replica_left_open_is_closed_at_exit(tmp_path: Path, how: str) -> None:
    ending = {"forgotten": "", "unhandled exception": "raise ValueError('oops')", "sys.exit": "sys.exit(0)"}[
        how
    ]
    script = f"""
import sys, paxos
replica = paxos.Replica(sys.argv[1])
print(replica.propose(b"x", 60).index)
future = replica.submit(b"y")
{ending}
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=WAIT_S
    )
    assert result.stdout == "1\n"
    assert result.returncode == (1 if how == "unhandled exception" else 0), result.stderr
    with paxos.Replica(tmp_path) as replica:
        until(lambda: replica.status().last_index == 2)


def test_x7_ctrl_c_while_proposing_leaves_everything_in_order(tmp_path: Path) -> None:
    script = """
        import sys, paxos
        with paxos.LocalCluster(3, directory=sys.argv[1], transport="tcp") as cluster:
            leader = cluster.leader(60)
            print("ready", flush=True)
            number = 0
            try:
                while True:
                    number = leader.propose(b"%d" % number, 60).index
            except KeyboardInterrupt:
                print("interrupted", number, flush=True)
            leader.propose(b"after", 60)
        print("closed", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=WAIT_S)
    assert "closed" in out, err
    assert child.returncode == 0


def test_a_collected_replica_gives_its_directory_back(tmp_path: Path) -> None:
    paxos.Replica(tmp_path).submit(b"x")
    until(lambda: _opens(tmp_path), "the directory")


def _opens(path: Path) -> bool:
    try:
        paxos.Replica(path).close()
    except PaxosError:
        return False
    return True


def test_g9_an_open_replica_costs_no_thread_after_closing(tmp_path: Path) -> None:
    before = threading.active_count()
    for _ in range(3):
        with paxos.LocalCluster(3) as cluster:
            cluster.leader(WAIT_S).propose(b"x", WAIT_S)
    until(lambda: threading.active_count() <= before, "the end of all threads")
