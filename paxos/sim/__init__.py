"""A deterministic simulator: the production roles under loss, reordering, partitions, crashes and torn writes.

``python -m paxos.sim --seeds 0:1000`` runs a thousand seeds; ``docs/testing.md`` tells how to read the rest.
"""

from paxos.sim.invariants import Violation
from paxos.sim.parameters import Parameters
from paxos.sim.run import Result, run_seed
from paxos.sim.trace import Trace
from paxos.sim.world import World

__all__ = ["Parameters", "Result", "Trace", "Violation", "World", "run_seed"]
