"""Hold back Python's signal handlers for a moment: see :class:`HeldBack`."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_c_signal = importlib.import_module("_signal")
_get: Callable[[int], Any] = _c_signal.getsignal
_set: Callable[[int, Any], Any] = _c_signal.signal
"""The C functions below ``signal``'s own, which turn every number into an enum and back: this runs once a command."""
_SIGNALS = tuple(int(number) for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))


def may_hold_back() -> bool:
    """True on the main thread, the only one on which Python runs signal handlers, and thus interrupts code."""
    return threading.current_thread() is threading.main_thread()


class HeldBack:
    """While inside, a signal is noted; its handler runs on the way out. For the main thread, and for microseconds.

    Python runs signal handlers between any two steps of the main thread, and what they raise (Ctrl-C:
    ``KeyboardInterrupt``) goes through whatever stood there. A batch that is half applied must not end so.

    >>> earlier = signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
    >>> with HeldBack():
    ...     signal.raise_signal(signal.SIGUSR1)
    ...     print("inside")
    inside
    handled
    >>> restored = signal.signal(signal.SIGUSR1, earlier)
    """

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Any]] = []
        self._noted: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> HeldBack:
        try:
            for number in _SIGNALS:
                handler = _get(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    _set(number, self._note)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        handlers = dict(self._handlers)
        self._restore()
        for number, frame in self._noted:
            handlers[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append((number, frame))

    def _restore(self) -> None:
        try:
            while self._handlers:
                number, handler = self._handlers[-1]
                _set(number, handler)
                self._handlers.pop()
        finally:
            if self._handlers:  # a handler that was put back already has raised
                self._restore()
