"""Waiting inside the loop: events, states, and futures combined."""

import asyncio
import gc
import logging
import threading

import pytest
import tornado.gen
from tornado.ioloop import IOLoop

from katcp._runtime.events import (
    AsyncCallbackEvent,
    AsyncEvent,
    AsyncState,
    LatencyTimer,
    future_timeout_manager,
    log_coroutine_exceptions,
    log_future_exceptions,
    until_any,
    until_later,
    until_some,
)
from katcp.errors import KatcpThreadError, KatcpUsageError
from katcp.ioloop_manager import IOLoopManager, with_relative_timeout
from tests.support.helpers import in_thread

# A limit that is exceeded only by a test that fails.
TIMEOUT = 5.0

# A limit that the test waits for.
SOON = 0.01


@pytest.fixture
def managed_loop():
    """A loop that runs in a thread of its own."""
    manager = IOLoopManager()
    manager.start(TIMEOUT)
    yield manager.get_ioloop()
    manager.stop()
    manager.join(TIMEOUT)


class Clock:
    """What `LatencyTimer` needs of a loop, with a time that the test sets."""

    def __init__(self):
        self.now = 100.0

    def time(self):
        return self.now


def new_future():
    return asyncio.get_running_loop().create_future()


def done_future(result=None):
    future = new_future()
    future.set_result(result)
    return future


async def turns(count=3):
    """Let the loop do what it has to do."""
    for _ in range(count):
        await asyncio.sleep(0)


async def raises_timeout(awaitable):
    """Check that *awaitable* fails as the old client's did."""
    with pytest.raises(tornado.gen.TimeoutError, match=r"^Timeout$"):
        await awaitable


# AsyncEvent


def test_a_new_event_is_not_set():
    event = AsyncEvent()
    assert event.is_set() is False
    assert event.isSet() is False


def test_set_and_clear_change_what_is_set_tells():
    event = AsyncEvent()
    event.set()
    assert event.is_set() is True
    event.clear()
    assert event.is_set() is False


def test_until_set_resolves_with_true_when_the_event_is_set(ioloop):
    async def main():
        event = AsyncEvent()
        future = event.until_set()
        await turns()
        assert not future.done()
        event.set()
        assert await future is True

    ioloop.run_sync(main, TIMEOUT)


def test_until_set_is_done_at_once_if_the_event_is_set(ioloop):
    async def main():
        event = AsyncEvent()
        event.set()
        future = event.until_set(timeout=TIMEOUT)
        assert future.done()
        assert future.result() is True

    ioloop.run_sync(main, TIMEOUT)


def test_until_set_resolves_with_the_value_asked_for(ioloop):
    async def main():
        event = AsyncEvent()
        waiting = event.until_set(value=None), event.until_set(value="yes")
        event.set()
        assert [await future for future in waiting] == [None, "yes"]
        assert await event.until_set(value=7) == 7

    ioloop.run_sync(main, TIMEOUT)


def test_waiters_are_woken_in_the_order_they_came(ioloop):
    async def main():
        event, woken = AsyncEvent(), []
        for number in range(20):
            event.until_set(value=number).add_done_callback(lambda done: woken.append(done))
        event.set()
        await turns()
        assert [future.result() for future in woken] == list(range(20))

    ioloop.run_sync(main, TIMEOUT)


def test_who_waits_after_clear_waits_for_the_next_set(ioloop):
    async def main():
        event = AsyncEvent()
        before = event.until_set()
        event.set()
        event.clear()
        after = event.until_set()
        assert await before is True
        assert not after.done()
        event.set()
        assert await after is True

    ioloop.run_sync(main, TIMEOUT)


def test_setting_an_event_twice_is_harmless(ioloop):
    async def main():
        event = AsyncEvent()
        future = event.until_set()
        event.set()
        event.set()
        assert await future is True

    ioloop.run_sync(main, TIMEOUT)


@pytest.mark.parametrize("timeout", [SOON, 0, -1])
def test_until_set_fails_when_the_timeout_is_over(ioloop, timeout):
    async def main():
        await raises_timeout(AsyncEvent().until_set(timeout))

    ioloop.run_sync(main, TIMEOUT)


def test_a_waiter_whose_time_is_over_is_not_woken_again(ioloop):
    async def main():
        event = AsyncEvent()
        await raises_timeout(event.until_set(SOON))
        event.set()
        assert event.is_set()

    ioloop.run_sync(main, TIMEOUT)


def test_a_timeout_that_nobody_looks_at_is_not_logged(ioloop, logs):
    async def main():
        event = AsyncEvent()
        event.until_set(0)
        await until_later(SOON)

    ioloop.run_sync(main, TIMEOUT)
    gc.collect()
    assert not logs.matching("never retrieved")


def test_no_future_stays_in_an_event_after_timeouts(ioloop):
    async def main():
        event = AsyncEvent()
        futures = [event.until_set(SOON) for _ in range(10)]
        await asyncio.wait(futures)
        await turns()
        assert not event._waiting

    ioloop.run_sync(main, TIMEOUT)


def test_no_future_stays_in_an_event_after_cancellation(ioloop):
    async def main():
        event = AsyncEvent()
        for _ in range(10):
            event.until_set().cancel()
        await turns()
        assert not event._waiting

    ioloop.run_sync(main, TIMEOUT)


def test_set_and_fail_waiting_pass_over_a_cancelled_waiter(ioloop):
    async def main():
        event = AsyncEvent()
        cancelled, woken = event.until_set(), event.until_set()
        cancelled.cancel()
        event.set()
        assert await woken is True
        assert cancelled.cancelled()
        event.clear()
        cancelled = event.until_set()
        cancelled.cancel()
        event.fail_waiting(OSError("gone"))
        assert cancelled.cancelled()

    ioloop.run_sync(main, TIMEOUT)


def test_a_pending_timeout_goes_with_the_waiter(ioloop):
    async def main():
        event = AsyncEvent()
        event.until_set(timeout=3600)
        event.set()
        await turns()
        handles = asyncio.get_running_loop()._scheduled
        assert all(handle.cancelled() for handle in handles if handle.when() > 1800)

    ioloop.run_sync(main)


def test_fail_waiting_fails_all_that_wait_and_leaves_the_event_clear(ioloop):
    async def main():
        event = AsyncEvent()
        futures = [event.until_set(), event.until_set(timeout=TIMEOUT)]
        event.fail_waiting(OSError("gone"))
        for future in futures:
            with pytest.raises(OSError, match="gone"):
                await future
        assert not event.is_set()
        later = event.until_set()
        event.set()
        assert await later is True

    ioloop.run_sync(main, TIMEOUT)


def test_a_failure_that_nobody_looks_at_is_not_logged(ioloop, logs):
    async def main():
        event = AsyncEvent()
        event.until_set()
        event.fail_waiting(OSError("gone"))

    ioloop.run_sync(main, TIMEOUT)
    gc.collect()
    assert not logs.matching("never retrieved")


def test_an_event_may_be_given_its_loop(ioloop):
    event = AsyncEvent(ioloop)
    future = event.until_set()  # outside of the loop, which does not run
    event.set()
    assert future.get_loop() is ioloop.asyncio_loop
    assert ioloop.run_sync(lambda: future, TIMEOUT) is True


def test_waiters_of_a_closed_loop_are_left_alone():
    loop = IOLoop(make_current=False)
    event = AsyncEvent(loop)
    future = event.until_set()
    future.add_done_callback(print)
    loop.close()
    event.set()
    assert event.is_set()
    assert not future.done()


# AsyncEvent.wait_with_ioloop


def test_wait_with_ioloop_returns_true_when_the_event_is_set(managed_loop):
    event = AsyncEvent(managed_loop)
    thread, outcome = in_thread(lambda: event.wait_with_ioloop(managed_loop))
    managed_loop.add_callback(event.set)
    thread.join(TIMEOUT)
    assert outcome == [True]


def test_wait_with_ioloop_returns_true_at_once_if_the_event_is_set(managed_loop):
    event = AsyncEvent(managed_loop)
    event.set()
    assert event.wait_with_ioloop(managed_loop, timeout=0) is True


@pytest.mark.parametrize("timeout", [SOON, 0, -1])
def test_wait_with_ioloop_returns_false_on_timeout(managed_loop, timeout):
    assert AsyncEvent(managed_loop).wait_with_ioloop(managed_loop, timeout) is False


def test_no_future_stays_in_an_event_after_wait_with_ioloop(managed_loop):
    event = AsyncEvent(managed_loop)
    for _ in range(5):
        assert event.wait_with_ioloop(managed_loop, SOON) is False
    gone = threading.Event()

    async def until_none_waits():
        while event._waiting:
            await asyncio.sleep(0)
        gone.set()

    managed_loop.add_callback(until_none_waits)
    assert gone.wait(TIMEOUT)


def test_wait_with_ioloop_returns_false_when_the_loop_is_busy_for_too_long(managed_loop):
    event, go_on = AsyncEvent(managed_loop), threading.Event()
    managed_loop.add_callback(go_on.wait, TIMEOUT)
    assert event.wait_with_ioloop(managed_loop, SOON) is False
    go_on.set()


def test_wait_with_ioloop_in_the_loops_thread_refuses_instead_of_deadlocking(ioloop):
    async def main():
        event = AsyncEvent()
        with pytest.raises(KatcpThreadError, match=r"wait_with_ioloop\(\) in ioloop"):
            event.wait_with_ioloop(ioloop, TIMEOUT)
        event.set()
        assert event.wait_with_ioloop(ioloop) is True

    ioloop.run_sync(main, TIMEOUT)


def test_wait_with_ioloop_of_a_closed_loop_raises():
    loop = IOLoop(make_current=False)
    loop.close()
    with pytest.raises(KatcpUsageError, match="closed"):
        AsyncEvent(loop).wait_with_ioloop(loop)


# AsyncCallbackEvent


def test_a_callback_event_calls_back_after_set_and_clear(ioloop):
    async def main():
        calls = []
        event = AsyncCallbackEvent(lambda flag: calls.append((flag, event.is_set())))
        future = event.until_set()
        event.set()
        event.set()
        event.clear()
        assert calls == [(True, True), (True, True), (False, False)]
        assert await future is True

    ioloop.run_sync(main, TIMEOUT)


def test_a_callback_event_needs_no_callback_and_takes_a_loop(ioloop):
    event = AsyncCallbackEvent(ioloop=ioloop)
    event.set()
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    assert event.ioloop is ioloop


# AsyncState


def test_a_state_begins_with_the_first_or_the_given_one():
    assert AsyncState(["idle", "busy"]).state == "idle"
    assert AsyncState(["idle", "busy"], "busy").state == "busy"
    assert AsyncState(iter(["idle", "busy"])).valid_states == frozenset(["idle", "busy"])


def test_a_state_that_is_not_valid_is_refused(ioloop):
    state = AsyncState(["idle"], ioloop=ioloop)
    message = r"State must be one of frozenset\({'idle'}\), not mad"
    for misuse in (
        lambda: AsyncState(["idle"], "mad"),
        lambda: state.set_state("mad"),
        lambda: state.until_state("mad"),
        lambda: state.until_state_in("idle", "mad"),
    ):
        with pytest.raises(ValueError, match=message):
            misuse()
    assert state.state == "idle"


def test_until_state_resolves_when_the_state_holds(ioloop):
    async def main():
        state = AsyncState(["idle", "busy"], ioloop=ioloop)
        assert await state.until_state("idle") is True
        future = state.until_state("busy")
        assert not future.done()
        state.set_state("busy")
        assert state.state == "busy"
        assert await future is True
        assert not state.until_state("idle").done()

    ioloop.run_sync(main, TIMEOUT)


def test_until_state_fails_when_the_timeout_is_over(ioloop):
    async def main():
        state = AsyncState(["idle", "busy"])
        await raises_timeout(state.until_state("busy", SOON))

    ioloop.run_sync(main, TIMEOUT)


def test_until_state_in_resolves_when_one_of_the_states_holds(ioloop):
    async def main():
        state = AsyncState(["idle", "busy", "done"])
        assert await state.until_state_in("busy", "idle") is True
        future = state.until_state_in("busy", "done")
        await turns()
        assert not future.done()
        state.set_state("done")
        assert await future is True

    ioloop.run_sync(main, TIMEOUT)


def test_no_future_stays_in_a_state_after_until_state_in(ioloop):
    async def main():
        state = AsyncState(["idle", "busy", "done"])
        await raises_timeout(state.until_state_in("busy", "done", timeout=SOON))
        state.until_state_in("busy", "done").cancel()
        await state.until_state_in("idle", "done")
        await turns()
        assert not any(event._waiting for event in state._events.values())

    ioloop.run_sync(main, TIMEOUT)


# LatencyTimer


def test_the_latency_timer_tells_when_futures_were_done_for_too_long(ioloop):
    async def main():
        clock = Clock()
        timer = LatencyTimer(0.5, clock)
        assert timer.time_to_yield() is False
        timer.check_future(done_future())
        clock.now += 0.25
        timer.check_future(done_future())
        assert timer.time_to_yield() is False
        clock.now += 0.5
        assert timer.time_to_yield() is True

    ioloop.run_sync(main, TIMEOUT)


def test_the_latency_timer_begins_anew_at_a_future_that_is_not_done(ioloop):
    async def main():
        clock = Clock()
        timer = LatencyTimer(0.5, clock)
        timer.check_future(done_future())
        clock.now += 1
        timer.check_future(new_future())
        assert timer.time_to_yield() is False
        timer.check_future(done_future())
        assert timer.time_to_yield() is False
        clock.now += 1
        assert timer.time_to_yield() is True

    ioloop.run_sync(main, TIMEOUT)


def test_the_latency_timer_uses_the_current_loop_if_not_told_otherwise(ioloop):
    async def main():
        timer = LatencyTimer(0.5)
        assert timer.ioloop.asyncio_loop is asyncio.get_running_loop()
        assert timer.max_loop_latency == 0.5

    ioloop.run_sync(main, TIMEOUT)


# until_later


def test_until_later_resolves_with_none_after_the_delay(ioloop):
    async def main():
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await until_later(0.02) is None
        # asyncio runs a timer up to one tick of the clock early.
        assert loop.time() - began >= 0.02 - 0.001

    ioloop.run_sync(main, TIMEOUT)


def test_until_later_in_a_given_loop(ioloop):
    future = until_later(0, ioloop)
    assert ioloop.run_sync(lambda: future, TIMEOUT) is None


def test_until_later_may_be_cancelled_in_the_turn_in_which_it_ends(ioloop):
    async def main():
        future = until_later(0)
        asyncio.get_running_loop().call_soon(future.cancel)
        await until_later(0)
        assert future.cancelled()

    ioloop.run_sync(main, TIMEOUT)


def test_a_cancelled_until_later_leaves_no_timer(ioloop):
    async def main():
        future = until_later(3600)
        handles = list(asyncio.get_running_loop()._scheduled)
        future.cancel()
        await turns()
        assert handles
        assert all(handle.cancelled() for handle in handles if handle.when() > 1800)

    ioloop.run_sync(main)


# until_any


def test_until_any_gives_the_first_result(ioloop):
    async def main():
        slow, fast = new_future(), new_future()
        first = until_any(slow, fast)
        fast.set_result("fast")
        assert await first == "fast"
        assert not slow.done()
        slow.set_result("slow")
        await turns()
        assert first.result() == "fast"

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_gives_the_first_exception(ioloop):
    async def main():
        slow, fast = new_future(), new_future()
        first = until_any(slow, fast)
        fast.set_exception(KeyError("fast"))
        with pytest.raises(KeyError, match="fast"):
            await first
        assert not slow.done()

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_of_futures_done_in_one_turn_gives_the_first_named(ioloop):
    async def main():
        first = until_any(done_future(1), done_future(2))
        assert await first == 1

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_of_a_cancelled_future_is_cancelled(ioloop):
    async def main():
        future = new_future()
        first = until_any(future, new_future())
        future.cancel()
        await turns()
        assert first.cancelled()

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_takes_coroutines(ioloop):
    async def answer():
        await asyncio.sleep(0)
        return 42

    async def main():
        assert await until_any(new_future(), answer(), timeout=TIMEOUT) == 42

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_fails_when_the_timeout_is_over_and_lets_the_others_go_on(ioloop):
    async def main():
        future = new_future()
        await raises_timeout(until_any(future, timeout=SOON))
        assert not future.done()

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_of_nothing_waits_for_its_timeout_only(ioloop):
    async def main():
        await raises_timeout(until_any(timeout=SOON))
        with pytest.raises(ValueError, match="at least one future"):
            until_any()

    ioloop.run_sync(main, TIMEOUT)


def test_until_any_leaves_nothing_behind_in_a_future_that_lives_long(ioloop):
    async def main():
        long = new_future()
        for _ in range(10):
            await until_any(long, done_future())
            await raises_timeout(until_any(long, timeout=0))
        until_any(long).cancel()
        await turns()
        assert not long._callbacks

    ioloop.run_sync(main, TIMEOUT)


def test_what_the_others_raise_later_is_not_swallowed(ioloop, logs):
    async def main():
        loser = new_future()
        await until_any(loser, done_future())
        await turns()
        loser.set_exception(KeyError("loser"))

    ioloop.run_sync(main, TIMEOUT)
    gc.collect()
    assert "loser" in logs.expect("never retrieved", logging.ERROR)


def test_until_any_in_a_given_loop(ioloop):
    future = ioloop.asyncio_loop.create_future()
    first = until_any(future, ioloop=ioloop)
    future.set_result(3)
    assert ioloop.run_sync(lambda: first, TIMEOUT) == 3


# until_some


def test_until_some_gives_keys_and_results_in_order_of_completion(ioloop):
    async def main():
        futures = [new_future() for _ in range(3)]
        some = asyncio.ensure_future(until_some(*futures))
        for position in (2, 0, 1):
            await turns()
            assert not some.done()
            futures[position].set_result("abc"[position])
        assert await some == [(2, "c"), (0, "a"), (1, "b")]

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_with_names_gives_the_names(ioloop):
    async def main():
        late = new_future()
        some = asyncio.ensure_future(until_some(late=late, early=done_future(1)))
        await turns()
        late.set_result(2)
        assert await some == [("early", 1), ("late", 2)]

    ioloop.run_sync(main, TIMEOUT)


@pytest.mark.parametrize(
    ("done_at_least", "expected"),
    [
        (None, [(0, "a"), (1, "b")]),
        (0, [(0, "a")]),
        (1, [(0, "a")]),
        (2, [(0, "a"), (1, "b")]),
        (9, [(0, "a"), (1, "b")]),
    ],
)
def test_until_some_waits_for_as_many_as_it_is_told(ioloop, done_at_least, expected):
    async def main():
        futures = done_future("a"), done_future("b")
        assert await until_some(*futures, done_at_least=done_at_least) == expected

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_does_not_wait_for_more_than_it_is_told(ioloop):
    async def main():
        never = new_future()
        assert await until_some(never, done_future("b"), done_at_least=1) == [(1, "b")]
        await turns()
        assert not never._callbacks

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_of_nothing_gives_nothing(ioloop):
    async def main():
        assert await until_some() == []

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_takes_one_future_twice_and_coroutines(ioloop):
    async def answer():
        return 42

    async def main():
        future = done_future(1)
        assert await until_some(future, future, done_at_least=2) == [(0, 1), (1, 1)]
        assert await until_some(answer()) == [(0, 42)]

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_refuses_positions_and_names_together(ioloop):
    async def main():
        with pytest.raises(ValueError, match=r"^You must provide args or kwargs, not both$"):
            await until_some(done_future(), name=done_future())

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_raises_what_the_first_that_failed_raised(ioloop):
    async def main():
        failed = new_future()
        failed.set_exception(KeyError("bad"))
        with pytest.raises(KeyError, match="bad"):
            await until_some(done_future(1), failed, new_future())

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_of_a_cancelled_future_is_cancelled(ioloop):
    async def main():
        future = new_future()
        some = asyncio.ensure_future(until_some(future, new_future()))
        await turns()
        future.cancel()
        await turns(5)
        assert some.cancelled()

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_fails_when_the_timeout_is_over_and_leaves_nothing_behind(ioloop, logs):
    async def main():
        never = new_future()
        await raises_timeout(until_some(never, done_future(), timeout=SOON))
        await turns()
        assert not never._callbacks
        assert len(asyncio.all_tasks()) == 1

    ioloop.run_sync(main, TIMEOUT)
    gc.collect()
    assert not logs.matching("destroyed")


def test_a_cancelled_until_some_leaves_nothing_behind(ioloop):
    async def main():
        never = new_future()
        some = asyncio.ensure_future(until_some(never))
        await turns()
        assert never._callbacks
        some.cancel()
        await turns()
        assert not never._callbacks
        assert not never.done()

    ioloop.run_sync(main, TIMEOUT)


def test_until_some_with_no_time_gives_what_is_done_already(ioloop):
    async def main():
        assert await until_some(done_future(1), timeout=0) == [(0, 1)]

    ioloop.run_sync(main, TIMEOUT)


# future_timeout_manager


def test_the_timeout_manager_gives_all_futures_one_deadline(ioloop):
    async def main():
        maybe_timeout = future_timeout_manager(SOON)
        assert await maybe_timeout(done_future(3)) == 3
        never = new_future()
        await raises_timeout(maybe_timeout(never))
        # The deadline is over: what is done is still given.
        await raises_timeout(maybe_timeout(never))
        assert await maybe_timeout(done_future(7)) == 7

    ioloop.run_sync(main, TIMEOUT)


def test_the_timeout_manager_without_timeout_changes_nothing(ioloop):
    async def main():
        future = new_future()
        assert future_timeout_manager()(future) is future
        assert with_relative_timeout(None, future) is future

    ioloop.run_sync(main, TIMEOUT)


def test_the_timeout_manager_counts_with_the_given_clock(ioloop):
    async def main():
        clock = Clock()
        maybe_timeout = future_timeout_manager(3600, clock)
        waiting = maybe_timeout(new_future())
        clock.now += 3600
        await raises_timeout(maybe_timeout(new_future()))
        assert not waiting.done()

    ioloop.run_sync(main, TIMEOUT)


@pytest.mark.parametrize("timeout", [None, 0], ids=str)
def test_the_timeout_manager_without_a_time_has_no_deadline(ioloop, timeout):
    async def main():
        maybe_timeout = future_timeout_manager(timeout)
        future = new_future()
        assert maybe_timeout(future) is future
        assert maybe_timeout.remaining() is None

    ioloop.run_sync(main, TIMEOUT)


@pytest.mark.parametrize("timeout", [3600, 0.5, -1], ids=str)
def test_the_timeout_manager_tells_how_much_time_remains(timeout):
    clock = Clock()
    maybe_timeout = future_timeout_manager(timeout, clock)
    assert maybe_timeout.remaining() == timeout
    clock.now += 1
    assert maybe_timeout.remaining() == timeout - 1


# log_coroutine_exceptions, log_future_exceptions


class Host:
    _logger = logging.getLogger("test.host")

    @log_coroutine_exceptions
    async def fail(self, text):
        """Fail."""
        raise KeyError(text)

    @log_coroutine_exceptions
    async def succeed(self, *, value):
        return value

    @log_coroutine_exceptions
    def plain(self):
        return "plain"

    @log_coroutine_exceptions
    @tornado.gen.coroutine
    def old_style(self):
        yield tornado.gen.moment
        raise KeyError("old style")

    @log_coroutine_exceptions
    def fail_at_once(self):
        raise KeyError("at once")

    @log_coroutine_exceptions
    async def wait(self, future):
        self.began = True
        return await future


def test_log_coroutine_exceptions_logs_and_raises(ioloop, logs):
    async def main():
        with pytest.raises(KeyError, match="boo"):
            await Host().fail("boo")
        assert "KeyError: 'boo'" in logs.expect(
            "Unhandled exception calling coroutine <function Host.fail", logging.ERROR
        )
        with pytest.raises(KeyError, match="old style"):
            await Host().old_style()
        logs.expect("KeyError: 'old style'", logging.ERROR)

    ioloop.run_sync(main, TIMEOUT)


def test_log_coroutine_exceptions_passes_results_on(ioloop):
    async def main():
        assert await Host().succeed(value=5) == 5
        assert await Host().plain() == "plain"

    ioloop.run_sync(main, TIMEOUT)
    assert Host.fail.__name__ == "fail"
    assert Host.fail.__doc__ == "Fail."


def test_a_coroutine_that_is_not_awaited_runs_and_is_logged(ioloop, logs):
    async def main():
        Host().old_style()
        Host().fail("nobody waits")
        await turns(3)
        gc.collect()
        text = "Unhandled exception calling coroutine <function Host."
        for name, error in (("old_style", "old style"), ("fail", "nobody waits")):
            (record,) = logs.matching(text + name)
            assert record.args == ()
            assert f"KeyError: '{error}'" in logs.expect(text + name, logging.ERROR)

    ioloop.run_sync(main, TIMEOUT)


def test_what_a_method_raises_at_once_is_logged_at_once_and_raised_by_its_future(ioloop, logs):
    async def main():
        future = Host().fail_at_once()
        logs.expect("Unhandled exception calling coroutine", logging.ERROR, timeout=0)
        with pytest.raises(KeyError, match="at once"):
            await future

    ioloop.run_sync(main, TIMEOUT)


def test_a_coroutine_that_nobody_holds_is_not_collected(ioloop):
    async def main():
        host, future = Host(), new_future()
        host.wait(future)
        await turns()
        assert host.began
        gc.collect()
        future.set_result(None)
        await turns()

    ioloop.run_sync(main, TIMEOUT)


def test_a_cancelled_coroutine_is_not_logged(ioloop, logs):
    async def main():
        waiting = Host().wait(new_future())
        await turns()
        waiting.cancel()
        await turns()
        assert waiting.cancelled()

    ioloop.run_sync(main, TIMEOUT)
    assert not logs.matching("Unhandled")


def test_log_future_exceptions_logs_what_a_future_raises(ioloop, logs):
    async def main():
        future = new_future()
        log_future_exceptions(logging.getLogger("test.future"), future)
        future.set_exception(KeyError("boo"))
        await turns()
        text = logs.expect("Unhandled exception returned by future", logging.ERROR)
        assert "KeyError: 'boo'" in text

    ioloop.run_sync(main, TIMEOUT)


def test_log_future_exceptions_is_silent_about_what_it_shall_ignore(ioloop, logs):
    async def main():
        logger = logging.getLogger("test.future")
        ignored, cancelled, fine = new_future(), new_future(), new_future()
        log_future_exceptions(logger, ignored, ignore=(OSError, KeyError))
        log_future_exceptions(logger, cancelled)
        log_future_exceptions(logger, fine)
        ignored.set_exception(KeyError("boo"))
        cancelled.cancel()
        fine.set_result(None)
        await turns()
        assert not logs.matching("")

    ioloop.run_sync(main, TIMEOUT)
