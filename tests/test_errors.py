"""The tree of exceptions, and what programs may rely on when they catch one."""

import builtins
import inspect
import re

import pytest

from katcp import core, errors

CLASSES = {
    name: cls
    for name, cls in vars(core).items()
    if inspect.isclass(cls) and issubclass(cls, Exception)
}


def drawn_tree():
    """Return (name, name of its parent) for each exception drawn at the top of the module."""
    path, pairs = ["Exception"], []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ([| ]*)\+-- (\w+)", line)
        if match:
            depth = 1 + len(match[1]) // 4
            path[depth:] = [match[2]]
            pairs.append((match[2], path[depth - 1]))
    return pairs


def class_of(name):
    return CLASSES.get(name) or getattr(builtins, name)


@pytest.mark.parametrize(("name", "parent"), drawn_tree())
def test_the_drawn_tree_is_the_real_one(name, parent):
    assert class_of(parent) in class_of(name).__bases__


def test_every_exception_is_drawn():
    assert set(CLASSES) == {name for name, _ in drawn_tree()} & set(CLASSES)
    assert len(CLASSES) == 16


@pytest.mark.parametrize(
    ("name", "caught_as"),
    [
        ("KatcpSyntaxError", ValueError),
        ("KatcpTypeError", TypeError),
        ("KatcpUsageError", RuntimeError),
        ("KatcpThreadError", RuntimeError),
        ("KatcpThreadError", AssertionError),
        ("KatcpArgumentError", ValueError),
        ("KatcpReplyError", errors.KatcpClientError),
        ("KatcpVersionError", errors.KatcpClientError),
        ("KatcpClientDisconnected", errors.KatcpClientError),
        ("KatcpClientOverflow", errors.KatcpClientDisconnected),
        ("KatcpClientOverflow", errors.KatcpClientError),
        ("KatcpClientTimeout", errors.KatcpClientError),
        ("KatcpClientStopped", errors.KatcpClientError),
    ],
)
def test_an_exception_is_caught_as_what_the_old_package_raised(name, caught_as):
    with pytest.raises(caught_as, match=r"^the reason$"):
        raise class_of(name)("the reason")


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_exception_says_what_it_is_for(name):
    assert class_of(name).__doc__
    assert str(class_of(name)("the reason")) == "the reason"
