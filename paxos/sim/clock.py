"""What the clock of one node shows: an offset, a rate and jumps of its own.

No decision but *when to try again* may depend on it, so a run draws rates that no crystal has and lets clocks
jump ahead by up to an hour, as CLOCK_BOOTTIME does when a virtual machine is resumed. It never goes back.
"""

from __future__ import annotations

MILLION = 1_000_000


class Clock:
    """Integer arithmetic only: the same readings on every machine and Python version.

    Args:
        world_us: the world's time now.
        local_us: what this clock shows now.
        drift_ppm: how much it gains on the world's time, in millionths; negative if it loses.
    """

    def __init__(self, world_us: int = 0, local_us: int = 0, drift_ppm: int = 0) -> None:
        self._world_us = world_us
        self._local_us = local_us
        self._rate = MILLION + drift_ppm

    def read(self, world_us: int) -> int:
        """Return what it shows at ``world_us``."""
        return self._local_us + (world_us - self._world_us) * self._rate // MILLION

    def when(self, local_us: int) -> int:
        """Return the first world time at which it shows ``local_us`` or more."""
        return self._world_us - (self._local_us - local_us) * MILLION // self._rate

    def jump(self, world_us: int, ahead_us: int) -> None:
        """Let it leap ``ahead_us`` ahead at ``world_us``."""
        self._local_us = self.read(world_us) + ahead_us
        self._world_us = world_us
