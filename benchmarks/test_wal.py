"""Append and sync, beside a bare write and sync of the same file system."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workloads
from benchmarks.floor_process import Disk


def test_floor(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    benchmark(Disk(str(tmp_path / "floor")).write)


@pytest.mark.parametrize("name", ["wal-512B", "wal-100x512B", "wal-1MiB"])
def test_append_and_sync(benchmark: BenchmarkFixture, tmp_path: Path, name: str) -> None:
    with workloads.wal(tmp_path) as logs:
        [workload] = (workload for workload in logs if workload.name == name)
        benchmark.extra_info["operations"] = workload.operations
        benchmark.extra_info["bytes"] = workload.command_bytes
        benchmark(workload.act)
