"""``python -m tests.mutants``: show that the tests notice every mutant.

The tree is copied once for each job. For each mutant the patch is applied to a copy, what changed is built
again, its named tests run, and then random seeds of the simulator, counted until one notices. A mutant that
neither notices has survived, and the exit status is 1. Before anything else the same tests and seeds must
pass without a patch; otherwise a kill would say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.patches import ROOT, Mutant, load

BUILD_SECONDS = 600
TEST_SECONDS = 300
HUNT_SECONDS = 120
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", ".benchmarks", "*.egg-info"
)
RESTORED = ("_core", "build", "paxos")
"""What may be patched, and what is made of it."""
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"


@dataclass(slots=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        by_test: the named test that failed first, if one did.
        by_seed: what a seed found, if one did.
        seeds: how many seeds it took, or how many ran in vain.
        trouble: why it could not be judged: the patch does not fit, or what it makes cannot be built or run.
    """

    mutant: Mutant
    by_test: str | None = None
    by_seed: str | None = None
    seeds: int = 0
    seconds: float = 0.0
    trouble: str | None = None

    @property
    def is_killed(self) -> bool:
        """True if anything noticed."""
        return self.by_test is not None or self.by_seed is not None


class Workspace:
    """A copy of the tree that is patched, built, and put back as it was."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "tree"
        self._pristine = directory / "pristine"
        shutil.copytree(ROOT, self.root, symlinks=True, ignore=LEFT_OUT)
        self._environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        }
        self.build()
        for name in RESTORED:
            if (self.root / name).is_dir():
                shutil.copytree(self.root / name, self._pristine / name, symlinks=True)

    def run(self, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str] | None:
        """Run Python in the copy; ``None`` if it took too long. Ends its whole process group."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return None
        return subprocess.CompletedProcess(arguments, process.returncode, output, "")

    def build(self) -> None:
        """Build what changed.

        Raises:
            RuntimeError: it does not compile.
        """
        done = self.run("setup.py", "--quiet", "build_ext", "--inplace", seconds=BUILD_SECONDS)
        if done is None or done.returncode:
            raise RuntimeError("the build failed:\n" + (done.stdout[-3000:] if done else "out of time"))

    def restore(self, mutant: Mutant) -> None:
        """Undo a patch, with the old times, so that nothing more than it was is built next time."""
        for path in self._pristine.rglob("*"):
            there = self.root / path.relative_to(self._pristine)
            if path.is_file() and (not there.exists() or there.stat().st_mtime_ns != path.stat().st_mtime_ns):
                shutil.copy2(path, there)

    def failing_test(self, tests: Sequence[str]) -> str | None:
        """Run named tests; return the first that fails, ``None`` if all pass.

        Raises:
            RuntimeError: they could not be run at all.
        """
        if not tests:
            return None
        flags = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider"]
        done = self.run("-m", "pytest", *flags, *tests, seconds=TEST_SECONDS)
        if done is None:
            return f"{tests[0]} (hangs)"
        if done.returncode < 0:
            return f"{tests[0]} (crashes)"
        if done.returncode == 0:
            return None
        if done.returncode != 1:
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}")
        failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
        return failed[0] if failed else tests[0]

    def hunt(self, seeds: int) -> tuple[int, str | None]:
        """Run seeds of the simulator; return how many, and what the last one found."""
        if not seeds:
            return 0, None
        done = self.run("-m", "tests.mutants.hunt", str(seeds), str(HUNT_SECONDS), seconds=3 * HUNT_SECONDS)
        if done is None:
            return 0, "a seed hangs"
        if done.returncode:
            return 0, f"the simulator ends with {done.returncode}"
        result = json.loads(done.stdout.splitlines()[-1])
        return result["seeds"], result["found"]


def judge(workspace: Workspace, mutant: Mutant, seeds: int) -> Verdict:
    """Apply one mutant to the copy and see who notices."""
    began = time.monotonic()
    verdict = Verdict(mutant)
    try:
        for edit in mutant.edits:
            edit.apply(workspace.root)
        if mutant.is_compiled:
            workspace.build()
        verdict.by_test = workspace.failing_test(mutant.tests)
        verdict.seeds, verdict.by_seed = workspace.hunt(min(mutant.seeds, seeds))
    except (ValueError, RuntimeError) as error:
        verdict.trouble = str(error)
    finally:
        workspace.restore(mutant)
    verdict.seconds = time.monotonic() - began
    return verdict


def line_of(verdict: Verdict) -> str:
    """Return one line of progress."""
    if verdict.trouble is not None:
        return f"NOT JUDGED {verdict.mutant.id}: {verdict.trouble}"
    by_test = verdict.by_test.split("::")[-1] if verdict.by_test else "-"
    by_seed = (
        f"seed {verdict.seeds - 1}: {verdict.by_seed[:60]}"
        if verdict.by_seed
        else f"{verdict.seeds} seeds in vain"
    )
    state = "killed" if verdict.is_killed else "SURVIVED"
    return f"{state:8} {verdict.mutant.id:38} {by_test[:60]:60} {by_seed} ({verdict.seconds:.0f} s)"


def median_seeds(verdicts: Sequence[Verdict]) -> float | None:
    """Return the median number of seeds to the kill, over the mutants that a seed killed."""
    taken = [verdict.seeds for verdict in verdicts if verdict.by_seed]
    return statistics.median(taken) if taken else None


def save(verdicts: Sequence[Verdict], path: Path) -> None:
    """Add verdicts to a file of JSON lines."""
    with path.open("a") as file:
        for verdict in verdicts:
            fields = {"by_test": verdict.by_test, "by_seed": verdict.by_seed, "seeds": verdict.seeds}
            fields |= {"seconds": verdict.seconds, "trouble": verdict.trouble}
            file.write(json.dumps({"id": verdict.mutant.id} | fields) + "\n")


def recall(path: Path) -> list[Verdict]:
    """Return the last verdict of every mutant that still exists, in the order of the mutants."""
    last = {fields.pop("id"): fields for fields in map(json.loads, path.read_text().splitlines())}
    return [Verdict(mutant, **last[mutant.id]) for mutant in load() if mutant.id in last]


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the table for the documentation."""
    killed = [verdict for verdict in verdicts if verdict.is_killed]
    by_seed = [verdict for verdict in verdicts if verdict.by_seed]
    lines = [
        f"{len(killed)} of {len(verdicts)} mutants killed; {len(by_seed)} of them by random seeds alone, with a median "
        f"of {median_seeds(verdicts) or 0:g} seeds to the kill.",
        "",
        "| mutant | breaks | what goes wrong | noticed by the test | noticed by seeds |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        mutant = verdict.mutant
        test = f"`{verdict.by_test.split('::')[-1].partition('[')[0]}`" if verdict.by_test else "–"
        seeds = (
            f"after {verdict.seeds}: {verdict.by_seed.split(':')[0]}"
            if verdict.by_seed
            else (f"not in {verdict.seeds}" if verdict.seeds else "–")
        )
        lines.append(f"| {mutant.id} | {', '.join(mutant.rules)} | {mutant.breaks} | {test} | {seeds} |")
    return "\n".join(lines)


def write_docs(table: str, path: Path = ROOT / "docs" / "testing.md") -> None:
    """Put the table between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def check_baseline(workspace: Workspace, mutants: Sequence[Mutant], seeds: int) -> None:
    """See that every named test and every seed passes without a patch.

    Raises:
        RuntimeError: one does not.
    """
    failed = workspace.failing_test(sorted({test for mutant in mutants for test in mutant.tests}))
    if failed:
        raise RuntimeError(f"{failed} fails without any mutant")
    count, found = workspace.hunt(seeds)
    if found:
        raise RuntimeError(f"seed {count - 1} fails without any mutant: {found}")


def judge_all(mutants: Sequence[Mutant], seeds: int, jobs: int, results: Path | None) -> list[Verdict]:
    """Judge every mutant, ``jobs`` at a time; print each verdict, and save it if there is a place for it."""
    idle: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
    printing = threading.Lock()
    most = min(seeds, max(mutant.seeds for mutant in mutants))
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        print(f"copying and building the tree {jobs} times", flush=True)
        for job in range(jobs):
            idle.put(Workspace(Path(directory) / str(job)))
        print("running the named tests and the seeds without a mutant", flush=True)
        workspace = idle.get()
        check_baseline(workspace, mutants, most)
        idle.put(workspace)

        def one(mutant: Mutant) -> Verdict:
            workspace = idle.get()
            try:
                verdict = judge(workspace, mutant, seeds)
            finally:
                idle.put(workspace)
            with printing:
                print(line_of(verdict), flush=True)
                if results is not None:
                    save([verdict], results)
            return verdict

        with ThreadPoolExecutor(jobs) as pool:
            verdicts = list(pool.map(one, mutants))
        print("running them once more without a mutant", flush=True)
        for _ in range(jobs):
            check_baseline(idle.get(), mutants, min(20, most))
        return verdicts


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 if every mutant was killed, 1 if one survived, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="ID", action="append", help="this mutant alone; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the mutants and do nothing")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (default 1)")
    parser.add_argument("--seeds", type=int, default=300, help="at most so many seeds for each (default 300)")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/testing.md")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add to this file, and show all that it holds"
    )
    options = parser.parse_args(arguments)
    mutants = load()
    unknown = set(options.only or ()) - {mutant.id for mutant in mutants}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    mutants = [mutant for mutant in mutants if not options.only or mutant.id in options.only]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.id:38} {','.join(mutant.rules):12} {mutant.breaks}")
        return 0
    began = time.monotonic()
    verdicts = judge_all(mutants, options.seeds, max(1, options.jobs), options.results)
    survivors = [verdict.mutant.id for verdict in verdicts if not verdict.is_killed]
    median = median_seeds(verdicts)
    print(
        f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants killed in {time.monotonic() - began:.0f} s; "
        f"median seeds to the kill: {'-' if median is None else f'{median:g}'}"
    )
    if options.write_docs:
        write_docs(markdown(recall(options.results) if options.results else verdicts))
    if survivors:
        print("survivors: " + ", ".join(survivors))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
