"""Known bugs of systems like this one, and where the tests for each of them are.

``python -m tests.catalogue`` renews the tables of docs/testing.md. A test belongs to a bug when its name has
the bug's id: ``test_d8_fsync_is_never_retried``, ``test_p1_p2_…``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTING = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- catalogue: begin -->", "<!-- catalogue: end -->"
ID = re.compile(r"[a-z][1-9]\d?a?")

MEMBERSHIP = "membership changes"
SNAPSHOTS = "snapshots"
SESSIONS = "client sessions"
ENCRYPTION = "encrypted links"
GROUPS = {
    "G": "Promises to users",
    "P": "Paxos itself",
    "D": "Durability",
    "K": "Corruption",
    "S": "Identity and lost disks",
    "R": "Reads and leases",
    "L": "Liveness",
    "M": "Membership",
    "N": "Snapshots and trimming",
    "C": "Clients and sessions",
    "Y": "State machines",
    "Z": "ZeroMQ",
    "W": "LMDB",
    "X": "Python and Cython",
    "F": "Faults, and what must come of them",
}
# fmt: off
KNOWN: dict[str, str] = {
    "G1": "what was acknowledged is never lost, reordered or replaced",
    "G2": "commands and default reads are linearizable",
    "G3": "no command is applied twice",
    "G4": "an outcome is honest: never *rejected* for what may yet be applied",
    "G5": "whoever can reach a quorum gets a working leader soon",
    "G6": "a node that cannot be sure stops instead of guessing",
    "G7": "a damaged minority of disks changes no answer",
    "G8": "no decision depends on a wall clock",
    "G9": "memory is bounded, whoever is slow, dead or greedy",
    "G10": "bytes from outside never crash anything and are never executed",

    "P1": "a promise is told before it is durable, and forgotten by a crash",
    "P2": "a vote is told, or counted by the leader itself, before it is durable",
    "P3": "a ballot, or an answer to it, is used again after a restart",
    "P4": "a value is accepted at a higher ballot without promising that ballot",
    "P5": "one variable for the promised and the accepted ballot, so that reports lie",
    "P6": "phase 1 misses slots: at the edges, in holes, or on a page that has not come",
    "P7": "phase 1 takes the most frequent or the latest value, not that of the highest ballot",
    "P8": "a hole is left open, filled over a vote, or shown to the application",
    "P9": "a follower believes “chosen up to k” about values of another ballot",
    "P10": "a quorum is counted wrongly: other ballots, repetitions, strangers, unsorted marks",
    "P11": "one ballot proposes two values in a slot",
    "P12": "a refusal is ignored, or a forged huge ballot uses the numbers up",
    "P13": "whoever has trimmed a slot answers “no vote” for it",
    "P14": "candidates depose each other for ever",

    "D1": "acknowledged state is in memory or the page cache only",
    "D2": "the default acknowledges first and syncs later",
    "D3": "some other frame tells what is not durable yet",
    "D4": "completions of the disk are taken to come in order",
    "D5": "memory runs ahead of the disk after a write that failed",
    "D6": "a mark is durable before what it covers, and the restart fails or skips",
    "D7": "a full disk leaves half a record, a crash loop, or no way back",
    "D8": "a failed fsync is tried again and then believed",
    "D9": "a file or a rename is durable and its directory entry is not",
    "D10": "a checksum that leaves out where a record belongs, or a length that is believed",

    "K1": "a torn tail and damage are confused",
    "K2": "rot in the middle is cut off, or an older record stands in for it",
    "K3": "a damaged snapshot makes a node start empty",
    "K4": "a damaged promise or identity is replaced by a fresh one",
    "K5": "damage found while leading is passed on",
    "K6": "damage is found when it is needed, and never before",

    "S1": "an emptied directory votes under the old id",
    "S2": "the documented way to replace a node does not work from end to end",
    "S3": "two processes run one identity",
    "S4": "an older backup takes promises back",
    "S5": "a removed id comes back with an empty disk",
    "S6": "a lock protects nothing because its holder does not know that it lost it",

    "R1": "a deposed or paused leader answers a read",
    "R2": "a new leader answers before something of its own ballot is chosen",
    "R3": "a heartbeat that was sent before the read arrived confirms it",
    "R4": "a lease counts from the answer, survives a restart, or uses a clock that stops",
    "R5": "a session sees less on the next replica than on the last",
    "R6": "a read sees half of an apply or of an installation",

    "L1": "quorum loss: only the hub hears a majority, and nobody lets it lead",
    "L2": "constrained: the only one with a majority has an old log",
    "L3": "chained: two ends of a chain depose each other",
    "L4": "one slow disk or link slows everybody",
    "L5": "a node on the edge makes the others raise their ballots",
    "L6": "a leader without a quorum keeps its clients waiting",
    "L7": "a follower that lags does not catch up while nothing is written",
    "L8": "one lost frame of some kind is never made up for",
    "L9": "an overload outlasts its cause",

    "M1": "a configuration rules from another slot on for some role",
    "M2": "phase 1 leaves out the quorum of a configuration that is on its way",
    "M3": "votes are counted in another configuration than that of their slot",
    "M4": "a second change begins before the first one is chosen",
    "M5": "a leader cannot be removed, or leads on after it was",
    "M6": "a removed node disturbs, or never learns that it was",
    "M7": "a crash around an unchosen change leaves two opinions about the members",
    "M8": "a new voter counts before it holds the log",
    "M9": "the constructor's members win over those in the log",
    "M10": "growing and shrinking step by step ends without a quorum",

    "N1": "a boundary of a snapshot or of a trim is off by one",
    "N2": "a second snapshot begins while the first is being installed",
    "N3": "a snapshot without its sessions or configuration, or with the state of another slot",
    "N4": "a snapshot over a longer log loses votes above it",
    "N5": "a transfer is cut, doubled or changes its source",
    "N6": "what a peer still needs is trimmed and nothing covers it",
    "N7": "a snapshot doubles the memory or stops the commands",

    "C1": "a retry after a timeout is applied twice",
    "C2": "*rejected* is told, and the command is in the log",
    "C3": "the table of sessions grows for ever, or expires by a local clock",
    "C4": "who was served is forgotten over a snapshot or a failover",
    "C5": "a forwarded command dies with its forwarder",
    "C6": "pipelined commands of one client change their order",
    "C7": "a cancelled wait, a fork or an exit leaks what it waited for",

    "Y1": "state and its position in the log are written one after the other",
    "Y2": "a slot is applied twice, or out of order",
    "Y3": "an exception in apply is handled otherwise on another replica",
    "Y4": "diverged replicas are not noticed",
    "Y5": "replicas differ by hash seed, time or chance",
    "Y6": "a slow apply stops votes and heartbeats",

    "Z1": "frames to unknown or slow peers are dropped without a count, or block",
    "Z2": "a peer that was away gets what was queued for it long ago",
    "Z3": "high-water marks count messages, and messages have any size",
    "Z4": "whoever shows a routing id takes it over",
    "Z5": "what was handed to a socket is taken for delivered",
    "Z6": "encryption without a list of keys lets everybody in",
    "Z7": "messages without a limit, use after fork, a close that waits for dead peers",

    "W1": "one environment opened twice in a process",
    "W2": "an environment used after fork",
    "W3": "a full map, or one that grows under its readers",
    "W4": "a reader that stays, or died, keeps old pages for ever",
    "W5": "a writable map kills the process when the disk is full",
    "W6": "write transactions on several threads",
    "W7": "a buffer used after its transaction",
    "W8": "pages without checksums return another value",
    "W9": "the file format depends on an environment variable",

    "X1": "a long garbage collection or a busy thread costs the leadership or more",
    "X2": "an exception is swallowed in native code",
    "X3": "a number overflows or turns negative",
    "X4": "bytes are freed while somebody still reads them",
    "X5": "threads without the GIL race (`make tsan` looks for it, too)",
    "X6": "references leak",
    "X7": "a signal breaks a system call",
    "X8": "the interpreter ends while threads run",
    "X9": "several nodes in one process share what they must not",
    "X10": "threads and asyncio see different outcomes",

    "F1": "frames lost, doubled, delayed, reordered: agreement and exactly once",
    "F2": "partitions of every shape, one-way ones included: the same, and progress where a quorum is",
    "F3": "kill -9, losing what was not synced: nothing acknowledged is lost",
    "F4": "power loss between any two operations of the storage: what was synced is there",
    "F5": "pauses, the leader's above all: no stale read, no second leader that counts",
    "F6": "a sync fails once and then succeeds: the node stops, what was acknowledged stays",
    "F7": "a write fails or finds no space: refused, and resumed later",
    "F8": "a bit flips anywhere: never a wrong record",
    "F9": "files cut, zeroed, swapped, copied, taken back: as F8",
    "F10": "a minority loses or rolls back its directories: never a vote under the old name",
    "F11": "every replica damaged somewhere else: repaired, or a clean stop",
    "F12": "clocks that drift, step and sleep: no effect, and no stale lease within the bound",
    "F13": "slow and hanging disks and links: the others go on, memory is bounded",
    "F14": "members come and go under all of these",
    "F15": "snapshots and trimming under all of these",
    "F16": "ten times the load, and a peer dead for long: bounded memory, and recovery",
    "F17": "hostile frames: dropped and counted",
    "F18": "an apply that throws or differs: stopped everywhere at the same slot",
}
# fmt: on

WAITING: dict[str, str] = {
    **dict.fromkeys(("K3", "N2", "N3", "N4", "N5", "N7", "F15", "Y1"), SNAPSHOTS),
    **dict.fromkeys(("S2", "S5", "M2", "M5", "M6", "M8", "M10", "F14"), MEMBERSHIP),
    **dict.fromkeys(("C3", "C4"), SESSIONS),
    "Y4": "a hash of the state",
    "Z6": ENCRYPTION,
}
"""What belongs to a feature that does not exist yet."""

EXPECTED = {"R4", "M1", "M3", "M4", "M7", "N6"}
"""What is being written now: leases, the configuration barrier."""


def ids_of(name: str) -> set[str]:
    """Return the ids with which the name of a test begins, in capitals.

    >>> sorted(ids_of("test_p1_p2_a_crash"))
    ['P1', 'P2']
    """
    found = set()
    for part in name.removeprefix("test_").split("_"):
        if not ID.fullmatch(part):
            break
        found.add(part.removesuffix("a").upper() if part[0] != "h" else part)
    return found


def found_by_id(root: Path = ROOT) -> dict[str, dict[str, set[str]]]:
    """Return id to file to the names of its tests."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for id in ids_of(node.name):
                    found[id][path.relative_to(root).as_posix()].add(node.name)
    return found


def tables(root: Path = ROOT) -> str:
    """Return the tables of the document."""
    tests = found_by_id(root)
    lines: list[str] = []
    for letter, title in GROUPS.items():
        lines += [f"### {letter}: {title}", "", "| id | what goes wrong | tests |", "|---|---|---|"]
        if letter in "GF":
            lines[-2] = "| id | what holds | tests |"
        for id, text in KNOWN.items():
            if id[0] == letter:
                files = ", ".join(f"`{path}`" for path in sorted(tests.get(id, {})))
                lines.append(f"| {id} | {text} | {files or 'with ' + WAITING.get(id, 'the work on it')} |")
        lines.append("")
    return "\n".join(lines[:-1])


def main() -> None:
    """Write the tables between their marks."""
    before, begin, rest = TESTING.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{TESTING} has no {BEGIN} … {END}")
    TESTING.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")


if __name__ == "__main__":
    main()
