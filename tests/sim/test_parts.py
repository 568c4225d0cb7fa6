"""The parts of the simulator, one by one: frames, disks, shapes of partitions, coverage, the command."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from paxos._core import codec
from paxos._core.effects import RecordView
from paxos.sim import __main__ as command
from paxos.sim import jobs, wire
from paxos.sim.clock import Clock
from paxos.sim.coverage import Coverage
from paxos.sim.disk import MemoryDisk
from paxos.sim.network import SHAPES
from paxos.sim.run import Result, run_seed
from paxos.sim.scenario import Scenario
from paxos.sim.trace import Trace

Kind = wire.Kind


def record(slot: int, value: bytes = b"x") -> RecordView:
    return RecordView(2, 2, 0, slot, 1, 0, 0, slot, value)


# --- frames --------------------------------------------------------------------------------------------------


def test_the_observer_reads_headers_as_the_codec_does() -> None:
    data = codec.encode_frame(
        Kind.ACCEPT,
        sender=3,
        receiver=2,
        cluster=9,
        incarnation=4,
        detail=2,
        ballot=77,
        slot=8,
        mark=5,
        payload=b"value",
    )
    frame = wire.view(data)
    fields = codec.decode_frame(data)
    assert (frame.kind, frame.sender, frame.receiver, frame.detail) == (Kind.ACCEPT, 3, 2, 2)
    assert (frame.incarnation, frame.ballot, frame.slot, frame.mark) == (4, 77, 8, 5)
    assert frame.payload == fields["payload"] == b"value"


def test_the_observer_knows_the_size_of_every_fixed_payload() -> None:
    cluster = Scenario()
    sizes: dict[int, set[int]] = {}

    def note(frame: wire.Frame) -> bool:
        sizes.setdefault(frame.kind, set()).add(len(frame.payload))
        return True

    cluster.world.network.filters.append(note)
    leader = cluster.settle()
    cluster.crash(leader)
    cluster.wait_leader(among=[id for id in cluster.members if id != leader])
    assert sizes[Kind.PING] == {wire.PING.size}
    assert sizes[Kind.PONG] == {wire.PONG.size}
    assert all((size - wire.PROMISE_HEAD.size) % wire.PROMISE_ENTRY.size == 0 for size in sizes[Kind.PROMISE])


# --- disks ---------------------------------------------------------------------------------------------------


def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    for seed in range(50):
        disk = MemoryDisk()
        disk.append([record(1), record(2)])
        disk.sync()
        disk.append([record(3), record(4), record(5)])
        kept = disk.crash(random.Random(seed))
        assert [r.slot for r in disk.durable] == [1, 2, 3, 4, 5][: 2 + len(kept)]
        assert disk.lost == 3 - len(kept)
        assert not disk.pending


def test_rot_leaves_headers() -> None:
    disk = MemoryDisk()
    disk.append([record(slot, b"abc") for slot in range(2, 7)])
    disk.sync()
    assert disk.rot(random.Random(1), 2) == 0  # in the last group it would look like a torn write
    disk.append([record(7)])
    disk.sync()
    assert disk.rot(random.Random(1), 2) == 2
    damaged = [r for r in disk.durable if r.is_damaged]
    assert len(damaged) == 2
    assert all(r.length == 3 and r.value is None for r in damaged)


def test_a_crash_leaves_whole_records_only_and_tears_most_groups() -> None:
    kept, torn = set(), 0
    for seed in range(300):
        disk = MemoryDisk()
        disk.append([record(slot, b"v" * 600) for slot in range(1, 5)])
        kept.add(len(disk.crash(random.Random(seed))))
        torn += disk.torn
    assert kept == {0, 1, 2, 3, 4}
    assert torn > 100


def test_behind_a_bad_header_nothing_is_trusted() -> None:
    for seed in range(20):
        disk = MemoryDisk()
        for slot in range(1, 8):
            disk.append([record(slot)])
            disk.sync()
        assert disk.read() == (disk.durable, False)
        assert disk.distrust(random.Random(seed), 1) == 1
        left, is_untrusted = disk.read()
        assert is_untrusted
        assert [r.slot for r in left] == list(range(1, len(left) + 1))
        assert len(left) < 6 + 1  # the last record is covered by no claim: it is never the bad one


def test_a_clock_never_goes_back_and_its_deadlines_are_exact() -> None:
    rng = random.Random(4)
    for _ in range(2000):
        clock = Clock(rng.randrange(1 << 24), rng.randrange(1 << 40), rng.randrange(-5000, 5000))
        now = rng.randrange(1 << 24, 1 << 30)
        before = clock.read(now)
        deadline = before + rng.randrange(1 << 20)
        assert clock.read(clock.when(deadline)) >= deadline > clock.read(clock.when(deadline) - 1)
        clock.jump(now, rng.randrange(1 << 32))
        assert clock.read(now) >= before


# --- partitions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_shape_cuts_links_between_members_only(name: str, size: int) -> None:
    members = list(range(1, size + 1))
    for seed in range(20):
        assert SHAPES[name](members, random.Random(seed)) <= set(permutations(members, 2))


@pytest.mark.parametrize(("size", "majority"), [(4, 3), (5, 3), (7, 5)])
def test_in_a_ring_every_member_hears_a_majority_and_no_two_the_same(size: int, majority: int) -> None:
    members = list(range(1, size + 1))
    cut = SHAPES["majorities_ring"](members, random.Random(3))
    heard = [frozenset(o for o in members if o == m or (o, m) not in cut) for m in members]
    assert all(len(hears) == majority for hears in heard)
    assert len(set(heard)) == size


@pytest.mark.parametrize("size", [4, 5, 7])
def test_a_bridge_is_the_only_way_between_two_sides(size: int) -> None:
    members = list(range(1, size + 1))
    cut = SHAPES["bridge"](members, random.Random(3))
    (middle,) = [m for m in members if not any(m in link for link in cut)]
    sides = {
        frozenset(o for o in members if o not in (m, middle) and (o, m) not in cut) | {m} for m in members
    }
    assert sorted(len(side) for side in sides if middle not in side) == [(size - 1) // 2, size // 2]


def test_a_swizzled_link_holds_back_and_loses_nothing() -> None:
    cluster = Scenario()
    leader = cluster.settle()
    follower = next(id for id in cluster.members if id != leader)
    network = cluster.world.network
    network.swizzle((leader, follower))
    cluster.wait_committed(cluster.propose(leader, 3))
    before = network.delivered[Kind.ACCEPT]
    held = len([frame for frame in network.swizzled[leader, follower] if frame.kind == Kind.ACCEPT])
    assert held
    network.unswizzle((leader, follower))
    cluster.run(50)
    assert network.delivered[Kind.ACCEPT] >= before + held


# --- coverage

# --- coverage and the command --------------------------------------------------------------------------------


def test_a_run_that_saw_nothing_is_void() -> None:
    missing = Coverage().missing()
    assert "frame ACCEPT" in missing
    assert "event crash_lost_records" in missing


def test_the_command_tells_how_to_reproduce_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(seed: int, **_options: object) -> Result:
        return Result(seed, violation="I3: two values")

    monkeypatch.setattr(jobs, "run_seed", broken)
    assert command.main(["--seeds", "7:9", "--quiet"]) == 1
    said = capsys.readouterr().out
    assert "seed 7: I3: two values" in said
    assert "python -m paxos.sim --seed 7 " in said
    assert "seed 8" not in said


def test_the_command_runs_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seeds", "0:2", "--quiet"]) == 0
    assert "0 violations in 2 seeds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--seeds", "a:b"])


def test_a_cluster_of_one_to_five_survives_its_seed() -> None:
    for nodes in range(1, 6):
        assert run_seed(nodes, nodes=nodes).violation is None


def test_the_command_runs_seeds_in_other_processes() -> None:
    arguments = [
        sys.executable,
        "-m",
        "paxos.sim",
        "--seeds",
        "0:3",
        "--jobs",
        "2",
        "--safety-only",
        "--quiet",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert "0 violations in 3 seeds" in done.stdout


def test_the_command_keeps_the_trace_of_a_seed_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(seed: int, *, trace: Trace | None = None, **_options: object) -> Result:
        if trace is not None:
            trace.add(0, "violation", 0)
        return Result(seed, violation="I3: two values")

    monkeypatch.setattr(jobs, "run_seed", broken)
    assert command.main(["--seed", "5", "--quiet", "--save", str(tmp_path)]) == 1
    assert (tmp_path / "seed-5.jsonl").read_text().count("violation") == 1
