"""The list of places, what is armed there, and what happens when one is reached."""

from cpython.bytes cimport PyBytes_AsString
from libc.errno cimport EIO, ENOSPC
from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset, strlen

from paxos._core.codec cimport (
    ACCEPT, ACCEPT_REF, ACCEPTED, CHOSEN, CHOSEN_GONE, DECIDE, FETCH, FETCH_CHOSEN, FETCHED, FORWARD, HELLO, NACK,
    OPEN, PING, PONG, PREPARE, PROMISE, READ_INDEX, READ_MARK, TRANSFER,
)
from paxos._core.intent cimport (
    INTENT_CAMPAIGN, INTENT_CONFIGURE, INTENT_LEAD, INTENT_SEND, INTENT_TRANSFER,
)
from paxos._core.segment cimport (
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)

import os

cdef extern from "<signal.h>" nogil:
    int kill(int pid, int signal)
    int SIGKILL

cdef extern from "<unistd.h>" nogil:
    int getpid()
    int usleep(unsigned int microseconds)
    ssize_t write(int fd, const void *data, size_t size)
    void _exit(int code)

cdef enum:
    ACTION_NONE = 0
    ACTION_COUNT = 1         # only count
    ACTION_PANIC = 2
    ACTION_ERROR = 3
    ACTION_SLEEP = 4
    SLICE_US = 5000          # a sleeper looks this often whether it was disarmed
    TEXT_BYTES = 160

cdef struct Arming:
    int action
    int error
    uint64_t sleep_us
    uint64_t first           # hits before this one pass
    uint64_t every           # of the rest every so many-th acts
    uint64_t limit           # acts so often at most; 0: no limit
    uint64_t chance          # of 1 << 32; a hit acts with this probability
    uint64_t luck            # state of its random numbers
    uint64_t hits            # since anything was armed
    uint64_t acted
    uint64_t changes         # of this arming; ends a sleep
    const char *name

cdef Arming armings[POINT_COUNT]
cdef pthread_mutex_t lock    # of everything in `armings`
pthread_mutex_init(&lock, NULL)
memset(armings, 0, sizeof(armings))
armed_count = 0

FAMILIES = (
    "heartbeat", "hello", "prepare", "promise", "stream", "accepted", "nack", "fetch", "catch_up", "forward", "transfer",
    "read",
)
ACTIONS = {"count": ACTION_COUNT, "panic": ACTION_PANIC, "error": ACTION_ERROR, "sleep": ACTION_SLEEP}

# Name, errno that the action `error` stands for (0: the place cannot fail), what the place is.
_PLACES = {
    AT_WAL_APPEND_BEFORE: ("wal.append.before", EIO, "records are about to be written to the log"),
    AT_WAL_APPEND_AFTER: ("wal.append.after", EIO, "records are written and not synced"),
    AT_WAL_SYNC_BEFORE: ("wal.sync.before", EIO, "the log is about to be synced"),
    AT_WAL_SYNC_AFTER: ("wal.sync.after", EIO, "the log is synced and nobody knows"),
    AT_WAL_MARK: ("wal.mark", EIO, "an idle log is about to write its mark"),
    AT_WAL_CLOSE: ("wal.close", EIO, "a clean end of the log is about to be written"),
    AT_WAL_READ: ("wal.read", EIO, "a value is about to be read back from the log"),
    AT_WAL_SCAN: ("wal.scan", EIO, "recovery is about to read a segment"),
    AT_WAL_TAIL_BEFORE: ("wal.tail.before", EIO, "recovery has read the log and is about to make its end durable"),
    AT_WAL_TAIL_WRITTEN: ("wal.tail.written", EIO, "the end of the log is written again or cut, and not synced"),
    AT_WAL_TAIL_AFTER: ("wal.tail.after", 0, "the end of the log is durable; appends may begin"),
    AT_SEGMENT_BEGIN: ("segment.begin", EIO, "the file of the next segment is there, its head is not written"),
    AT_SEGMENT_HEAD: ("segment.head", EIO, "the head of the next segment is written and not synced"),
    AT_SEGMENT_RENAME: ("segment.rename", EIO, "the head of the next segment is durable, its name is not"),
    AT_SEGMENT_DIRECTORY: ("segment.directory", EIO, "the next segment has its name, which is not durable"),
    AT_SEGMENT_BEGUN: ("segment.begun", 0, "the next segment is durable and about to be used"),
    AT_SEGMENT_CREATE: ("segment.create", ENOSPC, "a file for a later segment is about to be created"),
    AT_SEGMENT_ALLOCATE: ("segment.allocate", ENOSPC, "space for a later segment is about to be allocated"),
    AT_SEGMENT_ZEROS: ("segment.zeros", ENOSPC, "the next stretch of a later segment is about to be zero-filled"),
    AT_SEGMENT_SYNC: ("segment.sync", EIO, "a later segment is zero-filled and about to be synced"),
    AT_SEGMENT_RESERVE: ("segment.reserve", 0, "the disk is full; the reserve is about to be used up"),
    AT_RECYCLE_BEFORE: ("recycle.before", EIO, "segments are about to be given up"),
    AT_RECYCLE_RENAME: ("recycle.rename", EIO, "a segment that was given up is about to lose its name"),
    AT_RECYCLE_DIRECTORY: ("recycle.directory", EIO, "segments were given up; their names are not durably gone"),
    AT_PASS_FRAME_BEFORE: ("pass.frame.before", 0, "a frame is about to be stepped"),
    AT_PASS_FRAME_AFTER: ("pass.frame.after", 0, "a frame was stepped; its effects wait for the end of the pass"),
    AT_PASS_TICK: ("pass.tick", 0, "a deadline of the engine has come"),
    AT_PASS_BATCH: ("pass.batch", 0, "an own batch was sealed and is about to be offered"),
    AT_PASS_SEND_NOW: ("pass.send_now", 0, "what needs no sync (Accepts among it) is about to leave"),
    AT_PASS_SENT_NOW: ("pass.sent_now", 0, "Accepts have left and the own records are not written"),
    AT_PASS_DURABLE: ("pass.durable", 0, "the records are durable; the own vote does not count yet"),
    AT_PASS_ADVANCED: ("pass.advanced", 0, "the own vote counts; Promise, Accepted and Prepare have not left"),
    AT_PASS_ANSWERED: ("pass.answered", 0, "Promise, Accepted and Prepare have left; chosen slots are not handed on"),
    AT_PASS_PUBLISHED: ("pass.published", 0, "chosen slots are handed to whoever applies; Decide has not left"),
    AT_PASS_SLEEP: ("pass.sleep", 0, "the reactor is about to wait for something to do"),
    AT_CALLERS_WAKE: ("callers.wake", 0, "waiting callers and the apply thread are about to be woken"),
    AT_CONTROL_QUEUE: ("control.queue", 0, "a frame is about to be queued for the control thread"),
    AT_READ_TAKEN: ("read.taken", 0, "the reactor takes reads that have arrived; nobody was asked to confirm them"),
    AT_READ_CONFIRMED: ("read.confirmed", 0, "reads are confirmed and their readers do not know"),
    AT_INTENT_CAMPAIGN: ("intent.campaign", EIO, "the reactor takes the intent to campaign"),
    AT_INTENT_LEAD: ("intent.lead", EIO, "the reactor takes the intent to lead"),
    AT_INTENT_SEND: ("intent.send", EIO, "the reactor takes the intent to send a frame"),
    AT_INTENT_TRANSFER: ("intent.transfer", EIO, "the reactor takes the intent to hand leadership over"),
    AT_INTENT_CONFIGURE: ("intent.configure", EIO, "the reactor takes the intent to bind the members of a configuration"),
    AT_IDENTITY_WRITE: ("identity.write", EIO, "the identity is about to be written to a file beside its place"),
    AT_IDENTITY_RENAME: ("identity.rename", EIO, "the new identity is durable beside its place"),
    AT_IDENTITY_DIRECTORY: ("identity.directory", EIO, "the new identity is in its place, which is not durable"),
    AT_IDENTITY_COMPLETE: ("identity.complete", EIO, "the first log exists, which the identity does not say yet"),
    AT_INCARNATION_BEFORE: ("incarnation.before", EIO, "the new incarnation is about to be written"),
    AT_INCARNATION_AFTER: ("incarnation.after", 0, "the new incarnation is durable and nothing was sent"),
    AT_CATALOGUE_OPEN: ("catalogue.open", EIO, "the catalogue is about to be opened"),
    AT_CATALOGUE_READ: ("catalogue.read", EIO, "the catalogue is about to be read"),
    AT_CATALOGUE_COMMIT_BEFORE: ("catalogue.commit.before", EIO, "the catalogue is about to be written"),
    AT_CATALOGUE_COMMIT_AFTER: ("catalogue.commit.after", 0, "the catalogue was written"),
    AT_REPLAY_BEFORE: ("replay.before", 0, "the log is about to be replayed into the engine"),
    AT_REPLAY_AFTER: ("replay.after", 0, "the log was replayed"),
    AT_LISTEN: ("listen", EIO, "the node is about to listen on its address"),
    AT_CONTROL_FRAME: ("control.frame", 0, "the control thread takes a frame"),
    AT_CONTROL_INTENTS: ("control.intents", 0, "the control thread is about to post intents"),
    AT_APPLY_TAKE: ("apply.take", 0, "chosen slots were taken and are not noted in the chosen log"),
    AT_APPLY_BEFORE: ("apply.before", EIO, "a slot is about to be applied"),
    AT_APPLY_AFTER: ("apply.after", 0, "a slot was applied and its callers do not know"),
    AT_APPLY_SETTLED: ("apply.settled", 0, "the callers of a slot have their outcomes"),
    AT_READ_SERVED: ("read.served", 0, "a read is confirmed and applied up to its mark, and about to look at the state"),
    AT_CLOSE_BEGIN: ("close.begin", 0, "a node is about to close"),
    AT_CLOSE_RELEASE: ("close.release", 0, "a node has stopped and is about to close its files"),
}
for _i, _family in enumerate(FAMILIES):
    _PLACES[AT_SEND + _i] = f"send.{_family}", EIO, f"a frame of the family {_family} is about to be sent"
    _PLACES[AT_RECEIVE + _i] = f"receive.{_family}", EIO, f"a frame of the family {_family} has arrived"

_NUMBERS = {place[0]: number for number, place in _PLACES.items()}
_NAMES_KEPT = {number: place[0].encode() for number, place in _PLACES.items()}
for _i, _name in _NAMES_KEPT.items():
    armings[<int>_i].name = PyBytes_AsString(_name)


cdef void _announce(int point, uint64_t hit) noexcept nogil:
    cdef char text[TEXT_BYTES]
    snprintf(text, TEXT_BYTES, "paxos: failpoint %s, hit %llu: panic\n", armings[point].name, <unsigned long long>hit)
    write(2, text, strlen(text))


cdef uint64_t _draw(Arming *arming) noexcept nogil:
    """32 random bits (splitmix64)."""
    cdef uint64_t z
    arming.luck += <uint64_t>0x9E3779B97F4A7C15
    z = arming.luck
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return (z ^ (z >> 31)) >> 32


cdef bint _acts(Arming *arming) noexcept nogil:
    """Count a hit; tell whether it is one that acts."""
    arming.hits += 1
    if arming.action <= ACTION_COUNT or arming.hits < arming.first:
        return False
    if (arming.hits - arming.first) % arming.every or (arming.limit and arming.acted >= arming.limit):
        return False
    if _draw(arming) >= arming.chance:
        return False
    arming.acted += 1
    return True


cdef void _wait(Arming *arming, uint64_t left_us, uint64_t changes) noexcept nogil:
    """Sleep, until the place is disarmed or armed anew."""
    cdef uint64_t now_changes = changes
    while left_us and now_changes == changes:
        usleep(<unsigned int>min(left_us, <uint64_t>SLICE_US))
        left_us -= min(left_us, <uint64_t>SLICE_US)
        pthread_mutex_lock(&lock)
        now_changes = arming.changes
        pthread_mutex_unlock(&lock)


cdef int failpoint_reached(int point) noexcept nogil:
    cdef Arming *arming = &armings[point]
    cdef Arming now
    cdef bint acts
    pthread_mutex_lock(&lock)
    acts = _acts(arming)
    now = arming[0]
    pthread_mutex_unlock(&lock)
    if not acts:
        return 0
    if now.action == ACTION_PANIC:
        _announce(point, now.hits)
        kill(getpid(), SIGKILL)      # nothing is flushed, closed or told, as if somebody else had done it
        _exit(137)
    if now.action == ACTION_SLEEP:
        _wait(arming, now.sleep_us, now.changes)
        return 0
    return now.error


cdef int failpoint_frame(int first, uint8_t kind) noexcept nogil:
    cdef int family
    if kind == PING or kind == PONG:
        family = 0
    elif kind == HELLO:
        family = 1
    elif kind == PREPARE:
        family = 2
    elif kind == PROMISE:
        family = 3
    elif kind == OPEN or kind == ACCEPT or kind == ACCEPT_REF or kind == DECIDE:
        family = 4
    elif kind == ACCEPTED:
        family = 5
    elif kind == NACK:
        family = 6
    elif kind == FETCH or kind == FETCHED:
        family = 7
    elif kind == FETCH_CHOSEN or kind == CHOSEN or kind == CHOSEN_GONE:
        family = 8
    elif kind == FORWARD:
        family = 9
    elif kind == TRANSFER:
        family = 10
    elif kind == READ_INDEX or kind == READ_MARK:
        family = 11
    else:
        return 0
    return failpoint_reached(first + family)


cdef int failpoint_taken(uint32_t intent) noexcept nogil:
    if intent == INTENT_CAMPAIGN:
        return failpoint_reached(AT_INTENT_CAMPAIGN)
    if intent == INTENT_LEAD:
        return failpoint_reached(AT_INTENT_LEAD)
    if intent == INTENT_SEND:
        return failpoint_reached(AT_INTENT_SEND)
    if intent == INTENT_TRANSFER:
        return failpoint_reached(AT_INTENT_TRANSFER)
    if intent == INTENT_CONFIGURE:
        return failpoint_reached(AT_INTENT_CONFIGURE)
    return 0


def reach(name: str, error: type = OSError) -> None:
    """Reach a place in Python code. Does nothing while nothing is armed in this process.

    Raises:
        error: the action ``error`` is armed here: an ``OSError`` with its errno, or another exception with its text.
        KeyError: there is no such place, and something is armed.
    """
    cdef int point, status
    if not armed_count:
        return
    point = _NUMBERS[name]
    with nogil:
        status = failpoint_reached(point)
    if status:
        text = f"{os.strerror(status)} (failpoint {name})"
        raise error(status, text) if issubclass(error, OSError) else error(text)


def places() -> dict[str, tuple[int, str]]:
    """Return every place: its name, the errno that ``error`` stands for (0: it cannot fail), what it is."""
    return {_PLACES[number][0]: _PLACES[number][1:] for number in range(POINT_COUNT)}


def set_action(
    name: str, action: str, error: int, sleep_ms: int, first: int, every: int, limit: int, chance: float, seed: int
) -> None:
    """Arm one place; ``paxos.failpoints.arm`` has checked the arguments."""
    global armed_count
    cdef Arming *arming = &armings[<int>_NUMBERS[name]]
    cdef bint was_armed
    pthread_mutex_lock(&lock)
    was_armed = arming.action != ACTION_NONE
    arming.action = ACTIONS[action]
    arming.error = error
    arming.sleep_us = <uint64_t>sleep_ms * 1000
    arming.first = first
    arming.every = every
    arming.limit = limit
    arming.chance = <uint64_t>(chance * 4294967296.0)
    arming.luck = seed
    arming.hits = arming.acted = 0
    arming.changes += 1
    pthread_mutex_unlock(&lock)
    armed_count += not was_armed


def clear_action(name: str) -> None:
    """Disarm one place; who sleeps there goes on. Its hits stay readable until it is armed again."""
    global armed_count
    cdef Arming *arming = &armings[<int>_NUMBERS[name]]
    cdef bint was_armed
    pthread_mutex_lock(&lock)
    was_armed = arming.action != ACTION_NONE
    arming.action = ACTION_NONE
    arming.changes += 1
    pthread_mutex_unlock(&lock)
    armed_count -= was_armed


def counts() -> dict[str, tuple[int, int]]:
    """Return for every place how often it was reached while anything was armed, and how often it acted."""
    return {name: (armings[<int>number].hits, armings[<int>number].acted) for name, number in _NUMBERS.items()}


def is_armed(name: str) -> bool:
    """Tell whether something is armed at this place."""
    return armings[<int>_NUMBERS[name]].action != ACTION_NONE
