"""Two proposers that block each other for ever, and the random wait that ends it.

Paxos never chooses two values, however its messages are timed; but it may choose none. Two proposers who
answer every refusal at once with a higher ballot can meet so that each of them always comes just before the
other is done. A random wait after a refusal, growing with every further one, lets one of them finish.

    python examples/livelock.py
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable
from random import Random

from by_hand import Table, text

from paxos import Learner

ROUND_TRIP = 2
"""Time units between Prepare and the Accept that follows it; the second proposer starts one unit later."""
FOR_EVER = 1000

Wait = Callable[[int], int]


class Duel:
    """Two proposers and three acceptors in virtual time.

    Args:
        wait: from the number of refusals so far to the time to wait before the next attempt.
        is_quiet: tell nothing.
    """

    def __init__(self, wait: Wait, *, is_quiet: bool = False) -> None:
        self.table = Table(3, is_quiet=True)
        self.wait = wait
        self.is_quiet = is_quiet
        self.proposers = {node: self.table.proposer(node) for node in (1, 2)}
        self.learners = {node: Learner.alone(node, self.table.members) for node in (1, 2)}
        self.rounds = {1: 1, 2: 1}
        self.refusals = {1: 0, 2: 0}
        self.attempts = 0

    def run(self, until: int) -> tuple[int, bytes] | None:
        """Return when which value was chosen, or ``None`` if there is none by ``until``."""
        events = [(0, 1, "prepare"), (1, 2, "prepare")]
        while events:
            now, node, step = heapq.heappop(events)
            if now > until:
                return None
            if step == "prepare":
                self.attempts += 1
                self.table.prepare(self.proposers[node], self.rounds[node], self.table.members)
                self._tell(f"   t={now:3}  proposer {node} prepares round {self.rounds[node]}")
                heapq.heappush(events, (now + ROUND_TRIP, node, "accept"))
                continue
            value = self._accept(node, now)
            if value is not None:
                return now, value
            self.refusals[node] += 1
            heapq.heappush(events, (now + self.wait(self.refusals[node]), node, "prepare"))
        return None

    def _accept(self, node: int, now: int) -> bytes | None:
        """Phase 2 of one proposer; on refusal the next round is above what was promised elsewhere."""
        proposer = self.proposers[node]
        lead = self.table.conclude(proposer)
        if lead is not None:
            value = self.table.accept(
                proposer, lead, f"value of {node}".encode(), self.table.members, self.learners[node]
            )
            if value is not None:
                self._tell(f"   t={now:3}  proposer {node} gets {value.decode()!r} chosen")
                return value
        promised = max(acceptor.promised for acceptor in self.table.acceptors.values())
        self._tell(f"   t={now:3}  proposer {node} is refused: {text(promised)} was promised meanwhile")
        self.rounds[node] = (promised >> 16) + 1
        return None

    def _tell(self, line: str) -> None:
        if not self.is_quiet:
            print(line)


def duel_at_once(until: int, *, is_quiet: bool = False) -> tuple[int, bytes] | None:
    """Answer every refusal at once."""
    return Duel(lambda _refusals: 0, is_quiet=is_quiet).run(until)


def duel_with_back_off(
    seed: int, until: int = FOR_EVER, *, is_quiet: bool = False
) -> tuple[int, bytes] | None:
    """Wait a random time after a refusal, out of a range that grows with their number."""
    random = Random(seed)
    return Duel(lambda refusals: random.randrange(ROUND_TRIP * 2 ** min(refusals, 5)), is_quiet=is_quiet).run(
        until
    )


def main() -> int:
    """Show the duel without and with the random wait."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many random duels to run (default: 20)")
    options = parser.parse_args()
    print("1. Both answer every refusal at once with a higher round:")
    duel_at_once(8)
    stuck = duel_at_once(FOR_EVER, is_quiet=True)
    print(f"   ... and so on. Chosen by t={FOR_EVER}: {'nothing' if stuck is None else stuck}")
    print("2. The same, with a random wait after every refusal (seed 1):")
    duel_with_back_off(1)
    ends = [duel_with_back_off(seed, is_quiet=True) for seed in range(options.seeds)]
    times = sorted(end[0] for end in ends if end is not None)
    print(f"3. {options.seeds} random duels: {len(times)} ended, half of them by t={times[len(times) // 2]}")
    print(
        "A node of this library waits like that before it tries to lead, and only tries if no leader works."
    )
    return 0 if stuck is None and len(times) == options.seeds else 1


if __name__ == "__main__":
    raise SystemExit(main())
