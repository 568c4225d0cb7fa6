"""What may be forgotten: histories in which a node lets go of slots that another one lacks."""

from __future__ import annotations

from dataclasses import replace

from paxos import messages
from paxos._core import codec
from paxos.sim import wire
from paxos.sim.node import CLUSTER
from paxos.sim.scenario import QUICK, Scenario

Kind = wire.Kind
SMALL = replace(QUICK, batch_bytes_max=16, promise_page_entries=1)


def others(cluster: Scenario, *ids: int) -> list[int]:
    return [id for id in cluster.members if id not in ids]


def trim(cluster: Scenario, id: int) -> int:
    """Let a node trim all that it has applied, and wait until that is durable; return up to where."""
    upto = cluster.world.history.applied_upto[id]
    cluster.node(id).trim(upto)
    engine = cluster.node(id).engine
    cluster.wait(lambda: engine.glance()["trimmed"] == upto, what="the trim")
    cluster.run(5)
    return upto


def fill(cluster: Scenario, leader: int, count: int) -> None:
    """Commit some commands, each in a slot of its own."""
    for _ in range(count):
        cluster.wait_committed(cluster.propose(leader))


def test_h1_a_restart_does_not_forget_what_was_trimmed() -> None:
    """A knows the log up to its trim only from its snapshot; the one that asks it has a hole there."""
    cluster = Scenario(config=SMALL, snapshots=False)
    leader = cluster.settle()
    keeper, sleeper = others(cluster, leader)
    cluster.isolate(sleeper)
    fill(cluster, leader, 10)
    cluster.run(50)
    upto = trim(cluster, keeper)
    cluster.crash(leader)
    cluster.crash(keeper)
    # Nothing on its disk mentions a trimmed slot; what says that they are chosen is the trim itself.
    assert all(r.slot > upto or not r.value for r in cluster.node(keeper).disk.durable)
    cluster.hold(Kind.PREPARE, sender=keeper)
    cluster.heal()
    cluster.restart(keeper)
    seen = cluster.node(keeper).engine.glance()
    assert seen["trimmed"] == upto and seen["chosen_upto"] >= upto
    promises = cluster.world.network.delivered[Kind.PROMISE]
    cluster.run(20 * cluster.election_timeout_ms)
    assert cluster.world.network.delivered[Kind.PROMISE] > promises
    assert not cluster.leaders()
    cluster.restart(leader)
    cluster.wait_committed(cluster.propose(leader))
    cluster.wait_same_log(among=[leader, keeper])


def test_p13_an_old_leader_that_slept_while_the_others_trimmed_does_not_lead() -> None:
    """What it lacks is trimmed everywhere; without a snapshot it can only follow, whatever it is promised."""
    cluster = Scenario(config=SMALL, snapshots=False)
    sleeper = cluster.settle()
    cluster.isolate(sleeper)
    second, third = others(cluster, sleeper)
    fill(cluster, cluster.wait_leader(among=[second, third]), 6)
    cluster.wait_same_log(among=[second, third])
    for id in (second, third):
        trim(cluster, id)
    # Only the sleeper may ask for promises now, and it gets them.
    for id in (second, third):
        cluster.hold(Kind.PREPARE, sender=id)
    cluster.heal()
    promises = cluster.world.network.delivered[Kind.PROMISE]
    for id in (second, third):
        cluster.crash(id)
        cluster.restart(id)
    cluster.run(20 * cluster.election_timeout_ms)
    assert cluster.world.network.delivered[Kind.PROMISE] > promises
    assert not cluster.node(sleeper).leads
    assert cluster.world.network.sent[Kind.CHOSEN_GONE] > 0
    # With a snapshot it may.
    object.__setattr__(cluster.world.parameters, "snapshots", True)
    cluster.wait_leader(among=[sleeper])
    cluster.wait_committed(cluster.propose(sleeper))
    cluster.wait_same_log()


def test_h2_pages_of_two_reports_never_make_one_promise() -> None:
    """Between two pages of a promise the acceptor learns one slot more, trims it, and has to report anew.

    Slots 1 2 | 3 4 above what it knew become 2 3 | 4: whoever takes the first page of the one and the second of
    the other never hears of slot 3.
    """
    cluster = Scenario(config=replace(SMALL, promise_page_entries=2))
    leader = cluster.settle()
    keeper, candidate = others(cluster, leader)
    history = cluster.world.history
    base = history.chosen_prefix
    cluster.cut_between([leader], [candidate])
    taps = [cluster.drop(Kind.ACCEPTED, sender=keeper), cluster.drop(Kind.PONG, sender=keeper)]
    cluster.propose(leader, 4)
    engine = cluster.node(keeper).engine
    cluster.wait(lambda: engine.glance()["durable_upto"] == base + 4, what="four votes at the keeper")
    cluster.crash(leader)
    for tap in taps:
        tap.stop()
    assert engine.glance()["chosen_upto"] == base and history.chosen_prefix == base + 4
    firsts: list[int] = []

    def one_page_of_each(frame: wire.Frame) -> bool:
        """The first page of the first report, then the second pages of all later ones."""
        if frame.kind != Kind.PROMISE or frame.sender != keeper or frame.receiver != candidate:
            return True
        page = wire.promise(frame.data)
        assert page.pages == 2
        if page.page == 0:
            firsts.append(frame.ballot)
        return (page.page == 0) == (firsts.count(frame.ballot) == 1)

    cluster.world.network.filters.append(one_page_of_each)
    cluster.drop(Kind.PREPARE, sender=keeper)
    cluster.wait(lambda: len(firsts) > 0, what="a first page")
    kind, value = history.chosen[base + 1]
    cluster.node(keeper).deliver(
        codec.encode_frame(
            Kind.CHOSEN,
            sender=candidate,
            receiver=keeper,
            cluster=CLUSTER,
            incarnation=cluster.node(candidate).incarnation,
            slot=base + 1,
            mark=base + 1,
            detail=kind,
            payload=value,
        )
    )
    cluster.wait(lambda: history.applied_upto[keeper] == base + 1, what="the news")
    assert trim(cluster, keeper) == base + 1
    cluster.run(6 * cluster.election_timeout_ms)
    cluster.world.network.filters.remove(one_page_of_each)
    cluster.wait_leader(among=[candidate])
    cluster.restart(leader)
    cluster.heal()
    cluster.wait_same_log()


def test_l7_a_node_behind_a_trimmed_log_catches_up_without_new_writes() -> None:
    cluster = Scenario(5, config=SMALL)
    leader = cluster.settle()
    sleeper = others(cluster, leader)[0]
    cluster.crash(sleeper)
    fill(cluster, leader, 8)
    cluster.run(100)
    for id in others(cluster, sleeper):
        trim(cluster, id)
    cluster.restart(sleeper)
    cluster.wait_same_log()
    assert cluster.node(sleeper).engine.glance()["trimmed"] > 0
    fill(cluster, leader, 2)
    cluster.wait_same_log()


def test_a_trim_beyond_what_is_chosen_is_refused() -> None:
    cluster = Scenario(config=SMALL)
    leader = cluster.settle()
    engine = cluster.node(leader).engine
    stale = engine.counters()["stale_intents"]
    engine.act(messages.Trim(upto=engine.glance()["chosen_upto"] + 1))
    assert engine.glance()["trimmed"] == 0
    assert engine.counters()["stale_intents"] == stale + 1
