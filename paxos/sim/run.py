"""One seed from beginning to end: a safety phase full of faults, then a liveness phase without new ones.

In the liveness phase a random majority is connected by prompt, reliable links, and everything outside it
stays as the faults left it. The core must get a leader and commit fresh commands; then the rest is healed
and every node must end with the same log, and every command that was proposed at a node that is still in the
same incarnation must have been acknowledged.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from paxos.sim import parameters as swarm
from paxos.sim import wire
from paxos.sim.invariants import Violation
from paxos.sim.network import random_links
from paxos.sim.node import Node
from paxos.sim.parameters import Parameters
from paxos.sim.trace import Trace
from paxos.sim.world import World

CORE_BUDGET_TIMEOUTS = 60
CONVERGE_BUDGET_TIMEOUTS = 60
FRESH_COMMANDS = 3
CORES_MAX = 4


@dataclass(slots=True)
class Result:
    """What became of one seed.

    Attributes:
        violation: ``None``, or what was broken.
        core_us: for every core of the liveness phase, the virtual time until fresh commands were committed in it.
        election_timeout_us: of the cluster; the measure of these times.
        sent, delivered, dropped, duplicated: frames by kind name.
        events: faults and other happenings by name.
    """

    seed: int
    violation: str | None = None
    steps: int = 0
    slots: int = 0
    commands: int = 0
    core_us: list[int] = field(default_factory=list)
    election_timeout_us: int = 1
    virtual_us: int = 0
    digest: str = ""
    sent: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    duplicated: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)


def by_name(counter: Counter[int]) -> Counter[str]:
    """Return a counter of frame kinds under their names."""
    return Counter({wire.KIND_NAMES[kind]: count for kind, count in counter.items()})


def election_timeout_us(world: World) -> int:
    """Return the election timeout that the cluster was given, plus what its disks, threads and links may add."""
    parameters = world.parameters
    sync_us = max(parameters.sync_us_of(node) for node in world.nodes)
    # A window of one slot lets one value pass in the time of a round trip, however many are waiting.
    slack_us = 20 * (sync_us + parameters.control_us) + 4 * parameters.delay_us
    return parameters.config.election_timeout_ms * 1000 + slack_us


def knows_first_configuration(world: World, node: Node) -> bool:
    """Return True if ``node`` knows, or will know when it starts, that slot 1 is chosen.

    What it has applied it forgets with its power, unless a mark says it (an idle log writes one soon after).
    """
    return (node.up and world.history.applied_upto[node.id] > 0) or world.history.durable[node.id].mark > 0


def choose_core(world: World) -> list[Node]:
    """Return the nodes of a random majority; all of them if nobody there knows of slot 1 [h13].

    All of them, too, where values have rotted: what is left of a vote may be outside any smaller core.
    """
    gone = world.history.quarantined | world.history.foreign
    nodes = [node for node in world.nodes.values() if node.id not in gone]
    majority = len(world.nodes) // 2 + 1
    core = world.rng.sample(nodes, world.rng.randint(majority, len(nodes)))
    if not world.counts["rotten_values"] and any(knows_first_configuration(world, node) for node in core):
        return core
    return nodes


def all_applied(world: World, nodes: list[Node], commands: list[bytes]) -> bool:
    """Return True when every node runs, has applied the same log with the commands in it, and no read waits there."""
    if not all(command in world.history.acknowledged for command in commands):
        return False
    end = len(world.history.log)
    return all(
        node.up and world.history.applied_upto[node.id] == end and not node.reads.waiting for node in nodes
    )


def stop_faults(world: World) -> None:
    """Let nothing new go wrong."""
    world.faults.stop()
    world.clients.stop()
    world.damage.stop()
    world.restart_crashed = True
    # A link that for ever passes heartbeats but not proposals, to a leader outside: nobody could tell.
    world.network.selective = {}
    world.network.kind_loss = {}
    for node in world.nodes.values():
        node.crash_point = None
        node.disk_error = False


def freeze_outside(world: World, core: list[Node]) -> None:
    """Make the core perfect; leave the rest in the state in which it is."""
    world.network.perfect = set()
    world.network.connect(node.id for node in core)
    for node in core:
        mend(world, node)
    for node in world.nodes.values():
        if node not in core and not node.up:
            node.life += 1  # its restart is off: it stays down


def mend(world: World, node: Node) -> None:
    """Let a node run, with a disk that works and has space."""
    node.paused_until = min(node.paused_until, world.now_us)
    node.control_stalled_until = min(node.control_stalled_until, world.now_us)
    node.end_hang()
    if not node.up:
        node.start()
        node.paused_until = min(node.paused_until, world.now_us)
    node.wake(world.now_us)


def trouble_outside(world: World, core: list[Node]) -> None:
    """Before another core is demanded: cut some links of the nodes outside it, and stop some of them."""
    inside = {node.id for node in core}
    links = random_links(list(world.nodes), world.rng)
    world.network.cut = {link for link in links if not inside.issuperset(link)}
    for node in world.nodes.values():
        if node.id in inside or not node.up:
            continue
        choice = world.rng.randrange(4)
        if choice == 0:
            world.crash(node)
        elif choice == 1:
            world.pause(node, int(world.rng.uniform(0.5, 3.0) * election_timeout_us(world)))


def demand_progress(world: World, core: list[Node]) -> int:
    """Demand that the core commits fresh commands; return the virtual time that it took.

    Raises:
        Violation: I17, it did not get there in time.
    """
    freeze_outside(world, core)
    world.count("core_is_all" if len(core) == len(world.nodes) else "core_is_majority")
    world.trace_event("core", 0, members=[node.id for node in core])
    began = world.now_us
    budget = CORE_BUDGET_TIMEOUTS * election_timeout_us(world)
    fresh = [world.clients.propose(world.rng.choice(core)) for _ in range(FRESH_COMMANDS)]
    for node in core:
        world.clients.read(node)
    if not world.run(budget, lambda: all_applied(world, core, fresh)):
        raise Violation("I17", stuck(world, core, fresh, "a connected majority"))
    return world.now_us - began


def demand_liveness(world: World) -> list[int]:
    """Run the liveness phase; return how long each of some random cores took.

    Raises:
        Violation: I17, a core or the whole did not get there in time.
    """
    stop_faults(world)
    took = [demand_progress(world, choose_core(world))]
    for _ in range(world.rng.randrange(CORES_MAX)):
        core = choose_core(world)
        trouble_outside(world, core)
        took.append(demand_progress(world, core))
    heal_all(world)
    everyone = [node for node in world.nodes.values() if node.id not in world.history.foreign]
    pending = [command for node in everyone for command in own_commands(world, node)]
    budget = CONVERGE_BUDGET_TIMEOUTS * election_timeout_us(world)
    if not world.run(budget, lambda: all_applied(world, everyone, pending)):
        raise Violation("I17", stuck(world, everyone, pending, "the healed cluster"))
    world.counts["quarantined_node_learned"] += len(world.history.quarantined)
    return took


def heal_all(world: World) -> None:
    """Start and connect every node."""
    world.network.heal()
    world.network.connect(list(world.nodes))
    for node in world.nodes.values():
        mend(world, node)


def own_commands(world: World, node: Node) -> list[bytes]:
    """Return the commands proposed at the present incarnation of ``node``: these must all be committed."""
    return world.history.submitted.get((node.id, node.incarnation), [])


def stuck(world: World, nodes: list[Node], commands: list[bytes], who: str) -> str:
    """Say what a cluster that should have made progress looks like."""
    history = world.history
    missing = [command for command in commands if command not in history.acknowledged]
    states = {node.id: (node.up and history.applied_upto[node.id]) for node in nodes}
    return (
        f"{who} {[node.id for node in nodes]} did not converge in time: {len(missing)} of {len(commands)} "
        f"commands unacknowledged (first {missing[:2]}), log ends at {len(history.log)}, applied {states}, "
        f"chosen {history.chosen_prefix}, reads waiting {[len(node.reads.waiting) for node in nodes]}"
    )


def run_seed(
    seed: int,
    *,
    nodes: int | None = None,
    steps_max: int = 400_000,
    trace: Trace | None = None,
    parameters: Parameters | None = None,
    world_class: type[World] = World,
    safety_only: bool = False,
) -> Result:
    """Run one seed and report; a broken invariant is reported, everything else is raised.

    Args:
        seed: decides everything, the parameters included.
        nodes: size of the cluster instead of a drawn one.
        steps_max: end of the safety phase in events, if its virtual time does not end it before.
        trace: receives every event.
        parameters: used instead of drawn ones.
        world_class: a world that breaks a rule, for tests of the simulator itself.
        safety_only: leave the liveness phase out.
    """
    rng = random.Random(seed)
    drawn = swarm.draw(rng, nodes)
    world = world_class(parameters or drawn, rng, trace=trace)
    result = Result(seed, election_timeout_us=1000 * world.parameters.config.election_timeout_ms)
    try:
        world.start()
        world.clients.start()
        world.faults.start()
        world.run(world.parameters.safety_us, steps_max=steps_max)
        if not safety_only:
            result.core_us = demand_liveness(world)
    except Violation as violation:
        result.violation = str(violation)
        world.trace_event("violation", 0, text=str(violation))
    summarise(world, result)
    return result


def summarise(world: World, result: Result) -> None:
    """Fill in what a run has seen."""
    history = world.history
    result.steps = world.steps
    result.slots = len(history.log)
    result.commands = len(history.commands_applied)
    result.virtual_us = world.now_us
    result.digest = world.trace.digest() if world.trace is not None else ""
    result.sent = by_name(world.network.sent)
    result.delivered = by_name(world.network.delivered)
    result.dropped = by_name(world.network.dropped)
    result.duplicated = by_name(world.network.duplicated)
    result.events = world.counts + history.events
    leaders = {ballot for _, ballot in history.proposals}
    result.events["leader_change"] += max(0, len(leaders) - 1)
    result.events["acknowledged"] += len(history.acknowledged)
