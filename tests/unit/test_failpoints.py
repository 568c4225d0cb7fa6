"""Failpoints: what can be armed, when it acts, and what the code around it does then."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import paxos
from paxos import failpoints
from paxos._core.failpoint import reach
from tests.unit import wal_kit as kit

ROOT = Path(__file__).parents[2]
PLACE = "apply.before"  # any place in Python code that can fail


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    failpoints.disarm()
    yield
    failpoints.disarm()


def acting_hits(specification: str, count: int) -> list[int]:
    """Return which of the first ``count`` hits act."""
    failpoints.arm(PLACE, specification)
    acted = []
    for hit in range(1, count + 1):
        try:
            reach(PLACE)
        except OSError:
            acted.append(hit)
    return acted


def test_every_place_has_a_name_of_its_own_a_sentence_and_actions() -> None:
    names = failpoints.names()
    assert len(names) >= 40
    for name, point in names.items():
        assert (point.name == name == name.lower() and "." in name) or name == "listen"
        assert point.description and not point.description.endswith(".")
        assert set(point.actions) in ({"panic", "sleep"}, {"panic", "error", "sleep"})
    assert len({point.description for point in names.values()}) == len(names)


@pytest.mark.parametrize(
    ("specification", "expected"),
    [
        ("error", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("error@4", [4, 5, 6, 7, 8, 9]),
        ("error/3", [1, 4, 7]),
        ("error*2", [1, 2]),
        ("error@2/3*2", [2, 5]),
        ("error(ENOSPC) *2 @3", [3, 4]),
        ("error~0", []),
        ("error~1:5", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("count", []),
        ("sleep(0)", []),
    ],
)
def test_modifiers_say_which_hits_act(specification: str, expected: list[int]) -> None:
    assert acting_hits(specification, 9) == expected
    assert failpoints.hits()[PLACE] == 9
    if expected:
        assert failpoints.acted(PLACE) == len(expected)


def test_a_seed_decides_which_hits_act() -> None:
    first = acting_hits("error~0.3:7", 400)
    assert first == acting_hits("error~0.3:7", 400) != acting_hits("error~0.3:8", 400)
    assert 60 < len(first) < 180


@pytest.mark.parametrize(
    ("name", "specification", "said"),
    [
        ("wal.sync", "panic", "there are wal.append.before"),
        ("nothing.like.it", "panic", "names"),
        (PLACE, "explode", "count, panic, error, sleep"),
        (PLACE, "sleep", "milliseconds"),
        (PLACE, "sleep(soon)", "milliseconds"),
        (PLACE, "panic(1)", "takes no argument"),
        (PLACE, "error(ENONSENSE)", "ENONSENSE"),
        ("pass.tick", "error", "cannot fail"),
        (PLACE, "error@0", "at least 1"),
        (PLACE, "error*0", "at least 1"),
        (PLACE, "error~2", "between 0 and 1"),
        (PLACE, "error~1.2.3", "between 0 and 1"),
        (PLACE, "error!3", "no modifier"),
    ],
)
def test_what_cannot_be_armed_is_refused_with_a_reason(name: str, specification: str, said: str) -> None:
    with pytest.raises(paxos.ConfigError, match=said):
        failpoints.arm(name, specification)
    with pytest.raises(paxos.ConfigError, match=said):
        failpoints.arm_all(f"{PLACE}=count; {name}={specification}")
    assert failpoints.specifications() == {}, "nothing is armed by a list that has a mistake"


def test_a_list_arms_all_of_it_and_a_star_stands_for_every_place() -> None:
    failpoints.arm_all(" wal.sync.before = panic@100 ;; apply.before=error*1; ")
    assert failpoints.specifications() == {"wal.sync.before": "panic@100", "apply.before": "error*1"}
    failpoints.disarm("wal.sync.before")
    assert failpoints.specifications() == {"apply.before": "error*1"}
    failpoints.arm("*", "count")
    assert set(failpoints.specifications()) == set(failpoints.names())
    with pytest.raises(paxos.ConfigError, match=r"NAME=ACTION"):
        failpoints.arm_all("wal.sync.before")
    with pytest.raises(paxos.ConfigError, match="there is no failpoint"):
        failpoints.disarm("nothing.like.it")


def test_a_place_that_is_not_armed_does_nothing() -> None:
    before = failpoints.hits()[PLACE]
    reach(PLACE)
    assert failpoints.hits()[PLACE] == before, "nothing is even counted while nothing is armed"


def test_an_error_in_python_code_is_the_exception_of_the_place() -> None:
    with failpoints.armed(PLACE, "error(ENOSPC)"):
        with pytest.raises(OSError) as caught:
            reach(PLACE)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(RuntimeError, match=r"failpoint apply\.before"):
            reach(PLACE, RuntimeError)
    assert failpoints.specifications() == {}


def test_who_sleeps_at_a_place_goes_on_when_it_is_disarmed() -> None:
    failpoints.arm(PLACE, "sleep(600000)")
    sleeper = threading.Thread(target=reach, args=(PLACE,), daemon=True)
    sleeper.start()
    deadline = time.monotonic() + 60
    while not failpoints.hits()[PLACE]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert sleeper.is_alive()
    failpoints.disarm(PLACE)
    sleeper.join(60)
    assert not sleeper.is_alive()


@pytest.mark.parametrize(
    "place", ["wal.append.before", "wal.append.after", "wal.sync.before", "wal.sync.after"]
)
def test_d8_an_error_of_the_log_poisons_it(place: str, tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        wal.append([kit.accept(1)])
        wal.sync()
        with failpoints.armed(place, "error*1"), pytest.raises(paxos.StorageError):
            wal.append([kit.accept(2)])
            wal.sync()
        with pytest.raises(paxos.StorageError):
            wal.append([kit.accept(3)])
        assert wal.is_poisoned
    with kit.open_log(tmp_path) as wal:
        found = sorted(kit.accepted(wal.scan()))
    assert found in ([1], [1, 2]), "what was synced is there, what failed may be"


def test_no_space_for_a_segment_is_not_the_end(tmp_path: Path) -> None:
    """D7: the log goes on when there is room again."""
    with kit.open_log(tmp_path, create=True, segment_bytes=4096) as wal:
        slot = 0
        with failpoints.armed("segment.create", "error"), pytest.raises(paxos.StorageError, match="no space"):
            for slot in range(1, 1000):
                wal.append([kit.accept(slot, b"x" * 300)])
        wal.append([kit.accept(slot, b"x" * 300)])
        wal.sync()
        assert failpoints.acted("segment.create") > 0
        assert sorted(kit.accepted(wal.scan())) == list(range(1, slot + 1))


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


OPENING = """
import sys, paxos
with paxos.Replica(sys.argv[1] if len(sys.argv) > 1 else {directory!r}) as replica:
    for n in range(20):
        replica.propose(b"%d" % n)
        print(n, flush=True)
"""


def test_the_environment_arms_and_a_panic_ends_the_process_like_kill_9(tmp_path: Path) -> None:
    code = OPENING.format(directory=str(tmp_path / "node"))
    ended = run_python(code, PAXOS_FAILPOINTS="wal.sync.before=panic@12")
    assert ended.returncode == -9
    assert "failpoint wal.sync.before, hit 12: panic" in ended.stderr
    told = [int(line) for line in ended.stdout.split()]
    with paxos.Replica(tmp_path / "node") as replica:
        found = [int(entry.command) for entry in replica.entries()]
    assert found[: len(told)] == told and len(found) <= len(told) + 1


def test_a_mistake_in_the_environment_is_told_when_a_replica_is_opened(tmp_path: Path) -> None:
    ended = run_python(
        OPENING.format(directory=str(tmp_path / "node")), PAXOS_FAILPOINTS="wal.sync.befor=panic"
    )
    assert ended.returncode == 1
    assert (
        "ConfigError: the environment variable PAXOS_FAILPOINTS: there is no failpoint 'wal.sync.befor'"
        in (ended.stderr)
    )
    assert not (tmp_path / "node").exists()


def test_close_returns_though_a_sync_hangs_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replica = paxos.Replica(tmp_path / "node")
    replica.propose(b"one", timeout=60)
    failpoints.arm("wal.sync.before", "sleep(600000)")
    future = replica.submit(b"two")
    deadline = time.monotonic() + 60
    while not failpoints.hits()["wal.sync.before"]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    replica.close(timeout=0.5)  # the sync hangs for as long as this process lives, or until it is disarmed
    assert failpoints.specifications(), "it did not wait for the disk"
    assert "the disk does not answer" in caplog.text
    with pytest.raises(paxos.OutcomeUnknown, match="may or may not be applied"):
        future.result(0)
    assert replica.status().role == "stopped"
