"""What the examples share: an encoding of commands, commands that count once, a client that may repeat them.

Three rules make a replicated state machine really safe, and this file is where the examples keep them:

* **Deterministic.** A command is a list of texts behind their lengths: no pickle, no clock, no randomness, no
  limits that depend on the interpreter. Every replica reads the same bytes in the same way.
* **A bad command is answered, not raised.** An exception out of ``apply`` stops every replica at that slot.
* **Repeating is harmless.** After :class:`paxos.OutcomeUnknown` a command may be applied later, or never. So
  every command carries the number of its session and its place in it, and the machine applies each place
  once; a repeated one gets the answer of the first time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import paxos

FIELDS_MAX = 8
SESSIONS_MAX = 1024
RETRY_S = 0.01


def encode(*fields: str | int) -> bytes:
    """Return a command: every field as UTF-8 behind its length.

    >>> decode(encode("put", "colour", "blue", 7))
    ['put', 'colour', 'blue', '7']
    """
    parts = [str(field).encode() for field in fields]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def decode(command: bytes) -> list[str] | None:
    """Return the fields of a command, or ``None`` if it is not one.

    >>> decode(b"anything else") is None
    True
    """
    fields: list[str] = []
    offset = 0
    while offset < len(command):
        end = offset + 4 + int.from_bytes(command[offset : offset + 4], "big")
        if offset + 4 > len(command) or end > len(command) or len(fields) == FIELDS_MAX:
            return None
        try:
            fields.append(command[offset + 4 : end].decode())
        except UnicodeDecodeError:
            return None
        offset = end
    return fields


def number(text: str) -> int | None:
    """Return the number that ``text`` is in plain decimal digits, or ``None``.

    >>> number("42"), number("-1"), number("1e9"), number("")
    (42, None, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the machine answers: the same on every replica."""

    ok: bool
    value: str | None = None
    token: int = 0
    """Index in the log of the command that made it so: grows for ever, so it can fence."""
    error: str = ""


def refused(error: str, value: str | None = None, token: int = 0) -> Reply:
    """Return the answer to a command that changed nothing."""
    return Reply(ok=False, value=value, token=token, error=error)


class ExactlyOnce(paxos.StateMachine):
    """A state machine whose commands come in sessions and count once each.

    ``encode("open")`` begins a session; its number is that command's index, so no number is ever used twice.
    After that, ``encode(session, 1, ...)``, ``encode(session, 2, ...)`` and so on. The table of sessions is
    part of the state. It is bounded: the one that was silent for longest, *in log order*, is forgotten, and
    its commands are then refused rather than guessed about.
    """

    sessions_max: ClassVar[int] = SESSIONS_MAX

    def __init__(self) -> None:
        self.sessions: dict[int, tuple[int, Reply]] = {}
        """Session to its last place and the answer given there; the longest silent one first."""

    def act(self, session: int, fields: list[str], index: int) -> Reply:
        """Carry out one command of ``session``; ``index`` is its place in the log. Never raises."""
        raise NotImplementedError

    def apply(self, command: bytes, context: paxos.ApplyContext) -> Reply:
        """Apply one command of the log."""
        fields = decode(command)
        if fields == ["open"]:
            while len(self.sessions) >= self.sessions_max:
                del self.sessions[next(iter(self.sessions))]
            self.sessions[context.index] = (0, Reply(ok=True))
            return Reply(ok=True, token=context.index)
        session, place = self._place(fields)
        if fields is None or session is None or place is None:
            return refused("not a command")
        if session not in self.sessions:
            return refused("no such session, or it was forgotten")
        last, answer = self.sessions.pop(session)
        self.sessions[session] = (last, answer)  # the latest heard of now
        if place == last:
            return answer
        if place != last + 1:
            return refused(f"command {place} of the session, expected {last + 1}")
        answer = self.act(session, fields[2:], context.index)
        self.sessions[session] = (place, answer)
        return answer

    @staticmethod
    def _place(fields: list[str] | None) -> tuple[int | None, int | None]:
        if fields is None or len(fields) < 3:
            return None, None
        return number(fields[0]), number(fields[1])

    # A snapshot is a list of commands in the same encoding; subclasses add lines of their own.

    def lines(self) -> Iterable[bytes]:
        """Yield what the subclass has to remember, one encoded line after another."""
        return ()

    def remember(self, fields: list[str]) -> None:
        """Take back one line of :meth:`lines`."""

    def snapshot(self) -> Iterable[bytes]:
        """Yield the whole state."""
        for session, (last, answer) in self.sessions.items():
            has_value = "no" if answer.value is None else "yes"
            line = encode(
                session, last, int(answer.ok), has_value, answer.value or "", answer.token, answer.error
            )
            yield encode_line(b"s", line)
        for line in self.lines():
            yield encode_line(b"l", line)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by what :meth:`snapshot` yielded."""
        type(self).__init__(self)
        for kind, line in split_lines(b"".join(chunks)):
            fields = decode(line)
            assert fields is not None, "a snapshot holds only what snapshot() wrote"
            if kind == b"l":
                self.remember(fields)
                continue
            session, last, ok, has_value, value, token, error = fields
            answer = Reply(ok == "1", value if has_value == "yes" else None, int(token), error)
            self.sessions[int(session)] = (int(last), answer)


def encode_line(kind: bytes, line: bytes) -> bytes:
    """Return one line of a snapshot: its kind, its length, its bytes."""
    return kind + len(line).to_bytes(4, "big") + line


def split_lines(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield the lines of a snapshot."""
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset + 1 : offset + 5], "big")
        yield data[offset : offset + 1], data[offset + 5 : offset + 5 + size]
        offset += 5 + size


class Session:
    """One client: proposes through any replica that answers, and repeats until the outcome is known.

    Args:
        replicas: called before every attempt for the replicas that run now.
        patience_s: how long to repeat before giving up with the last error.
        attempt_s: how long to wait for one replica before trying the next.

    Not for several threads at once: the places of a session are in order.
    """

    def __init__(
        self,
        replicas: Callable[[], Sequence[paxos.Replica]],
        *,
        patience_s: float = 30.0,
        attempt_s: float = 2.0,
    ) -> None:
        self._replicas = replicas
        self._patience_s = patience_s
        self._attempt_s = attempt_s
        self._turn = 0
        self._place = 0
        self._unsettled: bytes | None = None
        self.repeats = 0
        """Attempts whose outcome was unknown, or that were refused, and that were repeated."""
        # Repeating this is harmless without a number: a session opened twice is one that nobody uses.
        self.number = self._until_known(encode("open")).token

    def call(self, *fields: str | int) -> Reply:
        """Have one command applied, exactly once, and return its answer.

        Raises:
            paxos.OutcomeUnknown, paxos.Rejected: no answer within the patience. The command may still come
                to be applied; the next call asks for its answer first, so that no place is left empty.
        """
        if self._unsettled is not None:
            self._until_known(self._unsettled)
        self._place += 1
        self._unsettled = encode(self.number, self._place, *fields)
        return self._until_known(self._unsettled)

    def _until_known(self, command: bytes) -> Reply:
        deadline = time.monotonic() + self._patience_s
        while True:
            replicas = self._replicas()
            try:
                if not replicas:
                    raise paxos.Closed("no replica runs")
                replica = replicas[self._turn % len(replicas)]
                answer = replica.propose(command, timeout=self._attempt_s).result
            except (paxos.OutcomeUnknown, paxos.Rejected):
                # Unknown: it may have been applied, or be applied later. The same bytes are sent again, so
                # the machine sees the same place of the same session and answers instead of acting twice.
                if time.monotonic() >= deadline:
                    raise
                self.repeats += 1
                self._turn += 1
                time.sleep(RETRY_S)
                continue
            assert isinstance(answer, Reply)
            self._unsettled = None
            return answer


def arguments(description: str | None, *, commands: int) -> argparse.Namespace:
    """Parse the command line that all examples have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--commands", type=int, default=commands, help=f"how much work to do (default: {commands})"
    )
    parser.add_argument(
        "--transport", choices=("inproc", "tcp", "ipc"), default="inproc", help="how the replicas talk"
    )
    found = parser.parse_args()
    if found.commands < 2:
        parser.error("--commands must be at least 2")
    return found


def kill_the_leader(cluster: paxos.LocalCluster) -> int:
    """Stop the leading replica abruptly and return its node id."""
    node_id = cluster.leader(timeout=30).node_id
    cluster.kill(node_id)
    print(f"   node {node_id} led; it is gone now, without a word to the others")
    return node_id


def same_everywhere(cluster: paxos.LocalCluster) -> bool:
    """Wait until all replicas have applied the same commands, and compare their whole states."""
    last = max(replica.status().last_index for replica in cluster)
    cluster.wait_applied(last, timeout=30)
    states = {b"".join(replica.state_machine.snapshot()) for replica in cluster}
    print(f"   {len(cluster)} replicas, {last} commands applied, {len(states)} distinct state(s)")
    return len(states) == 1
