"""Append the lines of a file exactly once, whatever happens to the node that one talks to.

A client that loses its node does not know what became of the commands in flight. The log itself settles it:

* Whenever the client begins to use a node, it first commits ``attach <k>``, with k larger than ever before.
  When that is committed, everything in front of it in the log is decided and can be read.
* A line is the command ``line <k> <n> <text>``. It counts if ``attach <k>`` is the newest in front of it, and if
  n follows the last line that counted. Anything else is *void*: a line of an earlier attachment that came too
  late, or one behind a line that was refused.

So each line counts once, even if an old copy of it should turn up much later, and every reader of the log comes
to the same answer. This is a fencing token, carried by the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from paxos.cli.channel import Answer, ChannelClient, NodeGone
from paxos.cli.processes import NodeFailed, NodeProcess
from paxos.errors import PaxosError

ATTACH_TIMEOUT_S = 5.0
PATIENCE_S = 60.0


def attach_command(attachment: int) -> bytes:
    """Return the command that begins an attachment."""
    return b"attach %d" % attachment


def line_command(attachment: int, number: int, text: bytes) -> bytes:
    """Return the command for line ``number`` (from 1) of the file."""
    return b"line %d %d %s" % (attachment, number, text)


@dataclass(slots=True)
class Reading:
    """What the log says when it is read by the rule above.

    >>> reading = Reading()
    >>> reading.read([b"attach 1", b"line 1 1 a", b"attach 2", b"line 1 2 late", b"line 2 2 b", b"line 2 2 b"])
    >>> reading.lines, reading.void, reading.attachment
    (2, 2, 2)
    """

    attachment: int = 0
    lines: int = 0
    void: int = 0
    commands: int = 0
    text: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Over the lines that count, each with a line feed."""
    raw: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Over all commands and their lengths."""

    def read(self, commands: Iterable[bytes]) -> None:
        """Go on with the next commands of the log."""
        for command in commands:
            self.commands += 1
            self.raw.update(b"%d:" % len(command))
            self.raw.update(command)
            kind, _, rest = command.partition(b" ")
            if kind == b"attach":
                self.attachment = max(self.attachment, int(rest))
                continue
            attachment, number, text = rest.split(b" ", 2)
            if int(attachment) == self.attachment and int(number) == self.lines + 1:
                self.lines += 1
                self.text.update(text + b"\n")
            else:
                self.void += 1


def digest_of(lines: Sequence[bytes]) -> str:
    """Return what :attr:`Reading.text` must come to for these lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()


@dataclass(slots=True)
class Tally:
    """What the client measured."""

    latencies_s: list[float] = field(default_factory=list)
    attachments: int = 0
    unknown: int = 0
    """Commands in flight when a node went away."""
    unknown_found: int = 0
    """How many of these were in the log after all."""
    last_attach_at: float = 0.0


class Appender:
    """Appends lines through one node after another.

    Args:
        lines: what to append, in order.
        window: commands in flight at a time.
        candidates: the nodes that may be used now, the preferred one first; asked at every attachment.
        on_progress: called with the number of lines known to be in the log.
    """

    def __init__(
        self,
        lines: Sequence[bytes],
        window: int,
        candidates: Callable[[], list[NodeProcess]],
        on_progress: Callable[[int], None],
    ) -> None:
        self._lines = lines
        self._window = window
        self._candidates = candidates
        self._on_progress = on_progress
        self._reading = Reading()
        self._acknowledged = 0
        self.tally = Tally()
        self.using: NodeProcess | None = None
        self._move_on = False

    def move_on(self) -> None:
        """Attach again before the next line: what is in flight is settled by reading the log."""
        self._move_on = True

    def run(self) -> None:
        """Append everything; return when every line is committed.

        Raises:
            NodeFailed: no node took a command for a minute.
        """
        in_flight = 0
        while True:
            client = self._attach()
            self._catch_up(client)
            if in_flight:
                self.tally.unknown += in_flight
                self.tally.unknown_found += max(0, self._reading.lines - self._acknowledged)
            self._acknowledged = self._reading.lines
            self._on_progress(self._acknowledged)
            try:
                in_flight = self._send(client)
            finally:
                client.close()
            if self._acknowledged == len(self._lines):
                return

    def _attach(self) -> ChannelClient:
        """Begin to use a node: commit ``attach <k>`` through it."""
        deadline = time.monotonic() + PATIENCE_S
        reason = "no node runs"
        while time.monotonic() < deadline:
            for node in self._candidates():
                self.tally.attachments += 1
                try:
                    client = node.connect()
                except NodeGone as error:
                    reason = str(error)
                    continue
                try:
                    command = attach_command(self.tally.attachments).decode("latin-1")
                    client.ask("propose", timeout_s=ATTACH_TIMEOUT_S, command=command)
                except PaxosError as error:
                    reason = str(error)
                    client.close()
                    continue
                self._move_on = False
                self.tally.last_attach_at = time.monotonic()
                self.using = node
                return client
            time.sleep(0.01)
        raise NodeFailed(f"no node took a command for {PATIENCE_S:g} s: {reason}")

    def _catch_up(self, client: ChannelClient) -> None:
        """Read on in the log: everything in front of the attachment is decided."""
        with contextlib.suppress(NodeGone):  # then the next attachment reads it
            self._reading.read(command for _, command in client.read(self._reading.commands + 1))

    def _send(self, client: ChannelClient) -> int:
        """Keep the window full until all is acknowledged; return how many were in flight when the node went away."""
        attachment = self.tally.attachments
        if self._reading.attachment != attachment:
            return 0
        answers: queue.SimpleQueue[tuple[float, float, Answer | None]] = queue.SimpleQueue()
        number = self._acknowledged
        in_flight = 0
        while self._acknowledged < len(self._lines) and not self._move_on:
            try:
                while in_flight < self._window and number < len(self._lines):
                    number += 1
                    command = line_command(attachment, number, self._lines[number - 1])
                    began = time.monotonic()

                    def answered(answer: Answer | None, began: float = began) -> None:
                        answers.put((began, time.monotonic(), answer))

                    client.propose(command, answered)
                    in_flight += 1
                began, ended, answer = answers.get(timeout=PATIENCE_S)
            except (NodeGone, queue.Empty):
                return in_flight
            if answer is None or not answer["ok"]:
                return in_flight
            in_flight -= 1
            self._acknowledged += 1
            self.tally.latencies_s.append(ended - began)
            self._on_progress(self._acknowledged)
        return in_flight
