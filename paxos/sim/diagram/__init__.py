"""The space-time diagram of a run: one HTML page that holds the trace and needs nothing else."""

from paxos.sim.diagram.build import page, write

__all__ = ["page", "write"]
