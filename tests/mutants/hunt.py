"""Run seeds until one notices that something is wrong: ``python -m tests.mutants.hunt COUNT SECONDS``.

Prints one JSON object: how many seeds ran, and what the last one found, if anything.
"""

from __future__ import annotations

import json
import sys
import time

from paxos.sim.run import run_seed


def hunt(count: int, seconds: float) -> dict[str, object]:
    """Run seeds 0, 1, … until a violation, an exception, ``count`` seeds or ``seconds``."""
    began = time.monotonic()
    done = 0
    for seed in range(count):
        try:
            found = run_seed(seed).violation
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        done += 1
        if found is not None:
            return {"seeds": done, "found": found, "seconds": round(time.monotonic() - began, 1)}
        if time.monotonic() - began > seconds:
            break
    return {"seeds": done, "found": None, "seconds": round(time.monotonic() - began, 1)}


if __name__ == "__main__":
    print(json.dumps(hunt(int(sys.argv[1]), float(sys.argv[2]))))
