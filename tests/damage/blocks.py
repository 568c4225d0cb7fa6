"""One fault in each block of each file of a node, of a leader and of a follower: what a start makes of it.

A case runs in a process of its own kind, because LMDB may end the process when its pages make no sense:
``python -m tests.damage.blocks CASES`` with one case a line, ``directory node file block fault``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import paxos
from paxos import opening
from paxos.errors import PaxosError, StorageError
from paxos.storage import inspection
from paxos.storage.store import Store
from tests.damage.logs import WrongAnswer

BLOCK = 4096
FAULTS = ("flip", "zeros", "garbage")
COMMANDS = [b"command %03d " % number + b"x" * 500 for number in range(60)]
CONFIG = paxos.Config(segment_bytes=16 << 10)
MEMBERS = {node: f"inproc://damage-{node}" for node in (1, 2, 3)}
WAIT_S = 60.0


def build(directory: Path) -> dict[str, int]:
    """Make the directories of three nodes below ``directory``; return the node ids of a leader and a follower."""
    with paxos.LocalCluster(3, directory=directory, transport="inproc", config=CONFIG) as cluster:
        leader = cluster.leader(WAIT_S)
        for command in COMMANDS:
            leader.propose(command, WAIT_S)
        cluster.wait_applied(len(COMMANDS), WAIT_S)
        led = cluster.leader(WAIT_S).node_id
        for node in cluster.members:
            cluster.kill(node) if node == led else cluster.stop(node)
    return {"leader": led, "follower": next(node for node in MEMBERS if node != led)}


def open_node(directory: Path, node: int) -> dict[str, Any]:
    """Open a node as production does, without sockets, and return what it believes."""
    identity = json.loads((directory.parent / "identities.json").read_text())[str(node)]
    with contextlib.ExitStack() as stack:
        store = Store(
            directory,
            node_id=node,
            cluster="paxos",
            first_cluster_id=identity,
            config=CONFIG,
            may_observe=True,
        )
        stack.callback(store.close)
        engine, _cold = opening._recovered(store, MEMBERS, CONFIG)
        log = store.open_log()
        items = engine.effects.take_chosen()
        log.append(items)
        commands = []
        with contextlib.suppress(StorageError):
            for entry in log.entries(1, len(COMMANDS) + 1):
                commands.append(entry.command.decode())
        seen = engine.inspect()
        return {
            "quarantined": seen["is_quarantined"],
            "promised": seen["promised"],
            "chosen": {str(item.slot): item.value_crc for item in items},
            "held": sorted(seen["accepted"]),
            "damaged": engine.acceptor_role.slots.damaged(),
            "commands": commands,
            "rebuilt": store.catalogue.rebuilt,
            "last_record": max(r.position for r in inspection.records(directory, force=True)),
        }


def spoil(file: Path, block: int, fault: str, rng: random.Random) -> None:
    """Put a fault into one block of a file."""
    data = bytearray(file.read_bytes())
    start, stop = block * BLOCK, min((block + 1) * BLOCK, len(data))
    if fault == "flip" and stop > start:
        data[rng.randrange(start, stop)] ^= 1 << rng.randrange(8)
    elif fault == "zeros":
        data[start:stop] = bytes(stop - start)
    elif fault == "garbage":
        data[start:stop] = rng.randbytes(stop - start)
    file.write_bytes(data)


def loses_end(healthy: dict[str, Any], file: Path, block: int, fault: str) -> bool:
    """Tell whether nothing behind the fault says that anything was there: nobody can know on this disk alone."""
    segment, offset = divmod(healthy["last_record"], 1 << 32)
    return fault != "flip" and file.name == f"{segment:016x}.segment" and (block + 1) * BLOCK > offset


def judge(healthy: dict[str, Any], found: dict[str, Any], *, end_is_lost: bool = False) -> str:
    """Return what became of a fault.

    Raises:
        WrongAnswer: the node believes what is not true, or goes on voting without what it had said.
    """
    if any(healthy["chosen"].get(slot) != crc for slot, crc in found["chosen"].items()):
        raise WrongAnswer("another value is taken for chosen")
    if found["commands"] != healthy["commands"][: len(found["commands"])]:
        raise WrongAnswer("another command is read")
    if found["quarantined"]:
        return "quarantined"
    if end_is_lost:
        return "rolled back: members that remember refuse it"
    if found["promised"] < healthy["promised"]:
        raise WrongAnswer("a promise is forgotten")
    known = {*found["held"], *found["damaged"], *map(int, found["chosen"])}
    if not known.issuperset({*healthy["held"], *map(int, healthy["chosen"])}):
        raise WrongAnswer("a vote is forgotten")
    if found["damaged"]:
        return "repaired: a value is fetched"
    return "repaired: the catalogue is rebuilt" if found["rebuilt"] else "unharmed"


def run(directory: Path, *, faults_of_a_block: int = 1, seed: int = 1) -> Counter[tuple[str, str, str]]:
    """Try every block of every file; return how often which outcome was met, by role and kind of file."""
    rng = random.Random(seed)
    roles = build(directory)
    identities = {
        node: json.loads((directory / f"node-{node}" / "identity.json").read_text())["cluster_id"]
        for node in MEMBERS
    }
    cases, healthy = [], {}
    for role, node in roles.items():
        home = directory / f"node-{node}"
        (directory / "identities.json").write_text(json.dumps(identities))
        copy = directory / "healthy"
        shutil.copytree(home, copy)
        healthy[node] = open_node(copy, node)
        known = healthy[node]["commands"]  # the log says a little later that the last ones are chosen
        assert len(known) > len(COMMANDS) // 2 and known == [c.decode() for c in COMMANDS[: len(known)]]
        shutil.rmtree(copy)
        for file in sorted(path for path in home.rglob("*") if path.is_file() and path.stat().st_size):
            for block in range(-(-min(file.stat().st_size, 1 << 20) // BLOCK)):
                for fault in rng.sample(FAULTS, faults_of_a_block):
                    cases.append((role, node, file.relative_to(home), block, fault, rng.getrandbits(32)))
    return _outcomes(directory, cases, healthy)


def _outcomes(
    directory: Path, cases: list[tuple[Any, ...]], healthy: dict[int, dict[str, Any]]
) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    waiting = list(cases)
    while waiting:
        lines = "\n".join(json.dumps([str(item) for item in case]) for case in waiting)
        worker = subprocess.run(
            [sys.executable, "-m", "tests.damage.blocks", str(directory)],
            input=lines, text=True, capture_output=True, timeout=600, check=False,
        )  # fmt: skip
        answers = [json.loads(line) for line in worker.stdout.splitlines()]
        for case, answer in zip(waiting, answers, strict=False):
            if isinstance(answer, str):
                outcome = answer
            else:
                whole = healthy[case[1]]
                outcome = judge(whole, answer, end_is_lost=loses_end(whole, case[2], case[3], case[4]))
            found[case[0], kind_of(case[2]), outcome] += 1
        rest = waiting[len(answers) :]
        if rest:
            if worker.returncode >= 0:
                raise WrongAnswer(f"{rest[0]}: {worker.stderr[-2000:]}")
            found[rest[0][0], kind_of(rest[0][2]), "the process died"] += 1
            rest = rest[1:]
        waiting = rest
    return found


def kind_of(file: Path) -> str:
    """Return what a file of a data directory is."""
    if file.parts[0] == "log":
        return "waiting file" if file.name.startswith("ready-") else "segment"
    return "/".join(file.parts)


def _work(directory: Path) -> None:
    logging.disable()
    for line in sys.stdin:
        _role, node, name, block, fault, seed = json.loads(line)
        copy = directory / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory / f"node-{node}", copy)
        spoil(copy / name, int(block), fault, random.Random(int(seed)))
        try:
            answer: Any = open_node(copy, int(node))
        except PaxosError:
            answer = "clean stop"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
