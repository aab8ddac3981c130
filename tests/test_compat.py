"""The helpers that old programs import."""

import copy
import inspect
import pickle
import types

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


@pytest.mark.parametrize("kind", [compat.AttrDict, compat.DefaultAttrDict])
def test_items_go_before_the_methods_of_dicts(kind):
    values = kind()
    values["get"] = 1
    values.pop = 2
    assert (values.get, values.pop) == (1, 2)
    assert sorted(values.items()) == [("get", 1), ("pop", 2)]
    for copied in (copy.copy(values), pickle.loads(pickle.dumps(values))):
        assert type(copied) is kind
        assert (copied, copied.get) == (values, 1)
    del values.get
    assert values == {"pop": 2}


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


# ObjectWrapper


def wrap(value):
    return compat.ObjectWrapper(value)


def test_a_wrapped_object_has_the_attributes_of_its_subject():
    subject = types.SimpleNamespace(a=1)
    wrapped = wrap(subject)
    assert wrapped.a == 1
    wrapped.b = 2
    del wrapped.a
    assert vars(subject) == {"b": 2}
    assert "b" in dir(wrapped)
    with pytest.raises(AttributeError, match="SimpleNamespace' object has no attribute 'a'"):
        wrapped.a  # noqa: B018
    assert wrapped.__subject__ is subject


def test_a_wrapped_object_looks_like_its_subject():
    wrapped = wrap([1, 2])
    assert isinstance(wrapped, list)
    assert type(wrapped) is compat.ObjectWrapper
    assert (str(wrapped), repr(wrapped)) == ("[1, 2]", "[1, 2]")
    assert hash(wrap("a")) == hash("a")
    assert (bool(wrap(0)), bool(wrap(1))) == (False, True)


def test_a_wrapped_object_is_a_container_if_its_subject_is():
    subject = [1, 2]
    wrapped = wrap(subject)
    assert (len(wrapped), wrapped[0], list(wrapped), 2 in wrapped, 3 in wrapped) == (
        2,
        1,
        [1, 2],
        True,
        False,
    )
    wrapped[0] = 5
    del wrapped[1]
    assert subject == [5]
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        iter(wrap(5))


@pytest.mark.parametrize("other", [3, wrap(3)], ids=["plain", "wrapped"])
def test_a_wrapped_object_is_an_operand_like_its_subject(other):
    seven = wrap(7)
    assert (seven + other, seven - other, seven * other, seven // other, seven % other) == (
        10,
        4,
        21,
        2,
        1,
    )
    assert (seven / other, seven**other, seven << other, seven >> other) == (7 / 3, 343, 56, 0)
    assert (seven & other, seven | other, seven ^ other) == (3, 7, 4)
    assert (seven == other, seven != other, seven < other, seven <= other) == (
        False,
        True,
        False,
        False,
    )
    assert (seven > other, seven >= other, seven == wrap(7)) == (True, True, True)


def test_a_wrapped_object_may_stand_on_the_right():
    three = wrap(3)
    assert (7 + three, 7 - three, 7 * three, 7 / three, 7 // three, 7 % three, 7**three) == (
        10,
        4,
        21,
        7 / 3,
        2,
        1,
        343,
    )
    assert (7 << three, 7 >> three, 7 & three, 7 | three, 7 ^ three) == (56, 0, 3, 7, 4)


def test_a_wrapped_object_may_be_converted_and_called():
    assert (int(wrap("5")), float(wrap(5)), complex(wrap(5))) == (5, 5.0, 5 + 0j)
    assert (-wrap(5), +wrap(5), ~wrap(5), abs(wrap(-5))) == (-5, 5, -6, 5)
    assert wrap(dict)([("a", 1)], b=2) == {"a": 1, "b": 2}


def test_a_wrapped_object_may_be_copied():
    subject = [[1]]
    assert copy.copy(wrap(subject)) == copy.deepcopy(wrap(subject)) == subject
    assert copy.deepcopy(wrap(subject))[0] is not subject[0]


def test_a_wrapped_object_stays_wrapped_when_it_is_changed_in_place():
    subject = [1]
    wrapped = before = wrap(subject)
    wrapped += [2]
    assert wrapped is before
    assert wrapped.__subject__ is subject
    assert subject == [1, 2]
