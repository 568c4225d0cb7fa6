"""Seeds as jobs, for this process or for several.

Not in ``__main__``: what ``python -m`` runs has no name that another process could import it by.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import get_context
from typing import NamedTuple

from paxos.sim.run import Result, run_seed
from paxos.sim.trace import Trace


class Job(NamedTuple):
    """One seed and how it is to be run."""

    seed: int
    steps: int
    nodes: int | None
    safety_only: bool

    @property
    def command(self) -> str:
        """The one command that runs it again and draws it."""
        size = f" --nodes {self.nodes}" if self.nodes else ""
        phase = " --safety-only" if self.safety_only else ""
        rest = f"{size}{phase} --steps {self.steps} --html seed-{self.seed}.html"
        return f"python -m paxos.sim --seed {self.seed}{rest}"

    def run(self, trace: Trace | None = None) -> Result:
        """Run it in this process."""
        return run_seed(
            self.seed, steps_max=self.steps, nodes=self.nodes, trace=trace, safety_only=self.safety_only
        )


def results(jobs: list[Job], processes: int) -> Iterator[Result]:
    """Run the seeds, in this process or in others, and yield each result, in order."""
    if processes <= 1:
        yield from map(Job.run, jobs)
        return
    with get_context("spawn").Pool(min(processes, os.cpu_count() or 1)) as pool:
        yield from pool.imap(Job.run, jobs, chunksize=4)
