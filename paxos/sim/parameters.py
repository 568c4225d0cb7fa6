"""Everything that varies from seed to seed (swarm testing: each seed turns some faults off and others up)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from paxos._core.codec import FrameKind
from paxos.types import Config

FRAGILE_KINDS = [
    int(kind)
    for kind in (
        FrameKind.PREPARE,
        FrameKind.PROMISE,
        FrameKind.OPEN,
        FrameKind.ACCEPT,
        FrameKind.ACCEPTED,
        FrameKind.DECIDE,
        FrameKind.NACK,
        FrameKind.FORWARD,
        FrameKind.FETCH,
        FrameKind.FETCHED,
        FrameKind.FETCH_CHOSEN,
        FrameKind.CHOSEN,
    )
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """One cluster and the bad luck that it meets. Rates are events per second of virtual time.

    ``rot`` is the probability that a node of a fixed minority starts from a disk that has lost some values.
    """

    nodes: int = 3
    commands: int = 60
    command_bytes_max: int = 24
    burst_max: int = 3
    propose_gap_us: int = 20_000
    safety_us: int = 2_000_000
    loss: float = 0.0
    kind_loss: tuple[tuple[int, float], ...] = ()
    duplicate: float = 0.0
    delay_us: int = 1_000
    reorder: bool = False
    in_flight_survives: bool = True
    sync_us: int = 300
    control_us: int = 200
    intent_drop: float = 0.0
    intent_duplicate: float = 0.0
    crash_rate: float = 0.0
    power_loss_rate: float = 0.0
    pause_rate: float = 0.0
    partition_rate: float = 0.0
    clog_rate: float = 0.0
    selective_rate: float = 0.0
    disk_hang_rate: float = 0.0
    control_stall_rate: float = 0.0
    transfer_rate: float = 0.0
    leader_bias: float = 0.5
    rot: float = 0.0
    config: Config = field(default_factory=Config)

    def fault_rates(self) -> dict[str, float]:
        """Return the rate of every fault that a schedule draws from, by name."""
        return {
            "crash": self.crash_rate,
            "power_loss": self.power_loss_rate,
            "pause": self.pause_rate,
            "partition": self.partition_rate,
            "clog": self.clog_rate,
            "selective": self.selective_rate,
            "disk_hang": self.disk_hang_rate,
            "control_stall": self.control_stall_rate,
            "transfer": self.transfer_rate,
        }


def sometimes(rng: random.Random, probability: float, low: float, high: float) -> float:
    """Return 0 or, with ``probability``, a number drawn from ``low`` to ``high``."""
    on = rng.random() < probability
    value = rng.uniform(low, high)
    return value if on else 0.0


def draw_config(rng: random.Random) -> Config:
    """Draw limits from tiny to default, so that every one of them is reached in some seed."""
    heartbeat_ms = rng.choice([10, 20, 30])
    tiny = rng.random() < 0.5
    return Config(
        heartbeat_ms=heartbeat_ms,
        election_timeout_ms=heartbeat_ms * rng.randint(4, 8),
        backoff_ms_max=heartbeat_ms * rng.randint(4, 10),
        window_slots=rng.choice([1, 2, 3, 8, 64]) if tiny else 1024,
        window_bytes=rng.choice([64, 256, 4096]) if rng.random() < 0.3 else 1 << 20,
        batch_bytes_max=rng.choice([32, 64, 256]) if tiny else 4096,
        retained_bytes_max=rng.choice([1, 64, 512]) if rng.random() < 0.5 else 1 << 20,
        unchosen_bytes_max=rng.choice([128, 512, 4096]) if rng.random() < 0.2 else 1 << 20,
        promise_page_entries=rng.choice([1, 2, 3, 7, 1024]),
        priority=rng.choice([0, 0, 0, 5]),
    )


def draw_kind_loss(rng: random.Random) -> tuple[tuple[int, float], ...]:
    """Draw up to two frame kinds that are lost more often than the rest: logs grow unchosen, pages miss."""
    kinds = rng.sample(FRAGILE_KINDS, rng.choice([0, 0, 1, 2]))
    return tuple((kind, rng.uniform(0.2, 0.95)) for kind in kinds)


def draw(rng: random.Random, nodes: int | None = None) -> Parameters:
    """Draw the parameters of one seed."""
    size = rng.choice([1, 2, 3, 3, 3, 3, 3, 4, 5, 5])
    config = draw_config(rng)
    calm = rng.random() < 0.1
    trouble = 0.0 if calm else 1.0
    commands = rng.randint(20, 120)
    burst_max = rng.choice([1, 3, 10])
    safety_us = rng.randint(1_000_000, 3_000_000)
    gap_us = int(safety_us * (burst_max + 1) / 2 / commands * rng.uniform(0.1, 1.0))
    return Parameters(
        nodes=nodes or size,
        commands=commands,
        command_bytes_max=rng.choice([8, 24, 80]),
        burst_max=burst_max,
        propose_gap_us=gap_us,
        safety_us=safety_us,
        loss=trouble * sometimes(rng, 0.6, 0.0, 0.3),
        kind_loss=draw_kind_loss(rng) if trouble else (),
        duplicate=trouble * sometimes(rng, 0.6, 0.0, 0.5),
        delay_us=rng.choice([100, 1_000, 5_000, 20_000, 40_000]),
        reorder=rng.random() < 0.5,
        in_flight_survives=rng.random() < 0.5,
        sync_us=rng.choice([0, 100, 1_000, 5_000]),
        control_us=rng.choice([0, 200, 5_000, 20_000]),
        intent_drop=trouble * sometimes(rng, 0.3, 0.0, 0.2),
        intent_duplicate=trouble * sometimes(rng, 0.5, 0.0, 0.5),
        crash_rate=trouble * sometimes(rng, 0.6, 0.5, 6.0),
        power_loss_rate=trouble * sometimes(rng, 0.2, 0.3, 1.0),
        pause_rate=trouble * sometimes(rng, 0.5, 0.5, 6.0),
        partition_rate=trouble * sometimes(rng, 0.6, 0.5, 5.0),
        clog_rate=trouble * sometimes(rng, 0.3, 0.5, 4.0),
        selective_rate=trouble * sometimes(rng, 0.4, 0.5, 4.0),
        disk_hang_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        control_stall_rate=trouble * sometimes(rng, 0.3, 0.5, 3.0),
        transfer_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        leader_bias=rng.choice([0.3, 0.7, 1.0]),
        rot=trouble * sometimes(rng, 0.25, 0.2, 1.0),
        config=config,
    )
