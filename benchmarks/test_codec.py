"""Frames and batches, to bytes and back."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workloads
from benchmarks.workloads import Workload


@pytest.mark.parametrize("workload", workloads.codec(), ids=lambda workload: workload.name)
def test_codec(benchmark: BenchmarkFixture, workload: Workload) -> None:
    benchmark.extra_info["operations"] = workload.operations
    benchmark(workload.act)
