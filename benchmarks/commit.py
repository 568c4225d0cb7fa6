"""Commit latency and throughput of three processes, each face beside the floor of the same run."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.cluster import REPLICAS, Cluster
from benchmarks.faces import Sample
from benchmarks.floor import Floor, FloorProbe, describe
from benchmarks.results import Row, filesystem_of, percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one row measures."""

    name: str
    face: str
    command_bytes: int
    outstanding: int
    """0: an open loop, which limits nothing."""
    at: str = "leader"
    share: float = 1.0
    """Of the seconds of a slice: throughput needs longer ones than latency."""

    @property
    def title(self) -> str:
        """The face, and where the client is if that is not the leader."""
        return self.face if self.at == "leader" else f"{self.face} (at a {self.at})"


CASES = (
    Case(name="propose", face="propose", command_bytes=256, outstanding=1),
    Case(name="propose-thread", face="propose (in a thread)", command_bytes=256, outstanding=1),
    Case(name="submit-result", face="submit().result()", command_bytes=256, outstanding=1),
    Case(name="await", face="await propose", command_bytes=256, outstanding=1),
    Case(name="propose-follower", face="propose", command_bytes=256, outstanding=1, at="follower"),
    Case(name="open-1000", face="submit at 1,000/s", command_bytes=256, outstanding=0),
    Case(name="submit", face="submit", command_bytes=16, outstanding=1024),
    Case(name="await-many", face="await propose", command_bytes=16, outstanding=1024),
    Case(name="submit-many", face="submit_many", command_bytes=16, outstanding=64_000, share=2.0),
)
LARGE_CASES = (
    Case(name="submit-many-256", face="submit_many", command_bytes=256, outstanding=64_000),
    Case(name="submit-4k", face="submit", command_bytes=4096, outstanding=1024),
    Case(name="submit-64k", face="submit", command_bytes=65536, outstanding=128),
)


@dataclass(slots=True)
class Collected:
    """The slices of one case."""

    latencies_ns: array[int] = field(default_factory=lambda: array("Q"))
    commands: int = 0
    seconds: float = 0.0
    rates: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Add one slice."""
        self.latencies_ns.extend(sample.latencies_ns)
        self.commands += sample.commands
        self.seconds += sample.seconds
        self.rates.append(sample.commands / sample.seconds)


class CommitBenchmark:
    """Runs the cases in rotation, so that what happens to the machine meanwhile happens to all of them.

    Args:
        directory: on the disk that is to be measured; data and the floor's files go there.
        cases: what to measure.
        rounds: slices of every case.
        seconds: length of a slice.
        floor_count: syncs and round trips in one slice of the floor.
        apply: ``batch``: apply_batch looks at every command; ``command``: one ``apply`` call and result each.
    """

    def __init__(
        self,
        directory: Path,
        cases: tuple[Case, ...],
        *,
        rounds: int,
        seconds: float,
        floor_count: int,
        apply: str,
        console: Console,
    ) -> None:
        self._directory = directory
        self._cases = cases
        self._rounds = rounds
        self._seconds = seconds
        self._floor_count = floor_count
        self._apply = apply
        self._console = console
        self._collected = {case.name: Collected() for case in cases}
        self.notes: list[str] = []

    def run(self) -> list[Row]:
        """Measure; return one row for each case."""
        with FloorProbe(self._directory) as probe, Cluster(self._directory, apply=self._apply) as cluster:
            first_ballot = cluster.statuses()[cluster.leader()]["ballot"]
            for number in range(self._rounds):
                probe.slice(self._floor_count)
                turn = number % len(self._cases)
                for case in self._cases[turn:] + self._cases[:turn]:
                    self._run_slice(cluster, case)
            probe.slice(self._floor_count)
            last = cluster.wait_equal()
            if last["ballot"] != first_ballot:
                self.notes.append(
                    "the leader changed while this was measured: repeat it on a quieter machine"
                )
            self.notes.append(f"all three replicas have applied the same {last['last_index']:,} commands")
        self._describe(probe.floor)
        return [self._row(case, probe.floor) for case in self._cases]

    def _run_slice(self, cluster: Cluster, case: Case) -> None:
        leader = cluster.leader()
        at = leader if case.at == "leader" else next(node for node in cluster.nodes if node != leader)
        sample = cluster.nodes[at].ask(
            "run",
            face=case.face,
            command_bytes=case.command_bytes,
            outstanding=case.outstanding,
            seconds=self._seconds * case.share,
        )
        self._collected[case.name].add(sample)
        cluster.wait_equal(digests=False)  # what one case leaves behind is not the next one's to carry

    def _describe(self, floor: Floor) -> None:
        self.notes.append(f"floor {floor.total_us:.0f} µs = one fdatasync + one round trip, p50 of each:")
        self.notes.append(f"  fdatasync, three writers    {describe(floor.fdatasync_slices_us)}")
        self.notes.append(f"  ZeroMQ tcp round trip       {describe(floor.rtt_slices_us)}")
        self.notes.append(f"  commit without a protocol   {describe(floor.bare_slices_us)}")
        # Far above 1: the round trip was taken on one CPU, or others use the machine. The ratios say less then.
        self.notes.append(
            f"  which is {floor.bare_us / floor.total_us:.2f} x the floor on this machine, at this load"
        )
        for case in self._cases:
            rates = self._collected[case.name].rates
            if case.outstanding > 1 and len(rates) > 1:
                self.notes.append(
                    f"  {case.title}, {case.command_bytes} B: {min(rates):,.0f} to {max(rates):,.0f} commands/s"
                )

    def _row(self, case: Case, floor: Floor) -> Row:
        got = self._collected[case.name]
        return Row(
            name=case.name,
            face=case.title,
            command_bytes=case.command_bytes,
            outstanding=case.outstanding,
            replicas=REPLICAS,
            durability=f"fdatasync before every answer, on each replica ({filesystem_of(self._directory)})",
            loop="closed" if case.outstanding else "open",
            count=got.commands,
            seconds=round(got.seconds, 3),
            ops_per_s=round(got.commands / got.seconds, 1),
            floor=dict(floor.as_json()),
            **percentiles(got.latencies_ns),
        )
