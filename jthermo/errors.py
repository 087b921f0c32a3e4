"""The errors that users see, and the checks of arguments that raise them."""

from __future__ import annotations

import errno
import itertools
import math
import operator
import os
from collections.abc import Collection, Iterable, Mapping, Set
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

# Largest whole number: sizes, counts and indices are int32 in compiled programs.
MOST_WHOLE = 2**31 - 1
# Smallest and largest magnitude of a float, in float32, in which compiled programs compute.
# Smaller numbers become zero and larger ones infinite.
LEAST_FLOAT, MOST_FLOAT = (float(v) for v in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
# Largest number of bytes of a file name and of a path on Linux.
MOST_NAME, MOST_PATH = 255, 4095
# Errors of a disk that pass without another command: it is full or over quota, the machine is
# short of memory or handles, or a network disk does not answer.
PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN),
    *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ENOLCK),
)


class InputError(ValueError):
    """An argument that jthermo can't use, raised where it is passed.

    Args:
        field: the name of the argument as the user writes it, such as ``"learning_rate"``.
        value: the rejected value; the message shows its ``repr``, cut at 200 characters.
        remedy: what is wrong unless the value shows it, and what to do.

    >>> raise InputError("batch_size", 0, "give a positive whole number")
    Traceback (most recent call last):
    ...
    jthermo.errors.InputError: batch_size = 0: give a positive whole number
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        try:
            # modules of flax write comments between their fields
            lines = [x for x in repr(value).splitlines() if not x.lstrip().startswith("#")]
            shown = one_line(" ".join(lines))
        except Exception:
            # an int of more than 4300 digits, or an object of the user whose repr fails
            shown = f"a {type(value).__name__}"
        super().__init__(
            f"{field} = {shown if len(shown) <= 200 else shown[:197] + '...'}: {one_line(remedy)}"
        )

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.remedy)


class MissingData(InputError):
    """A data set that is neither on this machine nor downloadable; no other data replace it."""


class StorageError(InputError):
    """The disk is full or failing. Committed records are kept; the same call resumes from them."""


class FolderInUse(StorageError):
    """Another process writes to the results folder; the same call succeeds once it has ended."""


class Interrupted(SystemExit):
    """A signal stopped a sweep after its state was saved; the same call resumes it.

    Uncaught, it ends the program with exit code 75, on which launchers restart the job.

    Args:
        message: what was saved and how to continue.
        printed: whether the user has read the message already.
    """

    def __init__(self, message: str, printed: bool = False) -> None:
        self.message, self.printed = message, printed
        super().__init__(75)

    def __str__(self) -> str:
        return self.message


def whole_number(
    field: str, value: Any, least: int = 1, most: int = MOST_WHOLE, remedy: str = ""
) -> int:
    """`value` as an int from `least` to `most`; otherwise an InputError for `field`.

    >>> whole_number("batch_size", 4.0)
    4
    """
    if not is_whole(value) or not least <= value <= most:
        small = not is_whole(value) or value < least
        bounds = (
            f"of at least {least}" if small and most == MOST_WHOLE else f"from {least} to {most}"
        )
        raise InputError(field, value, remedy or f"give a whole number {bounds}")
    return int(value)


def finite_number(field: str, value: Any, *, above: float = -math.inf, remedy: str = "") -> float:
    """`value` as a finite float greater than `above`; otherwise an InputError for `field`.

    Numbers that float32 would turn into zero or infinity are refused too.

    >>> finite_number("data.scale", 2)
    2.0
    """
    if not (is_number(value) and is_finite(value) and value > above):
        kind = (
            "a finite number"
            if above == -math.inf
            else "a positive finite number"
            if above == 0
            else f"a finite number above {above:g}"
        )
        raise InputError(field, value, remedy or f"give {kind}")
    if value and not LEAST_FLOAT <= abs(value) <= MOST_FLOAT:
        becomes = "zero" if abs(value) < 1 else "infinite"
        raise InputError(
            field,
            value,
            f"becomes {becomes} in float32; give a magnitude from {LEAST_FLOAT:.1e} to "
            f"{MOST_FLOAT:.1e}",
        )
    return float(value)


def flag(field: str, value: Any) -> bool:
    """`value` as a bool; otherwise an InputError for `field`.

    >>> flag("common_data", True)
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(field, value, "use True or False")
    return bool(value)


def one_of(field: str, value: Any, choices: Collection[str]) -> str:
    """`value` if it is one of the names in `choices`; otherwise an InputError for `field`.

    >>> one_of("sampling", "epochs", ("replacement", "epochs"))
    'epochs'
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(field, value, f"use one of {', '.join(choices)}")
    return value


def sequence(field: str, values: Any, most: int, remedy: str, limit: str = "") -> tuple[Any, ...]:
    """The elements of an ordered iterable as a tuple; otherwise an InputError for `field`.

    At most `most` elements are taken, so an endless iterable ends.

    Args:
        field: the name of the argument.
        values: a list, tuple, range, array or generator. Text, bytes, sets and mappings are
            refused.
        most: the largest number of elements.
        remedy: what to give instead.
        limit: the limit in words, and what to do about it.

    >>> sequence("hidden", [4, 5], 10, "give a tuple")
    (4, 5)
    """
    if isinstance(values, str | bytes | bytearray | Mapping | Set) or not isinstance(
        values, Iterable
    ):
        raise InputError(field, values, remedy)
    try:
        taken = tuple(itertools.islice(values, most + 1))
    except Exception as error:
        # an array of rank 0, or a generator of the user that fails
        raise InputError(field, values, f"can't be read ({one_line(error)}); {remedy}") from None
    if len(taken) > most:
        limit = limit or f"the limit of {most:,}; give fewer"
        raise InputError(field, values, f"has {_length(values)} values, more than {limit}")
    return taken


def file_path(field: str, value: Any) -> Path:
    """`value` as a path; otherwise an InputError for `field`.

    >>> file_path("out", "results/fig3_4").name
    'fig3_4'
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(field, value, "give the path of a file or folder")
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > MOST_NAME or len(os.fsencode(path)) > MOST_PATH:
        remedy = f"is too long; give names of at most {MOST_NAME} bytes, {MOST_PATH:,} in all"
        raise InputError(field, path, remedy)
    return Path(path)


def disk_error(error: OSError, field: str, path: str | Path, kept: str = "") -> InputError:
    """The error to raise for an OSError of a file or folder.

    Args:
        error: the error of the operating system.
        field: the name of the argument that names the file.
        path: the file or folder.
        kept: a sentence about what is safe, for the message of a StorageError.

    Returns:
        A StorageError if the same command can succeed later, otherwise an InputError.
    """
    why = error.strerror or one_line(error) or type(error).__name__
    if error.errno in PASSING:
        remedy = "Make room or choose another folder, then give the same command again"
        return StorageError(field, str(path), f"cannot be written ({why}); {kept}{remedy}")
    return InputError(field, str(path), f"cannot be used ({why}); give another file or folder")


def one_line(text: object) -> str:
    """A text, or the message of an error, on one line."""
    return " ".join(str(text).split())


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy, bools excluded."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_finite(value: Any) -> bool:
    """Whether the number `value` is finite and not too large for a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_whole(value: Any) -> bool:
    """Whether `value` is a finite number without a fractional part."""
    return is_number(value) and is_finite(value) and int(value) == value


def _length(values: Iterable[Any]) -> str:
    """The number of elements; "too many" if it is unknown or exceeds 2⁶³."""
    try:
        number = operator.length_hint(values, -1)
    except OverflowError:
        number = -1
    return f"{number:,}" if number >= 0 else "too many"
