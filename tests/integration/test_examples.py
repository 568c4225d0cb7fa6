"""The examples as their reader runs them: three replicas, the leader killed, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NO_PROGRAMS = {"toolkit", "by_hand"}
ON_A_CLUSTER = ["kv_store", "lock", "leader_election"]
BY_HAND = ["single_decree", "livelock", "split_brain"]


def run(name: str, tmp_path: Path, *arguments: str) -> str:
    """Run an example in a process of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*ON_A_CLUSTER, *BY_HAND, *NO_PROGRAMS}


@pytest.mark.parametrize("name", [*ON_A_CLUSTER, *BY_HAND])
def test_help_teaches_and_starts_nothing(name: str, tmp_path: Path) -> None:
    shown = run(name, tmp_path, "--help")
    assert "usage:" in shown and f"python examples/{name}.py" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
@pytest.mark.parametrize("name", ON_A_CLUSTER)
def test_nothing_is_lost_when_the_leader_is_killed(name: str, transport: str, tmp_path: Path) -> None:
    shown = run(name, tmp_path, "--transport", transport)
    assert "it is gone now" in shown
    assert "3 replicas" in shown and "1 distinct state(s)" in shown


def test_a_decision_by_hand_is_told_and_kept(tmp_path: Path) -> None:
    shown = run("single_decree", tmp_path)
    for line in (
        "Prepare(1.1)",
        "acceptor 2: Promise(1.1), nothing accepted yet",
        "acceptor 1: Accepted(1.1, slot 1)",
        "blue is CHOSEN",
        "acceptor 2: Promise(2.3), slot 1 was accepted at 1.1",
        "it must adopt the value accepted at 1.1",
        "acceptor 3: no to 1.1, it has promised 2.3",
    ):
        assert line in shown, shown
    kept, free = shown.split("\n5. ")
    assert "red is CHOSEN" not in kept
    assert "red is CHOSEN" in free and "blue is CHOSEN" not in free


def test_p14_duelling_proposers_need_the_random_wait(tmp_path: Path) -> None:
    shown = run("livelock", tmp_path, "--seeds", "50")
    assert "Chosen by t=1000: nothing" in shown
    assert "50 random duels: 50 ended" in shown


def test_two_halves_never_both_choose(tmp_path: Path) -> None:
    shown = run("split_brain", tmp_path)
    assert "left is CHOSEN" not in shown
    assert shown.count("right is CHOSEN") == 2
    assert shown.count("that is no quorum") == 2
