"""A key-value store on three replicas that loses nothing when its leader is killed.

Every key has a version, the log index of the command that wrote it, so "replace it only if nobody else has"
works with any number of clients. A client that does not hear an answer sends the same bytes again through
another replica: the command counts once.

    python examples/kv_store.py
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

KEY_CHARACTERS_MAX = 256
VALUE_CHARACTERS_MAX = 64 * 1024


class KeyValueStore(ExactlyOnce):
    """Commands: ``put key value``, ``replace key version value``, ``delete key``, ``get key``.

    ``token`` in an answer is the version of the key; 0 means that there is no such key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, tuple[int, str]] = {}

    def act(self, session: int, fields: list[str], index: int) -> Reply:
        """Carry out one command."""
        match fields:
            case ["put", key, value]:
                return self._write(key, value, index)
            case ["replace", key, expected, value]:
                present = self._read(key)
                if number(expected) != present.token:
                    return refused(
                        f"version is {present.token}, not {expected}", present.value, present.token
                    )
                return self._write(key, value, index)
            case ["delete", key]:
                answer = self._read(key)
                self.values.pop(key, None)
                return answer
            case ["get", key]:
                return self._read(key)
        return refused("put key value | replace key version value | delete key | get key")

    def _read(self, key: str) -> Reply:
        if key not in self.values:
            return refused("no such key")
        version, value = self.values[key]
        return Reply(ok=True, value=value, token=version)

    def _write(self, key: str, value: str, index: int) -> Reply:
        if not key or len(key) > KEY_CHARACTERS_MAX or len(value) > VALUE_CHARACTERS_MAX:
            return refused(
                f"a key has 1 to {KEY_CHARACTERS_MAX} characters, a value up to {VALUE_CHARACTERS_MAX}"
            )
        self.values[key] = (index, value)
        return Reply(ok=True, value=value, token=index)

    def lines(self) -> Iterable[bytes]:
        """Yield every key with its version and value."""
        return (encode(key, version, value) for key, (version, value) in sorted(self.values.items()))

    def remember(self, fields: list[str]) -> None:
        """Take back one key."""
        key, version, value = fields
        self.values[key] = (int(version), value)


def main() -> int:
    """Write, kill the leader half-way, go on, restart it, and prove that every answered write is there."""
    options = arguments(__doc__, commands=200)
    with paxos.LocalCluster(3, state_machine=KeyValueStore, transport=options.transport) as cluster:
        print(f"1. three replicas, {options.commands} writes, each answered once a majority has it on disk")
        client = Session(lambda: list(cluster))
        answered: dict[str, int] = {}
        killed = 0
        for i in range(options.commands):
            if i == options.commands // 2:
                print(f"2. {i} writes answered; the leader is killed")
                killed = kill_the_leader(cluster)
            reply = client.call("put", f"key-{i % 50}", f"value-{i}")
            assert reply.ok, reply
            answered[f"key-{i % 50}"] = i
        print(f"   {len(answered)} keys written, {client.repeats} attempts repeated")

        print("3. two clients want the same key; one of them has an old version in mind")
        version = client.call("get", "key-0").token
        first = client.call("replace", "key-0", version, "mine")
        second = Session(lambda: list(cluster)).call("replace", "key-0", version, "no, mine")
        print(f"   first: {first.ok}; second: {second.ok} ({second.error})")

        print(f"4. node {killed} comes back and catches up")
        cluster.restart(killed)
        agree = same_everywhere(cluster)
        lost = [
            key
            for key, i in answered.items()
            if key != "key-0" and client.call("get", key).value != f"value-{i}"
        ]
        print(f"   answered writes that are missing: {len(lost)}")
        return 0 if agree and not lost and first.ok and not second.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
