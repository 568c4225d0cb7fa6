"""Elect one worker among many, with a lease that is counted in commands instead of seconds.

This is about the leader of *your* application, say the one worker that sends invoices; it has nothing to do
with which replica leads the log. Who leads is a function of the log: a worker campaigns, and it leads if
nobody does or if the leader has not renewed for ``LEASE_COMMANDS`` commands. Time passes as the log grows, so
the workers that wait campaign now and then; no clock is read, and every replica sees the same leader at the
same place of the log.

A leader learns late that it was replaced. So each term has an *epoch*, the log index of the command that
began it, and whatever the leader acts upon refuses epochs below the highest that it has seen.

    python examples/leader_election.py
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

LEASE_COMMANDS = 10
NAME_CHARACTERS_MAX = 256


class Election(ExactlyOnce):
    """Commands: ``campaign name``, ``resign epoch``, ``who``.

    ``value`` in an answer is the leader's name, ``token`` the epoch; ``ok`` says whether the asker leads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.session = 0
        self.epoch = 0
        """Index of the command that began the present term; 0: nobody leads."""
        self.renewed = 0

    def act(self, session: int, fields: list[str], index: int) -> Reply:
        """Carry out one command."""
        match fields:
            case ["campaign", name] if 1 <= len(name) <= NAME_CHARACTERS_MAX:
                if self.epoch and self.session == session:
                    self.renewed = index
                elif not self.epoch or index - self.renewed > LEASE_COMMANDS:
                    self.name, self.session, self.epoch, self.renewed = name, session, index, index
                else:
                    return refused("somebody leads", self.name, self.epoch)
                return Reply(ok=True, value=self.name, token=self.epoch)
            case ["resign", text]:
                if not self.epoch or self.session != session or number(text) != self.epoch:
                    return refused("not the leader of that epoch", self.name, self.epoch)
                self.name, self.session, self.epoch, self.renewed = "", 0, 0, 0
                return Reply(ok=True)
            case ["who"]:
                leads = bool(self.epoch) and self.session == session
                return Reply(ok=leads, value=self.name, token=self.epoch)
        return refused("campaign name | resign epoch | who")

    def lines(self) -> Iterable[bytes]:
        """Yield the present term."""
        return (encode(self.name, self.session, self.epoch, self.renewed),)

    def remember(self, fields: list[str]) -> None:
        """Take back the present term."""
        self.name = fields[0]
        self.session, self.epoch, self.renewed = (int(field) for field in fields[1:])


class Printer:
    """What the elected worker acts upon: prints invoices, and refuses a leader of an earlier term."""

    def __init__(self) -> None:
        self.highest_epoch = 0
        self.printed: list[tuple[int, str]] = []

    def print_invoice(self, epoch: int, worker: str) -> bool:
        """Print if no later term has been here; return whether it was printed."""
        if epoch < self.highest_epoch:
            return False
        self.highest_epoch = epoch
        self.printed.append((epoch, worker))
        return True


def main() -> int:
    """Elect, renew, let a leader fall silent, elect another, and refuse the first one's late order."""
    options = arguments(__doc__, commands=3 * LEASE_COMMANDS)
    printer = Printer()
    with paxos.LocalCluster(3, state_machine=Election, transport=options.transport) as cluster:
        ada = Session(lambda: list(cluster))
        ben = Session(lambda: list(cluster))
        term = ada.call("campaign", "Ada")
        other = ben.call("campaign", "Ben")
        print(f"1. Ada leads, epoch {term.token}; Ben: {other.ok} ({other.error}: {other.value})")
        printed = printer.print_invoice(term.token, "Ada")

        print("2. the replica that leads the log is killed; Ada still leads the workers")
        killed = kill_the_leader(cluster)
        renewed = ada.call("campaign", "Ada")
        print(f"   Ada renews: {renewed.ok}, still epoch {renewed.token}")

        print(f"3. Ada falls silent; Ben goes on trying; after {LEASE_COMMANDS} commands the lease is over")
        tries = 0
        while not (taken := ben.call("campaign", "Ben")).ok and tries < options.commands:
            tries += 1
        print(f"   Ben leads after {tries} refusals, epoch {taken.token}")
        late = printer.print_invoice(taken.token, "Ben")

        print("4. Ada wakes up and orders one more invoice")
        stale = printer.print_invoice(term.token, "Ada")
        who = ada.call("who")
        print(
            f"   {'printed' if stale else 'refused'}; she asks and learns: {who.value} leads, epoch {who.token}"
        )

        cluster.restart(killed)
        agree = same_everywhere(cluster)
        right = printed and late and not stale and not other.ok and renewed.token == term.token and taken.ok
        return 0 if agree and right and 0 < tries <= LEASE_COMMANDS and taken.token > term.token else 1


if __name__ == "__main__":
    raise SystemExit(main())
