"""The rule by which the demonstration's client appends each line once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paxos.cli.appending import Reading, attach_command, digest_of, line_command


def read(commands: list[bytes]) -> Reading:
    reading = Reading()
    reading.read(commands)
    return reading


@given(st.lists(st.binary(max_size=20).filter(lambda text: b"\n" not in text), max_size=20))
def test_lines_of_any_bytes_are_read_as_they_were(lines: list[bytes]) -> None:
    commands = [attach_command(1)] + [line_command(1, n, text) for n, text in enumerate(lines, start=1)]
    reading = read(commands)
    assert (reading.lines, reading.void) == (len(lines), 0)
    assert reading.text.hexdigest() == digest_of(lines)


def test_a_late_copy_of_an_earlier_attachment_is_void() -> None:
    late = line_command(1, 2, b"b")
    reading = read(
        [attach_command(1), line_command(1, 1, b"a"), attach_command(2), late, line_command(2, 2, b"b"), late]
    )
    assert (reading.lines, reading.void) == (2, 2)
    assert reading.text.hexdigest() == digest_of([b"a", b"b"])


def test_a_line_behind_a_refused_one_is_void_until_sent_again() -> None:
    commands = [attach_command(1), line_command(1, 2, b"b"), attach_command(2)]
    commands += [line_command(2, 1, b"a"), line_command(2, 2, b"b")]
    reading = read(commands)
    assert (reading.lines, reading.void) == (2, 1)


@given(st.data())
def test_whatever_a_crash_loses_or_repeats_the_reading_is_the_file(data: st.DataObject) -> None:
    lines = [b"line %d" % n for n in range(1, data.draw(st.integers(1, 12)) + 1)]
    log: list[bytes] = []
    stale: list[bytes] = []
    attachment = 0
    while read(log).lines < len(lines):
        attachment += 1
        log.append(attach_command(attachment))
        log += data.draw(st.lists(st.sampled_from(stale), max_size=3)) if stale else []
        done = read(log).lines
        sent = [line_command(attachment, n, lines[n - 1]) for n in range(done + 1, len(lines) + 1)]
        kept = data.draw(st.integers(0 if attachment < 5 else len(sent), len(sent)))
        log += sent[:kept]
        stale += sent[kept:]
    reading = read(log + stale)
    assert reading.text.hexdigest() == digest_of(lines)
