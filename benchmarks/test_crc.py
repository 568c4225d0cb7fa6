"""CRC32C: every byte of every value passes through it once on each replica."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workloads
from benchmarks.workloads import Workload


@pytest.mark.parametrize("workload", workloads.checksums(), ids=lambda workload: workload.name)
def test_checksum(benchmark: BenchmarkFixture, workload: Workload) -> None:
    benchmark.extra_info["bytes"] = workload.command_bytes
    benchmark(workload.act)
