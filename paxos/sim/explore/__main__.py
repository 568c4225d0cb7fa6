"""``python -m paxos.sim.explore``: visit every state of tiny clusters, or of one of them."""

from __future__ import annotations

import argparse
import resource
import sys

from paxos.sim.explore.plans import PLANS, Plan
from paxos.sim.explore.search import Outcome, explore


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m paxos.sim.explore",
        description="Visit every state that the production roles can get into in tiny configurations, and check "
        "the invariants in each.",
        epilog="Exit status: 0 no violation; 1 a violation, whose shortest history is printed.",
    )
    names = [plan.name for plan in PLANS]
    parser.add_argument("--plan", action="append", choices=names, help="explore this one (again and again)")
    parser.add_argument("--ci", action="store_true", help="only what is small enough for every change")
    parser.add_argument("--states", type=int, help="stop after so many states, whatever a plan says")
    parser.add_argument("--list", action="store_true", help="say what there is to explore")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def show(outcome: Outcome) -> None:
    """Print a line of progress."""
    rate = outcome.states / max(outcome.seconds, 1e-9)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"  {outcome.seconds:5.0f} s  {outcome.states:,} states, {rate:,.0f} states/s, depth {outcome.depth}, "
        f"{megabytes} MiB",
        flush=True,
    )


def report(plan: Plan, outcome: Outcome) -> None:
    """Print what an exploration found."""
    extent = "all of them" if outcome.is_complete else f"{outcome.frontier:,} more waiting"
    print(
        f"{plan.name}: {outcome.states:,} distinct states ({extent}), {outcome.transitions:,} transitions, depth "
        f"{outcome.depth}, {outcome.ballots} ballots, {outcome.seconds:.0f} s"
    )
    print(
        f"  {outcome.local_states:,} states of single nodes, {outcome.executions:,} inputs carried out, "
        f"{outcome.rechecked:,} of them twice"
    )
    if outcome.violation is not None:
        print(f"  {outcome.violation}\n  after {len(outcome.trace)} steps:")
        for number, step in enumerate(outcome.trace, 1):
            print(f"  {number:3}. {step}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = build_parser().parse_args(arguments)
    chosen = [
        p for p in PLANS if (not options.plan or p.name in options.plan) and (p.in_ci or not options.ci)
    ]
    states = violations = 0
    for plan in chosen:
        print(f"{plan.name}: {plan.about}", flush=True)
        if options.list:
            continue
        limit = options.states or plan.states_max or 1 << 40
        outcome = explore(plan.bounds, states_max=limit, progress=None if options.quiet else show)
        report(plan, outcome)
        states += outcome.states
        violations += outcome.violation is not None
    if not options.list:
        print(f"{violations} violations in {states:,} distinct states of {len(chosen)} configurations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
