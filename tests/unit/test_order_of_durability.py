"""What is durable, and what may be said of it: claims of a log (D4) and marks ahead of values (D6)."""

from __future__ import annotations

from pathlib import Path

from tests.unit import wal_kit as kit
from tests.unit.engine_kit import Cluster, Node


def claims(directory: Path) -> dict[int, int]:
    """Return slot to the position up to which its record says that the log was synced before it."""
    [segment] = kit.segments(directory)
    data = segment.read_bytes()
    found, offset = {}, kit.SEGMENT_HEAD_BYTES
    while head := kit.head_of(data, offset):
        if not head["position"]:
            break
        if head["slot"]:
            found[head["slot"]] = head["synced"]
        offset += kit.record_bytes(head["length"])
    return found


def test_d4_a_record_claims_only_what_a_finished_sync_covered(tmp_path: Path) -> None:
    """Appended is not synced: a sync counts for what was appended before it began, and for nothing else."""
    with kit.open_log(tmp_path, create=True) as wal:
        [first] = wal.append([kit.accept(1)])
        begin = first
        wal.append([kit.accept(2)])
        wal.append([kit.accept(3)])
        wal.sync()
        [fourth] = wal.append([kit.accept(4)])
        wal.append([kit.accept(5)])
        wal.sync()
        [sixth] = wal.append([kit.accept(6)])
        seen = claims(tmp_path)
    # A claim is the end of what was synced, which is where the next record began.
    assert seen == {1: begin, 2: begin, 3: begin, 4: fourth, 5: fourth, 6: sixth}


def test_d4_an_engine_tells_after_a_sync_what_was_written_before_it() -> None:
    """Records that advance() makes belong to the next sync: nothing speaks for them yet."""
    cluster = Cluster(3)
    leader = cluster[cluster.lead()]
    leader.propose(b"a")
    assert [record.slot for record in leader.engine.effects.records] == [leader.next_slot - 1]
    before = leader.engine.glance()["durable_upto"]
    assert before < leader.next_slot - 1
    leader.carry_out(cluster.now_us)
    assert leader.engine.glance()["durable_upto"] == leader.next_slot - 1


def test_d6_a_node_starts_from_every_prefix_of_its_log() -> None:
    """A mark follows what it covers in the same log, so no crash leaves a mark without its values."""
    cluster = Cluster(3)
    leader = cluster.lead()
    for turn in range(6):
        cluster[turn % 3 + 1].propose(b"command %d" % turn)
        cluster.run(15)
    cluster.crash(leader)
    second = cluster.lead()
    cluster[second].propose(b"after")
    cluster.settle(b"after")
    for node in cluster.nodes.values():
        promised = chosen = 0
        for end in range(len(node.disk) + 1):
            again = Node(node.id, node.member_ids, node.config)
            again.disk = node.disk[:end]
            again.start()
            assert not again.engine.fault_code, again.engine.fault_text
            assert again.chosen_upto >= chosen and again.promised >= promised  # I5, I6
            chosen, promised = again.chosen_upto, again.promised
            held = {record.slot for record in again.disk if record.value is not None or record.slot}
            assert set(range(1, chosen + 1)) <= held
        assert chosen >= node.chosen_upto - 1
