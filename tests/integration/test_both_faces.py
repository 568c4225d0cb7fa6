"""The blocking face and the asyncio face tell the same outcomes (X10), and neither leaks (X6)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import paxos
from paxos import aio
from paxos.errors import PaxosError

WAIT_S = 60.0
ROOT = Path(__file__).parents[2]
CONFIG = paxos.Config(command_bytes_max=1000, pending_bytes_max=100_000)


class Machine(paxos.StateMachine):
    def apply(self, command: bytes, context: paxos.ApplyContext) -> Any:
        if command == b"poison":
            raise ValueError("cannot digest this")
        return command.upper()


def told(call: Callable[[], Any]) -> tuple[str, Any]:
    """Return what a call told: its result, or the class of its error."""
    try:
        return "ok", call()
    except (PaxosError, TypeError, TimeoutError) as error:
        return type(error).__name__, None


def of_threads(directory: Path) -> list[tuple[str, Any]]:
    replica = paxos.Replica(directory, state_machine=Machine(), config=CONFIG)
    outcomes = [
        told(lambda: replica.propose(b"one", WAIT_S)),
        told(lambda: replica.submit(b"two").result(WAIT_S)),
        told(lambda: replica.submit_many([b"three", b"four"]).result(WAIT_S).count),
        told(lambda: replica.submit_many([]).result(WAIT_S).count),
        told(lambda: replica.propose("text")),  # type: ignore[arg-type]
        told(lambda: replica.propose(b"x" * 1001)),
        told(lambda: replica.submit_many([b"fine", b"x" * 1001])),
        told(lambda: replica.propose(b"five", WAIT_S)),
        told(lambda: [entry.command for entry in replica.entries()]),
        told(lambda: replica.read_index(3).command),
        told(lambda: replica.propose(b"poison", WAIT_S)),
        told(lambda: replica.propose(b"after", WAIT_S)),
    ]
    replica.close()
    outcomes.append(told(lambda: replica.propose(b"closed")))
    outcomes.append(told(lambda: replica.submit(b"closed").result(WAIT_S)))
    return outcomes


async def of_asyncio(directory: Path) -> list[tuple[str, Any]]:
    async def told(call: Callable[[], Awaitable[Any]]) -> tuple[str, Any]:
        try:
            return "ok", await call()
        except (PaxosError, TypeError, TimeoutError) as error:
            return type(error).__name__, None

    async def count(commands: list[bytes]) -> int:
        return (await replica.submit_many(commands)).count

    async def submit(command: bytes) -> paxos.Outcome:
        return await replica.submit(command)

    async def commands() -> list[bytes]:
        return [entry.command async for entry in replica.entries()]

    async def third() -> bytes:
        return (await replica.read_index(3)).command

    replica = aio.Replica(directory, state_machine=Machine(), config=CONFIG)
    await replica.open()
    outcomes = [
        await told(lambda: replica.propose(b"one", WAIT_S)),
        await told(lambda: submit(b"two")),
        await told(lambda: count([b"three", b"four"])),
        await told(lambda: count([])),
        await told(lambda: replica.propose("text")),  # type: ignore[arg-type]
        await told(lambda: replica.propose(b"x" * 1001)),
        await told(lambda: count([b"fine", b"x" * 1001])),
        await told(lambda: replica.propose(b"five", WAIT_S)),
        await told(commands),
        await told(third),
        await told(lambda: replica.propose(b"poison", WAIT_S)),
        await told(lambda: replica.propose(b"after", WAIT_S)),
    ]
    await replica.close()
    outcomes.append(await told(lambda: replica.propose(b"closed")))
    outcomes.append(await told(lambda: submit(b"closed")))
    return outcomes


def test_x10_threads_and_asyncio_are_told_the_same(tmp_path: Path) -> None:
    blocking = of_threads(tmp_path / "threads")
    waiting = asyncio.run(of_asyncio(tmp_path / "asyncio"))
    kinds = {kind for kind, _ in blocking}
    assert {"ok", "ConfigError", "TypeError", "Closed"} <= kinds and len(kinds) >= 5, kinds
    assert [at for at, pair in enumerate(zip(blocking, waiting, strict=True)) if pair[0] != pair[1]] == []
    assert blocking == waiting


SCRIPT = """
    import gc, os, sys, tracemalloc
    import paxos

    def rss():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    config = paxos.Config(retained_bytes_max=1 << 20, unapplied_bytes_max=1 << 20, segment_bytes=1 << 20)
    with paxos.Replica(sys.argv[1], config=config) as replica:
        def some(count):
            for _ in range(count // 1000):
                replica.submit_many([b"x" * 100] * 900).result(60)
                for future in [replica.submit(b"y" * 100) for _ in range(100)]:
                    future.result(60)
        some(30_000)
        gc.collect()
        blocks, bytes_before = sys.getallocatedblocks(), rss()
        some(100_000)
        gc.collect()
        print(sys.getallocatedblocks() - blocks, rss() - bytes_before)
"""


def test_x6_commands_leave_no_references_behind(tmp_path: Path) -> None:
    """One object lost for a command would be 100,000 of them, and one value more than 10 MB."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    blocks, grown = map(int, done.stdout.split())
    assert blocks < 500, f"{blocks} blocks more"
    assert grown < 4 << 20, f"{grown >> 10} KiB more"
