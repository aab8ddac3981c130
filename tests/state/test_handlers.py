"""The tables of handler methods that the metaclass makes."""

import pytest

from katcp._state.handlers import DeviceMetaclass
from katcp._wire.text import convert_method_name


class Base(metaclass=DeviceMetaclass):
    inform_not_callable = "text"

    def request_do_it(self, msg):
        return "base", msg

    def inform_sensor_status(self, msg):
        """With a docstring."""
        return "base", msg

    def reply_a_b_c(self, msg):
        return "base", msg

    def inform_(self, msg):
        """A prefix alone names no message."""

    def informs_of(self, msg):
        """Another word."""

    def other(self):
        """No handler."""


class Mixin:
    def inform_mixed_in(self, msg):
        return "mixin", msg

    def reply_a_b_c(self, msg):
        return "mixin", msg


class Derived(Mixin, Base):
    def inform_sensor_status(self, msg):
        return "derived", msg

    @classmethod
    def inform_of_class(cls, msg):
        return cls, msg


def tables(cls):
    return cls._request_handlers, cls._inform_handlers, cls._reply_handlers


@pytest.mark.parametrize(
    ("prefix", "name", "message"),
    [
        ("inform_", "inform_sensor_status", "sensor-status"),
        ("request_", "request_x", "x"),
        ("reply_", "reply_a_b_c", "a-b-c"),
        ("reply_", "reply_version2", "version2"),
    ],
)
def test_the_name_of_a_method_gives_the_name_of_its_message(prefix, name, message):
    assert convert_method_name(prefix, name) == message


def test_methods_are_found_by_their_prefix():
    requests, informs, replies = tables(Base)
    assert requests == {"do-it": Base.request_do_it}
    assert informs == {"sensor-status": Base.inform_sensor_status}
    assert replies == {"a-b-c": Base.reply_a_b_c}


def test_the_tables_hold_functions_of_client_and_message():
    client = Base()
    assert Base._inform_handlers["sensor-status"](client, 1) == ("base", 1)


def test_a_handler_needs_no_docstring():
    assert Base.request_do_it.__doc__ is None
    assert "do-it" in Base._request_handlers


def test_inherited_methods_count():
    assert Derived._request_handlers == {"do-it": Base.request_do_it}


def test_methods_of_plain_mixin_classes_count():
    assert Derived._inform_handlers["mixed-in"] is Mixin.inform_mixed_in


def test_the_table_has_the_method_that_the_class_would_call():
    client = Derived()
    assert Derived._inform_handlers["sensor-status"](client, 1) == ("derived", 1)
    assert Derived._reply_handlers["a-b-c"](client, 1) == ("mixin", 1)
    assert Derived._inform_handlers["of-class"](1) == (Derived, 1)


def test_each_class_has_tables_of_its_own():
    class Sibling(Base):
        pass

    Sibling._inform_handlers["fpga"] = print
    assert "fpga" not in Base._inform_handlers
    assert "fpga" not in Derived._inform_handlers
    assert tables(Sibling)[0] == tables(Base)[0]
    assert tables(Sibling)[0] is not tables(Base)[0]


def test_what_is_set_on_an_instance_does_not_count():
    client = Derived()
    client.inform_late = print
    assert "late" not in client._inform_handlers


def test_a_handler_switched_off_in_a_subclass_is_not_called():
    class Quiet(Base):
        inform_sensor_status = None

    assert Quiet._inform_handlers == {}
