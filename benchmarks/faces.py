"""The clients: each drives one face of the public API inside a replica's process and takes every duration itself.

Most loops here are *closed*: a new command is handed over when an old one is done, so ``outstanding`` commands are
always under way. What is measured is what the caller sees: from the call to the moment when its own code goes on
with the outcome (for futures: when the client looks at them, in the order of submission). :func:`paced` is *open*.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import paxos
from paxos import aio

RUN_COMMANDS = 1000
DISTINCT_COMMANDS = 64 * RUN_COMMANDS
DISTINCT_BYTES_MAX = 32 << 20
WARM_UP_SHARE = 0.1


@dataclass(slots=True)
class Sample:
    """What one slice of a face measured. Nanoseconds; ``commands`` is what was resolved in ``seconds``."""

    latencies_ns: array[int] = field(default_factory=lambda: array("Q"))
    commands: int = 0
    seconds: float = 0.0


def distinct_commands(command_bytes: int) -> list[bytes]:
    """Return commands of one size, all different objects with different bytes: nothing is hot in a cache."""
    count = max(1, min(DISTINCT_COMMANDS, DISTINCT_BYTES_MAX // max(command_bytes, 1)))
    count = max(count // RUN_COMMANDS, 1) * RUN_COMMANDS if count >= RUN_COMMANDS else count
    noise = os.urandom(command_bytes)
    return [number.to_bytes(8, "little")[:command_bytes] + noise[8:] for number in range(count)]


def one_by_one(act: Callable[[bytes], Any], commands: list[bytes], seconds: float) -> Sample:
    """Call ``act`` with one command after another."""
    for at in range(20):
        act(commands[at % len(commands)])
    sample = Sample()
    clock = time.perf_counter_ns
    first = clock()
    end = first + int(seconds * 1e9)
    ended, at, took = first, 0, sample.latencies_ns
    while ended < end:
        began = clock()
        act(commands[at % len(commands)])
        ended = clock()
        took.append(ended - began)
        at += 1
    sample.commands = at
    sample.seconds = (ended - first) / 1e9
    return sample


def sliding(
    submit: Callable[[Any], Any], items: list[Any], each: int, outstanding: int, seconds: float
) -> Sample:
    """Keep ``outstanding`` futures under way; ``each`` commands per item."""
    sample = Sample()
    clock = time.perf_counter_ns
    waiting: deque[tuple[int, Any]] = deque()
    put, took = waiting.append, sample.latencies_ns
    at, count = 0, len(items)
    for _ in range(outstanding):
        put((clock(), submit(items[at])))
        at = (at + 1) % count
    first = clock()
    measured_from = first + int(seconds * WARM_UP_SHARE * 1e9)
    end = measured_from + int(seconds * 1e9)
    begin, now, done = 0, first, 0
    while now < end:
        began, future = waiting.popleft()
        future.result()
        now = clock()
        if begin:
            took.append(now - began)
            done += 1
        elif now >= measured_from:
            begin = now
        put((clock(), submit(items[at])))
        at += 1
        if at == count:
            at = 0
    sample.commands = done * each
    sample.seconds = (now - begin) / 1e9
    for _, future in waiting:
        future.result()
    return sample


async def awaiting(replica: aio.Replica, commands: list[bytes], outstanding: int, seconds: float) -> Sample:
    """Run ``outstanding`` tasks that each await one command after another."""
    sample = Sample()
    clock = time.perf_counter_ns
    took = sample.latencies_ns
    first = clock()
    begin = first + int(seconds * WARM_UP_SHARE * 1e9)
    end = begin + int(seconds * 1e9)
    propose = replica.propose

    async def client(number: int) -> None:
        at, count = number % len(commands), len(commands)
        while True:
            began = clock()
            await propose(commands[at])
            ended = clock()
            if ended >= end:
                return
            if ended >= begin:
                took.append(ended - began)
            at = (at + outstanding) % count

    await asyncio.gather(*(client(number) for number in range(outstanding)))
    sample.commands = len(took)
    sample.seconds = (end - begin) / 1e9
    return sample


def paced(submit: Callable[[bytes], Any], commands: list[bytes], rate: int, seconds: float) -> Sample:
    """Hand one command over every ``1 / rate`` seconds, whatever becomes of the others.

    A latency begins when the command was *due*: a pause counts against every command that it held up. It ends
    when the future is resolved. That the client's own sleep ends late by some tens of microseconds is included.
    """
    sample = Sample()
    clock = time.perf_counter_ns
    took = sample.latencies_ns
    period = int(1e9 / rate)
    count = max(1, int(seconds * rate))
    done = threading.Semaphore(0)

    def note(due: int, future: Any) -> None:
        took.append(clock() - due)
        done.release()

    due = first = clock()
    for at in range(count):
        due += period
        while (left := due - clock()) > 0:
            time.sleep(left / 1e9)
        submit(commands[at % len(commands)]).add_done_callback(functools.partial(note, due))
    for _ in range(count):
        done.acquire()
    sample.commands = count
    sample.seconds = (clock() - first) / 1e9
    return sample


class Client:
    """Drives a replica that runs in this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, replica: aio.Replica) -> None:
        self._loop = loop
        self._aio = replica
        self._replica: paxos.Replica = replica.sync

    def run(self, face: str, command_bytes: int, outstanding: int, seconds: float) -> Sample:
        """Run one face for ``seconds``."""
        commands = distinct_commands(command_bytes)
        replica = self._replica
        if face == "propose":
            return one_by_one(replica.propose, commands, seconds)
        if face == "propose (in a thread)":
            with ThreadPoolExecutor(1) as threads:
                return threads.submit(one_by_one, replica.propose, commands, seconds).result()
        if face == "submit().result()":
            return one_by_one(lambda command: replica.submit(command).result(), commands, seconds)
        if face == "await propose":
            return self._loop.run_until_complete(awaiting(self._aio, commands, outstanding, seconds))
        if face == "submit":
            return sliding(replica.submit, commands, 1, outstanding, seconds)
        if face.startswith("submit at "):
            rate = int(face.removeprefix("submit at ").removesuffix("/s").replace(",", ""))
            return paced(replica.submit, commands, rate, seconds)
        if face == "submit_many":
            size = min(RUN_COMMANDS, outstanding)
            runs = [commands[at : at + size] for at in range(0, len(commands), size)]
            return sliding(replica.submit_many, runs, size, outstanding // size, seconds)
        raise ValueError(f"no face {face!r}")
