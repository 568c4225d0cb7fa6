"""Ballots: the order of proposals (Lamport, *Paxos Made Simple*, section 2.2).

A ballot is a plain ``int`` in Python. These functions take one apart and put one together.
"""

NONE = BALLOT_NONE
MAX = BALLOT_MAX
CHOSEN = BALLOT_CHOSEN


def make(round_number: int, node_id: int) -> int:
    """Return the ballot of ``node_id`` in ``round_number``.

    Raises:
        ValueError: the node id is not in 1..65535, or the round would pass :data:`MAX`.

    >>> make(3, 2)
    196610
    """
    if not 1 <= node_id <= NODE_ID_MAX:
        raise ValueError(f"node id {node_id} is not in 1..{NODE_ID_MAX}")
    if not 0 <= round_number <= ballot_round(BALLOT_MAX):
        raise ValueError(f"round {round_number} is not in 0..{ballot_round(BALLOT_MAX)}")
    return ballot_make(round_number, node_id)


def round_of(ballot: int) -> int:
    """Return the round of a ballot: its high 48 bits."""
    return ballot_round(ballot)


def node_of(ballot: int) -> int:
    """Return the node id of a ballot's proposer: its low 16 bits."""
    return ballot_node(ballot)


def next_above(ballot: int, node_id: int) -> int:
    """Return the smallest ballot of ``node_id`` in a round above that of ``ballot``.

    Raises:
        ValueError: the rounds are used up; refusing is the only safe answer.

    >>> text(next_above(make(3, 2), 1))
    '4.1'
    """
    return make(ballot_round(ballot) + 1, node_id)


def text(ballot: int) -> str:
    """Return the ballot as people read it: ``round.node``, ``-`` for none, ``chosen``.

    >>> text(make(3, 2)), text(NONE), text(CHOSEN)
    ('3.2', '-', 'chosen')
    """
    if ballot == BALLOT_CHOSEN:
        return "chosen"
    if ballot == BALLOT_NONE:
        return "-"
    return f"{ballot_round(ballot)}.{ballot_node(ballot)}"
