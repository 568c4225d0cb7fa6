"""Kill, stop and cut off real members for as long as you like: ``python -m tests.process.soak --kills 500``.

Every round is a cluster of its own, of three nodes or five, under load; at the end of a round its history goes
to the checker and its logs are compared. A round that shows a violation keeps its directory, with the
history as JSON lines. The exit status is 0 without a violation and 1 with one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.process.cluster import Cluster
from tests.process.kills import Killer
from tests.process.proxy import Links
from tests.process.workload import Clients

ROUND = 100
"""Faults of one kind in one round."""


def kills(
    cluster: Cluster, clients: Clients, seed: int, count: int, say: Callable[[str], None]
) -> Counter[str]:
    """Kill so many members, one, two or all at a time."""
    killer = Killer(cluster, clients, seed)
    while killer.kills < count:
        killer.strike()
        say(f"{killer.kills} kills")
    return Counter(
        {"kills": killer.kills, "kills of a leader": killer.leader_kills, "kills of all": killer.massacres}
    )


def pauses(
    cluster: Cluster, clients: Clients, seed: int, count: int, say: Callable[[str], None]
) -> Counter[str]:
    """Stop so many members, mostly leaders, for up to three seconds each."""
    chance = random.Random(f"pauses {seed}")
    for done in range(count):
        node = cluster.leader() if chance.random() < 0.7 else chance.choice(cluster.living)
        node.signal(signal.SIGSTOP)
        time.sleep(min(chance.expovariate(2.5), 3.0))
        node.signal(signal.SIGCONT)
        clients.wait_done(10)
        say(f"{done + 1} pauses")
    return Counter({"pauses": count})


def cuts(
    cluster: Cluster, clients: Clients, seed: int, count: int, say: Callable[[str], None]
) -> Counter[str]:
    """Lose so many times some links, each in one direction."""
    links: Links = cluster.links  # type: ignore[attr-defined]
    chance = random.Random(f"cuts {seed}")
    for done in range(count):
        lost = chance.sample(links.all, chance.randrange(1, len(links.all)))
        links.set(chance.choice(["cut", "hold"]), lost)
        time.sleep(chance.uniform(0.1, 2.0))
        links.heal()
        clients.wait_done(10)
        say(f"{done + 1} partitions")
    return Counter({"partitions": count})


KINDS = {"kills": kills, "pauses": pauses, "partitions": cuts}


def one_round(directory: Path, kind: str, seed: int, count: int, say: Callable[[str], None]) -> Counter[str]:
    """Run one round and return what it did and saw.

    Raises:
        AssertionError: a violation, or no progress.
    """
    nodes = 5 if seed % 4 == 3 else 3
    cluster = Cluster(directory, nodes, config={"segment_bytes": (64 << 10) << (seed % 3) * 2})
    with cluster, Links(cluster) as links:
        cluster.links = links  # type: ignore[attr-defined]
        if kind != "partitions":
            for node in cluster.nodes.values():
                node.routes.clear()
        cluster.start()
        cluster.leader()
        with Clients(cluster, 2 * nodes, seed=seed, patience_s=1.5, sticky=kind != "kills") as clients:
            try:
                did = KINDS[kind](cluster, clients, seed, count, say)
                return did + Counter(clients.verdict()) + Counter({"rounds": 1})
            except BaseException:
                clients.recorder.write(directory / "history.jsonl")
                raise


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.soak", description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N", help=f"how many {kind}")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    seed, began = options.seed, time.monotonic()
    for kind in KINDS:
        while (left := getattr(options, kind) - total[kind]) > 0:

            def say(text: str, seed: int = seed) -> None:
                print(f"\r{time.monotonic() - began:7.1f} s  round {seed}: {text}   ", end="", flush=True)

            directory = Path(tempfile.mkdtemp(prefix="paxos-soak-"))
            try:
                total += one_round(directory, kind, seed, min(left, ROUND), say)
            except AssertionError as error:
                print(
                    f"\nround {seed} ({kind}) failed; its files are in {directory}: {error}", file=sys.stderr
                )
                for note in getattr(error, "__notes__", []):
                    print(note, file=sys.stderr)
                return 1
            shutil.rmtree(directory)
            seed += 1
    did = ", ".join(f"{count} {what}" for what, count in total.items() if count)
    print(f"\n0 violations in {did}; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
