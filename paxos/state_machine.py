"""What an application replicates: :class:`StateMachine`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from paxos.types import ApplyContext

FAILED_AT = "__paxos_failed_at__"
"""Attribute of an exception that left ``apply``: which command it was."""


class StateMachine:
    """A deterministic machine that every replica feeds with the same commands in the same order.

    Subclass it and override :meth:`apply` (one command at a time, easiest) or :meth:`apply_batch` (a run of
    commands, fastest). Rules, because every replica must arrive at the same state:

    * Look at nothing but the state, the command and the context: no clock, no randomness, no set order.
    * A command that makes no sense is *answered* (return an error value), not raised: an exception out of
      ``apply`` stops the node at that slot, here and on every other replica.
    * Calls are serialised, but may come from different threads.

    Example:
        >>> class Counter(StateMachine):
        ...     def __init__(self):
        ...         self.total = 0
        ...     def apply(self, command, context):
        ...         self.total += int(command)
        ...         return self.total
        ...     def snapshot(self):
        ...         yield str(self.total).encode()
        ...     def restore(self, chunks):
        ...         self.total = int(b"".join(chunks))
        >>> counter = Counter()
        >>> counter.apply_batch([b"5", b"7"], ApplyContext(index=1, slot=2, origin=1))
        [5, 12]
        >>> copy = Counter()
        >>> copy.restore(counter.snapshot())
        >>> copy.total
        12
    """

    def apply(self, command: bytes, context: ApplyContext) -> Any:
        """Apply one command and return its result, which goes to whoever proposed it on this node.

        Args:
            command: the bytes that were proposed.
            context: index and slot of the command, and the node at which it was proposed.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides neither apply nor apply_batch")

    def apply_batch(self, commands: Sequence[bytes], context: ApplyContext) -> Sequence[Any] | None:
        """Apply a run of commands in order; return one result for each, or ``None`` if all are ``None``.

        Args:
            commands: a lazy sequence: ``len`` and indexing are cheap, a list is built only by whoever asks.
                It is valid during the call; keep copies (``bytes``) of what you keep.
            context: that of the first command; the following have consecutive indices in the same slot.

        Example:
            >>> class Length(StateMachine):
            ...     commands = 0
            ...     def apply_batch(self, commands, context):
            ...         self.commands += len(commands)
            >>> length = Length()
            >>> length.apply_batch([b"a", b"b"], ApplyContext(index=1, slot=1, origin=1))
            >>> length.commands
            2
        """
        index, slot, origin = context.index, context.slot, context.origin
        apply = self.apply
        results: list[Any] = []
        append = results.append
        try:
            for offset, command in enumerate(commands):
                append(apply(command, ApplyContext(index + offset, slot, origin)))
        except Exception as error:
            with contextlib.suppress(AttributeError):  # an exception with slots
                setattr(error, FAILED_AT, f"command {index + len(results)}")
            raise
        return results

    def snapshot(self) -> Iterable[bytes]:
        """Yield the whole state in chunks for :meth:`restore`. Not called yet: trimming will need it."""
        raise NotImplementedError(f"{type(self).__name__} cannot be written as a snapshot")

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the whole state by what :meth:`snapshot` of some replica yielded."""
        raise NotImplementedError(f"{type(self).__name__} cannot be restored from a snapshot")


def check_defines_apply(machine: object) -> None:
    """Raise ``TypeError`` for a :class:`StateMachine` that overrides neither way of applying commands."""
    if not isinstance(machine, StateMachine):
        return
    kind = type(machine)
    if kind.apply is StateMachine.apply and kind.apply_batch is StateMachine.apply_batch:
        raise TypeError(
            f"state_machine: {kind.__name__} overrides neither apply nor apply_batch; is the name misspelt?"
        )
