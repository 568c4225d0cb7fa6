"""Futures: the standard interface, and honesty about what a run became."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from paxos.futures import Future, RunOutcome


def test_a_future_is_a_standard_future() -> None:
    future: Future[int] = Future()
    assert isinstance(future, concurrent.futures.Future)
    assert (future.done(), future.running(), future.cancelled(), future.cancel()) == (
        False,
        True,
        False,
        False,
    )
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    future.resolve(5)
    assert (future.done(), future.running(), future.result(), future.exception()) == (True, False, 5, None)


def test_only_the_replica_sets_the_outcome_and_only_once() -> None:
    future: Future[int] = Future()
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result(1)
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_exception(ValueError())
    future.resolve(1)
    future.resolve(2)
    future.fail(ValueError())
    assert future.result() == 1


def test_a_failed_future_raises_its_exception() -> None:
    future: Future[int] = Future()
    future.fail(ValueError("why"))
    with pytest.raises(ValueError, match="why"):
        future.result(1)
    assert isinstance(future.exception(), ValueError)


@pytest.mark.parametrize("waiters", [1, 8])
def test_waiting_threads_are_woken(waiters: int) -> None:
    future: Future[int] = Future()
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(future.result(30))) for _ in range(waiters)]
    for thread in threads:
        thread.start()
    future.resolve(9)
    for thread in threads:
        thread.join(30)
    assert results == [9] * waiters


def test_no_wake_up_is_lost_between_the_look_and_the_wait() -> None:
    for _ in range(300):
        future: Future[int] = Future()
        resolver = threading.Thread(target=future.resolve, args=(1,))
        resolver.start()
        assert future.result(30) == 1
        resolver.join()


def test_callbacks_run_once_and_their_exceptions_hurt_nobody() -> None:
    future: Future[int] = Future()
    seen: list[int] = []
    future.add_done_callback(lambda done: 1 / 0)
    future.add_done_callback(lambda done: seen.append(done.result()))
    future.resolve(3)
    future.add_done_callback(lambda done: seen.append(-done.result()))
    assert seen == [3, -3]


def test_the_standard_library_can_wait_for_futures() -> None:
    futures: list[Future[int]] = [Future() for _ in range(5)]
    timer = threading.Timer(0.01, lambda: [future.resolve(at) for at, future in enumerate(futures)])
    timer.start()
    done, waiting = concurrent.futures.wait(futures, timeout=30)
    assert (len(done), len(waiting)) == (5, 0)
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, timeout=30)) == [
        *range(5)
    ]
    timer.join()


def test_asyncio_can_wrap_a_future() -> None:
    async def main() -> int:
        future: Future[int] = Future()
        timer = threading.Timer(0.01, future.resolve, args=(4,))
        timer.start()
        return await asyncio.wrap_future(future)

    assert asyncio.run(main()) == 4


def test_a_run_in_several_batches_has_several_ranges() -> None:
    run = RunOutcome([(1, 2, 3, None), (3, 1, 4, ["x"]), (10, 2, 7, ["y", "z"])])
    assert (run.first_index, run.last_index, run.count, len(run)) == (1, 11, 5, 5)
    assert run.indices == (range(1, 4), range(10, 12))
    assert list(run.results) == [None, None, "x", "y", "z"]
    assert [outcome.index for outcome in run] == [1, 2, 3, 10, 11]
    assert [run[at] for at in range(5)] == list(run)
    assert run[-1].slot == 7
    assert [outcome.result for outcome in run[2:4]] == ["x", "y"]
    with pytest.raises(IndexError):
        run[5]


def test_an_empty_run() -> None:
    run = RunOutcome(())
    assert (run.first_index, run.last_index, run.count, run.indices, list(run)) == (0, 0, 0, (), [])
