"""One Paxos decision by hand: prepare, promise, accept, accepted, chosen; and why a value, once chosen, stays.

Three acceptors, two proposers who want different values, and no network but this script. A ballot is written
round.node: 2.3 is round 2 of node 3.

    python examples/single_decree.py
"""

from __future__ import annotations

import argparse

from by_hand import Table

from paxos import Learner


def decide(*, is_quiet: bool = False) -> list[bytes | None]:
    """Walk through one decision and two attempts to change it; return what each round chose."""
    table = Table(3, is_quiet=is_quiet)
    learner = Learner.alone(1, table.members)

    table.tell("1. Proposer 1 wants 'blue'. It asks for promises; acceptor 3 does not hear it.")
    first = table.proposer(1)
    table.prepare(first, 1, reach=[1, 2])
    lead = table.conclude(first)
    assert lead is not None
    table.tell("   two of three promised and none reported a value: it is free to propose its own")
    blue = table.accept(first, lead, b"blue", reach=[1, 2], learner=learner)
    missed = table.on_the_way

    table.tell("2. Proposer 3 wants 'red' and knows nothing of all this. Acceptor 1 does not hear it.")
    second = table.proposer(3)
    table.prepare(second, 2, reach=[2, 3])
    lead = table.conclude(second)
    assert lead is not None
    table.tell("   any two of three include one that accepted 'blue'. So 'red' has to wait for another slot:")
    still_blue = table.accept(second, lead, b"red", reach=[2, 3], learner=learner)

    table.tell("3. The Accept that acceptor 3 missed at the beginning arrives after all:")
    table.on_the_way = missed
    late = table.deliver_late(learner)
    table.tell("   whoever promised 2.3 refuses everything below: what comes late can do no harm")
    return [blue, still_blue, late]


def adopt(*, is_quiet: bool = False) -> list[bytes | None]:
    """Show that a value that is accepted, but not chosen, may live or die; both are safe."""
    outcomes: list[bytes | None] = []
    for number, reach in ((4, [1, 2]), (5, [2, 3])):
        table = Table(3, is_quiet=is_quiet)
        learner = Learner.alone(1, table.members)
        table.tell(f"{number}. Elsewhere 'blue' reaches only acceptor 1; then its proposer is gone.")
        first = table.proposer(1)
        table.prepare(first, 1, reach=[1, 2])
        lead = table.conclude(first)
        assert lead is not None
        table.accept(first, lead, b"blue", reach=[1], learner=learner)
        table.tell(f"   proposer 3 comes and happens to hear acceptors {reach}: any quorum will do")
        second = table.proposer(3)
        table.prepare(second, 2, reach=reach)
        lead = table.conclude(second)
        assert lead is not None
        outcomes.append(table.accept(second, lead, b"red", reach=[2, 3], learner=learner))
    return outcomes


def main() -> int:
    """Tell both stories."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    decided = decide()
    adopted = adopt()
    print(
        "The rule behind it: propose the value reported at the highest ballot; your own only if there is none."
    )
    return 0 if decided == [b"blue", b"blue", None] and adopted == [b"blue", b"red"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
