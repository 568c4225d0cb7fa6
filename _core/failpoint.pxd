# Named places where a test may end the process, make an operation fail, or take time.
#
# A place in nogil code is one line, `status = failpoint(AT_...)`: 0, or the errno that the operation there is to
# return instead of doing anything. Places that cannot fail ignore it. While nothing is armed a place costs one load
# and one branch that is always predicted. The names, what they mean and which actions make sense: failpoint.pyx.
# Places in Python code are in the same list and are reached by name; paxos.failpoints is the face for people.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    FAMILY_COUNT = 12

cdef enum FailPoint:
    # the write-ahead log
    AT_WAL_APPEND_BEFORE
    AT_WAL_APPEND_AFTER
    AT_WAL_SYNC_BEFORE
    AT_WAL_SYNC_AFTER
    AT_WAL_MARK
    AT_WAL_CLOSE
    AT_WAL_READ
    AT_WAL_SCAN
    AT_WAL_TAIL_BEFORE
    AT_WAL_TAIL_WRITTEN
    AT_WAL_TAIL_AFTER
    # its segments
    AT_SEGMENT_BEGIN
    AT_SEGMENT_HEAD
    AT_SEGMENT_RENAME
    AT_SEGMENT_DIRECTORY
    AT_SEGMENT_BEGUN
    AT_SEGMENT_CREATE
    AT_SEGMENT_ALLOCATE
    AT_SEGMENT_ZEROS
    AT_SEGMENT_SYNC
    AT_SEGMENT_RESERVE
    AT_RECYCLE_BEFORE
    AT_RECYCLE_RENAME
    AT_RECYCLE_DIRECTORY
    # one pass of the reactor
    AT_PASS_FRAME_BEFORE
    AT_PASS_FRAME_AFTER
    AT_PASS_TICK
    AT_PASS_BATCH
    AT_PASS_SEND_NOW
    AT_PASS_SENT_NOW
    AT_PASS_DURABLE
    AT_PASS_ADVANCED
    AT_PASS_ANSWERED
    AT_PASS_PUBLISHED
    AT_PASS_SLEEP
    AT_CALLERS_WAKE
    AT_CONTROL_QUEUE
    AT_READ_TAKEN
    AT_READ_CONFIRMED
    # intents, as the reactor takes them
    AT_INTENT_CAMPAIGN
    AT_INTENT_LEAD
    AT_INTENT_SEND
    AT_INTENT_TRANSFER
    AT_INTENT_CONFIGURE
    # frames: as many places each as there are families, in the order of family_of()
    AT_SEND
    AT_RECEIVE = AT_SEND + FAMILY_COUNT
    # Python code
    AT_IDENTITY_WRITE = AT_RECEIVE + FAMILY_COUNT
    AT_IDENTITY_RENAME
    AT_IDENTITY_DIRECTORY
    AT_IDENTITY_COMPLETE
    AT_INCARNATION_BEFORE
    AT_INCARNATION_AFTER
    AT_CATALOGUE_OPEN
    AT_CATALOGUE_READ
    AT_CATALOGUE_COMMIT_BEFORE
    AT_CATALOGUE_COMMIT_AFTER
    AT_REPLAY_BEFORE
    AT_REPLAY_AFTER
    AT_LISTEN
    AT_CONTROL_FRAME
    AT_CONTROL_INTENTS
    AT_APPLY_TAKE
    AT_APPLY_BEFORE
    AT_APPLY_AFTER
    AT_APPLY_SETTLED
    AT_READ_SERVED
    AT_CLOSE_BEGIN
    AT_CLOSE_RELEASE
    POINT_COUNT

# How many places are armed, or watched, in this process. Written under the GIL, read without a lock.
cdef int armed_count

cdef inline int failpoint(int point) noexcept nogil:
    return failpoint_reached(point) if armed_count else 0

# The same for places that frames and intents pass, by their kind.
cdef inline int failpoint_send(uint8_t kind) noexcept nogil:
    return failpoint_frame(AT_SEND, kind) if armed_count else 0

cdef inline int failpoint_receive(uint8_t kind) noexcept nogil:
    return failpoint_frame(AT_RECEIVE, kind) if armed_count else 0

cdef inline int failpoint_intent(uint32_t kind) noexcept nogil:
    return failpoint_taken(kind) if armed_count else 0

# Count the hit and do what is armed there. Any thread; takes no GIL.
cdef int failpoint_reached(int point) noexcept nogil
cdef int failpoint_frame(int first, uint8_t kind) noexcept nogil
cdef int failpoint_taken(uint32_t intent) noexcept nogil
