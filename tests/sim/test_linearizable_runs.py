"""Whole simulated runs through both judges of `paxos.sim.linearizability`: the log is a list that clients append to.

The invariants look at nodes from inside. These tests know nothing but what clients saw: when they proposed,
when they heard which index they have, and what the log was in the end.
"""

from __future__ import annotations

import random

import pytest

from paxos._core import codec
from paxos._core.effects import ChosenView
from paxos.sim.clients import Clients
from paxos.sim.history import BATCH
from paxos.sim.linearizability import Invocation, ListAppend, Recorder, check, check_slots
from paxos.sim.linearizability.slots import Command
from paxos.sim.node import Node
from paxos.sim.observer import Observer
from paxos.sim.parameters import Parameters
from paxos.sim.run import run_seed
from paxos.sim.trace import Trace
from paxos.sim.world import World

SEEDS = 40
GROUPS = 4


class RecordingClients(Clients):
    """Records each proposal as an append by a process of its own: nobody waits for an answer."""

    recorder: Recorder
    waiting: dict[bytes, Invocation]

    def propose(self, node: Node) -> bytes:
        command = super().propose(node)
        self.waiting[command] = self.recorder.invoke(self.recorder.process(), "append", command)
        return command


class RecordingObserver(Observer):
    """Records an ok when the origin of a command applies it, which is when its proposer is told."""

    recorder: Recorder
    waiting: dict[bytes, Invocation]

    def on_applied(self, node: int, incarnation: int, chosen: ChosenView, value: bytes) -> None:
        super().on_applied(node, incarnation, chosen, value)
        for command in set(self.history.acknowledged) & set(self.waiting):
            self.waiting.pop(command).ok(slot=self.history.acknowledged[command])


class RecordingWorld(World):
    """Remembers what clients saw, in virtual time; `last` is the world that was built last."""

    last: RecordingWorld

    def __init__(self, parameters: Parameters, rng: random.Random, *, trace: Trace | None = None) -> None:
        super().__init__(parameters, rng, trace=trace)
        self.recorder = Recorder(clock=lambda: self.now_us)
        waiting: dict[bytes, Invocation] = {}
        clients, observer = RecordingClients(self), RecordingObserver(self.history)
        clients.recorder = observer.recorder = self.recorder
        clients.waiting = observer.waiting = waiting
        self.clients, self.observer = clients, observer
        type(self).last = self

    def log(self) -> list[bytes]:
        """Return the commands of the log, each where it counted."""
        commands: list[bytes] = []
        for applied in self.history.log:
            if applied.held[0] == BATCH and applied.first_index:
                assert applied.first_index == len(commands) + 1
                commands += codec.decode_batch(applied.held[1])[3]
        return commands


def run(seed: int) -> RecordingWorld:
    result = run_seed(seed, world_class=RecordingWorld)
    assert result.violation is None, result.violation
    return RecordingWorld.last


@pytest.mark.parametrize("group", range(GROUPS))
def test_g2_what_clients_saw_of_a_run_is_linearizable(group: int) -> None:
    first = 5000 + group * SEEDS // GROUPS
    unknown = 0
    for seed in range(first, first + SEEDS // GROUPS):
        world = run(seed)
        log = world.log()
        commands: dict[int, Command] = {n: ("append", None, command) for n, command in enumerate(log, 1)}
        by_slot = check_slots(world.recorder.history(), ListAppend(), commands)
        assert by_slot, f"seed {seed}: {by_slot.violations[:3]}"
        world.recorder.client().invoke("read").ok(log)
        history = world.recorder.history()
        unknown += sum(operation.is_open for operation in history.operations)
        assert len(history) > 20
        by_search = check(history, ListAppend())
        assert by_search, f"seed {seed}: {by_search.describe()}"
    assert unknown, "nobody crashed: nothing was unknown"


def test_both_judges_notice_two_commands_that_changed_places() -> None:
    for seed in range(5000, 5020):
        world = run(seed)
        log = world.log()
        log[3], log[-1] = log[-1], log[3]
        commands: dict[int, Command] = {n: ("append", None, command) for n, command in enumerate(log, 1)}
        by_slot = check_slots(world.recorder.history(), ListAppend(), commands)
        world.recorder.client().invoke("read").ok(log)
        result = check(world.recorder.history(), ListAppend())
        if not by_slot and result.counterexample is not None:
            assert len(result.counterexample.operations) <= 5
            return
    pytest.fail("20 runs in which both commands may have been concurrent, or nobody heard of them")


def test_recording_changes_nothing() -> None:
    trace, recorded = Trace(), Trace()
    run_seed(7, trace=trace)
    run_seed(7, trace=recorded, world_class=RecordingWorld)
    assert trace.digest() == recorded.digest()
