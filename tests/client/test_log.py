"""What a client logs: in full, within the limits, and with any logger of a program."""

import inspect
import logging

import pytest

from katcp.client._log import PERIOD, CurrentException, RateLimitedLog, complete


class Owner:
    """Who logs, and says how much."""

    def __init__(self, rate=3, logger=None):
        self.MAX_LOG_RATE = rate
        self._logger = logger or logging.getLogger("tests.rate_limited_log")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Calls:
    """A logger object that has only the methods it was given, and notes their calls."""

    def __init__(self, *methods):
        self.calls = []
        for name in methods:
            setattr(self, name, lambda *args, name=name: self.calls.append((name, *args)))


class Unwritable:
    def __str__(self):
        raise AssertionError("formatted although nobody reads it")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return RateLimitedLog(Owner(), clock)


def logged(log, logs, times, text="bad %d"):
    """Log as many warnings; return how many of them came through, and take them out."""
    start = text.partition("%")[0]
    for number in range(times):
        log.warning(text, number)
    found = [record for record in logs.matching(start) if record.getMessage().startswith(start)]
    for record in found:
        logs.records.remove(record)
    return len(found)


# ---- the limit ----


def test_up_to_the_limit_all_is_logged_and_nothing_else(log, logs):
    assert logged(log, logs, 3) == 3
    log.end_period()


def test_more_is_left_out_and_both_its_beginning_and_its_number_are_logged(log, logs):
    assert logged(log, logs, 10) == 3
    logs.expect("More than MAX_LOG_RATE (3) records like 'bad %d' in a minute: more are left out.")
    log.end_period()
    logs.expect("7 records like 'bad %d' were left out.")


def test_kinds_do_not_touch_each_other(log, logs):
    assert logged(log, logs, 4) == logged(log, logs, 3, "worse %d") == 3
    logs.expect("More than MAX_LOG_RATE (3) records like 'bad %d'")


def test_each_minute_counts_anew(log, clock, logs):
    assert logged(log, logs, 2) == 2
    clock.now += PERIOD
    assert logged(log, logs, 5) == 3
    logs.expect("More than MAX_LOG_RATE")
    clock.now += PERIOD - 0.1
    assert logged(log, logs, 5) == 0
    clock.now += 0.2
    assert logged(log, logs, 1) == 1
    logs.expect("7 records like 'bad %d' were left out.")


@pytest.mark.parametrize("method", ["warning", "error", "exception"])
def test_what_is_left_out_is_not_formatted(clock, logs, method):
    log = RateLimitedLog(Owner(rate=0), clock)
    getattr(log, method)("bad %s", Unwritable())
    logs.expect("More than MAX_LOG_RATE (0)")


@pytest.mark.parametrize("method", ["debug", "info"])
def test_what_is_no_failure_has_no_limit(method):
    logger = Calls("isEnabledFor", "debug", "info", "warning", "error", "exception")
    logger.isEnabledFor = lambda level: True
    log = RateLimitedLog(Owner(rate=0, logger=logger))
    for _ in range(5):
        getattr(log, method)("good")
    assert logger.calls == [(method, "good")] * 5


# ---- the records ----


def test_a_record_holds_its_complete_text(log, logs):
    log.warning("%s has 100%% of %r", "it", b"a")
    log.error("bad")
    for text, level in (("it has 100% of b'a'", logging.WARNING), ("bad", logging.ERROR)):
        (record,) = logs.matching(text)
        assert (record.msg, record.args, record.exc_info) == (text, (), None)
        logs.expect(text, level)


def test_a_text_without_arguments_is_logged_as_it_is(log, logs):
    log.warning("100% of it")
    logs.expect("100% of it")


def test_an_exception_is_kept_in_the_record(log, logs):
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("bad %d", 1)
    (record,) = logs.matching("bad 1")
    assert (record.msg, record.args, record.exc_info[0]) == ("bad 1", (), ValueError)
    logs.expect("bad 1", logging.ERROR)


def test_the_current_exception_is_written_as_deep_as_it_is_told(log, logs):
    def fail(depth):
        if depth:
            fail(depth - 1)
        raise ValueError("odd") from None

    try:
        fail(10)
    except ValueError:
        log.error("bad: %s", CurrentException(3))
    text = logs.expect("bad: Traceback (most recent call last):\n\n  File", logging.ERROR)
    assert text.endswith("\n\nValueError: odd\n")
    assert text.count("File ") == 3


def test_a_record_tells_who_logged_it(log, logs):
    line = inspect.currentframe().f_lineno + 1
    log.warning("here")
    (record,) = logs.matching("here")
    name = "test_a_record_tells_who_logged_it"
    assert (record.pathname, record.lineno, record.funcName) == (__file__, line, name)
    logs.expect("here")


def test_what_nobody_reads_is_neither_formatted_nor_counted(clock):
    logger = logging.Logger("quiet", logging.CRITICAL)
    log = RateLimitedLog(Owner(rate=0, logger=logger), clock)
    for method in (log.debug, log.info, log.warning, log.error, log.exception):
        method("bad %s", Unwritable())
    logger.setLevel(logging.DEBUG)
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.msg)
    logger.addHandler(handler)
    records = []
    log.end_period()
    assert records == []


# ---- loggers of programs ----


def test_a_logger_with_all_methods_is_used_as_it_is():
    logger = logging.getLogger("tests.rate_limited_log")
    assert complete(logger) is logger
    adapter = logging.LoggerAdapter(logger, {})
    assert complete(adapter) is adapter


@pytest.mark.parametrize("enabled", [True, False])
def test_a_logger_without_warning_is_asked_to_warn(enabled):
    logger = Calls("debug", "info", "warn", "error", "exception")
    logger.isEnabledFor = lambda level: enabled
    completed = complete(logger)
    assert completed.isEnabledFor(logging.ERROR) is enabled
    RateLimitedLog(Owner(logger=logger)).warning("bad %d", 1)
    assert logger.calls == [("warn", "bad 1")] * enabled


def test_a_logger_without_levels_is_given_everything():
    logger = Calls("debug", "info", "warn", "error", "exception")
    log = RateLimitedLog(Owner(logger=logger))
    for method in ("debug", "info", "warning", "error", "exception"):
        getattr(log, method)("text %d", 1)
    assert complete(logger).isEnabledFor(logging.DEBUG) is True
    assert logger.calls == [
        (method, "text 1") for method in ("debug", "info", "warn", "error", "exception")
    ]


def test_a_logger_that_knows_no_exceptions_is_given_the_traceback():
    logger = Calls("debug", "info", "warning", "error")
    log = RateLimitedLog(Owner(logger=logger))
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("bad %d", 1)
    ((method, text),) = logger.calls
    assert method == "error"
    assert text.startswith("bad 1\nTraceback (most recent call last):\n")
    assert text.endswith("ValueError: odd\n")


def test_a_completed_logger_still_has_its_own_attributes():
    logger = Calls("warn")
    logger.name = "mine"
    completed = complete(logger)
    assert completed.name == "mine"
    with pytest.raises(AttributeError, match="nothing"):
        completed.nothing  # noqa: B018


def test_a_logger_that_is_replaced_is_not_used_any_more(clock):
    first, second = Calls("warn"), Calls("warn")
    owner = Owner(logger=first)
    log = RateLimitedLog(owner, clock)
    owner._logger = second
    log.warning("bad")
    assert (first.calls, second.calls) == ([], [("warn", "bad")])
