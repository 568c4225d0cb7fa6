"""What can go wrong, in three families.

* The caller's mistake, or a state that the caller must know: :class:`ConfigError`, :class:`NotLeader`,
  :class:`Busy`, :class:`Closed`, :class:`Rejected`, :class:`OutcomeUnknown`,
  :class:`ReadTimeout`.
* A peer's misbehaviour: :class:`RemoteProtocolError`. Counted, never fatal.
* A promise that can no longer be kept: :class:`StorageError`, :class:`ApplyFailed`,
  :class:`InvariantViolation`. The node stops voting and says why.
"""

from __future__ import annotations


class PaxosError(Exception):
    """Base of everything that this library raises on purpose."""


class ConfigError(PaxosError, ValueError):
    """An argument, an option or a data directory does not fit; nothing was changed."""


class NotLeader(PaxosError):
    """This node does not lead.

    Attributes:
        hint: node id of the leader that this node follows, or ``None``.
    """

    def __init__(self, message: str, hint: int | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Rejected(PaxosError):
    """The command was certainly not applied and never will be (G4)."""


class Busy(Rejected):
    """No room: too many bytes are waiting to be committed. The command was not taken."""


class Closed(Rejected):
    """The replica is closed, or closed before the command had been handed over."""


class OutcomeUnknown(PaxosError):
    """The command may or may not be applied, now or later (G4): read the log, or repeat it idempotently."""


class ReadTimeout(PaxosError, TimeoutError):
    """A read was not confirmed by a quorum in time, or this node lags too far behind. Nothing was read, and nothing
    will be read later: ask again."""


class RemoteProtocolError(PaxosError):
    """Bytes from outside do not follow the protocol."""


class StorageError(PaxosError):
    """The data directory cannot be used or can no longer be trusted; the message says what to do."""


class ApplyFailed(PaxosError):
    """The state machine raised, or broke its contract: the node has stopped at that slot (G6)."""


class InvariantViolation(PaxosError):
    """A rule of the protocol was broken. The node has stopped; please report it."""


def fault_error(fault: tuple[int, str]) -> PaxosError:
    """Return the exception for a reactor's fault ``(code, text)``."""
    code, text = fault
    kind: type[PaxosError] = PaxosError
    if any(word in text for word in ("disk", "log", "sync")):
        kind = StorageError
    elif text[:1] == "I" and text[1:2].isdigit():  # it names the invariant, as in "I3: ..."
        kind = InvariantViolation
    return kind(f"{text} (fault {code})")


def as_paxos_error(error: BaseException) -> PaxosError:
    """Return ``error``, or what it means in the words of this library, with it as the cause."""
    if isinstance(error, PaxosError):
        return error
    if isinstance(error, OSError):
        wrapped: PaxosError = StorageError(f"{type(error).__name__}: {error}")
    else:
        wrapped = InvariantViolation(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
