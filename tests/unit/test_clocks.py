"""No decision depends on a wall clock (G8): nothing in the package reads one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    [
        *(path for path in (ROOT / "paxos").rglob("*.py") if ROOT / "paxos" / "_core" not in path.parents),
        *(ROOT / "_core").glob("*.p[yx][xd]"),
        *(ROOT / "_core").glob("*.h"),
    ]
)
# pthread_cond_timedwait without an attribute waits by the wall clock, too.
WALL = re.compile(
    r"\btime\.time(_ns)?\b|from time import .*\btime\b|\bdatetime\b|CLOCK_REALTIME|gettimeofday|cond_timedwait|"
    r"time\.(localtime|gmtime|ctime|strftime)"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_g8_no_source_reads_a_wall_clock(path: Path) -> None:
    found = [line.strip() for line in path.read_text().splitlines() if WALL.search(line)]
    assert not found, found


@pytest.mark.parametrize(
    "line", ["now = time.time()", "from time import sleep, time", "clock_gettime(CLOCK_REALTIME, &t)"]
)
def test_g8_the_search_finds_what_it_looks_for(line: str) -> None:
    assert WALL.search(line)
    assert not WALL.search("now = time.monotonic()")
