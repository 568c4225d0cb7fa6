"""From a caller's bytes to a sealed batch: 1,000 commands of 16 B in each call."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workloads
from benchmarks.workloads import Workload


@pytest.mark.parametrize("workload", workloads.batcher(), ids=lambda workload: workload.name)
def test_batcher(benchmark: BenchmarkFixture, workload: Workload) -> None:
    benchmark.extra_info["operations"] = workload.operations
    benchmark(workload.act)
