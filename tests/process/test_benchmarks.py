"""The benchmarks run and write what they promise. Only structure: no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIELDS = [
    "name",
    "face",
    "command_bytes",
    "outstanding",
    "replicas",
    "durability",
    "loop",
    "count",
    "seconds",
    "ops_per_s",
    "p50_us",
    "p90_us",
    "p99_us",
    "p999_us",
    "max_us",
    "floor",
    "versions",
    "machine",
]

pytestmark = pytest.mark.xdist_group("processes")


def run(*arguments: str, timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def rows_of(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    path = tmp_path / "rows.json"
    done = run(*arguments, "--data", str(tmp_path), "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [left.name for left in tmp_path.iterdir()] == ["rows.json"]
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    for row in rows:
        assert list(row) == FIELDS
        assert row["count"] > 0 and row["seconds"] > 0 and row["ops_per_s"] > 0
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"]
        assert set(row["floor"]) == {"fdatasync_us", "rtt_us"}
        assert set(row["machine"]) == {"cpu", "cpus", "kernel"}
    return rows


def test_commit_measures_every_face_of_three_processes(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "commit", "--rounds", "1", "--seconds", "0.05", "--floor-count", "10")
    assert {row["face"].partition(" (")[0] for row in rows} == {
        "propose",
        "submit().result()",
        "await propose",
        "submit",
        "submit at 1,000/s",
        "submit_many",
    }
    for row in rows:
        assert row["loop"] == ("closed" if row["outstanding"] else "open")
        assert row["replicas"] == 3 and "fdatasync" in row["durability"]
        assert row["floor"]["fdatasync_us"] > 0 and row["floor"]["rtt_us"] > 0


def test_failover_kills_a_leader_and_the_logs_agree(tmp_path: Path) -> None:
    [row] = rows_of(tmp_path, "failover", "--count", "1", "--floor-count", "10")
    assert row["name"] == "failover" and row["loop"] == "open" and row["count"] == 1


def test_micro_measures_the_parts(tmp_path: Path) -> None:
    names = {row["name"] for row in rows_of(tmp_path, "micro", "--seconds", "0.01")}
    assert {"crc32c-1MiB", "batch-encode", "batcher-append", "wal-512B"} <= names


def test_help_teaches() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("commit", "failover", "micro", "floor", "--json"):
        assert word in done.stdout
