"""A lock with fencing tokens: what a lock service can promise, and what it cannot.

No lock service can keep two programs apart by itself. The holder may be paused, its lock may be taken from
it, and then it wakes up and goes on writing. So every grant carries a *token*, the log index of the command
that granted it, which only ever grows; whatever the lock protects remembers the highest token that it has
seen and refuses lower ones. Then the pause does no harm.

There is no clock in here and nothing expires by itself: a lock is free when it was released, or when somebody
who takes the responsibility has said so with ``steal``.

    python examples/lock.py
"""

from __future__ import annotations

from collections.abc import Iterable

from toolkit import (
    ExactlyOnce,
    Reply,
    Session,
    arguments,
    encode,
    kill_the_leader,
    number,
    refused,
    same_everywhere,
)

import paxos

NAME_CHARACTERS_MAX = 256


class LockService(ExactlyOnce):
    """Commands: ``acquire name``, ``release name token``, ``steal name token``, ``show name``.

    A lock belongs to the session that acquired it. ``token`` in an answer is the present holder's, ``value``
    the number of its session; both are empty when the lock is free.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, tuple[int, int]] = {}
        """Name to the session that holds it and its token."""

    def act(self, session: int, fields: list[str], index: int) -> Reply:
        """Carry out one command."""
        match fields:
            case ["acquire", name] if 1 <= len(name) <= NAME_CHARACTERS_MAX:
                if name not in self.held:
                    self.held[name] = (session, index)
                holder, token = self.held[name]
                if holder != session:
                    return refused("it is held", str(holder), token)
                return Reply(ok=True, value=str(holder), token=token)
            case ["release", name, text]:
                holder, token = self.held.get(name, (0, 0))
                if not holder or number(text) != token:
                    return refused("it is not held with that token", str(holder or ""), token)
                del self.held[name]
                return Reply(ok=True)
            case ["steal", name, text]:
                # The token says whose lock is meant: it is not taken from somebody who came in between.
                holder, token = self.held.get(name, (0, 0))
                if not holder or number(text) != token:
                    return refused("it is not held with that token", str(holder or ""), token)
                self.held[name] = (session, index)
                return Reply(ok=True, value=str(session), token=index)
            case ["show", name]:
                holder, token = self.held.get(name, (0, 0))
                return Reply(ok=True, value=str(holder or ""), token=token)
        return refused("acquire name | release name token | steal name token | show name")

    def lines(self) -> Iterable[bytes]:
        """Yield every lock that is held."""
        return (encode(name, *held) for name, held in sorted(self.held.items()))

    def remember(self, fields: list[str]) -> None:
        """Take back one lock."""
        name, session, token = fields
        self.held[name] = (int(session), int(token))


class Warehouse:
    """What the lock protects. It needs nothing from the lock service but the tokens in the requests."""

    def __init__(self) -> None:
        self.highest_token = 0
        self.written: list[tuple[int, str]] = []

    def write(self, token: int, text: str) -> bool:
        """Write if no higher token has been here; return whether it was written."""
        if token < self.highest_token:
            return False
        self.highest_token = token
        self.written.append((token, text))
        return True


def main() -> int:
    """Acquire, lose the leader, have the lock stolen during a pause, and refuse the stale holder."""
    options = arguments(__doc__, commands=20)
    warehouse = Warehouse()
    with paxos.LocalCluster(3, state_machine=LockService, transport=options.transport) as cluster:
        alice = Session(lambda: list(cluster))
        bob = Session(lambda: list(cluster))
        grant = alice.call("acquire", "warehouse")
        print(f"1. Alice has the lock, token {grant.token}")
        first = warehouse.write(grant.token, "Alice, before her pause")

        print("2. the leading replica is killed; the lock is where it was")
        killed = kill_the_leader(cluster)
        busy = bob.call("acquire", "warehouse")
        print(f"   Bob: acquired={busy.ok} ({busy.error}, token {busy.token})")

        print("3. Alice is paused, her operator gives her up, Bob takes the lock over")
        stolen = bob.call("steal", "warehouse", busy.token)
        second = warehouse.write(stolen.token, "Bob")
        print(f"   Bob has token {stolen.token} > {grant.token} and writes: {second}")

        print("4. Alice wakes up and still believes that she holds it")
        stale = warehouse.write(grant.token, "Alice, after her pause")
        release = alice.call("release", "warehouse", grant.token)
        print(f"   her write with token {grant.token}: {'written' if stale else 'refused'}")
        print(f"   her release: {release.ok} ({release.error})")

        print(f"5. {options.commands} more turns; tokens only grow")
        tokens = [grant.token, stolen.token]
        bob.call("release", "warehouse", stolen.token)
        for i in range(options.commands):
            client = (alice, bob)[i % 2]
            tokens.append(client.call("acquire", "warehouse").token)
            client.call("release", "warehouse", tokens[-1])
        cluster.restart(killed)
        agree = same_everywhere(cluster)
        right = first and second and not stale and not busy.ok and not release.ok
        return 0 if agree and right and tokens == sorted(set(tokens)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
