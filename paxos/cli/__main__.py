"""``python -m paxos.cli`` is the ``paxos`` command."""

from __future__ import annotations

from paxos.cli import main

main(prog_name="paxos")
