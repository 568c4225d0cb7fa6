"""A network that falls apart, a leader on each side, and why only one side can choose.

The old leader goes on believing in itself: nobody can tell it otherwise while the network is cut. That does
no harm, because choosing needs a majority and any two majorities have a member in common.

    python examples/split_brain.py
"""

from __future__ import annotations

import argparse

from by_hand import Table

from paxos import Learner


def three_in_two_parts(*, is_quiet: bool = False) -> list[bytes | None]:
    """Cut one leader of three off; return what the minority, the majority and the healed cluster chose."""
    table = Table(3, is_quiet=is_quiet)
    learners = {node: Learner.alone(node, table.members) for node in table.members}
    table.tell("1. Three members; 1 leads at ballot 1.1. Then the network is cut: {1} | {2, 3}.")
    old = table.proposer(1)
    table.prepare(old, 1, reach=[1, 2, 3])
    lead = table.conclude(old)
    assert lead is not None

    table.tell("2. The old leader, alone, gets a command and proposes it. One acceptor hears it: its own.")
    left = table.accept(old, lead, b"left", reach=[1], learner=learners[1])
    cut_off = table.on_the_way
    table.tell("   one of three is no quorum: nothing is chosen, and its client is told nothing")

    table.tell("3. On the other side 3 runs for leader and has a majority.")
    new = table.proposer(3)
    table.prepare(new, 2, reach=[2, 3])
    lead = table.conclude(new)
    assert lead is not None
    right = table.accept(new, lead, b"right", reach=[2, 3], learner=learners[3])

    table.tell("4. The cut is mended. What the old leader had on its way arrives at last:")
    table.on_the_way = cut_off
    late = table.deliver_late(learners[1])
    table.tell("   and when member 1 runs again, it has to adopt what the majority chose:")
    again = table.proposer(1)
    table.prepare(again, 3, reach=[1, 2])
    lead = table.conclude(again)
    assert lead is not None
    healed = table.accept(again, lead, b"left", reach=[1, 2, 3], learner=learners[1])
    return [left, right, late, healed]


def four_in_two_halves(*, is_quiet: bool = False) -> list[bool]:
    """Cut four members into halves; return whether each half could lead."""
    table = Table(4, is_quiet=is_quiet)
    table.tell("5. Four members cut into halves: {1, 2} | {3, 4}. A majority of four is three.")
    able = []
    for node, half in ((1, [1, 2]), (3, [3, 4])):
        proposer = table.proposer(node)
        table.prepare(proposer, 1, reach=half)
        able.append(table.conclude(proposer) is not None)
    table.tell("   neither half can choose anything; both wait. Two halves never both go on.")
    return able


def main() -> int:
    """Tell both stories."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    three = three_in_two_parts()
    four = four_in_two_halves()
    return 0 if three == [None, b"right", None, b"right"] and four == [False, False] else 1


if __name__ == "__main__":
    raise SystemExit(main())
