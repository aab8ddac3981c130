"""Helpers for programs that were written for the old package."""

from __future__ import annotations

import collections
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
    """A dict whose items may be got and set as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class DefaultAttrDict(collections.defaultdict):  # type: ignore[type-arg]
    """A defaultdict whose items may be got and set as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def hashable_identity(obj: Any) -> Hashable:
    """Return something hashable that is the same for the same object.

    Parameters
    ----------
    obj : object
        Anything; bound methods of one object are the same if their function is.

    Returns
    -------
    hashable
        A text as it is, else something made of the object's identity.
    """
    if hasattr(obj, "__func__"):
        return id(obj.__func__), id(obj.__self__)
    return obj if isinstance(obj, (str, bytes)) else id(obj)


def steal_docstring_from(obj: Any) -> Callable[[_T], _T]:
    """Decorator: take the docstring of *obj*, and put one's own behind it.

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
