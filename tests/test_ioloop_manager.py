"""Who owns a loop and its thread."""

import asyncio
import concurrent.futures
import logging
import os
import threading

import pytest
import tornado.gen
from tornado.ioloop import IOLoop

from katcp.errors import KatcpThreadError, KatcpUsageError
from katcp.ioloop_manager import (
    IOLoopManager,
    IOLoopThreadWrapper,
    ThreadSafeMethodAttrWrapper,
    with_relative_timeout,
)

from .support.helpers import current_loop

# A limit that is exceeded only by a test that fails.
TIMEOUT = 5.0

# A limit that the test waits for.
SOON = 0.02


@pytest.fixture
def manager():
    """A manager whose loop, if it is managed, is stopped after the test."""
    manager = IOLoopManager()
    yield manager
    manager.stop()
    if manager._thread is not None:
        manager.join(TIMEOUT)


@pytest.fixture
def started(manager):
    """A manager with a loop that runs in a thread of its own."""
    manager.start(TIMEOUT)
    return manager


def stop_and_join(manager):
    manager.stop()
    manager.join(TIMEOUT)


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def unlucky():
    raise KeyError("unlucky")


async def never():
    await asyncio.get_running_loop().create_future()


# A managed loop


def test_a_managed_loop_runs_in_a_thread_of_its_own(started):
    portal = started.get_portal()
    assert started.managed
    assert portal.ioloop is started.get_ioloop()
    thread = portal.call(threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.name == "katcp-ioloop"
    assert portal.thread_id == thread.ident
    assert portal.call(IOLoop.current) is started.get_ioloop()


def test_a_managed_loop_is_never_current_in_the_thread_that_made_it(manager):
    before = current_loop()
    ioloop = manager.get_ioloop()
    assert current_loop() is before is not ioloop.asyncio_loop
    manager.start(TIMEOUT)
    assert current_loop() is before
    stop_and_join(manager)
    assert current_loop() is before


@pytest.mark.parametrize("when", ["before the start", "after it"])
def test_a_managed_loop_may_be_made_current(manager, when):
    def make_current():
        if when == "after it":
            manager.start(TIMEOUT)
        ioloop = manager.get_ioloop()
        ioloop.make_current()
        current.append(IOLoop.current() is ioloop)
        manager.start(TIMEOUT) if when == "before the start" else None
        current.append(manager.get_portal().call(IOLoop.current) is ioloop)

    current = []
    thread = threading.Thread(target=make_current)
    thread.start()
    thread.join(TIMEOUT)
    assert current == [True, True]


def test_a_thread_without_a_current_loop_has_none_after_the_start(manager):
    def start():
        manager.start(TIMEOUT)
        found.append(current_loop())

    found = []
    thread = threading.Thread(target=start)
    thread.start()
    thread.join(TIMEOUT)
    assert found == [None]


def test_a_task_that_another_thread_made_before_the_start_is_cancelled_at_the_end(manager):
    task = manager.get_ioloop().asyncio_loop.create_task(never())
    manager.start(TIMEOUT)
    stop_and_join(manager)
    assert task.cancelled()


def test_the_current_loop_of_the_thread_that_starts_stays_current(ioloop):
    async def main():
        manager = IOLoopManager()
        manager.start(TIMEOUT)
        assert IOLoop.current() is ioloop
        stop_and_join(manager)
        assert IOLoop.current() is ioloop

    ioloop.run_sync(main, TIMEOUT)


def test_start_returns_when_the_loop_runs(manager):
    manager.start()
    assert manager.get_ioloop().asyncio_loop.is_running()


def test_start_waits_no_longer_than_its_timeout(manager):
    go_on = threading.Event()
    manager.get_portal().call_soon(go_on.wait, TIMEOUT)
    manager.start(timeout=SOON)
    assert not go_on.is_set()
    go_on.set()
    assert manager.get_portal().call(lambda: "runs") == "runs"


def test_starting_twice_is_refused(started):
    with pytest.raises(KatcpUsageError, match="running already"):
        started.start()


def test_restart_makes_a_new_loop(started):
    ioloop, portal = started.get_ioloop(), started.get_portal()
    stop_and_join(started)
    assert portal.is_closed()
    started.start(TIMEOUT)
    assert started.get_ioloop() is not ioloop
    assert started.get_portal() is not portal
    assert started.get_portal().call(lambda: "runs") == "runs"
    with pytest.raises(KatcpUsageError, match="closed"):
        portal.call_soon(print)


def test_a_start_without_a_thread_may_be_tried_again(manager, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", start)
        before = descriptors()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            manager.start(TIMEOUT)
        assert descriptors() == before
        stop_and_join(manager)
    manager.start(TIMEOUT)
    assert manager.get_portal().call(threading.current_thread).name == "katcp-ioloop"


def test_start_and_end_are_logged(manager, logs):
    manager.start(TIMEOUT)
    stop_and_join(manager)
    logs.expect("Stopping ioloop <", logging.INFO)
    logs.expect("Managed tornado IOloop <", logging.INFO)
    assert not logs.matching("oop")


def test_a_logger_may_be_given(logs):
    manager = IOLoopManager(logger=logging.getLogger("test.manager"))
    manager.start(TIMEOUT)
    stop_and_join(manager)
    assert {record.name for record in logs.matching("oop")} == {"test.manager"}


def test_50_starts_and_stops_leave_no_thread_and_no_descriptor(manager):
    # The first half lets the interpreter open what it keeps open.
    for _ in range(2):
        before = descriptors(), threading.active_count()
        for _ in range(25):
            manager.start(TIMEOUT)
            stop_and_join(manager)
    assert (descriptors(), threading.active_count()) == before


@pytest.mark.parametrize("daemon", [False, True])
def test_set_daemon_takes_effect_at_the_next_start(manager, daemon):
    assert manager.daemon is False
    manager.setDaemon(not daemon)
    manager.start(TIMEOUT)
    manager.setDaemon(daemon)
    assert manager.get_portal().call(threading.current_thread).daemon is (not daemon)
    stop_and_join(manager)
    manager.start(TIMEOUT)
    assert manager.get_portal().call(threading.current_thread).daemon is daemon


# stop, join


def test_stop_runs_the_callback_in_the_loop_and_ends_the_thread(started):
    thread, calls = started.get_portal().call(threading.current_thread), []
    started.stop(callback=lambda: calls.append(threading.current_thread()))
    started.join(TIMEOUT)
    assert calls == [thread]
    assert not thread.is_alive()


def test_a_callback_that_raises_is_logged_and_the_loop_stops(started, logs):
    thread = started.get_portal().call(threading.current_thread)
    started.stop(callback=unlucky)
    started.join(TIMEOUT)
    assert not thread.is_alive()
    logs.expect("KeyError: 'unlucky'", logging.ERROR)


def test_stopping_twice_is_harmless(started):
    started.stop()
    started.stop()
    started.join(TIMEOUT)
    started.stop()
    started.join(TIMEOUT)


def test_stopping_what_was_never_started_does_nothing():
    IOLoopManager().stop()


def test_stop_from_the_loops_own_thread_ends_it(started):
    thread = started.get_portal().call(threading.current_thread)
    started.get_portal().call(started.stop)
    started.join(TIMEOUT)
    assert not thread.is_alive()


def test_join_before_the_start_raises():
    with pytest.raises(RuntimeError, match=r"^Cannot join if not started$"):
        IOLoopManager().join()


def test_join_in_the_loops_own_thread_raises(started):
    with pytest.raises(RuntimeError, match="cannot join current thread"):
        started.get_portal().call(started.join)


def test_join_waits_no_longer_than_its_timeout(started):
    started.join(SOON)
    assert started.get_portal().call(lambda: "still runs") == "still runs"


def test_what_was_posted_before_the_end_runs_and_posting_afterwards_raises(started):
    portal, ran, go_on = started.get_portal(), [], threading.Event()
    portal.call_soon(go_on.wait, TIMEOUT)
    started.stop()
    for number in range(100):
        portal.call_soon(ran.append, number)
    go_on.set()
    started.join(TIMEOUT)
    assert ran == list(range(100))
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        portal.call_soon(ran.append, 100)


def test_coroutines_that_are_pending_at_the_stop_are_cancelled(started):
    ended, begun = [], threading.Event()

    async def wait_for_ever():
        asyncio.current_task().add_done_callback(lambda task: ended.append(task.cancelled()))
        begun.set()
        await never()

    started.get_portal().call_soon(wait_for_ever)
    assert begun.wait(TIMEOUT)
    stop_and_join(started)
    assert ended == [True]


def test_a_thread_that_waits_for_a_coroutine_is_woken_by_the_stop(started):
    begun, outcome = threading.Event(), []

    async def wait_for_ever():
        begun.set()
        await never()

    def ask():
        try:
            started.get_portal().call(wait_for_ever, timeout=None)
        except concurrent.futures.CancelledError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(TIMEOUT)
    stop_and_join(started)
    thread.join(TIMEOUT)
    assert len(outcome) == 1


def test_asynchronous_generators_are_closed_at_the_stop(started):
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    generator = numbers()
    assert started.get_portal().call(generator.__anext__) == 1
    stop_and_join(started)
    assert closed == [True]


def test_a_loop_that_cannot_run_is_logged_and_nobody_hangs(manager, logs):
    ioloop = manager.get_ioloop()
    # A loop that was stopped from outside, and closed, cannot be run.
    ioloop.close()
    manager.start()
    manager.join(TIMEOUT)
    logs.expect("Error running tornado IOloop", logging.ERROR)
    manager.start(TIMEOUT)
    assert manager.get_ioloop() is not ioloop
    assert manager.get_portal().call(lambda: "runs") == "runs"


# A shared loop


def test_a_shared_loop_is_used_and_left_running(ioloop):
    async def main():
        manager, calls = IOLoopManager(managed_default=False), []
        manager.set_ioloop(ioloop)
        assert not manager.managed
        manager.start()
        assert manager.get_ioloop() is ioloop
        manager.get_portal().call_soon(calls.append, "posted")
        manager.stop(callback=lambda: calls.append("stopped"))
        manager.join()
        await asyncio.sleep(0)
        assert calls == ["posted", "stopped"]
        assert manager.get_ioloop() is ioloop

    ioloop.run_sync(main, TIMEOUT)


def test_stopping_after_a_shared_loop_was_closed_does_nothing():
    ioloop = IOLoop(make_current=False)
    manager = IOLoopManager()
    manager.set_ioloop(ioloop, managed=False)
    portal = manager.get_portal()
    ioloop.close()
    manager.stop()
    assert portal.is_closed()


def test_the_current_loop_is_shared_if_none_is_given(ioloop):
    async def main():
        manager = IOLoopManager()
        manager.set_ioloop(managed=False)
        assert not manager.managed
        assert manager.get_ioloop() is ioloop

    ioloop.run_sync(main, TIMEOUT)


def test_set_ioloop_may_say_whether_the_loop_is_managed():
    ioloop = IOLoop(make_current=False)
    manager = IOLoopManager(managed_default=False)
    manager.set_ioloop(ioloop, managed=True)
    assert manager.managed
    manager.start(TIMEOUT)
    assert manager.get_ioloop() is ioloop
    assert manager.get_portal().call(IOLoop.current) is ioloop
    stop_and_join(manager)
    assert ioloop.asyncio_loop.is_closed()


def test_set_ioloop_twice_is_refused(ioloop, started):
    manager = IOLoopManager()
    manager.set_ioloop(ioloop, managed=False)
    for refusing in (manager, started):
        with pytest.raises(RuntimeError, match=r"^IOLoop instance already set$"):
            refusing.set_ioloop(ioloop)
    assert manager.get_ioloop() is ioloop


def test_set_ioloop_after_get_ioloop_is_refused(ioloop):
    manager = IOLoopManager()
    made = manager.get_ioloop()
    with pytest.raises(RuntimeError, match=r"^IOLoop instance already set$"):
        manager.set_ioloop(ioloop)
    made.close()


# IOLoopThreadWrapper


@pytest.fixture
def wrapper(started):
    return IOLoopThreadWrapper(started.get_ioloop())


def test_the_wrapper_returns_and_raises_what_the_function_does(wrapper, started):
    assert wrapper.call_in_ioloop(lambda a, b: (a, b), (1,), {"b": 3}) == (1, 3)
    with pytest.raises(KeyError, match="unlucky"):
        wrapper.call_in_ioloop(unlucky, (), {}, TIMEOUT)
    assert wrapper.call_in_ioloop(asyncio.sleep, (0, "later"), {}) == "later"
    assert wrapper.ioloop is started.get_ioloop()


def test_the_wrapper_decorates_functions(wrapper, started):
    ident = wrapper.decorate_callable(threading.get_ident)
    assert ident() == started.get_portal().thread_id
    assert wrapper.decorate_callable(dict)([("a", 1)], b=2) == {"a": 1, "b": 2}


def test_the_wrapper_is_limited_by_timeout_and_default_timeout(wrapper):
    assert IOLoopThreadWrapper.default_timeout is None
    with pytest.raises(concurrent.futures.TimeoutError):
        wrapper.call_in_ioloop(never, (), {}, timeout=SOON)
    wrapper.default_timeout = SOON
    with pytest.raises(concurrent.futures.TimeoutError):
        wrapper.call_in_ioloop(never, (), {})
    with pytest.raises(concurrent.futures.TimeoutError):
        wrapper.decorate_callable(never)()


def test_the_wrapper_of_a_closed_loop_raises(wrapper, started):
    stop_and_join(started)
    with pytest.raises(RuntimeError, match="closed"):
        wrapper.call_in_ioloop(unlucky, (), {})


def test_the_wrapper_uses_the_current_loop_if_not_told_otherwise(ioloop):
    async def main():
        assert IOLoopThreadWrapper().ioloop is ioloop

    ioloop.run_sync(main, TIMEOUT)


def test_the_wrapper_refuses_to_wait_in_the_loop(ioloop):
    async def main():
        wrapper = IOLoopThreadWrapper(ioloop)
        for call in (
            lambda: wrapper.call_in_ioloop(threading.get_ident, (), {}),
            wrapper.decorate_callable(threading.get_ident),
        ):
            with pytest.raises(KatcpThreadError) as raised:
                call()
            assert str(raised.value) == "Cannot call a thread-wrapped object from the ioloop"

    ioloop.run_sync(main, TIMEOUT)


def test_the_wrapper_keeps_name_and_docstring_of_what_it_decorates(wrapper):
    decorated = wrapper.decorate_callable(stop_and_join)
    assert decorated.__name__ == "stop_and_join"


# ThreadSafeMethodAttrWrapper


class Subject:
    """What a program wraps."""

    value = 5

    def __init__(self, name):
        self.name = name

    def __len__(self):
        return 3

    def thread(self, *, prefix=""):
        """Tell where it runs."""
        return prefix + threading.current_thread().name

    async def later(self):
        await asyncio.sleep(0)
        return self.thread()

    @property
    def here(self):
        return threading.current_thread().name


@pytest.fixture
def subject():
    return Subject("mine")


@pytest.fixture
def wrapped(wrapper, subject):
    return ThreadSafeMethodAttrWrapper(subject, wrapper)


def test_methods_of_a_wrapped_object_run_in_the_loop(wrapped):
    assert wrapped.thread() == wrapped.later() == "katcp-ioloop"
    assert wrapped.thread(prefix="in ") == "in katcp-ioloop"
    assert wrapped.thread.__doc__ == "Tell where it runs."


def test_an_argument_timeout_limits_how_long_a_wrapped_object_waits(wrapped, wrapper, subject):
    async def sleep(seconds, timeout=None):
        await asyncio.sleep(seconds)
        return timeout

    subject.sleep = sleep
    with pytest.raises(concurrent.futures.TimeoutError):
        wrapped.sleep(10 * TIMEOUT, timeout=SOON)
    wrapper.default_timeout = SOON
    assert wrapped.sleep(2 * SOON, timeout=TIMEOUT) == TIMEOUT
    with pytest.raises(concurrent.futures.TimeoutError):
        wrapped.sleep(10 * TIMEOUT, timeout=None)


def test_other_attributes_of_a_wrapped_object_are_those_of_the_object(wrapped, subject):
    here = threading.current_thread().name
    assert (wrapped.value, wrapped.name, wrapped.here, len(wrapped)) == (5, "mine", here, 3)
    wrapped.name = "yours"
    wrapped.new = 1
    assert (subject.name, subject.new) == ("yours", 1)
    assert isinstance(wrapped, Subject)
    with pytest.raises(AttributeError, match="'Subject' object has no attribute 'nothing'"):
        wrapped.nothing  # noqa: B018


def test_a_wrapped_object_waits_as_long_as_its_wrapper(wrapped, wrapper, subject):
    subject.never = never
    wrapper.default_timeout = SOON
    with pytest.raises(concurrent.futures.TimeoutError):
        wrapped.never()


def test_a_subclass_of_the_wrapper_has_attributes_of_its_own(wrapper, subject):
    class Own(ThreadSafeMethodAttrWrapper):
        count = 0

        @property
        def first(self):
            return ThreadSafeMethodAttrWrapper(self.__subject__.name, self._ioloop_wrapper)

    own = Own(subject, wrapper)
    own.count = 3
    assert own.count == 3
    assert not hasattr(subject, "count")
    assert own.first == "mine"
    assert own.first.upper() == "MINE"
    assert own.thread() == "katcp-ioloop"


# with_relative_timeout


def test_with_relative_timeout_fails_when_the_time_is_over(ioloop):
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with pytest.raises(tornado.gen.TimeoutError, match=r"^Timeout$"):
            await with_relative_timeout(SOON, future, io_loop=ioloop)
        future.set_result(3)
        assert await with_relative_timeout(TIMEOUT, future) == 3
        assert with_relative_timeout(None, future) is future

    ioloop.run_sync(main, TIMEOUT)
