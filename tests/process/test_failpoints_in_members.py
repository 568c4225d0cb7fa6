"""Every failpoint, reached in a real process: the node dies or fails there and comes back, and nothing is lost.

A failpoint that is in the list and in no scenario here fails `test_every_failpoint_has_a_scenario`; one that its
scenario does not reach fails its own test.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paxos import failpoints
from tests.process.cluster import ROOT, TIMES, Cluster, Gone, Node, Refused, wait_for
from tests.process.workload import Clients
from tests.unit import wal_kit as kit

SMALL = {"segment_bytes": 64 << 10, "retained_bytes_max": 16 << 10}
POINTS = failpoints.names()
OPERATIONS_AFTER = 5
"""A node serves again when so many operations were answered through it."""


class Arena:
    """Three members under load, and what tests do to one of them."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(directory, config=SMALL)
        self.cluster.start()
        self.cluster.leader()
        self.avoided: Node | None = None
        self.clients = Clients(self.cluster, 3, patience_s=1.0, at=self._may_be_asked).__enter__()
        self.clients.wait_done(10)

    def _may_be_asked(self) -> list[Node]:
        return [node for node in self.cluster.living if node is not self.avoided]

    def end(self) -> None:
        """Leave no process behind."""
        self.cluster.end()
        self.clients.stop()

    def nodes(self) -> tuple[Node, Node, Node]:
        """Return the leader and the two others."""
        leader = self.cluster.leader()
        first, second = self.cluster.followers(leader)
        return leader, first, second

    def demand_service(self, node: Node) -> None:
        """Start everybody who is down, with nothing armed; demand that ``node`` serves."""
        self.avoided = None
        self.cluster.start()
        for each in self.cluster.living:
            each.ask("disarm")
        self.clients.wait_done(OPERATIONS_AFTER, node=node)


def arm(node: Node, name: str, action: str) -> None:
    with contextlib.suppress(Gone):  # it may die before it has answered
        node.ask("arm", points=f"{name}={action}")


# Each scenario brings one node to the place `name`, where `action` waits for it, and returns that node.
Scenario = Callable[[Arena, str, str], Node]


def as_leader(arena: Arena, name: str, action: str) -> Node:
    leader, _, _ = arena.nodes()
    arm(leader, name, action)
    return leader


def as_follower(arena: Arena, name: str, action: str) -> Node:
    _, follower, _ = arena.nodes()
    arm(follower, name, action)
    return follower


def when_idle(arena: Arena, name: str, action: str) -> Node:
    _, follower, _ = arena.nodes()
    with arena.clients.paused():
        arm(follower, name, action)
        wait_for(lambda: has_reached(follower, name), name)
    return follower


def when_read(arena: Arena, name: str, action: str) -> Node:
    _, follower, _ = arena.nodes()
    arm(follower, name, action)
    try:
        follower.ask("entries", start=1, limit=5)
    except (Gone, Refused):
        pass
    return follower


def at_start(arena: Arena, name: str, action: str) -> Node:
    _, follower, _ = arena.nodes()
    follower.kill()
    arena.clients.wait_done(3)
    follower.spawn(f"{name}={action}")
    return follower


def lagging(arena: Arena, name: str, action: str) -> Node:
    """A node that was away for longer than the others keep values in memory."""
    _, follower, _ = arena.nodes()
    follower.kill()
    arena.clients.wait_done(300)
    follower.spawn(f"{name}={action}")
    return follower


def as_heir(arena: Arena, name: str, action: str) -> Node:
    leader, heir, _ = arena.nodes()
    arm(heir, name, action)
    hand_over(leader, heir)
    return heir


def as_voter(arena: Arena, name: str, action: str) -> Node:
    leader, heir, voter = arena.nodes()
    arm(voter, name, action)
    hand_over(leader, heir)
    return voter


def as_giver(arena: Arena, name: str, action: str) -> Node:
    leader, heir, _ = arena.nodes()
    arm(leader, name, action)
    hand_over(leader, heir)
    return leader


def hand_over(leader: Node, heir: Node) -> None:
    """Ask for a transfer and do not wait for it: somebody dies on the way."""
    assert leader.life is not None
    leader.life.send("transfer", lambda _answer: None, to=heir.node_id)


def after_a_gap(arena: Arena, name: str, action: str) -> Node:
    """Accepts are lost on their way to a follower, which asks for them again."""
    leader, follower, _ = arena.nodes()
    victim = leader if name.startswith("receive") else follower
    arm(victim, name, action)
    arm(follower, "receive.stream", "error~0.3:1")
    return victim


def with_a_value_that_one_other_has(arena: Arena, name: str, action: str) -> Node:
    """A leader hangs with a value that only one follower accepted; the other one takes over and fetches it."""
    leader, knows, misses = arena.nodes()
    victim = misses if name == "send.fetch" else knows
    arena.avoided = misses  # whose clients would wait, and leave the leader idle
    arm(knows, "intent.campaign", "error")
    arm(misses, "receive.stream", "error")
    arm(victim, name, action)
    wait_for(lambda: has_reached(misses, "receive.stream"), "a lost Accept")
    arena.clients.wait_done(2)
    arm(leader, "wal.sync.after", "sleep(600000)")  # Accepts have left, and nobody counts votes
    wait_for(lambda: has_reached(leader, "wal.sync.after"), "a leader that hangs")
    misses.ask("disarm", point="receive.stream")
    return victim


def at_the_end(arena: Arena, name: str, action: str) -> Node:
    _, follower, _ = arena.nodes()
    arm(follower, name, action)
    assert follower.life is not None
    follower.life.send("close", lambda _answer: None)
    return follower


def without_space(arena: Arena, name: str, action: str) -> Node:
    """The others go on, and their values fill what is left."""
    _, follower, _ = arena.nodes()
    arena.avoided = follower
    arm(follower, name, action)
    arm(follower, "segment.create", "error(ENOSPC)")
    return follower


RUNNING = [
    *("wal.append.before", "wal.append.after", "wal.sync.before", "wal.sync.after"),
    *("segment.begin", "segment.head", "segment.rename", "segment.directory", "segment.begun"),
    *("segment.create", "segment.allocate", "segment.zeros", "segment.sync"),
    *(name for name in POINTS if name.startswith(("pass.", "apply."))),
    "callers.wake",
    *("send.heartbeat", "receive.heartbeat", "read.taken", "read.confirmed", "read.served"),
]
ROLES: list[Scenario] = [as_leader, as_follower]
# Where both are possible, one of them by turns; both with PAXOS_PROCESS=2 or more.
SCENARIOS: dict[str, list[Scenario]] = {
    name: ROLES if TIMES > 1 else [ROLES[number % 2]] for number, name in enumerate(RUNNING)
} | {
    "receive.accepted": [as_leader],
    "receive.forward": [as_leader],
    "send.read": [as_leader, as_follower],
    "receive.read": [as_leader, as_follower],
    "send.stream": [as_leader],
    "send.accepted": [as_follower],
    "send.forward": [as_follower],
    "receive.stream": [as_follower],
    "wal.mark": [when_idle],
    "wal.read": [when_read],
    "segment.reserve": [without_space],
    "intent.campaign": [as_heir],
    "intent.lead": [as_heir],
    "control.queue": [as_heir, as_voter],
    "control.frame": [as_heir, as_voter],
    "control.intents": [as_heir],
    "send.prepare": [as_heir],
    "receive.promise": [as_heir],
    "receive.transfer": [as_heir],
    "receive.prepare": [as_voter],
    "send.promise": [as_voter],
    "intent.transfer": [as_giver],
    "send.transfer": [as_giver],
    "send.nack": [after_a_gap],
    "receive.nack": [after_a_gap],
    "send.fetch": [with_a_value_that_one_other_has],
    "receive.fetch": [with_a_value_that_one_other_has],
    "intent.send": [lagging],
    "send.catch_up": [lagging],
    "receive.catch_up": [lagging],
    "send.hello": [at_start],
    "receive.hello": [at_start],
    "wal.scan": [at_start],
    "wal.tail.before": [at_start],
    "wal.tail.written": [at_start],
    "wal.tail.after": [at_start],
    "replay.before": [at_start],
    "replay.after": [at_start],
    "incarnation.before": [at_start],
    "incarnation.after": [at_start],
    "catalogue.open": [at_start],
    "catalogue.read": [at_start],
    "listen": [at_start],
    "wal.close": [at_the_end],
    "catalogue.commit.before": [at_the_end],
    "catalogue.commit.after": [at_the_end],
    "close.begin": [at_the_end],
    "close.release": [at_the_end],
}
AT_BIRTH = [
    *(name for name in POINTS if name.startswith(("identity.", "segment.", "incarnation."))),
    *(
        "catalogue.open",
        "catalogue.commit.before",
        "catalogue.commit.after",
        "wal.append.after",
        "wal.sync.before",
    ),
]
AT_BIRTH.remove("segment.reserve")
RECYCLING = ["recycle.before", "recycle.rename", "recycle.directory"]
LOSSY = ("send.", "receive.", "intent.")
"""Where an error means that something is lost: every other frame or intent."""
POISON = (
    "wal.append.",
    "wal.sync.",
    "wal.mark",
    "segment.begin",
    "segment.head",
    "segment.rename",
    "segment.directory",
)
"""Where an error ends the node."""

CASES = [(name, scenario) for name, scenarios in SCENARIOS.items() for scenario in scenarios]


def cases(action: str) -> list[object]:
    """Return the cases for pytest, in two groups that run beside each other, each in one process."""
    wanted = [case for case in CASES if action in POINTS[case[0]].actions]
    return [
        pytest.param(
            *case,
            id=f"{case[0]}-{case[1].__name__}",
            marks=pytest.mark.xdist_group(f"failpoints-{number % 2}"),
        )
        for number, case in enumerate(wanted)
    ]


def has_reached(node: Node, name: str) -> bool:
    """Tell whether a node has reached a place, or died there."""
    try:
        return bool(node.ask("hits")["hits"][name])
    except (Gone, Refused):
        return True


class Arenas:
    """Keeps one arena for one test after the other; a test that fails leaves none behind."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._kept: Arena | None = None

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Arena]:
        arena, self._kept = self._kept or Arena(self._factory.mktemp("arena")), None
        try:
            yield arena
        except BaseException as error:
            error.add_note(arena.cluster.situation())
            arena.end()
            raise
        self._kept = arena

    def end(self) -> None:
        """Demand a good history of the arena that is left."""
        if self._kept is not None:
            try:
                self._kept.clients.verdict()
            finally:
                self._kept.end()


@pytest.fixture(scope="module")
def arenas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arenas]:
    kept = Arenas(tmp_path_factory)
    yield kept
    kept.end()


def test_every_failpoint_has_a_scenario() -> None:
    assert {*SCENARIOS, *AT_BIRTH, *RECYCLING, "intent.configure"} == set(POINTS)


@pytest.mark.parametrize(("name", "scenario"), cases("panic"))
def test_g1_a_node_that_dies_there_comes_back(name: str, scenario: Scenario, arenas: Arenas) -> None:
    with arenas.borrow() as arena:
        victim = scenario(arena, name, "panic")
        assert victim.wait_gone() == -9
        assert f"failpoint {name}, hit" in victim.last_words()
        arena.demand_service(victim)


def outcome(victim: Node, name: str) -> str:
    """Return what became of a node that met an error: it serves, or stopped, or was not opened, and why."""
    try:
        victim.wait_open()
        wait_for(lambda: has_reached(victim, name), name)
        if name.startswith(POISON):
            wait_for(lambda: victim.status()["role"] == "stopped", f"{name} ends the node")
        status = victim.ask("status")
    except Refused as refusal:
        assert refusal.kind in ("StorageError", "ConfigError"), f"what was raised is {refusal}"
        assert len(str(refusal)) > 40, "it says what to do"
        return "refused"
    except Gone:
        assert victim.reap() in (0, 1), f"it ended by itself: {victim.last_words()}"
        return "ended"
    if status["role"] == "stopped":
        assert (status["fault"] or name == "wal.close") and "InvariantViolation" not in victim.last_words(), (
            victim.last_words()
        )
        return "stopped"
    return "serves"


@pytest.mark.parametrize(("name", "scenario"), cases("error"))
def test_g6_a_node_that_meets_an_error_there_goes_on_or_says_why_not(
    name: str, scenario: Scenario, arenas: Arenas
) -> None:
    """F6, F7: stopped or refused with a reason, or serving; never a vote after a failed sync."""
    with arenas.borrow() as arena:
        victim = scenario(arena, name, "error/2" if name.startswith(LOSSY) else "error*1")
        result = outcome(victim, name)
        assert result == "stopped" or not name.startswith(POISON)
        if result == "stopped":
            before = victim.ask("hits")["hits"]
            arena.clients.wait_done(3)
            after = victim.ask("hits")["hits"]
            for place in ("wal.append.before", "wal.sync.before", "send.accepted", "send.heartbeat"):
                assert before[place] == after[place], "D8: nothing is tried again and nothing more is said"
        if result != "serves":
            victim.kill()
        arena.demand_service(victim)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("alone"), 1) as cluster:
        yield cluster


@pytest.mark.xdist_group("failpoints-0")
@pytest.mark.parametrize("action", ["panic", "error"])
@pytest.mark.parametrize("name", AT_BIRTH)
def test_a_first_start_that_ends_there_can_be_made_again(
    name: str, action: str, alone: Cluster, tmp_path: Path
) -> None:
    """K3, S1: a directory that was not finished is not taken for one that lost its log."""
    if action not in POINTS[name].actions:
        return
    [node] = alone.nodes.values()
    node.kill()
    node.directory = tmp_path / "node"
    node.spawn(f"{name}={action}*1")
    if action == "panic":
        assert node.wait_gone() == -9
    else:
        outcome(node, name)
        node.kill()
    node.start()
    assert node.ask("command", command=["1", "put", "k", "v"])["index"] == 1
    node.kill()
    node.start()
    assert list(node.entries()) == [(1, ["1", "put", "k", "v"])]


@pytest.mark.xdist_group("failpoints-1")
@pytest.mark.parametrize("action", ["panic", "error"])
def test_a_first_configuration_that_is_not_taken_is_taken_later(action: str, tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.nodes[2].spawn(f"intent.configure={action}*1")
        for node in (cluster.nodes[1], cluster.nodes[3]):
            node.spawn()
        if action == "panic":
            assert cluster.nodes[2].wait_gone() == -9
        else:
            wait_for(lambda: has_reached(cluster.nodes[2], "intent.configure"), "intent.configure")
        cluster.start()
        with Clients(cluster) as clients:
            clients.wait_done(20)
            clients.wait_done(5, node=cluster.nodes[2])
            clients.verdict()


RECYCLER = """
import sys
from pathlib import Path
from paxos import failpoints
from tests.unit import wal_kit as kit

wal = kit.open_log(Path(sys.argv[1]), create=True)
for slot in range(1, 101):
    wal.append([kit.accept(slot, b"x" * 200)])
wal.append([kit.trim(60)])
wal.sync()
failpoints.arm(sys.argv[2], sys.argv[3])
wal.recycle_below(4)
print(failpoints.acted(sys.argv[2]))
"""


@pytest.mark.parametrize("action", ["panic", "error*1"])
@pytest.mark.parametrize("name", RECYCLING)
def test_n1_giving_segments_up_may_end_anywhere(name: str, action: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RECYCLER, str(tmp_path), name, action],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == (-9 if action == "panic" else 0) or "StorageError" in ended.stderr, (
        ended.stderr
    )
    assert (
        action == "panic"
        or ended.stdout == "1\n"
        or "failpoint" in ended.stderr
        or "StorageError" in ended.stderr
    )
    with kit.open_log(tmp_path) as wal:
        found = kit.accepted(wal.scan())
        assert set(found) >= set(range(61, 101)), "what was not trimmed is there"
        wal.append([kit.accept(101)])
        wal.sync()
    with kit.open_log(tmp_path) as wal:
        assert 101 in kit.accepted(wal.scan())
