"""``python -m paxos.sim.diagram TRACE.jsonl -o FILE.html``: the diagram of a trace that was saved."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from paxos.sim.diagram.build import write


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m paxos.sim.diagram", description="Draw the space-time diagram of a saved trace."
    )
    parser.add_argument("trace", help="JSON lines, as python -m paxos.sim --trace writes them")
    parser.add_argument("-o", "--output", help="the page to write (default: beside the trace)")
    options = parser.parse_args(arguments)
    trace = Path(options.trace)
    output = Path(options.output) if options.output else trace.with_suffix(".html")
    try:
        with trace.open(encoding="utf-8") as lines:
            size = write(lines, output, f"Paxos: {trace.stem}")
    except (OSError, ValueError) as error:
        print(f"{trace}: {error}", file=sys.stderr)
        return 2
    print(f"diagram of {trace}: {output}, {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
