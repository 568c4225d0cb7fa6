"""``python -m paxos.sim``: run many seeds, show progress, print how to reproduce what failed."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

from paxos.sim import diagram
from paxos.sim.coverage import Coverage
from paxos.sim.jobs import Job, results
from paxos.sim.run import Result
from paxos.sim.trace import Trace

VOID_BELOW_SEEDS = 500
PROGRESS_SECONDS = 2.0


def seed_range(text: str) -> range:
    """Parse ``A:B`` (B not included) or one seed."""
    first, _, last = text.partition(":")
    try:
        start = int(first or "0")
        return range(start, int(last) if last else start + 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a seed nor a range A:B") from error


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m paxos.sim",
        description="Run the production roles in a simulated world of bad luck and check the invariants.",
        epilog="Exit status: 0 no violation; 1 a violation; 3 void (a long run that never saw something it must).",
    )
    parser.add_argument(
        "--seeds", type=seed_range, default=range(100), help="A:B, B not included; or one seed"
    )
    parser.add_argument("--seed", type=int, default=None, help="one seed, like --seeds N")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use (default 1)")
    parser.add_argument("--steps", type=int, default=400_000, help="events after which the safety phase ends")
    parser.add_argument("--nodes", type=int, default=None, help="cluster size instead of a drawn one")
    parser.add_argument("--trace", metavar="FILE", help="write the trace of one seed as JSON lines")
    parser.add_argument("--html", metavar="FILE", help="draw one seed: a page with its space-time diagram")
    parser.add_argument(
        "--safety-only",
        action="store_true",
        help="end each seed after its safety phase: more seeds in an hour",
    )
    parser.add_argument("--save", metavar="DIR", help="keep the traces of seeds that fail there")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first seed that fails")
    parser.add_argument("--quiet", action="store_true", help="no progress and no table")
    return parser


def traced(job: Job, path: str | None, page: str | None = None) -> Result:
    """Run one seed, write its trace to ``path`` and its diagram to ``page``."""
    sink = io.StringIO()
    result = job.run(Trace(sink))
    if path is not None:
        Path(path).write_text(sink.getvalue(), encoding="utf-8")
        print(f"trace of seed {job.seed}: {path}, sha256 {result.digest}")
    if page is not None:
        size = diagram.write(sink.getvalue().splitlines(), page, f"Paxos, seed {job.seed}")
        print(f"diagram of seed {job.seed}: {page}, {size:,} bytes")
    return result


class Progress:
    """Says how far a long run is: a bar on a terminal, a line now and then elsewhere, nothing if ``quiet``."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total = total
        self.quiet = quiet
        self.began = self._shown = time.monotonic()
        self._bar: Any = None
        if not quiet and sys.stdout.isatty():
            from rich.progress import Progress as Bar

            self._bar = Bar(transient=True)
            self._bar.start()
            self._task = self._bar.add_task("seeds", total=total)

    def show(self, done: int, failed: int) -> None:
        """Note that ``done`` seeds have run."""
        now = time.monotonic()
        if self.quiet or now - self._shown < (PROGRESS_SECONDS if self._bar is None else 0.1):
            return
        self._shown = now
        text = f"{done / (now - self.began):.1f} seeds/s, {failed} failed"
        if self._bar is None:
            print(f"{done}/{self.total} seeds, {text}", flush=True)
        else:
            self._bar.update(self._task, completed=done, description=text)

    def end(self) -> float:
        """Take the bar away; return the seconds since the beginning."""
        if self._bar is not None:
            self._bar.stop()
        return time.monotonic() - self.began


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = build_parser().parse_args(arguments)
    seeds: range = options.seeds if options.seed is None else range(options.seed, options.seed + 1)
    wants_events = bool(options.trace or options.html)
    if wants_events and len(seeds) != 1:
        print("--trace and --html want exactly one seed", file=sys.stderr)
        return 2
    jobs = [Job(seed, options.steps, options.nodes, options.safety_only) for seed in seeds]
    coverage = Coverage()
    failed: list[Result] = []
    progress = Progress(len(jobs), quiet=options.quiet)
    if wants_events:
        stream = iter([traced(jobs[0], options.trace, options.html)])
    else:
        stream = results(jobs, options.jobs)
    for job, result in zip(jobs, stream, strict=False):
        coverage.add([result])
        if result.violation is not None:
            failed.append(result)
            print(f"seed {job.seed}: {result.violation}")
            print(f"  reproduce: {job.command}", flush=True)
            if options.save:
                os.makedirs(options.save, exist_ok=True)
                traced(job, os.path.join(options.save, f"seed-{job.seed}.jsonl"))
            if not options.keep_going:
                break
        progress.show(coverage.seeds, len(failed))
    return report(coverage, failed, progress.end(), options)


def report(coverage: Coverage, failed: list[Result], seconds: float, options: argparse.Namespace) -> int:
    """Print the summary; return the exit status."""
    if not options.quiet:
        print("\n".join(coverage.table()))
    print(
        f"{len(failed)} violations in {coverage.seeds} seeds ({coverage.steps} steps, {coverage.commands} commands, "
        f"{coverage.seeds / max(seconds, 1e-9):.1f} seeds/s)"
    )
    if not options.safety_only:
        print(coverage.progress())
    if failed:
        return 1
    missing = coverage.missing(safety_only=options.safety_only)
    if missing and coverage.seeds >= VOID_BELOW_SEEDS:
        print(f"void: this run never saw {', '.join(missing)}")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
