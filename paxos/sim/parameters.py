"""Everything that varies from seed to seed (swarm testing: each seed turns some faults off and others up)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from paxos._core.codec import FrameKind
from paxos.types import Config

DRIFT_PPM = 500
"""A rate that a bad crystal may have; some seeds draw ten times as much."""

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
        FrameKind.READ_INDEX,
        FrameKind.READ_MARK,
    )
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """One cluster and the bad luck that it meets. Rates are events per second of virtual time.

    ``rot``, ``flipped_header``, ``lost_write``, ``misdirected_write`` and ``wipe`` are the probabilities that a
    node of a fixed minority starts from a disk with that damage. ``drift_ppm`` bounds the rates of the clocks;
    ``slow_disks`` are factors on ``sync_us`` and ``configs`` other limits, for the nodes from 1 on.
    ``compaction`` is the probability that the records below a trim are dropped; without ``snapshots`` a node gets
    none from its peers.
    """

    nodes: int = 3
    commands: int = 60
    command_bytes_max: int = 24
    burst_max: int = 3
    reads_max: int = 0
    propose_gap_us: int = 20_000
    safety_us: int = 2_000_000
    loss: float = 0.0
    kind_loss: tuple[tuple[int, float], ...] = ()
    duplicate: float = 0.0
    delay_us: int = 1_000
    reorder: bool = False
    in_flight_survives: bool = True
    sync_us: int = 300
    slow_disks: tuple[int, ...] = ()
    segment_records: int = 0
    drift_ppm: int = 0
    control_us: int = 200
    intent_drop: float = 0.0
    intent_duplicate: float = 0.0
    crash_rate: float = 0.0
    victim_crash_rate: float = 0.0
    power_loss_rate: float = 0.0
    pause_rate: float = 0.0
    partition_rate: float = 0.0
    clog_rate: float = 0.0
    swizzle_rate: float = 0.0
    selective_rate: float = 0.0
    disk_hang_rate: float = 0.0
    disk_error_rate: float = 0.0
    disk_full_rate: float = 0.0
    suspend_rate: float = 0.0
    control_stall_rate: float = 0.0
    transfer_rate: float = 0.0
    leader_bias: float = 0.5
    slow_start: float = 0.0
    rot: float = 0.0
    flipped_header: float = 0.0
    lost_write: float = 0.0
    misdirected_write: float = 0.0
    wipe: float = 0.0
    trim_rate: float = 0.0
    compaction: float = 1.0
    snapshots: bool = True
    config: Config = field(default_factory=Config)
    configs: tuple[Config, ...] = ()

    def config_of(self, node: int) -> Config:
        """Return the limits of ``node``."""
        return self.configs[node - 1] if self.configs else self.config

    def sync_us_of(self, node: int) -> int:
        """Return how long the disk of ``node`` takes for a sync, on average."""
        return self.sync_us * (self.slow_disks[node - 1] if self.slow_disks else 1)

    def fault_rates(self) -> dict[str, float]:
        """Return the rate of every fault that a schedule draws from, by name."""
        return {
            "crash": self.crash_rate,
            "victim_crash": self.victim_crash_rate,
            "power_loss": self.power_loss_rate,
            "pause": self.pause_rate,
            "partition": self.partition_rate,
            "clog": self.clog_rate,
            "swizzle": self.swizzle_rate,
            "selective": self.selective_rate,
            "disk_hang": self.disk_hang_rate,
            "disk_error": self.disk_error_rate,
            "disk_full": self.disk_full_rate,
            "suspend": self.suspend_rate,
            "control_stall": self.control_stall_rate,
            "transfer": self.transfer_rate,
            "trim": self.trim_rate,
        }


def sometimes(rng: random.Random, probability: float, low: float, high: float) -> float:
    """Return 0 or, with ``probability``, a number drawn from ``low`` to ``high``."""
    on = rng.random() < probability
    value = rng.uniform(low, high)
    return value if on else 0.0


def draw_periods(rng: random.Random) -> Config:
    """Draw the periods of a cluster."""
    heartbeat_ms = rng.choice([10, 20, 30])
    return Config(
        heartbeat_ms=heartbeat_ms,
        election_timeout_ms=heartbeat_ms * rng.randint(4, 8),
        backoff_ms_max=heartbeat_ms * rng.randint(4, 10),
        idle_mark_ms=rng.choice([5, 50]),
    )


def draw_limits(rng: random.Random, periods: Config) -> Config:
    """Draw limits from tiny to default, so that every one of them is reached in some seed."""
    tiny = rng.random() < 0.5
    return replace(
        periods,
        window_slots=rng.choice([1, 2, 3, 8, 64]) if tiny else 1024,
        window_bytes=rng.choice([64, 256, 4096]) if rng.random() < 0.3 else 1 << 20,
        batch_bytes_max=rng.choice([32, 64, 256]) if tiny else 4096,
        retained_bytes_max=rng.choice([1, 64, 512]) if rng.random() < 0.5 else 1 << 20,
        unchosen_bytes_max=rng.choice([128, 512, 4096]) if rng.random() < 0.2 else 1 << 20,
        promise_page_entries=rng.choice([1, 2, 3, 7, 1024]),
        priority=rng.choice([0, 0, 0, 5]),
    )


def draw_configs(rng: random.Random, size: int) -> tuple[Config, ...]:
    """Draw the limits of all nodes: the same ones, other priorities, or other limits altogether."""
    periods = draw_periods(rng)
    mode = rng.choice(["same", "priorities", "mixed"])
    if mode == "mixed":
        return tuple(draw_limits(rng, periods) for _ in range(size))
    config = draw_limits(rng, periods)
    if mode == "same":
        return (config,) * size
    return tuple(replace(config, priority=rng.choice([0, 1, 100, 255])) for _ in range(size))


def draw_slow_disks(rng: random.Random, size: int) -> tuple[int, ...]:
    """Draw factors for the disks: mostly none is slow, now and then some, or all."""
    if rng.random() < 0.7:
        return ()
    factor = rng.choice([3, 10])
    return tuple(rng.choice([1, 1, factor]) for _ in range(size))


def draw_kind_loss(rng: random.Random) -> tuple[tuple[int, float], ...]:
    """Draw up to two frame kinds that are lost more often than the rest: logs grow unchosen, pages miss."""
    kinds = rng.sample(FRAGILE_KINDS, rng.choice([0, 0, 1, 2]))
    return tuple((kind, rng.uniform(0.2, 0.95)) for kind in kinds)


def draw(rng: random.Random, nodes: int | None = None) -> Parameters:
    """Draw the parameters of one seed."""
    size = rng.choice([1, 2, 3, 3, 3, 3, 3, 4, 5, 5])
    size = nodes or size
    configs = draw_configs(rng, size)
    calm = rng.random() < 0.1
    trouble = 0.0 if calm else 1.0
    damaged = trouble * (rng.random() < 0.5)
    crash_rate = trouble * sometimes(rng, 0.6, 0.3, 2.5)
    victim_crash_rate = damaged * sometimes(rng, 0.7, 0.5, 2.0)
    commands = rng.randint(20, 120)
    burst_max = rng.choice([1, 3, 10])
    safety_us = rng.randint(1_000_000, 3_000_000)
    gap_us = int(safety_us * (burst_max + 1) / 2 / commands * rng.uniform(0.1, 1.0))
    return Parameters(
        nodes=size,
        commands=commands,
        command_bytes_max=rng.choice([8, 24, 80]),
        burst_max=burst_max,
        reads_max=rng.choice([0, 1, 3]),
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
        slow_disks=draw_slow_disks(rng, size),
        segment_records=rng.choice([0, 0, 1, 4, 20]),
        drift_ppm=rng.choice([0, 0, DRIFT_PPM, 10 * DRIFT_PPM]),
        crash_rate=crash_rate,
        victim_crash_rate=victim_crash_rate,
        power_loss_rate=trouble * sometimes(rng, 0.2, 0.3, 1.0),
        pause_rate=(crash_rate + victim_crash_rate) * rng.uniform(5.0, 7.0)
        or trouble * sometimes(rng, 0.4, 0.5, 8.0),
        partition_rate=trouble * sometimes(rng, 0.6, 0.5, 5.0),
        clog_rate=trouble * sometimes(rng, 0.3, 0.5, 4.0),
        swizzle_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        selective_rate=trouble * sometimes(rng, 0.4, 0.5, 4.0),
        disk_hang_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        disk_error_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        disk_full_rate=trouble * sometimes(rng, 0.25, 0.3, 2.0),
        suspend_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        control_stall_rate=trouble * sometimes(rng, 0.3, 0.5, 3.0),
        transfer_rate=trouble * sometimes(rng, 0.3, 0.3, 2.0),
        leader_bias=rng.choice([0.3, 0.7, 1.0]),
        slow_start=trouble * sometimes(rng, 0.3, 0.1, 0.5),
        rot=damaged * sometimes(rng, 0.5, 0.2, 1.0),
        flipped_header=damaged * sometimes(rng, 0.25, 0.1, 0.5),
        lost_write=damaged * sometimes(rng, 0.25, 0.1, 0.5),
        misdirected_write=damaged * sometimes(rng, 0.25, 0.1, 0.5),
        wipe=damaged * sometimes(rng, 0.3, 0.05, 0.3),
        trim_rate=trouble * sometimes(rng, 0.4, 0.5, 10.0),
        compaction=rng.choice([0.0, 0.5, 1.0]),
        config=configs[0],
        configs=configs,
    )
