"""Failpoints: named places in the running code where a test can end the process, make an operation fail, or take time.

Every boundary of storage and protocol has one: before and after each append, sync, rename and commit, where frames
come and go, where a vote is about to count. Nothing is armed unless somebody arms it, and then a place costs one
load and one branch. They are for tests of programs that embed a replica as much as for our own.

A *specification* says what happens at a place: an action, then any of the modifiers.

=================  ============================================================================
``panic``          the process ends as with ``kill -9``: nothing is flushed, closed or told
``error``          the operation does not happen and returns its usual errno; ``error(ENOSPC)``: another one
``sleep(250)``     the thread that is there sleeps 250 ms, or until the place is disarmed
``count``          nothing; only count (see :func:`counts`)
``@3``             from the third hit on; ``panic@3`` is the third
``/10``            then every tenth hit
``*2``             at most twice
``~0.1:42``        with probability 0.1, by the random numbers of seed 42 (0 if left out)
=================  ============================================================================

The environment variable ``PAXOS_FAILPOINTS`` is read when the first replica of a process is opened:
``PAXOS_FAILPOINTS="wal.sync.before=panic@3; send.accepted=error~0.2:7"``; ``*`` stands for every place.

    >>> from paxos import failpoints
    >>> len(failpoints.names()) >= 40
    True
    >>> with failpoints.armed("wal.sync.before", "error(EIO)@2*1"):
    ...     failpoints.specifications()
    {'wal.sync.before': 'error(EIO)@2*1'}
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from paxos._core import failpoint as core
from paxos.errors import ConfigError

VARIABLE = "PAXOS_FAILPOINTS"
SLEEP_MS_MAX = 24 * 3600 * 1000

_SPECIFICATION = re.compile(r"(?P<action>[a-z]+)(?:\((?P<argument>[^)]*)\))?(?P<modifiers>.*)", re.DOTALL)
_MODIFIER = re.compile(
    r"@(?P<first>\d+)|/(?P<every>\d+)|\*(?P<limit>\d+)|~(?P<chance>[\d.]+)(?::(?P<seed>\d+))?"
)


class Failpoint(NamedTuple):
    """One place: its name, the actions that make sense there, and what it is."""

    name: str
    actions: tuple[str, ...]
    description: str


class _Specification(NamedTuple):
    action: str
    error: int = 0
    sleep_ms: int = 0
    first: int = 1
    every: int = 1
    limit: int = 0
    chance: float = 1.0
    seed: int = 0


_lock = threading.Lock()
_specifications: dict[str, str] = {}
_environment_read = False


def names() -> Mapping[str, Failpoint]:
    """Return every failpoint by its name.

    >>> names()["wal.sync.before"]
    Failpoint(name='wal.sync.before', actions=('panic', 'error', 'sleep'), description='the log is about to be synced')
    """
    return {
        name: Failpoint(name, ("panic", "error", "sleep") if error else ("panic", "sleep"), description)
        for name, (error, description) in core.places().items()
    }


def arm(name: str, specification: str) -> None:
    """Arm the place ``name``, or every place for ``"*"``; an earlier specification of it is replaced.

    Args:
        name: one of :func:`names`.
        specification: see the head of this module.

    Raises:
        ConfigError: there is no such place, or the specification does not fit it. Nothing was armed.
    """
    places = core.places()
    wanted = list(places) if name == "*" else [name]
    if name != "*" and name not in places:
        near = [known for known in places if known.split(".")[0] == name.split(".")[0]]
        raise ConfigError(
            f"there is no failpoint {name!r}; "
            + (f"there are {', '.join(near)}" if near else "paxos.failpoints.names() lists them")
        )
    parsed = {each: _parse(each, specification, places[each][0]) for each in wanted}
    with _lock:
        for each, fields in parsed.items():
            core.set_action(each, *fields)
            _specifications[each] = specification.strip()


def arm_all(text: str) -> None:
    """Arm everything that ``text`` says: ``name=specification`` separated by semicolons.

    Raises:
        ConfigError: something in it cannot be understood. Nothing was armed.
    """
    wanted: list[tuple[str, str]] = []
    places = core.places()
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, specification = (part.strip() for part in item.partition("="))
        if not equals or not specification:
            raise ConfigError(f"{item!r} is not NAME=ACTION, like wal.sync.before=panic@3")
        if name in places:
            _parse(name, specification, places[name][0])
        elif name == "*":
            for place, (error, _) in places.items():
                _parse(place, specification, error)
        else:
            arm(name, specification)  # says what is wrong with the name
        wanted.append((name, specification))
    for name, specification in wanted:
        arm(name, specification)


def arm_from_environment() -> None:
    """Arm what ``PAXOS_FAILPOINTS`` says; only the first call of a process does anything.

    Raises:
        ConfigError: it cannot be understood.
    """
    global _environment_read
    with _lock:
        if _environment_read:
            return
        _environment_read = True
    text = os.environ.get(VARIABLE, "")
    try:
        arm_all(text)
    except ConfigError as error:
        raise ConfigError(f"the environment variable {VARIABLE}: {error}") from None


def disarm(name: str | None = None) -> None:
    """Disarm one place, or all. Threads that sleep there go on.

    Raises:
        ConfigError: there is no such place.
    """
    if name is not None and name not in core.places():
        raise ConfigError(f"there is no failpoint {name!r}; paxos.failpoints.names() lists them")
    with _lock:
        for each in [name] if name is not None else list(_specifications):
            core.clear_action(each)
            _specifications.pop(each, None)


@contextlib.contextmanager
def armed(name: str, specification: str) -> Iterator[None]:
    """Arm a place for the time of a ``with`` block."""
    arm(name, specification)
    try:
        yield
    finally:
        disarm(None if name == "*" else name)


def specifications() -> dict[str, str]:
    """Return what is armed at present, by name."""
    with _lock:
        return dict(_specifications)


def hits() -> dict[str, int]:
    """Return how often each place was reached since it was armed; what is not armed counts while anything is."""
    return {name: reached for name, (reached, _) in core.counts().items()}


def acted(name: str) -> int:
    """Return how often the place ``name`` did what it is armed for."""
    return core.counts()[name][1]


def _parse(name: str, specification: str, usual_error: int) -> _Specification:
    """Return the fields of a specification.

    Raises:
        ConfigError: with what is wrong.
    """

    def wrong(what: str) -> ConfigError:
        return ConfigError(f"failpoint {name}: {what} in {specification.strip()!r}; see paxos.failpoints")

    match = _SPECIFICATION.fullmatch(specification.strip())
    if match is None or match["action"] not in core.ACTIONS:
        known = ", ".join(core.ACTIONS)
        raise wrong(f"the action must be one of {known}")
    action, argument = match["action"], match["argument"]
    fields: dict[str, float] = {}
    if action == "error":
        if not usual_error:
            raise wrong("this place cannot fail: no error")
        fields["error"] = usual_error if argument is None else getattr(errno, argument.strip(), 0)
        if not fields["error"]:
            raise wrong(f"{argument!r} is no name of an errno")
    elif action == "sleep":
        if argument is None or not argument.isdecimal() or int(argument) > SLEEP_MS_MAX:
            raise wrong("sleep needs milliseconds, like sleep(250),")
        fields["sleep_ms"] = int(argument)
    elif argument is not None:
        raise wrong(f"{action} takes no argument")
    rest = match["modifiers"].strip()
    while rest:
        modifier = _MODIFIER.match(rest)
        if modifier is None:
            raise wrong(f"{rest!r} is no modifier (@N, /N, *N, ~P:SEED)")
        for key, value in modifier.groupdict().items():
            if value is not None:
                fields[key] = _number(value)
        rest = rest[modifier.end() :].strip()
    found = _Specification(action, **fields)  # type: ignore[arg-type]
    if found.first < 1 or found.every < 1 or not 0 <= found.chance <= 1 or fields.get("limit") == 0:
        raise wrong("N must be at least 1 and P between 0 and 1")
    return found


def _number(text: str) -> float:
    """Return a number; -1, which no modifier takes, if it is none."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return -1
