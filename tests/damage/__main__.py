"""Damage the storage of a node in every way that is listed here, and print what became of it.

``python -m tests.damage`` takes minutes: a bit at every byte of a 64 KiB log, truncation at every length, every tail,
misplaced records, power loss at every operation, a fault in every block of every file. CI takes a sample.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.damage import blocks
from tests.damage.crashes import Crashes
from tests.damage.logs import DamagedLog


def table(title: str, found: Counter[str], seconds: float) -> None:
    """Print how often which outcome was met."""
    print(f"{title}: {sum(found.values())} cases in {seconds:.0f} s, 0 wrong answers", flush=True)
    for outcome, count in sorted(found.items()):
        print(f"  {count:7d}  {outcome}", flush=True)


def main() -> None:
    """Run everything; a wrong answer is an exception."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        log = DamagedLog(directory / "log")
        size = len(log.image)
        for title, run in (
            ("a bit flipped at every byte of a 64 KiB log", lambda: log.flips(range(size))),
            ("truncation at every length", lambda: log.truncations(range(size))),
            ("zeros, ones and garbage from every eighth byte on", lambda: log.tails(range(512, size, 8))),
            ("records swapped, copied over others, lost", lambda: log.misplaced(10_000)),
            ("power loss", lambda: Crashes(directory / "crashes").run(1000)),
        ):
            started = time.monotonic()
            table(title, run(), time.monotonic() - started)
        started = time.monotonic()
        (directory / "blocks").mkdir()
        found = blocks.run(directory / "blocks", faults_of_a_block=len(blocks.FAULTS))
        flat = Counter({f"{kind} of a {role}: {outcome}": n for (role, kind, outcome), n in found.items()})
        table("one fault in every block of every file", flat, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
