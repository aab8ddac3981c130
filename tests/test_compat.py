"""The helpers that old programs import."""

import inspect

import pytest

from katcp import compat


@pytest.mark.parametrize(
    ("value", "bytes_", "text"),
    [(b"a", True, False), ("a", False, True), (bytearray(b"a"), False, False), (1, False, False)],
)
def test_is_bytes_and_is_text(value, bytes_, text):
    assert compat.is_bytes(value) is bytes_
    assert compat.is_text(value) is text


@pytest.mark.parametrize("value", ["d\u00e9j\u00e0", "d\u00e9j\u00e0".encode()], ids=type)
def test_ensure_native_str_takes_text_and_bytes(value):
    assert compat.ensure_native_str(value) == "d\u00e9j\u00e0"


def test_ensure_native_str_refuses_the_rest():
    with pytest.raises(TypeError, match="Invalid type for string conversion: <class 'int'>"):
        compat.ensure_native_str(5)
    with pytest.raises(UnicodeDecodeError):
        compat.ensure_native_str(b"\xff")


@pytest.mark.parametrize(
    ("data", "chars"), [(b"", []), (b"a", [b"a"]), (b"a\0\xff", [b"a", b"\0", b"\xff"])]
)
def test_byte_chars_gives_bytes(data, chars):
    iterator = compat.byte_chars(data)
    assert iter(iterator) is iterator
    assert list(iterator) == chars


def test_items_of_an_attr_dict_are_attributes():
    values = compat.AttrDict(a=1)
    values.b = 2
    assert values == {"a": 1, "b": 2}
    assert values.a == 1
    with pytest.raises(AttributeError, match="'AttrDict' object has no attribute 'c'"):
        _ = values.c


def test_items_of_a_default_attr_dict_are_attributes_with_defaults():
    values = compat.DefaultAttrDict(list)
    values.a.append(1)
    values.b = 2
    assert values == {"a": [1], "b": 2}


def test_a_default_attr_dict_makes_no_item_when_it_is_asked_for_special_methods():
    values = compat.DefaultAttrDict(list)
    assert not hasattr(values, "__wrapped__")
    assert not values


def test_hashable_identity():
    class Unhashable:
        __hash__ = None

        def method(self):
            """One method."""

        def other(self):
            """Another method."""

    one, two = Unhashable(), Unhashable()
    identity = compat.hashable_identity
    assert identity(one) == identity(one)
    assert identity(one) != identity(two)
    assert identity(one.method) == identity(one.method)
    assert identity(one.method) != identity(one.other)
    assert identity(one.method) != identity(two.method)
    assert identity("".join(["a", "b"])) == identity("ab")
    assert identity(bytes([97])) == identity(b"a")
    hash((identity(one), identity(one.method), identity("a")))


def test_steal_docstring_from():
    def documented():
        """The first text."""

    def bare():
        return 1

    @compat.steal_docstring_from(documented)
    def without():
        return 2

    @compat.steal_docstring_from(documented)
    def with_own():
        """The second text."""

    @compat.steal_docstring_from(bare)
    def nothing_to_steal():
        return 3

    assert inspect.getdoc(without) == "The first text."
    assert with_own.__doc__ == "The first text.\n\nThe second text."
    assert nothing_to_steal.__doc__ is None
    assert without() == 2
    assert nothing_to_steal() == bare() + 2
    assert documented() is None
    assert with_own() is None
