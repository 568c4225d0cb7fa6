"""Clients of a key-value cluster that write down what they saw, and the verdict about it.

A history is good if the checker finds it linearizable, every acknowledged command is in the log of every member
once, at the index that was told, what was refused is nowhere, and all members hold the same log.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from paxos.sim.linearizability import KeyValue, Recorder, check
from tests.process.cluster import WAIT_S, Answer, Cluster, Gone, Node, wait_for

CERTAINLY_NOT = {"Closed", "Busy", "Rejected", "NotLeader", "ConfigError", "TypeError"}
"""Errors that say that a command was not taken and never will be."""
OPERATIONS_PER_KEY = 400
UNKNOWN_PER_KEY = 4
KEYS = 4
READ_SHARE = 0.7
"""Of the gets; the others go through the log."""
PAUSE_S = 0.002
"""Between two operations of a client, so that a slow machine serves the cluster rather than its clients."""


class Keys:
    """Keys in use; one that had many operations or unknown outcomes gives way to a new one, to stay checkable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._used: dict[str, list[int]] = {}
        self._present = [self._fresh() for _ in range(KEYS)]

    def _fresh(self) -> str:
        key = f"k{next(self._numbers)}"
        self._used[key] = [0, 0]
        return key

    def pick(self, chance: random.Random) -> str:
        with self._lock:
            place = chance.randrange(KEYS)
            key = self._present[place]
            used = self._used[key]
            used[0] += 1
            if used[0] >= OPERATIONS_PER_KEY or used[1] >= UNKNOWN_PER_KEY:
                self._present[place] = self._fresh()
            return key

    def unknown(self, key: str) -> None:
        with self._lock:
            self._used[key][1] += 1


class Clients:
    """Threads that each do one operation at a time at some living member, until told to stop.

    Args:
        cluster: whose members are asked.
        count: of threads.
        seed: of what they do.
        patience_s: after which an operation without an answer counts as unknown.
        at: chooses the members that may be asked; all that live if left out.
        sticky: each client asks one member only, so that those of a member that hangs hold up nobody else.
    """

    def __init__(
        self,
        cluster: Cluster,
        count: int = 4,
        *,
        seed: int = 0,
        patience_s: float = 2.0,
        at: Callable[[], Sequence[Node]] | None = None,
        sticky: bool = False,
    ) -> None:
        self.recorder = Recorder()
        self.acknowledged: dict[str, int] = {}
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.answered_at: Counter[int] = Counter()
        self.reads = 0
        self.longest_wait_s = 0.0
        self.failures: list[BaseException] = []
        self._cluster = cluster
        self._at = at or (lambda: cluster.living)
        self._sticky = sticky
        self._patience_s = patience_s
        self._keys = Keys()
        self._stop = threading.Event()
        self._may_go = threading.Event()
        self._may_go.set()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed} {number}")), daemon=True)
            for number in range(count)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop after the operations that are under way."""
        self._stop.set()
        self._may_go.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(self._patience_s + WAIT_S)

    # -- one client ---------------------------------------------------------------------------------------

    def _run(self, number: int, chance: random.Random) -> None:
        try:
            client = self.recorder.client()
            for count in itertools.count(1):
                self._may_go.wait()
                if self._stop.is_set():
                    return
                nodes = self._at()
                if self._sticky:
                    wanted = number % len(self._cluster.nodes) + 1
                    nodes = [node for node in nodes if node.node_id == wanted]
                if nodes:
                    self._operate(client, chance.choice(nodes), f"{number}.{count}", chance)
                self._stop.wait(PAUSE_S)
        except BaseException as error:
            self.failures.append(error)

    def _operate(self, client: Any, node: Node, name: str, chance: random.Random) -> None:
        key = self._keys.pick(chance)
        f = chance.choices(["get", "append", "put", "cas"], [5, 3, 1, 1])[0]
        value: Any = None
        if f == "append":
            value = f"{name} "
        elif f == "put":
            value = f"={name} "
        elif f == "cas":
            value = [chance.choice(["", f"={chance.randrange(50)}"]), f"?{name} "]
        life = node.life
        if life is None or life.gone:
            return
        operation = client.invoke(f, tuple(value) if f == "cas" else value, key=key)
        by_read = f == "get" and chance.random() < READ_SHARE
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        began = time.monotonic()
        answer = None
        with contextlib.suppress(Gone, queue.Empty):
            if by_read:
                life.send("read", answers.put, key=key, timeout=self._patience_s)
            else:
                life.send("command", answers.put, command=[name, f, key, value])
            answer = answers.get(timeout=self._patience_s)
        self._longest(time.monotonic() - began)
        if by_read:
            self._note_read(operation, node, answer)
        else:
            self._note_command(operation, node, [name, f, key], answer)

    def _note_read(self, operation: Any, node: Node, answer: Answer | None) -> None:
        if answer is None or not answer["ok"]:
            operation.info()
            return
        operation.ok(answer["result"])
        with self._lock:
            self.reads += 1
            self.answered_at[node.node_id] += 1

    def _note_command(self, operation: Any, node: Node, command: list[str], answer: Answer | None) -> None:
        name, f, key = command
        if answer is not None and answer["ok"]:
            with self._lock:
                self.acknowledged[name] = answer["index"]
                self.answered_at[node.node_id] += 1
            if f == "cas" and not answer["result"]:
                operation.fail()
            else:
                operation.ok(answer["result"] if f == "get" else None, slot=answer["index"])
        elif answer is not None and answer["error"] in CERTAINLY_NOT:
            operation.fail()
            with self._lock:
                self.refused.add(name)
        else:
            operation.info()
            if f != "get":
                self._keys.unknown(key)
            with self._lock:
                self.unknown.add(name)

    def _longest(self, seconds: float) -> None:
        with self._lock:
            self.longest_wait_s = max(self.longest_wait_s, seconds)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Begin no operations for the time of a ``with`` block."""
        self._may_go.clear()
        try:
            yield
        finally:
            self._may_go.set()

    # -- from outside -------------------------------------------------------------------------------------

    def wait_done(self, more: int, timeout_s: float = WAIT_S, *, node: Node | None = None) -> None:
        """Wait until so many further operations were answered, by ``node`` if one is given."""

        def count() -> int:
            return self.answered_at[node.node_id] if node is not None else self.answered_at.total()

        target = count() + more

        def done() -> bool:
            assert not self.failures, self.failures
            return count() >= target

        wait_for(done, lambda: f"{more} operations are answered; {self._cluster.situation()}", timeout_s)

    def verdict(self) -> dict[str, int]:
        """Stop, start every member that is down, demand that nothing is wrong; return how much there was.

        Raises:
            AssertionError: something is.
        """
        self.stop()
        assert not self.failures, self.failures
        cluster = self._cluster
        cluster.start()
        cluster.leader()
        cluster.wait_level()
        logs = {node.node_id: list(node.entries()) for node in cluster.living}
        self.demand_logs(logs)
        values = [node.ask("values")["values"] for node in cluster.living]
        assert all(each == values[0] for each in values), "G1: the state machines differ"
        result = check(self.recorder.history(), KeyValue(), timeout_s=WAIT_S)
        assert result, result.describe()
        return {
            "operations": result.operations,
            "acknowledged": len(self.acknowledged),
            "unknown": len(self.unknown),
            "refused": len(self.refused),
            "reads": self.reads,
        }

    def demand_logs(self, logs: dict[int, list[tuple[int, list[Any]]]]) -> None:
        """Demand that the logs are one, and hold what was acknowledged (G1, G3, G4)."""
        first = next(iter(logs.values()))
        for node_id, log in logs.items():
            assert [index for index, _ in log] == list(range(1, len(log) + 1)), f"node {node_id} has a gap"
            assert log == first, f"G1: the log of node {node_id} differs"
        names = Counter(command[0] for _, command in first)
        twice = [name for name, count in names.items() if count > 1]
        assert not twice, f"G3: in the log more than once: {twice[:5]}"
        at = {command[0]: index for index, command in first}
        lost = [name for name in self.acknowledged if name not in at]
        assert not lost, f"G1: acknowledged and not in the log: {lost[:5]} of {len(lost)}"
        moved = [name for name, index in self.acknowledged.items() if at[name] != index]
        assert not moved, f"G1: acknowledged at another index: {moved[:5]}"
        lied = [name for name in self.refused if name in at]
        assert not lied, f"G4: refused and yet in the log: {lied[:5]}"
