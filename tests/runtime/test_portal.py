"""The bridge from other threads into the loop."""

import asyncio
import concurrent.futures
import gc
import logging
import random
import threading
import traceback
import weakref

import pytest
from tornado.ioloop import IOLoop

import katcp._runtime.portal
from katcp._runtime.portal import LoopPortal, call_in_loop
from katcp._runtime.tasks import run_in_daemon_thread
from katcp._runtime.waiter import LoopGone, Waiter
from katcp.client._decorators import make_threadsafe, make_threadsafe_blocking
from katcp.errors import KatcpUsageError
from katcp.ioloop_manager import IOLoopManager
from tests.support.helpers import in_thread

# A limit that is exceeded only by a test that fails.
TIMEOUT = 5.0

# A limit that the test waits for.
SOON = 0.02


@pytest.fixture
def quick_check(monkeypatch):
    """Let waiting threads look often whether the loop is still there."""
    monkeypatch.setattr(katcp._runtime.waiter, "LOOP_CHECK_INTERVAL", 0.01)


class RunningLoop:
    """A loop that runs in a thread, and that a test may stop behind a portal's back."""

    def __init__(self):
        self.ioloop = IOLoop(make_current=False)
        self.run()

    def run(self):
        """Run it in a new thread; return when it runs."""
        running = threading.Event()
        self.ioloop.add_callback(running.set)
        self.thread = threading.Thread(target=self.ioloop.start)
        self.thread.start()
        assert running.wait(TIMEOUT)

    def stop(self):
        """Stop it, without closing it; return when its thread has ended."""
        if self.thread.is_alive():
            self.ioloop.add_callback(self.ioloop.stop)
            self.thread.join(TIMEOUT)

    def close(self):
        """Close it; what still waits in it is cancelled first."""
        self.stop()
        loop = self.ioloop.asyncio_loop
        if not loop.is_closed():
            self.ioloop.run_sync(lambda: asyncio.sleep(0), TIMEOUT)
            # Looked up while the loop does not run: from Python 3.14 on, a running loop has
            # only the tasks of the thread that runs it now.
            tasks = asyncio.all_tasks(loop)
            self.ioloop.run_sync(lambda: cancel(tasks), TIMEOUT)
            self.ioloop.close()


@pytest.fixture
def running():
    loop = RunningLoop()
    yield loop
    loop.close()


@pytest.fixture
def portal(running):
    return LoopPortal(running.ioloop)


async def cancel(tasks):
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def outcome_of(function):
    """Return what *function* returns or raises in a thread of its own."""
    thread, outcome = in_thread(function)
    thread.join(TIMEOUT)
    return outcome[0]


def unlucky():
    raise KeyError("unlucky")


async def unlucky_coroutine():
    await asyncio.sleep(0)
    raise KeyError("unlucky")


async def never():
    await asyncio.get_running_loop().create_future()


def ident():
    return threading.get_ident()


# Waiter


def test_a_waiter_gives_the_result(portal):
    waiter = Waiter()
    waiter.set_result(5)
    assert waiter.wait(portal.is_gone) is True
    assert waiter.result() == 5


def test_a_waiter_raises_the_error(portal):
    waiter = Waiter()
    waiter.set_result(None, KeyError("bad"))
    assert waiter.wait(portal.is_gone, TIMEOUT) is True
    with pytest.raises(KeyError, match="bad"):
        waiter.result()


def test_a_waiter_leaves_no_cycle_with_its_error(portal):
    waiter = Waiter()
    waiter.set_result(None, KeyError("bad"))
    assert waiter.wait(portal.is_gone)
    with pytest.raises(KeyError) as caught:
        waiter.result()
    assert not any(value is waiter for value in gc.get_referrers(caught.value))


@pytest.mark.parametrize("timeout", [SOON, 0, -1])
def test_a_waiter_returns_false_when_the_time_is_over(portal, timeout):
    waiter = Waiter()
    assert waiter.wait(portal.is_gone, timeout) is False
    assert not waiter.is_over


def test_of_several_outcomes_only_the_first_counts(portal):
    first_result, first_error = Waiter(), Waiter()
    first_result.set_result(1)
    first_result.set_result(None, KeyError("late"))
    first_result.set_result(2)
    assert first_result.wait(portal.is_gone)
    assert first_result.result() == 1
    first_error.set_result(None, KeyError("first"))
    first_error.set_result(1)
    first_error.set_result(None, KeyError("late"))
    assert first_error.wait(portal.is_gone)
    with pytest.raises(KeyError, match="first"):
        first_error.result()


def test_a_waiter_that_gave_up_takes_no_outcome(portal):
    waiter = Waiter()
    assert not waiter.is_over
    waiter.is_over = True
    assert waiter.is_over
    waiter.set_result(1)
    waiter.set_result(None, KeyError("late"))
    assert waiter.wait(portal.is_gone, 0) is False


def test_an_outcome_is_over(portal):
    waiter = Waiter()
    waiter.set_result(None)
    assert waiter.is_over


def test_an_outcome_wakes_the_waiting_thread(running, portal):
    waiter = Waiter()
    thread, outcome = in_thread(lambda: (waiter.wait(portal.is_gone), waiter.result()))
    running.ioloop.add_callback(waiter.set_result, "here")
    thread.join(TIMEOUT)
    assert outcome == [(True, "here")]


def test_a_waiter_notices_that_the_loop_was_closed(running, portal, quick_check):
    running.close()
    with pytest.raises(LoopGone):
        Waiter().wait(portal.is_gone)


def test_a_waiter_survives_a_loop_that_is_stopped_and_run_again(portal, quick_check):
    looks = iter([True, False, True, False])

    class Restarted:
        def is_gone(self):
            gone = next(looks, None)
            if gone is None:
                waiter.set_result("here")
            return gone

    waiter = Waiter()
    assert waiter.wait(Restarted().is_gone) is True
    assert waiter.result() == "here"


# LoopPortal: inside, closed, gone


def test_a_door_tells_whether_the_thread_runs_the_loop(portal):
    assert not portal.in_loop()
    assert portal.thread_id is None
    assert portal.call(portal.in_loop) is True
    portal.call(portal.remember_thread)
    assert portal.thread_id not in (None, ident())
    assert not portal.in_loop()


def test_who_ran_the_loop_is_in_it_until_it_is_closed():
    loop = IOLoop(make_current=False)
    portal = LoopPortal(loop)
    portal.remember_thread()
    assert portal.in_loop()
    assert outcome_of(portal.in_loop) is False
    loop.close()
    # Another thread may have the same number by now.
    assert not portal.in_loop()


def test_a_door_tells_whether_the_loop_is_closed(running, portal):
    assert not portal.is_closed()
    running.close()
    assert portal.is_closed()


def test_a_loop_that_has_not_run_yet_is_not_gone(ioloop):
    assert not LoopPortal(ioloop).is_gone()


def test_a_loop_is_gone_when_it_was_seen_running_and_is_stopped(running, portal):
    assert not portal.is_gone()
    running.stop()
    assert portal.is_gone()
    running.run()
    assert not portal.is_gone()


def test_a_loop_is_gone_when_its_thread_is_known_and_it_does_not_run(ioloop):
    portal = LoopPortal(ioloop)
    portal.remember_thread()
    assert portal.is_gone()


def test_a_closed_loop_is_gone():
    loop = IOLoop(make_current=False)
    portal = LoopPortal(loop)
    loop.close()
    assert portal.is_gone()


# LoopPortal.post


def test_post_runs_the_function_in_the_loops_thread(running, portal):
    waiter = Waiter()
    assert (
        portal.call_soon(lambda *args, **kwargs: waiter.set_result((ident(), args, kwargs)), 1, b=2)
        is None
    )
    assert waiter.wait(portal.is_gone, TIMEOUT)
    assert waiter.result() == (running.thread.ident, (1,), {"b": 2})


def test_posted_functions_run_in_the_order_they_were_posted(portal):
    ran = []
    for number in range(100):
        portal.call_soon(ran.append, number)
    portal.call(lambda: None)
    assert ran == list(range(100))


def test_what_a_posted_function_raises_is_logged(portal, logs):
    portal.call_soon(unlucky)
    text = logs.expect("Exception in callback", logging.ERROR)
    assert "in unlucky" in text
    assert "KeyError: 'unlucky'" in text


def test_a_posted_coroutine_function_runs_and_what_it_raises_is_logged(portal, logs):
    done = threading.Event()

    async def fine():
        await asyncio.sleep(0)
        done.set()

    portal.call_soon(fine)
    assert done.wait(TIMEOUT)
    portal.call_soon(unlucky_coroutine)
    assert "in unlucky_coroutine" in logs.expect("Exception in callback", logging.ERROR)


def test_a_posted_coroutine_is_kept_alive_and_then_forgotten(portal):
    begun, tasks, let_go = threading.Event(), [], []

    async def lonely():
        tasks.append(asyncio.current_task())
        let_go.append(asyncio.get_running_loop().create_future())
        begun.set()
        await let_go[0]

    def is_kept():
        return tasks[0] in katcp._runtime.tasks._background

    portal.call_soon(lonely)
    assert begun.wait(TIMEOUT)
    assert portal.call(is_kept) is True
    portal.call(lambda: let_go[0].set_result(None))
    portal.call(asyncio.wait, tasks)
    assert portal.call(is_kept) is False


def test_a_posted_coroutine_that_is_cancelled_is_not_logged(portal, logs):
    begun = threading.Event()

    async def endless():
        begun.set()
        await never()

    portal.call_soon(endless)
    assert begun.wait(TIMEOUT)
    portal.call(lambda: cancel(asyncio.all_tasks()))
    assert not logs.matching("callback")


def test_post_to_a_closed_loop_raises(running, portal):
    running.close()
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        portal.call_soon(print)


def test_what_was_posted_before_the_door_was_shut_runs_and_posting_afterwards_raises(
    ioloop,
):
    portal, ran = LoopPortal(ioloop), []
    portal.call_soon(ran.append, 1)
    portal.close()
    portal.close()
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        portal.call_soon(ran.append, 2)
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        portal.call(ran.append, 3)
    ioloop.add_callback(ioloop.stop)
    ioloop.start()
    assert ran == [1]


def test_a_recursion_error_is_not_taken_for_a_closed_loop(portal, monkeypatch):
    def recurse(*args):
        raise RecursionError("too deep")

    monkeypatch.setattr(portal.asyncio_loop, "call_soon_threadsafe", recurse)
    with pytest.raises(RecursionError):
        portal.call_soon(print)


# LoopPortal.call


def test_call_returns_what_the_function_returns(running, portal):
    assert portal.call(lambda a, b: (a, b, ident()), 1, b=2) == (1, 2, running.thread.ident)


def test_call_raises_what_the_function_raises_with_its_traceback(portal):
    with pytest.raises(KeyError, match="unlucky") as caught:
        portal.call(unlucky)
    assert "unlucky" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_call_passes_on_what_is_no_ordinary_exception(portal):
    def interrupt():
        raise asyncio.CancelledError("stop")

    with pytest.raises(asyncio.CancelledError):
        portal.call(interrupt)


def test_call_awaits_a_future(running, portal):
    def later():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "later")
        return future

    assert portal.call(later) == "later"


def test_call_awaits_a_coroutine_function(portal):
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    assert portal.call(double, 21) == 42
    with pytest.raises(KeyError, match="unlucky") as caught:
        portal.call(unlucky_coroutine)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "unlucky_coroutine" in names


def test_call_of_a_future_that_is_cancelled_raises(portal):
    def cancelled():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    with pytest.raises(concurrent.futures.CancelledError):
        portal.call(cancelled)


def test_a_coroutine_that_a_thread_waits_for_is_kept_alive(portal):
    """Also where nothing but the coroutine itself holds what it waits for."""
    begun, futures = threading.Event(), []

    async def lonely():
        future = asyncio.get_running_loop().create_future()
        futures.append(weakref.ref(future))
        begun.set()
        return await future

    thread, outcome = in_thread(lambda: portal.call(lonely, timeout=TIMEOUT))
    assert begun.wait(TIMEOUT)
    portal.call(gc.collect)
    portal.call(lambda: futures[0]().set_result("late"))
    thread.join(TIMEOUT)
    assert outcome == ["late"]


@pytest.mark.parametrize("timeout", [SOON, 0])
def test_call_raises_when_the_timeout_is_over(running, portal, timeout):
    with pytest.raises(concurrent.futures.TimeoutError):
        portal.call(never, timeout=timeout)


def test_a_call_whose_time_is_over_before_it_began_is_still_run(running, portal):
    go_on, ran = threading.Event(), []
    running.ioloop.add_callback(go_on.wait, TIMEOUT)
    with pytest.raises(concurrent.futures.TimeoutError):
        portal.call(ran.append, 1, timeout=SOON)
    go_on.set()
    portal.call(lambda: None)
    assert ran == [1]


def test_call_without_timeout_waits_for_as_long_as_it_takes(running, quick_check):
    class PatientPortal(LoopPortal):
        looks = 0

        def is_gone(self):
            self.looks += 1
            if self.looks == 5:
                self.call_soon(released[0].set_result, "late")
            return super().is_gone()

    released = []

    def later():
        released.append(asyncio.get_running_loop().create_future())
        return released[0]

    portal = PatientPortal(running.ioloop)
    assert portal.call(later, timeout=None) == "late"
    assert portal.looks >= 5


def test_call_in_the_loops_thread_is_direct(ioloop):
    async def main():
        portal = LoopPortal(ioloop)
        assert portal.call(ident) == ident()
        future = portal.call(asyncio.sleep, 0, "later")
        assert asyncio.iscoroutine(future)
        assert await future == "later"
        with pytest.raises(KeyError):
            portal.call(unlucky)

    ioloop.run_sync(main, TIMEOUT)


def test_call_of_a_closed_loop_raises(running, portal):
    running.close()
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        portal.call(print)


@pytest.mark.parametrize("close", [False, True])
def test_a_loop_that_is_stopped_behind_the_back_wakes_the_waiter(
    running, portal, quick_check, close
):
    begun = threading.Event()

    def wait_for_ever():
        begun.set()
        return asyncio.get_running_loop().create_future()

    thread, outcome = in_thread(lambda: portal.call(wait_for_ever, timeout=None))
    assert begun.wait(TIMEOUT)
    if close:
        running.close()
    else:
        running.stop()
    thread.join(TIMEOUT)
    assert isinstance(outcome[0], KatcpUsageError)
    assert "The ioloop was stopped before <function" in str(outcome[0])
    assert outcome[0].__cause__ is None


def test_a_call_that_a_stopped_loop_never_began_is_woken(running, portal, quick_check):
    go_on, held = threading.Event(), threading.Event()

    def hold():
        held.set()
        running.ioloop.stop()
        go_on.wait(TIMEOUT)

    running.ioloop.add_callback(hold)
    assert held.wait(TIMEOUT)
    thread, outcome = in_thread(lambda: portal.call(never, timeout=None))
    go_on.set()
    thread.join(TIMEOUT)
    assert isinstance(outcome[0], KatcpUsageError)


def test_a_call_made_before_the_loop_runs_is_answered_when_it_does(ioloop):
    portal = LoopPortal(ioloop)
    thread, outcome = in_thread(lambda: portal.call(ident))
    while thread.is_alive():
        ioloop.add_callback(ioloop.stop)
        ioloop.start()
    assert outcome == [ident()]


def test_call_in_loop_calls_from_any_thread(running):
    assert call_in_loop(running.ioloop, lambda a, b: (a, b, ident()), 1, b=2) == (
        1,
        2,
        running.thread.ident,
    )
    with pytest.raises(KeyError, match="unlucky"):
        call_in_loop(running.ioloop, unlucky)

    def inside():
        return call_in_loop(running.ioloop, ident)

    assert call_in_loop(running.ioloop, inside) == running.thread.ident


def test_call_in_loop_wakes_the_caller_of_a_loop_that_is_stopped(running, quick_check):
    begun = threading.Event()

    def wait_for_ever():
        begun.set()
        return asyncio.get_running_loop().create_future()

    thread, outcome = in_thread(lambda: call_in_loop(running.ioloop, wait_for_ever, timeout=None))
    assert begun.wait(TIMEOUT)
    running.stop()
    thread.join(TIMEOUT)
    assert isinstance(outcome[0], KatcpUsageError)


# make_threadsafe, make_threadsafe_blocking


class Host:
    """What the decorators need of a client: a portal, or None to call directly."""

    def __init__(self, portal, is_safe=True):
        self.portal = portal
        self.is_safe = is_safe
        self.asked = []
        self.said = []

    @property
    def _session(self):
        return self

    def portal_to_enter(self, name):
        self.asked.append(name)
        return None if not self.is_safe or self.portal.in_loop() else self.portal

    @make_threadsafe
    def say(self, word, loudness=1):
        """Say a word."""
        self.said.append((word, loudness, ident()))
        return word

    @make_threadsafe
    def fail_to_say(self):
        unlucky()

    @make_threadsafe_blocking
    def ask(self, *args, **kwargs):
        """Ask."""
        return args, kwargs, ident()

    @make_threadsafe_blocking
    def fail_to_ask(self):
        unlucky()

    @make_threadsafe_blocking
    async def ask_later(self, word):
        await asyncio.sleep(0)
        return word, ident()

    @make_threadsafe_blocking
    def ask_for_ever(self):
        return asyncio.get_running_loop().create_future()

    @make_threadsafe_blocking
    def ask_within(self, timeout="unset"):
        return timeout

    @make_threadsafe_blocking
    def ask_for_ever_within(self, timeout=None):
        return asyncio.get_running_loop().create_future()


class Heir(Host):
    @make_threadsafe
    def say(self, word, loudness=1):
        Host.say(self, word.upper(), loudness=loudness)


@pytest.fixture
def host(portal):
    return Host(portal)


def test_a_threadsafe_method_returns_none_at_once_and_runs_in_the_loop(running, host):
    go_on = threading.Event()
    running.ioloop.add_callback(go_on.wait, TIMEOUT)
    assert host.say("hello", loudness=3) is None
    assert host.said == []
    go_on.set()
    host.portal.call(lambda: None)
    assert host.said == [("hello", 3, running.thread.ident)]
    assert host.asked == ["say"]


def test_what_a_threadsafe_method_raises_is_logged(host, logs):
    host.fail_to_say()
    text = logs.expect("Exception in callback", logging.ERROR)
    assert "in fail_to_say" in text


def test_a_threadsafe_method_in_the_loop_is_called_directly(running, host):
    assert host.portal.call(host.say, "hello") == "hello"
    assert host.said == [("hello", 1, running.thread.ident)]


def test_without_thread_safety_a_method_is_called_where_the_caller_is(host):
    host.is_safe = False
    assert host.say("hello") == "hello"
    assert host.said == [("hello", 1, ident())]
    assert host.ask(1) == ((1,), {}, ident())
    with pytest.raises(KeyError):
        host.fail_to_ask()


def test_a_threadsafe_method_may_be_called_unbound(running, portal):
    heir = Heir(portal)
    heir.say("hello")
    Host.say(heir, "bye")
    portal.call(lambda: None)
    assert heir.said == [("HELLO", 1, running.thread.ident), ("bye", 1, running.thread.ident)]
    assert Host.ask(heir, 5) == ((5,), {}, running.thread.ident)


def test_the_decorators_keep_name_and_docstring():
    assert (Host.say.__name__, Host.say.__doc__) == ("say", "Say a word.")
    assert (Host.ask.__name__, Host.ask.__doc__) == ("ask", "Ask.")


def test_a_threadsafe_method_of_a_closed_loop_raises(running, host):
    running.close()
    with pytest.raises(KatcpUsageError, match="closed"):
        host.say("hello")
    with pytest.raises(KatcpUsageError, match="closed"):
        host.ask()


def test_a_blocking_method_returns_what_it_returns_in_the_loop(running, host):
    assert host.ask(1, b=2) == ((1,), {"b": 2}, running.thread.ident)
    assert host.asked == ["ask"]


def test_a_blocking_method_raises_what_it_raises_in_the_loop(host):
    with pytest.raises(KeyError, match="unlucky") as caught:
        host.fail_to_ask()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "fail_to_ask" in names


def test_a_blocking_coroutine_method_is_awaited(running, host):
    assert host.ask_later("hello") == ("hello", running.thread.ident)


def test_a_blocking_method_in_the_loop_is_called_directly(running, host):
    async def inside():
        assert asyncio.isfuture(host.ask_for_ever())
        return await host.ask_later("hello")

    assert host.portal.call(inside) == ("hello", running.thread.ident)


def test_a_blocking_method_is_limited_by_its_timeout(host):
    with pytest.raises(concurrent.futures.TimeoutError):
        host.ask_for_ever(timeout=SOON)


def test_a_blocking_method_waits_5_seconds_if_not_told_otherwise(host, monkeypatch):
    assert katcp._runtime.portal.DEFAULT_CALL_TIMEOUT == 5.0
    monkeypatch.setattr(katcp._runtime.portal, "DEFAULT_CALL_TIMEOUT", SOON)
    with pytest.raises(concurrent.futures.TimeoutError):
        host.ask_for_ever()


def test_timeout_none_is_no_limit(host, monkeypatch):
    monkeypatch.setattr(katcp._runtime.portal, "DEFAULT_CALL_TIMEOUT", 0.0)
    assert host.ask(timeout=None)[0] == ()


def test_timeout_is_kept_from_a_method_without_such_a_parameter(host):
    assert host.ask(1, timeout=TIMEOUT)[:2] == ((1,), {})
    assert host.portal.call(lambda: host.ask(1, timeout=TIMEOUT))[:2] == ((1,), {})


def test_timeout_is_passed_on_to_a_method_with_such_a_parameter(host):
    assert host.ask_within() == "unset"
    assert host.ask_within(timeout=TIMEOUT) == TIMEOUT
    assert host.ask_within(timeout=None) is None
    assert host.portal.call(lambda: host.ask_within(timeout=3)) == 3
    with pytest.raises(concurrent.futures.TimeoutError):
        host.ask_for_ever_within(timeout=SOON)
    with pytest.raises(concurrent.futures.TimeoutError):
        host.ask_for_ever_within(SOON)
    assert host.ask_within(7) == 7


# Threads that work for the loop


def test_what_a_daemon_thread_returns_or_raises_comes_back_into_the_loop(ioloop):
    async def main():
        outcome = await run_in_daemon_thread(lambda word: (word, threading.current_thread()), "x")
        assert outcome[0] == "x"
        assert outcome[1] is not threading.current_thread()
        assert outcome[1].daemon
        with pytest.raises(KeyError, match="unlucky"):
            await run_in_daemon_thread(unlucky)

    ioloop.run_sync(main, TIMEOUT)


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_daemon_thread_that_nobody_waits_for_any_more_ends_quietly(how):
    go_on, ended = threading.Event(), threading.Event()

    def work():
        go_on.wait(TIMEOUT)
        ended.set()

    async def main():
        future = run_in_daemon_thread(work)
        future.cancel()
        if how == "cancelled":
            go_on.set()
            while threading.active_count() > before:
                await asyncio.sleep(0)

    before = threading.active_count()
    loop = IOLoop(make_current=False)
    loop.run_sync(main, TIMEOUT)
    loop.close()
    go_on.set()
    assert ended.wait(TIMEOUT)


# Many threads


@pytest.mark.parametrize("seed", range(20))
def test_of_many_calls_while_the_loop_stops_each_runs_or_raises(seed):
    """None is lost, none hangs, and none runs that raised."""
    random_ = random.Random(seed)
    manager = IOLoopManager(logger=logging.getLogger("test.manager"))
    manager.start(TIMEOUT)
    portal = manager.get_portal()
    ran, returned, posted, refused = set(), [], [], []
    begun = threading.Barrier(9)
    stop_after = random_.randrange(1, 400)

    def note(key):
        ran.add(key)
        if len(ran) == stop_after:
            manager.stop()
        return key

    async def note_later(key):
        return note(key)

    def caller(number, kinds):
        begun.wait(TIMEOUT)
        for position, kind in enumerate(kinds):
            key = (number, position)
            try:
                if kind == "post":
                    portal.call_soon(note, key)
                    posted.append(key)
                else:
                    function = note if kind == "call" else note_later
                    returned.append((key, portal.call(function, key, timeout=TIMEOUT)))
            except (KatcpUsageError, concurrent.futures.CancelledError):
                refused.append(key)

    threads = [
        threading.Thread(
            target=caller,
            args=(number, random_.choices(["post", "call", "coroutine"], k=100)),
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    begun.wait(TIMEOUT)
    for thread in threads:
        thread.join(3 * TIMEOUT)
        assert not thread.is_alive()
    manager.stop()
    manager.join(TIMEOUT)
    assert all(key == result for key, result in returned)
    answered = {key for key, _ in returned} | set(posted)
    assert len(answered) + len(refused) == 800
    assert answered == ran
