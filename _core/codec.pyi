from enum import IntEnum
from typing import Any

from typing_extensions import Buffer

class FetchStatus(IntEnum):
    FETCH_OK = 0
    FETCH_TRIMMED = 1
    FETCH_DAMAGED = 2
    FETCH_REPLACED = 3

class FrameKind(IntEnum):
    HELLO = 1
    PING = 2
    PONG = 3
    PREPARE = 4
    PROMISE = 5
    OPEN = 6
    ACCEPT = 7
    ACCEPT_REF = 8
    ACCEPTED = 9
    DECIDE = 10
    NACK = 11
    FORWARD = 12
    FETCH = 13
    FETCHED = 14
    FETCH_CHOSEN = 15
    CHOSEN = 16
    CHOSEN_GONE = 17
    TRANSFER = 18
    RESULT = 19
    READ_INDEX = 20
    READ_MARK = 21
    SNAPSHOT_OFFER = 22
    SNAPSHOT_CHUNK = 23
    MEMBER_CHANGE = 24
    REFUSE = 25
    ROUND_CLOSED = 64
    STOPPED_LEADING = 65

class HelloFlag(IntEnum):
    HELLO_ANSWER_WANTED = 1
    HELLO_QUARANTINED = 2

class RefuseReason(IntEnum):
    REFUSE_STORAGE = 1
    REFUSE_ROLLED_BACK = 2
    REFUSE_DUPLICATE = 3

class NackReason(IntEnum):
    NACK_PROMISED = 1
    NACK_HAPPY = 2
    NACK_REMOVED = 3
    NACK_GAP = 4
    NACK_STREAM = 5

class PingFlag(IntEnum):
    PING_LEADS = 1

class PongFlag(IntEnum):
    PONG_LEADS = 1
    PONG_CONNECTED = 2
    PONG_HAPPY = 4
    PONG_VOTES = 8

class PromiseFlag(IntEnum):
    ENTRY_DAMAGED = 1

class RoundFlag(IntEnum):
    ROUND_LEADS = 1
    ROUND_CONNECTED = 2
    ROUND_HAPPY = 4
    ROUND_VOTES = 8
    ROUND_CANDIDATE = 16
    ROUND_LAGGING = 32
    ROUND_ALL_HEARD = 64

class ValueKind(IntEnum):
    NOOP = 1
    BATCH = 2
    CONFIGURATION = 3

def encode_frame(
    kind: int,
    *,
    sender: int,
    receiver: int,
    cluster: int = 0,
    incarnation: int = 0,
    group: int = 0,
    detail: int = 0,
    ballot: int = 0,
    slot: int = 0,
    mark: int = 0,
    payload: bytes = b"",
) -> bytes: ...
def decode_frame(frame: Buffer) -> dict[str, Any]: ...
def encode_batch(commands: list[bytes], *, origin: int, incarnation: int, first_ticket: int) -> bytes: ...
def decode_batch(value: Buffer) -> tuple[int, int, int, list[bytes]]: ...
