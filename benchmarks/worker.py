"""Processes that do what they are asked: the parent's side (:class:`Worker`) and theirs (:func:`answer`)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ANSWER_TIMEOUT_S = 180.0
END_TIMEOUT_S = 15.0


class WorkerFailed(RuntimeError):
    """A process of the benchmark ended or raised; the message ends with what it said."""


class Worker:
    """One process that runs ``python -m <module>`` and answers requests over a pipe.

    It ends by itself when this process is gone, because the pipe then ends.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._said,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle
        )
        theirs.close()

    def begin(self, request: str, **arguments: Any) -> None:
        """Send a request; its answer is fetched with :meth:`finish`."""
        try:
            self._connection.send((request, arguments))
        except OSError as error:
            raise WorkerFailed(f"the process is gone. {self.last_words()}") from error

    def finish(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Wait for the answer to :meth:`begin`.

        Raises:
            WorkerFailed: the process raised, ended, or said nothing in time.
        """
        try:
            if not self._connection.poll(timeout_s):
                raise WorkerFailed(f"no answer within {timeout_s:g} s. {self.last_words()}")
            good, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailed(f"the process has ended. {self.last_words()}") from error
        if not good:
            raise WorkerFailed(f"{answer} {self.last_words()}")
        return answer

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer."""
        self.begin(request, **arguments)
        return self.finish()

    def last_words(self) -> str:
        """Return the end of what the process wrote to standard error."""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 3000))
        text = self._said.read().decode(errors="replace").strip()
        return f"It said: {text}" if text else "It said nothing."

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._connection.close()

    def close(self) -> None:
        """Ask it to end; kill it if it does not."""
        with contextlib.suppress(OSError):
            self._connection.close()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.close()


def answer(fileno: int, handlers: dict[str, Callable[..., Any]]) -> None:
    """Answer requests until the parent closes the pipe or is gone."""
    connection = Connection(fileno)
    while True:
        try:
            request, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            outcome = (True, handlers[request](**arguments))
        except Exception as error:
            outcome = (False, f"{type(error).__name__}: {error}.")
        try:
            connection.send(outcome)
        except OSError:
            return


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Poll until ``condition()`` holds.

    Raises:
        WorkerFailed: it does not within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise WorkerFailed(f"still waiting after {timeout_s:g} s for {what}")
        time.sleep(0.01)
