"""Helpers for programs written for the old package."""

from __future__ import annotations

import collections
import operator
from typing import Any, Callable, Hashable, Iterator, TypeVar, Union

_T = TypeVar("_T")


def is_bytes(value: Any) -> bool:
    """Return whether *value* is bytes.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
    """
    return isinstance(value, bytes)


def is_text(value: Any) -> bool:
    """Return whether *value* is text.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
    """
    return isinstance(value, str)


def ensure_native_str(value: Union[str, bytes]) -> str:
    """Return text, or bytes in UTF-8, as a str.

    Parameters
    ----------
    value : str or bytes
        What to convert.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If it is neither.
    UnicodeDecodeError
        If it is not UTF-8.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    raise TypeError(f"Invalid type for string conversion: {type(value)}")


def byte_chars(byte_string: bytes) -> Iterator[bytes]:
    """Return an iterator over the bytes of *byte_string*, each as bytes.

    Parameters
    ----------
    byte_string : bytes
        Any bytes.

    Returns
    -------
    iterator of bytes
    """
    return (byte_string[i : i + 1] for i in range(len(byte_string)))


class AttrDict(dict):  # type: ignore[type-arg]
    """A dict whose items may be got and set as attributes.

    An item goes before a method of dicts of the same name.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> AttrDict:
        self = super().__new__(cls, *args, **kwargs)
        self.__dict__ = self
        return self


class DefaultAttrDict(collections.defaultdict):  # type: ignore[type-arg]
    """A defaultdict whose items may be got and set as attributes, as those of `AttrDict`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> DefaultAttrDict:
        self = super().__new__(cls, *args, **kwargs)
        self.__dict__ = self
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


def hashable_identity(obj: Any) -> Hashable:
    """Return a hashable value that identifies an object.

    Parameters
    ----------
    obj : object
        Anything; bound methods are the same if their object and function are.

    Returns
    -------
    hashable
        The object itself if it is text, else a value derived from its identity.
    """
    if hasattr(obj, "__func__"):
        return id(obj.__func__), id(obj.__self__)
    return obj if isinstance(obj, (str, bytes)) else id(obj)


def steal_docstring_from(obj: Any) -> Callable[[_T], _T]:
    """Return a decorator that puts the docstring of *obj* before that of the function.

    Parameters
    ----------
    obj : object
        Something with a docstring.

    Returns
    -------
    callable
        The decorator.
    """

    def decorator(fn: _T) -> _T:
        docs = [text for text in (obj.__doc__, fn.__doc__) if text]
        fn.__doc__ = "\n\n".join(docs) or None
        return fn

    return decorator


class ObjectWrapper:
    """A proxy of another object, its *subject*.

    It has the attributes, the class and the operators of its subject. Attributes are set on the
    subject, except those of the wrapper's class: subclasses may have their own attributes.

    Parameters
    ----------
    subject : object
        Anything; ``__subject__`` returns it.
    """

    __slots__ = ("__subject__",)

    __subject__: Any

    def __init__(self, subject: Any) -> None:
        self.__subject__ = subject

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.__subject__.__class__

    def __dir__(self) -> list[str]:
        return dir(self.__subject__)

    def __getattr__(self, name: str) -> Any:
        if name == "__subject__":
            # While it is being copied, it has none yet.
            raise AttributeError(name)
        return getattr(self.__subject__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.__subject__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__subject__, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__subject__(*args, **kwargs)


def _forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that calls *function* with the subject."""
    return lambda self, *args: function(self.__subject__, *args)


def _forward_reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that calls *function* with the subject as right operand."""
    return lambda self, other: function(other, self.__subject__)


def _forward_in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that changes the subject by *function*."""

    def change(self: ObjectWrapper, other: Any) -> ObjectWrapper:
        self.__subject__ = function(self.__subject__, other)
        return self

    return change


_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"),
    *("lshift", "rshift", "and", "or", "xor"),
)

# Python looks special methods up in the class only, not by `__getattr__`.
for _function in (
    *(bool, complex, float, hash, int, iter, len, repr, str),
    *(operator.abs, operator.invert, operator.neg, operator.pos),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    *(operator.contains, operator.getitem, operator.setitem, operator.delitem),
):
    setattr(ObjectWrapper, f"__{_function.__name__}__", _forward(_function))
for _name in _BINARY:
    _function, _in_place = getattr(operator, f"__{_name}__"), getattr(operator, f"__i{_name}__")
    setattr(ObjectWrapper, f"__{_name}__", _forward(_function))
    setattr(ObjectWrapper, f"__r{_name}__", _forward_reflected(_function))
    setattr(ObjectWrapper, f"__i{_name}__", _forward_in_place(_in_place))
