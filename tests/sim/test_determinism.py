"""One seed, one trace: byte for byte, in any process and under any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paxos.sim.run import run_seed
from paxos.sim.trace import Trace

SEEDS = [3, 17]


def trace_in_subprocess(seed: int, path: Path, hash_seed: str) -> bytes:
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
    subprocess.run(
        [sys.executable, "-m", "paxos.sim", "--seeds", str(seed), "--trace", str(path), "--quiet"],
        check=True,
        env=environment,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )
    return path.read_bytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_y5_same_seed_same_trace_under_another_hash_seed(seed: int, tmp_path: Path) -> None:
    first = trace_in_subprocess(seed, tmp_path / "first.jsonl", "1")
    second = trace_in_subprocess(seed, tmp_path / "second.jsonl", "4242")
    assert first.count(b"\n") > 500
    assert first == second


def test_trace_does_not_change_what_happens() -> None:
    silent = run_seed(5)
    traced = run_seed(5, trace=Trace())
    assert (silent.steps, silent.slots, silent.sent) == (traced.steps, traced.slots, traced.sent)


def test_another_seed_is_another_run() -> None:
    assert run_seed(1, trace=Trace()).digest != run_seed(2, trace=Trace()).digest
