"""`check`: is there an order of the operations that explains everything that the clients saw?

A history of several objects is linearizable iff that of each object is (Herlihy and Wing's locality; Horn and
Kroening, "Faster linearizability checking via P-compositionality", 2015), so the keys are searched one by one.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from paxos.sim.linearizability.models import Model
from paxos.sim.linearizability.operations import UNKNOWN, History, MalformedHistory, Operation, distinct, show
from paxos.sim.linearizability.search import Limits, search
from paxos.sim.linearizability.shrink import Counterexample, shrink

SHRINK_SECONDS = 10.0
REPORT_EVERY_SECONDS = 1.0

Progress = Callable[[str], None]
"""Called now and then with a line that says how far the search is."""


class Verdict(enum.Enum):
    """What became of a check."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Result:
    """A verdict and what it rests on. True in a condition only if the history is linearizable.

    Attributes:
        reason: why a check is inconclusive.
        operations: how many were searched; `dropped` reads were open and say nothing.
        keys: how many objects.
        configurations: how many were looked at.
        counterexample: a small part of the history that cannot be explained.
    """

    verdict: Verdict
    operations: int
    dropped: int
    keys: int
    configurations: int
    seconds: float
    reason: str = ""
    counterexample: Counterexample | None = None

    def __bool__(self) -> bool:
        return self.verdict is Verdict.LINEARIZABLE

    def describe(self) -> str:
        """Return the verdict, and the counter-example if there is one, for people."""
        text = (
            f"{self.verdict.value}: {self.operations} operations, {self.keys} "
            f"key{'' if self.keys == 1 else 's'}, {self.configurations} configurations, {self.seconds:.3f} s"
        )
        if self.reason:
            text += f"\n{self.reason}"
        if self.counterexample is not None:
            text += f"\n{self.counterexample.describe()}"
        return text


def validated(history: History, model: Model) -> list[Operation]:
    """Return the operations that say something.

    Raises:
        MalformedHistory: one makes no sense for the model.
    """
    said: list[Operation] = []
    refused = (replace(operation, result=UNKNOWN) for operation in history.failed)  # they have no result
    for operation in (*history.operations, *refused):
        try:
            model.validate(operation)
        except ValueError as error:
            raise MalformedHistory(history.source, operation.line, str(error)) from error
    for operation in history.operations:
        if operation.result is not UNKNOWN or operation.f not in model.reads:
            said.append(operation)
    return said


def by_key(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Return the operations of each object, the objects with few of them first."""
    parts: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(distinct(operation.key), []).append(operation)
    return sorted(parts.values(), key=len)


def check(
    history: History,
    model: Model,
    *,
    timeout_s: float = 60.0,
    configurations_max: int = 5_000_000,
    progress: Progress | None = None,
) -> Result:
    """Decide whether a history is linearizable.

    Args:
        history: what the clients saw.
        model: what a correct object does; every key is one object.
        timeout_s: after which the answer is inconclusive. Finding a small counter-example comes on top.
        configurations_max: for each key; each takes about 100 bytes.
        progress: called about every second with a line of text.

    Returns:
        A verdict. Not linearizable if one key is not, and inconclusive (never linearizable) if the search of
        one had to give up.

    Raises:
        MalformedHistory: an operation makes no sense for the model.

    >>> from paxos.sim.linearizability import KeyValue, Recorder
    >>> recorder = Recorder()
    >>> client = recorder.client()
    >>> client.invoke("put", 1, key="x").ok()
    >>> client.invoke("get", key="x").ok(2)
    >>> check(recorder.history(), KeyValue()).verdict
    <Verdict.NOT_LINEARIZABLE: 'not linearizable'>
    """
    began = time.monotonic()
    operations = validated(history, model)
    parts = by_key(operations)
    limits = Limits(began + timeout_s, configurations_max)
    configurations = 0
    gave_up: list[str] = []
    counterexample = None
    for number, part in enumerate(parts):
        key = part[0].key
        limits.progress = _reporter(progress, key, f"{number + 1} of {len(parts)}")
        outcome = search(part, model, limits)
        configurations += outcome.configurations
        if outcome.explained is None:
            gave_up.append(name_of_key(key))
        elif not outcome.explained:
            if progress is not None and time.monotonic() > began + REPORT_EVERY_SECONDS:
                progress(f"{name_of_key(key)} is not linearizable; looking for a small part that shows it")
            counterexample = shrink(part, model, outcome, time.monotonic() + SHRINK_SECONDS)
            break
    verdict, reason = Verdict.LINEARIZABLE, ""
    if counterexample is not None:
        verdict = Verdict.NOT_LINEARIZABLE
    elif gave_up:
        verdict = Verdict.INCONCLUSIVE
        reason = why_undecided(gave_up, timeout_s, configurations_max)
    return Result(
        verdict,
        len(operations),
        len(history.operations) - len(operations),
        len(parts),
        configurations,
        time.monotonic() - began,
        reason,
        counterexample,
    )


def why_undecided(gave_up: Sequence[str], timeout_s: float, configurations_max: int) -> str:
    """Say which objects were too much, and what helps."""
    others = f" and {len(gave_up) - 1} more" if len(gave_up) > 1 else ""
    return (
        f"gave up on {gave_up[0]}{others} after {timeout_s:g} s or {configurations_max} configurations; "
        "shorter histories, more keys or fewer open operations help"
    )


def name_of_key(key: Hashable) -> str:
    """Return what messages call an object."""
    return "the object" if key is None else f"key {show(key)}"


def _reporter(progress: Progress | None, key: Hashable, which: str) -> Callable[[int, int, int], None] | None:
    """Return what tells ``progress`` about the search of one key, about once a second."""
    if progress is None:
        return None
    next_at = time.monotonic() + REPORT_EVERY_SECONDS

    def report(explained: int, returns: int, configurations: int) -> None:
        nonlocal next_at
        now = time.monotonic()
        if now >= next_at:
            next_at = now + REPORT_EVERY_SECONDS
            found = f"{explained} of {returns} returns, {configurations} configurations"
            progress(f"{name_of_key(key)} ({which}): {found}")

    return report
