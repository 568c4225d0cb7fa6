"""``python -m paxos.sim``: run many seeds, show progress, print how to reproduce what failed."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from paxos.sim import diagram
from paxos.sim.coverage import Coverage
from paxos.sim.run import Result, run_seed
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
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first seed that fails")
    parser.add_argument("--quiet", action="store_true", help="no progress and no table")
    return parser


def reproduce(seed: int, steps: int, nodes: int | None) -> str:
    """Return the one command that runs a seed again and draws it."""
    size = f" --nodes {nodes}" if nodes else ""
    return f"python -m paxos.sim --seed {seed}{size} --steps {steps} --html seed-{seed}.html"


def one(job: tuple[int, int, int | None]) -> Result:
    """Run one seed in a worker process."""
    seed, steps, nodes = job
    return run_seed(seed, steps_max=steps, nodes=nodes)


def results(seeds: range, steps: int, nodes: int | None, jobs: int) -> Iterator[Result]:
    """Run the seeds, in this process or in others, and yield each result."""
    work = [(seed, steps, nodes) for seed in seeds]
    if jobs <= 1:
        yield from map(one, work)
        return
    with get_context("spawn").Pool(min(jobs, os.cpu_count() or 1)) as pool:
        yield from pool.imap(one, work, chunksize=4)


def traced(seed: int, steps: int, nodes: int | None, path: str | None, page: str | None) -> Result:
    """Run one seed, write its trace to ``path`` and its diagram to ``page``."""
    sink = io.StringIO()
    result = run_seed(seed, steps_max=steps, nodes=nodes, trace=Trace(sink))
    if path is not None:
        Path(path).write_text(sink.getvalue(), encoding="utf-8")
        print(f"trace of seed {seed}: {path}, sha256 {result.digest}")
    if page is not None:
        size = diagram.write(sink.getvalue().splitlines(), page, f"Paxos, seed {seed}")
        print(f"diagram of seed {seed}: {page}, {size:,} bytes")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = build_parser().parse_args(arguments)
    seeds: range = options.seeds if options.seed is None else range(options.seed, options.seed + 1)
    wants_events = bool(options.trace or options.html)
    if wants_events and len(seeds) != 1:
        print("--trace and --html want exactly one seed", file=sys.stderr)
        return 2
    coverage = Coverage()
    failed: list[Result] = []
    began = last_shown = time.monotonic()
    if wants_events:
        events = traced(seeds[0], options.steps, options.nodes, options.trace, options.html)
        stream: Iterator[Result] = iter([events])
    else:
        stream = results(seeds, options.steps, options.nodes, options.jobs)
    for result in stream:
        coverage.add([result])
        if result.violation is not None:
            failed.append(result)
            print(f"seed {result.seed}: {result.violation}")
            print(f"  reproduce: {reproduce(result.seed, options.steps, options.nodes)}", flush=True)
            if not options.keep_going:
                break
        now = time.monotonic()
        if not options.quiet and now - last_shown >= PROGRESS_SECONDS:
            last_shown = now
            rate = coverage.seeds / (now - began)
            print(
                f"{coverage.seeds}/{len(seeds)} seeds, {rate:.1f} seeds/s, {len(failed)} failed", flush=True
            )
    return report(coverage, failed, time.monotonic() - began, options.quiet)


def report(coverage: Coverage, failed: list[Result], seconds: float, quiet: bool) -> int:
    """Print the summary; return the exit status."""
    if not quiet:
        print("\n".join(coverage.table()))
    print(
        f"{len(failed)} violations in {coverage.seeds} seeds ({coverage.steps} steps, {coverage.commands} commands, "
        f"{coverage.seeds / max(seconds, 1e-9):.1f} seeds/s)"
    )
    print(coverage.progress())
    if failed:
        return 1
    missing = coverage.missing()
    if missing and coverage.seeds >= VOID_BELOW_SEEDS:
        print(f"void: this run never saw {', '.join(missing)}")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
