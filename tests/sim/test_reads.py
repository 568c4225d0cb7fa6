"""The read rules as scripted histories on the real roles (h8, h9, h10, R1, R2, R3, R6); I16 is checked at every read.

Many seeds of the race: ``PAXOS_READ_RACES=1000 python -m pytest tests/sim/test_reads.py -k race``.
"""

from __future__ import annotations

import os
import random

import pytest

from paxos import messages
from paxos.sim import wire
from paxos.sim.invariants import Violation
from paxos.sim.reads import Read
from paxos.sim.scenario import QUICK, Scenario
from paxos.types import Config
from tests.sim import mutants
from tests.sim.mutants import world_with

Kind = wire.Kind
# A leader that hears nobody believes for long that it leads; the others elect as quickly as ever.
STUBBORN = Config(heartbeat_ms=20, election_timeout_ms=2_000, backoff_ms_max=60)
RACES = int(os.environ.get("PAXOS_READ_RACES", "40"))


def others(cluster: Scenario, *ids: int) -> list[int]:
    return [id for id in cluster.members if id not in ids]


def is_about_reads(frame: wire.Frame) -> bool:
    """True for the frames of a read round, not for those of heartbeats."""
    if frame.kind == Kind.PING:
        return wire.ping(frame.data).read_round != 0
    return frame.kind == Kind.PONG and wire.pong(frame.data).read_round != 0


def depose(cluster: Scenario, old: int, *with_it: int) -> int:
    """Cut ``old`` off until another one leads and has committed; return that one. Both believe that they lead."""
    apart = others(cluster, old, *with_it)
    cluster.cut_between([old, *with_it], apart)
    new = cluster.wait_leader(among=apart)
    cluster.wait_committed(cluster.propose(new, 3))
    assert cluster.leaders() == sorted([old, new])
    return new


def is_refused(cluster: Scenario, read: Read, old: int, ms: float = 60) -> bool:
    """Let some read rounds pass; True if ``old`` still believes that it leads and has not served the read."""
    rounds = cluster.world.network.sent[Kind.PING]
    cluster.run(ms)
    assert cluster.world.network.sent[Kind.PING] > rounds
    return read.slot is None and old in cluster.leaders()


# --- the normal case -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_every_node_reads_what_was_acknowledged(nodes: int) -> None:
    cluster = Scenario(nodes)
    cluster.settle()
    for writer in cluster.members:
        cluster.wait_committed(cluster.propose(writer, 2))
        end = len(cluster.world.history.log)
        for reader in cluster.members:
            assert cluster.wait_read(cluster.read(reader)) >= end


def test_a_read_costs_no_slot_and_one_round_stands_for_many_reads() -> None:
    cluster = Scenario()
    leader = cluster.settle()
    cluster.run(100)
    slots = len(cluster.world.history.log)
    rounds = cluster.node(leader).engine.counters()["read_rounds"]
    reads = [cluster.read(leader) for _ in range(100)]
    for read in reads:
        cluster.wait_read(read)
    assert len(cluster.world.history.log) == slots
    assert cluster.node(leader).engine.counters()["read_rounds"] == rounds + 1


def test_reads_go_on_while_nothing_can_be_written() -> None:
    """A quorum that cannot accept any more still tells that nobody else leads."""
    cluster = Scenario()
    leader = cluster.settle()
    cluster.hold(Kind.ACCEPTED)
    commands = cluster.propose(leader, 1)
    cluster.wait_read(cluster.read(leader), within_ms=cluster.election_timeout_ms)
    assert not cluster.is_committed(commands)


# --- h8, h9: what an answer says, and to whom -----------------------------------------------------------------


def test_h8_a_restarted_acceptor_that_promised_more_confirms_no_read() -> None:
    """B promises C's ballot and restarts: it follows nobody, and its durable promise is all that tells."""
    cluster = Scenario(config=STUBBORN)
    old = cluster.settle()
    new = depose(cluster, old)
    acceptor = others(cluster, old, new)[0]
    cluster.crash(acceptor)
    cluster.heal()
    cluster.isolate(new)  # nobody tells the old leader, nor the acceptor after its restart
    cluster.cut((acceptor, old))
    cluster.restart(acceptor)
    answers: list[wire.Pong] = []

    def only_answers(frame: wire.Frame) -> bool:
        """The acceptor's Hello and its answers about reads pass; anything else would tell the old leader."""
        if frame.sender != acceptor:
            return True
        if is_about_reads(frame):
            answers.append(wire.pong(frame.data))
        return is_about_reads(frame) or frame.kind == Kind.HELLO

    cluster.world.network.filters.append(only_answers)
    cluster.world.network.cut.discard((acceptor, old))
    read = cluster.read(old)
    ballot = cluster.node(old).engine.glance()["ballot"]
    assert is_refused(cluster, read, old, 200)
    assert answers and all(pong.promised > ballot for pong in answers)
    assert all(pong.leader <= ballot for pong in answers), "what it follows tells nothing"
    cluster.world.network.filters.remove(only_answers)
    cluster.heal()
    assert cluster.wait_read(read) >= read.floor


def test_h9_answers_to_an_earlier_life_confirm_nothing() -> None:
    """The answers to the first round of a first life arrive during the first round of a second one."""
    cluster = Scenario(config=STUBBORN)
    old = cluster.settle()
    answers = cluster.hold(Kind.PONG, receiver=old)
    cluster.read(old)
    cluster.run(5)
    answers.stop()
    held = [frame for frame in answers.frames if is_about_reads(frame)]
    assert [wire.pong(frame.data).read_round for frame in held] == [1, 1]
    cluster.crash(old)
    between = cluster.wait_leader(among=others(cluster, old))
    cluster.restart(old)
    cluster.wait_same_log()
    cluster.node(between).post(messages.Transfer(heir=old))
    cluster.wait_leader(among=[old])
    depose(cluster, old)
    read = cluster.read(old)
    cluster.run(1)
    assert cluster.node(old).engine.counters()["read_rounds"] == 1
    for frame in held:
        cluster.world.schedule(cluster.world.now_us, cluster.world.deliver, frame)
    assert is_refused(cluster, read, old)
    cluster.heal()
    assert cluster.wait_read(read) >= read.floor


def test_h9_answers_to_an_earlier_round_confirm_nothing() -> None:
    """Copies of the answers to round 1 arrive while another leader has committed and round 2 is open."""
    cluster = Scenario(config=STUBBORN)
    old = cluster.settle()
    answers = cluster.hold(Kind.PONG, receiver=old)
    first = cluster.read(old)
    cluster.run(5)
    copies = [frame for frame in answers.frames if is_about_reads(frame)]
    answers.release()
    cluster.wait_read(first)
    depose(cluster, old)
    second = cluster.read(old)
    cluster.run(1)
    assert len(copies) == 2 and cluster.node(old).engine.counters()["read_rounds"] == 2
    for frame in copies:
        cluster.world.schedule(cluster.world.now_us, cluster.world.deliver, frame)
    assert is_refused(cluster, second, old)
    cluster.heal()
    assert cluster.wait_read(second) >= second.floor


# --- R1: deposed leaders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [3, 5])
def test_r1_a_deposed_leader_that_is_cut_off_serves_no_read(nodes: int) -> None:
    cluster = Scenario(nodes, config=STUBBORN)
    old = cluster.settle()
    minority = others(cluster, old)[: nodes // 2 - 1]
    new = depose(cluster, old, *minority)
    stale = [cluster.read(id) for id in (old, *minority)]  # its followers get no mark from it, either
    cluster.wait_read(cluster.read(new))
    assert all(is_refused(cluster, read, old) for read in stale)
    cluster.heal()
    assert all(cluster.wait_read(read) >= read.floor for read in stale)


@pytest.mark.parametrize("cut_off", [True, False])
def test_r1_a_read_confirmed_before_a_long_pause_is_as_good_after_it(cut_off: bool) -> None:
    """SIGSTOP between confirmation and answer: the read began before, and ends after others have written."""
    cluster = Scenario(config=STUBBORN)
    old = cluster.settle()
    answers = cluster.hold(Kind.PONG, receiver=old)
    before = cluster.read(old)
    cluster.run(5)
    cluster.pause(old, 1_000)
    answers.release()  # they wait in the sockets of the stopped process
    if cut_off:
        cluster.isolate(old)
    new = cluster.wait_leader(among=others(cluster, old))
    cluster.wait_committed(cluster.propose(new, 3))
    after = cluster.read(old)  # while the process is stopped: no answer so far says anything about it
    assert cluster.node(old).leads and before.slot is None
    cluster.node(old).paused_until = 0
    cluster.node(old).wake(cluster.world.now_us)
    cluster.wait(lambda: before.slot is not None, what="the read from before the pause")
    if cut_off:
        assert before.slot is not None and before.slot < after.floor
        assert is_refused(cluster, after, old)
        cluster.heal()
    assert cluster.wait_read(after) >= after.floor


# --- R2, R3, R6 -----------------------------------------------------------------------------------------------


def test_r2_no_read_before_the_own_no_op_is_chosen() -> None:
    """A new leader holds everything chosen, and does not know yet that it is: its own mark is too low."""
    cluster = Scenario()
    old = cluster.settle()
    heirs = others(cluster, old)
    told = cluster.hold(Kind.DECIDE)
    accepts = cluster.hold(Kind.PING)
    cluster.wait_committed(cluster.propose(old, 2))
    end = len(cluster.world.history.log)
    cluster.crash(old)
    told.stop()
    accepts.stop()
    assert all(cluster.node(id).engine.glance()["chosen_upto"] < end for id in heirs)
    votes = cluster.hold(Kind.ACCEPTED)
    ballot = max(cluster.world.history.leaders)

    def tells_no_vote(frame: wire.Frame) -> bool:
        is_vote = frame.kind == Kind.PONG and wire.pong(frame.data).stream_ballot > ballot
        return is_about_reads(frame) or not is_vote

    cluster.world.network.filters.append(tells_no_vote)
    cluster.wait(lambda: bool(set(cluster.leaders()) & set(heirs)), what="a new leader")
    new = next(id for id in cluster.leaders() if id in heirs)
    assert cluster.node(new).engine.glance()["chosen_upto"] < end
    read = cluster.read(new)
    cluster.run(40)
    assert read.slot is None and cluster.leaders() == [new]
    cluster.world.network.filters.remove(tells_no_vote)
    votes.release()
    assert cluster.wait_read(read) >= end


def test_r3_a_round_sent_before_a_read_arrived_does_not_confirm_it() -> None:
    cluster = Scenario(config=STUBBORN)
    old = cluster.settle()
    answers = cluster.hold(Kind.PONG, receiver=old)
    first = cluster.read(old)
    cluster.run(5)
    assert any(is_about_reads(frame) for frame in answers.frames)
    answers.stop()
    depose(cluster, old)
    second = cluster.read(old)
    cluster.run(1)
    # The answers to the round of the first read come now, when the second one has been there for a while.
    answers.release()
    assert is_refused(cluster, second, old)
    assert first.slot is not None and first.slot < second.floor
    cluster.heal()
    assert cluster.wait_read(second) >= second.floor


def test_r6_a_follower_serves_a_read_only_when_it_has_applied_the_mark() -> None:
    cluster = Scenario()
    leader = cluster.settle()
    follower = others(cluster, leader)[0]
    behind = [cluster.hold(kind, receiver=follower) for kind in (Kind.ACCEPT, Kind.CHOSEN)]
    cluster.wait_committed(cluster.propose(leader, 3))
    read = cluster.read(follower)
    cluster.run(50)
    assert cluster.world.network.delivered[Kind.READ_MARK]
    assert read.slot is None
    for tap in behind:
        tap.release()
    assert cluster.wait_read(read) >= read.floor


@pytest.mark.parametrize("seed", range(3))
def test_r5_a_client_that_changes_replicas_sees_its_writes_and_never_less(seed: int) -> None:
    """Linearizable reads need no session for that; replicas crash, lag and lose their leader meanwhile."""
    cluster = Scenario(seed=seed)
    leader = cluster.settle()
    seen = 0
    for turn in range(12):
        writer, reader = cluster.members[turn % 3], cluster.members[(turn + 1 + turn // 6) % 3]
        commands = cluster.propose(writer)
        lag = cluster.hold(Kind.ACCEPT, receiver=reader, count=2) if turn % 2 else None
        cluster.wait_committed(commands)
        written = len(cluster.world.history.log)
        if turn % 4 == 3:
            leader = next(iter(cluster.leaders()), leader)
            cluster.crash(leader)
            cluster.restart(leader)
        slot = cluster.wait_read(cluster.read(reader))
        assert slot >= max(seen, written)
        seen = slot
        if lag is not None:
            lag.stop()


# --- leaders come and go --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_a_read_outlives_its_leader(at: str) -> None:
    cluster = Scenario()
    old = cluster.settle()
    reader = old if at == "leader" else others(cluster, old)[0]
    silence = cluster.hold(Kind.PONG, receiver=old)
    read = cluster.read(reader)
    cluster.run(5)
    if at == "leader":
        cluster.isolate(old)
    else:
        cluster.crash(old)
    new = cluster.wait_leader(among=others(cluster, old))
    silence.stop()
    cluster.wait_committed(cluster.propose(new, 2))
    if at == "leader":
        cluster.run(4 * cluster.election_timeout_ms)
        assert read.slot is None and cluster.leaders() == [new]
        cluster.heal()
    cluster.wait_read(read)


def test_l3_a_node_that_hears_its_leader_through_a_peer_reads_through_it() -> None:
    cluster = Scenario()
    leader = cluster.settle()
    middle, end = others(cluster, leader)
    cluster.connect_only((leader, middle), (middle, end))
    cluster.run(4 * cluster.election_timeout_ms)
    assert cluster.leaders() == [leader]
    cluster.wait_committed(cluster.propose(leader, 2))
    cluster.wait_read(cluster.read(end))
    cluster.wait_read(cluster.read(middle))


def test_l8_every_single_frame_about_reads_may_be_lost() -> None:
    for victim in range(24):
        cluster = Scenario(seed=victim)
        leader = cluster.settle()
        follower = others(cluster, leader)[0]
        seen = [0]

        def lose(frame: wire.Frame, seen: list[int] = seen, victim: int = victim) -> bool:
            if frame.kind in (Kind.READ_INDEX, Kind.READ_MARK) or is_about_reads(frame):
                seen[0] += 1
                return seen[0] != victim + 1
            return True

        cluster.world.network.filters.append(lose)
        reads = [cluster.read(follower), cluster.read(leader)]
        cluster.run(1)
        reads += [cluster.read(follower), cluster.read(leader)]
        for read in reads:
            cluster.wait_read(read, within_ms=200)


# --- the race -------------------------------------------------------------------------------------------------


def race(seed: int, cluster: Scenario) -> list[Read]:
    """Two leaders in two partitions; writes at the new one and reads at both, with frames of the past in between."""
    rng = random.Random(seed)
    old = cluster.settle()
    late = cluster.hold(rng.choice([Kind.PONG, Kind.PONG, Kind.READ_MARK, Kind.PING]))
    reads = [cluster.read(id) for id in (old, rng.choice(cluster.members))]
    cluster.run(rng.uniform(0.1, 10))
    late.stop()
    minority = [old, *rng.sample(others(cluster, old), (len(cluster.members) - 1) // 2 - rng.randint(0, 1))]
    cluster.cut_between(minority, others(cluster, *minority))
    if rng.random() < 0.6:
        cluster.pause(old, rng.uniform(50, 1_000))
    deadline = cluster.world.now_us + 1_000_000
    while cluster.world.now_us < deadline:
        cluster.run(rng.uniform(0.2, 40))
        for id in cluster.leaders():
            if rng.random() < 0.7:
                cluster.propose(id)
            reads.append(cluster.read(id))
        reads.append(cluster.read(rng.choice(cluster.members)))
        if late.frames and rng.random() < 0.3:
            late.release()
        if rng.random() < 0.1:
            # One link comes back: whoever is at its other end has promised more by now, and says so [h8].
            across = rng.choice(others(cluster, *minority))
            cluster.world.network.cut -= {(old, across), (across, old)}
        if rng.random() < 0.1:
            reader = rng.choice(cluster.members)
            cluster.crash(reader, None)
            cluster.restart(reader)
    cluster.heal()
    return reads


@pytest.mark.parametrize("group", range(4))
def test_r1_two_leaders_in_two_partitions_race_and_no_read_is_old(group: int) -> None:
    """I16 is checked whenever a read is served; at the end none may wait."""
    for seed in range(group, RACES, 4):
        drawn = random.Random(seed)
        cluster = Scenario(drawn.choice([3, 3, 5]), seed=seed, config=drawn.choice([QUICK, STUBBORN]))
        reads = race(seed, cluster)
        cluster.wait(lambda reads=reads: all(read.slot is not None or read.lost for read in reads))  # type: ignore[misc]


# --- the harness can fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "breaker",
    [mutants.ServesUnconfirmed, mutants.ServesBeforeApplied, mutants.CountsAnyRound],
)
def test_the_race_notices_a_node_that_serves_too_early(breaker: type[mutants.Node]) -> None:
    noticed(world_with(node=breaker))


def test_h8_the_race_notices_answers_without_promises() -> None:
    noticed(world_with(network=mutants.HidesPromises))


def noticed(world_class: type) -> None:
    for seed in range(60):
        try:
            race(seed, Scenario(3, seed=seed, config=STUBBORN, world_class=world_class))
        except Violation as violation:
            assert str(violation).startswith("I16"), violation
            return
    pytest.fail("60 races did not notice it")
