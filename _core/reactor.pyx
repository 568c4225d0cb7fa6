"""The reactor: the one native thread of a node, and the order in which its effects happen."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport ENOSPC
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memset, strerror

from paxos._core.ballot cimport NODE_ID_MAX
from paxos._core.buffer cimport Buffer, buffer_release
from paxos._core.codec cimport FrameHeader
from paxos._core.pipeline cimport FAULT_DISK, FAULT_MEMORY
from paxos._core.failpoint cimport (
    AT_PASS_ADVANCED, AT_PASS_ANSWERED, AT_PASS_BATCH, AT_PASS_DURABLE, AT_PASS_FRAME_AFTER, AT_PASS_FRAME_BEFORE,
    AT_PASS_PUBLISHED, AT_PASS_SEND_NOW, AT_PASS_SENT_NOW, AT_PASS_SLEEP, AT_PASS_TICK, failpoint, failpoint_intent,
    failpoint_receive, failpoint_send,
)
from paxos._core.intent cimport Intent, intent_free, intent_from_python
from paxos._core.links cimport RECEIVED_DEAD, RECEIVED_FRAME, RECEIVED_GARBAGE, RECEIVED_NOTHING, Received
from paxos._core.native_thread cimport pthread_join, start_native_thread
from paxos._core.wakeup cimport (
    SIGNAL_CHECK_US, WAKE_ALL, clock_us, gate_enter, gate_leave, gate_sleep, gate_wake, load32, load64, store32,
    timeout_to_us,
)

import os

from paxos._core import codec
from paxos.errors import ConfigError

cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef void *reactor_main(void *reactor) noexcept nogil:
    (<Reactor>reactor).run()
    return NULL


@cython.final
cdef class Reactor:
    """Drive one node: sockets, log, engine and the queues to the Python threads.

    Args:
        engine: recovered already. From ``start()`` on only the reactor touches it, until ``stop()``.
        wal: scanned already.
        batcher: own commands.
        links: all peers connected already.
        spin_us: the leader polls this long for an answer, while a slot is unchosen, before it sleeps; 0: never.
        unapplied_bytes_max: chosen values kept in memory until they are applied; while more is unapplied no
            further own commands are proposed.

    Guarantee: the order of effects in ``_core/effects.pxd``. After a failed append or sync nothing is ever
    sent again.
    """

    def __cinit__(
        self,
        EngineCore engine not None,
        Wal wal not None,
        Batcher batcher not None,
        Links links not None,
        *,
        unsigned int spin_us = 300,
        size_t unapplied_bytes_max = 64 << 20,
    ):
        self.engine = engine
        self.wal = wal
        self.batcher = batcher
        self.links = links
        self.waker = batcher.waker
        self.mailbox = Mailbox()
        self.cold = ColdQueue()
        self.reads = ReadDesk(self.waker)
        self.chosen = ChosenQueue(self.waker, wal, batcher.origin, batcher.incarnation, unapplied_bytes_max)
        self.spin_us = spin_us
        self.pid = os.getpid()
        memset(&self.totals, 0, sizeof(Totals))

    # -- the native thread ------------------------------------------------------------------------------

    cdef void run(self) noexcept nogil:
        cdef uint64_t now_us
        self.worked_us = clock_us()
        while not load32(&self.stop_requested) and not self.fault_code:
            now_us = clock_us()
            self.totals.passes += 1
            self._mark_log(now_us)
            self.chosen.check_grace(now_us)
            if self._gather(now_us) or self.engine.ready.records.count:
                self.totals.gather_us_max = max(self.totals.gather_us_max, clock_us() - now_us)
                self._carry_out(now_us)
                self.worked_us = clock_us()
                self.totals.pass_us_max = max(self.totals.pass_us_max, self.worked_us - now_us)
                if self.spun_us:    # what was waited for came in time
                    self.spun_us = 0
                    self.spin_penalty //= 2
            elif not self._spin(now_us):
                self._sleep(now_us)
        self.wal.note_chosen(self.engine.learner.chosen_upto)
        self.batcher.refuse()
        self.cold.close()
        self.reads.close()
        self.chosen.close()
        store32(&self.state, THREAD_EXITED)
        gate_wake(&self.exit_gate, WAKE_ALL)

    cdef bint _gather(self, uint64_t now_us) noexcept nogil:
        """Step everything that has arrived; True if the engine may have effects to carry out."""
        cdef bint worked = False
        if self.disk_is_full:
            return True     # the effects of the last pass come first
        self.engine.is_disk_low = self.wal.pool.space_low
        worked |= self._read_mail()
        worked |= self._read_frames(now_us)
        if now_us >= self.engine.next_deadline_us():
            self.totals.ticks += 1
            failpoint(AT_PASS_TICK)
            self.engine.on_tick(now_us)
            worked = True
        worked |= self._take_batches()
        if self.reads.has_news():
            self.engine.on_read(self.reads.take(), now_us)
            worked = True
        return worked

    cdef bint _read_mail(self) noexcept nogil:
        cdef Intent *intent
        cdef Intent *following
        if not self.mailbox.has_mail():
            return False
        intent = self.mailbox.take_all()
        while intent != NULL:
            following = intent.next
            self.totals.intents += 1
            if failpoint_intent(intent.kind):
                intent_free(intent)
            else:
                self.engine.on_intent(intent)
            intent = following
        return True

    cdef bint _read_frames(self, uint64_t now_us) noexcept nogil:
        cdef FrameHeader header
        cdef Buffer *payload
        cdef Received received
        cdef int frames = 0
        cdef size_t size = 0
        while frames < PASS_FRAMES_MAX and size < PASS_BYTES_MAX:
            received = self.links.receive(&header, &payload)
            if received == RECEIVED_NOTHING:
                break
            frames += 1
            if received == RECEIVED_DEAD:
                self._fail(FAULT_SOCKET, "the receiving socket was closed", 0)
                break
            if received == RECEIVED_GARBAGE:
                self.totals.garbage += 1
                continue
            self.totals.frames += 1
            self.totals.received_by_kind[header.kind] += 1
            if failpoint_receive(header.kind) == 0:
                failpoint(AT_PASS_FRAME_BEFORE)
                self.engine.on_frame(&header, payload, now_us)
                failpoint(AT_PASS_FRAME_AFTER)
            if payload != NULL:
                size += payload.size
                buffer_release(payload)
        return frames != 0

    cdef bint _may_take(self) noexcept nogil:
        """Own commands wait, and neither the window nor a slow state machine holds them back."""
        return self.batcher.has_pending() and self.engine.has_room() and not self.chosen.is_full()

    cdef bint _take_batches(self) noexcept nogil:
        cdef Buffer *value
        cdef uint32_t crc
        cdef size_t size = 0
        while size < PASS_BYTES_MAX and self._may_take():
            value = self.batcher.take(&crc)
            if value == NULL:
                break
            size += value.size
            self.totals.batches += 1
            self.totals.batch_bytes += value.size
            failpoint(AT_PASS_BATCH)
            self.engine.offer(value, crc)
        return size != 0

    cdef void _carry_out(self, uint64_t now_us) noexcept nogil:
        """Steps 1 to 6 of effects.pxd, 5 and 6 in the order that suits callers. The only place where they happen in production."""
        cdef size_t i
        if self._engine_failed():
            return
        failpoint(AT_PASS_SEND_NOW)
        self._send(&self.engine.ready.send_now)
        failpoint(AT_PASS_SENT_NOW)
        self.reads.confirm(self.engine.ready)
        if not self._make_durable():
            return
        failpoint(AT_PASS_DURABLE)
        self.engine.advance(now_us)
        if self._engine_failed():
            return
        # From here on the records are new ones, proposed by advance() itself: they belong to the next pass.
        failpoint(AT_PASS_ADVANCED)
        self._send(&self.engine.ready.send_after_sync)
        failpoint(AT_PASS_ANSWERED)
        # Callers first: what advance() itself produced (Decide, mostly) nobody waits for as they do.
        if self.engine.ready.chosen.count:
            self.totals.slots += self.engine.ready.chosen.count
            i = self.engine.ready.chosen.count
            self.engine.ready.chosen.count = 0      # the queue takes the references over
            if not self.chosen.publish(self.engine.ready.chosen.items, i, clock_us()):
                self._fail(FAULT_MEMORY, "no memory for the queue of chosen slots", 0)
                return
        failpoint(AT_PASS_PUBLISHED)
        self._send(&self.engine.ready.send_now)
        self.reads.confirm(self.engine.ready)
        for i in range(self.engine.ready.cold.count):
            self.cold.put(&self.engine.ready.cold.items[i])
        self.engine.ready.cold.count = 0

    cdef bint _make_durable(self) noexcept nogil:
        """Append and sync the records; False if nothing that follows may happen (yet, or ever)."""
        cdef int error
        cdef uint64_t started_us
        cdef uint64_t took_us
        if not self.engine.ready.records.count:
            return True
        started_us = clock_us()
        error = self.wal.append(self.engine.ready.records.items, self.engine.ready.records.count)
        if error == ENOSPC:
            # Nothing was written and nothing is said; the same records are tried again until there is space.
            self.totals.disk_full += not self.disk_is_full
            self.disk_is_full = True
            self._sleep(clock_us())
            return False
        self.disk_is_full = False
        self.totals.append_us_max = max(self.totals.append_us_max, clock_us() - started_us)
        if error:
            self._fail(FAULT_DISK, "appending to the log failed", error)
            return False
        started_us = clock_us()
        error = self.wal.sync()
        took_us = clock_us() - started_us
        if error:
            self._fail(FAULT_DISK, "fdatasync of the log failed", error)
            return False
        self.totals.records += self.engine.ready.records.count
        self.totals.syncs += 1
        self.totals.sync_us += took_us
        if took_us > self.totals.sync_us_max:
            self.totals.sync_us_max = took_us
        return True

    cdef void _mark_log(self, uint64_t now_us) noexcept nogil:
        """An idle log says how far it was synced; a full disk is tried again."""
        cdef int error
        self.wal.note_chosen(self.engine.learner.chosen_upto)
        error = self.wal.maybe_mark(now_us)
        if error and error != ENOSPC:
            self._fail(FAULT_DISK, "writing a mark to the log failed", error)

    cdef void _send(self, OutgoingList *outgoing) noexcept nogil:
        cdef size_t i
        for i in range(outgoing.count):
            if failpoint_send(outgoing.items[i].header.kind) == 0 and self.links.send(
                &outgoing.items[i].header, outgoing.items[i].payload
            ):
                self.totals.sent += 1
                self.totals.sent_by_kind[outgoing.items[i].header.kind] += 1
            else:
                self.totals.not_sent += 1
        self.engine.ready.clear_outgoing(outgoing)

    cdef bint _engine_failed(self) noexcept nogil:
        if self.engine.ready.out_of_memory:
            self._fail(FAULT_MEMORY, "no memory for the effects of one pass", 0)
        elif self.engine.fault:
            self._fail(<uint32_t>self.engine.fault, "", 0)
        return self.fault_code != 0

    cdef bint _spin(self, uint64_t now_us) noexcept nogil:
        """Poll instead of sleeping while a slot is unchosen: a wake-up across CPUs costs more than the answer
        needs. Only as long as that pays: on a machine that is busy the answers need this very CPU."""
        if not self.spin_us or not self.engine.may_spin():
            return False
        if self.spin_pause:
            self.spin_pause -= 1
            return False
        if now_us - self.worked_us >= self.spin_us or (self.spun_us and now_us - self.spun_us > SPIN_GAP_US):
            self.spin_penalty = min(max(2 * self.spin_penalty, <uint32_t>1), <uint32_t>SPIN_PAUSE_MAX)
            self.spin_pause = self.spin_penalty
            self.spun_us = 0
            return False
        self.spun_us = now_us
        self.totals.spins += 1
        sched_yield()
        return True

    cdef void _sleep(self, uint64_t now_us) noexcept nogil:
        """Look once more at every reason to run, then sleep until one appears or something is due."""
        cdef uint64_t due_us = now_us + SLEEP_US_MAX
        cdef bint readable = False
        if self.disk_is_full:
            due_us = now_us + DISK_FULL_RETRY_US
        else:
            due_us = min(due_us, self.engine.next_deadline_us())
        if self.wal.next_mark_us:
            due_us = min(due_us, max(self.wal.next_mark_us, now_us + 1000))
        if load64(&self.chosen.grace_us):
            due_us = min(due_us, load64(&self.chosen.grace_us))
        self.waker.begin_sleep()
        if load32(&self.stop_requested) or (
            not self.disk_is_full and (self.mailbox.has_mail() or self._may_take() or self.reads.has_news())
        ):
            self.waker.end_sleep(False)
            return
        now_us = clock_us()
        if due_us > now_us:
            self.totals.sleeps += 1
            failpoint(AT_PASS_SLEEP)
            readable = self.links.wait(self.waker.fd, <int64_t>(due_us - now_us))
        self.waker.end_sleep(readable)

    cdef void _fail(self, uint32_t code, const char *what, int error) noexcept nogil:
        """Stop for good: the loop ends, nothing more is sent. The first reason stays."""
        if self.fault_code:
            return
        self.engine.poison()
        if error:
            snprintf(self.fault_text, FAULT_TEXT_BYTES, "%s: %s (errno %d)", what, strerror(error), error)
        else:
            snprintf(self.fault_text, FAULT_TEXT_BYTES, "%s", what)
        store32(&self.fault_code, code)

    # -- for Python threads -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the native thread. Once; a stopped reactor is not started again.

        Raises:
            ConfigError: it was started before, or this is a forked child.
            OSError: the system has no thread to give.
        """
        cdef int error
        if os.getpid() != self.pid:
            raise ConfigError("this process was forked; a child must open its own replica")
        if load32(&self.state) != THREAD_NEW:
            raise ConfigError("a reactor is started once; build a new one")
        Py_INCREF(self)     # the thread's; given back by stop()
        store32(&self.state, THREAD_RUNNING)
        error = start_native_thread(&self.thread, reactor_main, <void *>self, "paxos-reactor")
        if error:
            store32(&self.state, THREAD_NEW)
            Py_DECREF(self)
            raise OSError(error, "cannot start the reactor's thread")

    def stop(self, timeout_s: float | None = 5.0) -> bool:
        """End the thread after the pass that it is in, and join it.

        Returns False if it has not ended within ``timeout_s`` (a sync hangs in the kernel): its sockets and
        its log must then stay open; call again later. In a forked child this does nothing.
        """
        cdef uint64_t now
        cdef uint64_t deadline
        cdef uint32_t seen
        if os.getpid() != self.pid or load32(&self.state) in (THREAD_NEW, THREAD_JOINED):
            return True
        now = clock_us()
        deadline = now + <uint64_t>timeout_to_us(timeout_s)
        store32(&self.stop_requested, 1)
        self.waker.wake()
        while load32(&self.state) == THREAD_RUNNING:
            now = clock_us()
            if now >= deadline:
                return False
            with nogil:
                seen = gate_enter(&self.exit_gate)
                if load32(&self.state) == THREAD_RUNNING:
                    gate_sleep(&self.exit_gate, seen, <int64_t>min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
                gate_leave(&self.exit_gate)
            PyErr_CheckSignals()
        if load32(&self.state) == THREAD_EXITED:
            store32(&self.state, THREAD_JOINED)
            with nogil:
                pthread_join(self.thread, NULL)
            Py_DECREF(self)
        return True

    @property
    def alive(self) -> bool:
        """True while the thread runs (not in a forked child)."""
        return load32(&self.state) == THREAD_RUNNING and os.getpid() == self.pid

    @property
    def fault(self) -> tuple[int, str] | None:
        """Why the node stopped by itself, or None."""
        cdef uint32_t code = load32(&self.fault_code)
        if not code:
            return None
        text = self.fault_text.decode("utf-8", "replace")
        return code, text or self.engine.fault_text

    def post(self, intent: object) -> None:
        """Put an intent (see ``paxos.messages``) into the mailbox. Any thread.

        Raises:
            TypeError, ValueError: it is none.
        """
        self.mailbox.put(intent_from_python(intent))
        self.waker.wake()

    def take_cold(self, timeout_s: float | None = None) -> list[bytes] | None:
        """Wait without the GIL for frames for the control thread: all that are there, [] after
        ``timeout_s``, None when the reactor has ended."""
        return self.cold.take(timeout_s)

    def wait_unapplied(self, timeout_s: float | None = None) -> bool | None:
        """Wait without the GIL until there is something for the apply thread to apply.

        False after ``timeout_s``; None when the reactor has ended and nothing is left. What a blocking
        proposer was just woken for does not count, for a millisecond: it applies that itself.
        """
        return self.chosen.wait_filled(timeout_s)

    def take_chosen(self, timeout_s: float | None = 0.0, limit: int = 1024) -> list["ChosenItem"] | None:
        """Take the oldest chosen slots, at most ``limit``, after waiting as ``wait_unapplied`` does.

        [] after ``timeout_s``; None when the reactor has ended and nothing is left. Whoever takes must apply
        before anybody else takes: hold one lock around both.
        """
        if limit < 1:
            raise ConfigError(f"limit must be at least 1, not {limit}")
        return self.chosen.take(timeout_s, limit)

    def wait_chosen(self, ticket: int, timeout_s: float | None = None) -> bool:
        """Wait without the GIL until the own batch with ``ticket`` can be taken by ``take_chosen`` (or was
        taken already). The caller is expected to take and apply: the apply thread was not woken for it.

        False after ``timeout_s``, or when the reactor has ended before.
        """
        return self.chosen.wait(ticket, timeout_s)

    def _peers(self) -> dict[int, dict[str, object]]:
        """Who answered of late, and how far each is."""
        cdef int i
        peers = {}
        for i in range(self.engine.peers.count):
            if i != self.engine.peers.own:
                peers[self.engine.peers.items[i].node_id] = {
                    "heard": bool(self.engine.heartbeat.expected[i]),
                    "chosen_upto": self.engine.heartbeat.answers[i].chosen_upto,
                }
        return peers

    @property
    def chosen_ticket(self) -> int:
        """Every own ticket up to this one is chosen."""
        return load64(&self.chosen.own_upto)

    def status(self) -> dict[str, object]:
        """What this node is and how far it is, and counters since the start, for people and tools. Not one
        instant: the reactor runs on."""
        cdef Totals *t = &self.totals
        cdef uint64_t leader_ballot = self.engine.heartbeat.leader
        cdef bint leads = self.engine.proposer.ballot != 0
        names = {int(kind): kind.name.lower() for kind in codec.FrameKind}
        return {
            "alive": self.alive,
            "fault": self.fault,
            "role": "leader" if leads else "candidate" if self.engine.heartbeat.is_candidate else "follower",
            "leader": (self.batcher.origin if leads else leader_ballot & NODE_ID_MAX) or None,
            "ballot": self.engine.proposer.ballot or leader_ballot,
            "promised": self.engine.acceptor.promised,
            "chosen_upto": self.engine.learner.chosen_upto,
            "last_index": self.engine.learner.last_index,
            "peers": self._peers(),
            "passes": t.passes, "spins": t.spins, "sleeps": t.sleeps, "wakes": load64(&self.waker.wakes),
            "ticks": t.ticks, "intents": t.intents,
            "frames_received": t.frames, "frames_malformed": t.garbage,
            "frames_sent": t.sent, "frames_not_sent": t.not_sent,
            "received_by_kind": {names.get(k, k): t.received_by_kind[k] for k in range(256) if t.received_by_kind[k]},
            "sent_by_kind": {names.get(k, k): t.sent_by_kind[k] for k in range(256) if t.sent_by_kind[k]},
            "batches": t.batches, "batch_bytes": t.batch_bytes, "slots_chosen": t.slots,
            "records": t.records, "syncs": t.syncs, "sync_us_sum": t.sync_us, "sync_us_max": t.sync_us_max,
            "append_us_max": t.append_us_max, "gather_us_max": t.gather_us_max, "pass_us_max": t.pass_us_max,
            "disk_full": t.disk_full, "disk_is_full": bool(self.disk_is_full or self.engine.is_disk_low),
            "pending_bytes": self.batcher.pending_bytes,
            "unapplied_slots": load32(&self.chosen.count), "unapplied_bytes": self.chosen.unapplied,
            "values_evicted": self.chosen.evicted,
            "cold_queued": self.cold.queued, "cold_waiting": self.cold.count,
            "cold_dropped": self.cold.dropped, "cold_replaced": self.cold.replaced,
            "combined": self.chosen.combined, "published": self.chosen.published,
            "links": self.links.counters(),
        }
