"""What a run of many seeds must have seen at least once; a run that missed something proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from paxos.sim.run import Result

FRAMES = (
    "HELLO",
    "PING",
    "PONG",
    "PREPARE",
    "PROMISE",
    "OPEN",
    "ACCEPT",
    "ACCEPTED",
    "DECIDE",
    "NACK",
    "FORWARD",
    "FETCH",
    "FETCHED",
    "FETCH_CHOSEN",
    "CHOSEN",
    "CHOSEN_GONE",
    "READ_INDEX",
    "READ_MARK",
)
"""Frame kinds that some node must have received."""

EVENTS = (
    "leader_change",
    "read_at_leader",
    "read_at_follower",
    "read_lost",
    "noop_below_older_votes",
    "chosen_value_served",
    "promise_in_pages",
    "batch_not_applied_again",
    "crash",
    "crash_lost_records",
    "crash_torn_group",
    "crash_after_append",
    "crash_after_sync",
    "crash_torn_record",
    "restart",
    "slow_start",
    "rotten_values",
    "flipped_header",
    "lost_write",
    "misdirected_write",
    "quarantine",
    "quarantined_node_learned",
    "wiped_directory",
    "foreign_frame_refused",
    "idle_mark",
    "new_segment",
    "power_loss",
    "pause",
    "suspend",
    "clog",
    "swizzle",
    "selective",
    "disk_hang",
    "disk_error",
    "disk_full",
    "disk_full_waits",
    "control_stall",
    "transfer",
    "trim",
    "compacted_records",
    "snapshot_fetched",
    "partition_halves",
    "partition_isolate_one",
    "partition_bridge",
    "partition_majorities_ring",
    "partition_one_way",
    "partition_random_links",
    "heal_link_by_link",
    "intent_campaign",
    "intent_lead",
    "intent_dropped",
    "intent_duplicated",
    "core_is_majority",
    "core_is_all",
)
"""Things that must have happened."""


LIVENESS_EVENTS = ("core_is_majority", "core_is_all", "quarantined_node_learned")
"""Those of them that only the liveness phase brings about."""


class Coverage:
    """Adds up the results of many seeds."""

    def __init__(self) -> None:
        self.seeds = 0
        self.steps = 0
        self.commands = 0
        self.core_timeouts: list[float] = []
        self.sent: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.duplicated: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    def add(self, results: Iterable[Result]) -> None:
        """Count some seeds."""
        for result in results:
            self.seeds += 1
            self.steps += result.steps
            self.commands += result.commands
            self.core_timeouts.extend(us / result.election_timeout_us for us in result.core_us)
            self.sent += result.sent
            self.delivered += result.delivered
            self.dropped += result.dropped
            self.duplicated += result.duplicated
            self.events += result.events

    def progress(self) -> str:
        """Say how long cores took until fresh commands were committed, in election timeouts."""
        times = sorted(self.core_timeouts)
        if not times:
            return "no core was asked for progress"
        median, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        return (
            f"{len(times)} cores made progress after {median:.1f} election timeouts (median), "
            f"{p99:.1f} (p99), {times[-1]:.1f} (maximum)"
        )

    def missing(self, *, safety_only: bool = False) -> list[str]:
        """Return what was never seen; not empty means that the run is void."""
        wanted = [name for name in EVENTS if not (safety_only and name in LIVENESS_EVENTS)]
        frames = [f"frame {name}" for name in FRAMES if not self.delivered[name]]
        return frames + [f"event {name}" for name in wanted if not self.events[name]]

    def table(self) -> list[str]:
        """Return the summary as lines of text."""
        lines = [f"{'frame':<14}{'sent':>10}{'delivered':>11}{'dropped':>10}{'duplicated':>12}"]
        for name in sorted(self.sent):
            lines.append(
                f"{name:<14}{self.sent[name]:>10}{self.delivered[name]:>11}{self.dropped[name]:>10}"
                f"{self.duplicated[name]:>12}"
            )
        lines.append("")
        lines.extend(f"{name:<32}{count:>10}" for name, count in sorted(self.events.items()))
        return lines
