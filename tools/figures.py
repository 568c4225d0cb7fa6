"""Write the figures of benchmark runs into README.md: ``python tools/figures.py commit.json failover.json``.

Numbers come from these files and from nowhere else; without a file nothing is changed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def row(result: dict[str, Any]) -> str:
    """Return one line of the table."""
    floor = sum(result["floor"].values())
    p50, p99 = result["p50_us"], result["p99_us"]
    several = result["outstanding"] > 1
    ratio = "" if several or result["name"] == "failover" else f"{p50 / floor:.2f} / {p99 / floor:.2f}"
    rate = f"{result['ops_per_s']:,.0f}" if several else ""
    return (
        f"| {result['face']} | {result['command_bytes']} B | {result['outstanding']:,} | {p50:,.0f} | {p99:,.0f} "
        f"| {floor:,.0f} | {ratio} | {rate} |"
    )


def table(results: list[dict[str, Any]]) -> str:
    """Return the table with the machine and the versions that it was taken with."""
    machine, versions = results[0]["machine"], results[0]["versions"]
    lines = [
        "| face | command | outstanding | p50 µs | p99 µs | floor µs | p50 / p99 of the floor | per second |",
        "|---|---|---|---|---|---|---|---|",
        *(row(result) for result in results),
        "",
        f"{results[0]['replicas']} replicas on one machine: {machine['cpus']} CPUs ({machine['cpu']}), Linux "
        f"{machine['kernel']}, Python {versions['python']}, libzmq {versions['libzmq']}. "
        f"Durability: {results[0]['durability']}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Replace what stands between the two marks."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths:
        print(__doc__)
        return 2
    results = [result for path in paths for result in json.loads(path.read_text())]
    text = README.read_text()
    found = re.search(f"{BEGIN}\n(.*?){END}", text, re.DOTALL)
    if found is None:
        print(f"error: {README} has lost its marks {BEGIN} and {END}", file=sys.stderr)
        return 1
    commands = found[1][found[1].index("```\npython") :]
    README.write_text(text[: found.start(1)] + table(results) + "\n\n" + commands + text[found.end(1) :])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
