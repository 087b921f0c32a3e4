"""The user's own arrays as a data source, passed in memory or read from an .npz file."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.data.in_memory import InMemory
from jthermo.data.sampling import MOST_CLASSES
from jthermo.data.source import Split
from jthermo.errors import MOST_WHOLE, InputError, file_path, flag, one_line
from jthermo.npz import read_npz

# Arrays by name, such as x and y.
Named = dict[str, np.ndarray]
# All arrays of this process in float32 and with all their digits, by "sha256:" and the digest of
# either: a sweep read from JSON finds them here.
_SEEN: dict[str, tuple[Named, Named]] = {}
# The arrays that are read from a file; others may stand beside them.
ARRAYS = ("x", "y", "x_test", "y_test")


class Arrays(InMemory):
    """The user's own examples with class labels, or with real-valued targets for regression.

    A sweep's identity contains the SHA-256 of the arrays, not their place. Its JSON names an .npz
    file by the path, and arrays passed in memory by their digest; another process has to construct
    ``Arrays`` from the same arrays before it reads such JSON.

    Args:
        x: (n, …) examples of any real dtype, used without rescaling; or the path of an .npz file
            with x, y and, optionally, x_test and y_test. They are rounded to float32, unless the
            sweep has ``dtype="float64"``.
        y: (n,) integer class labels from 0; or real-valued targets, (n,) for a net with one output,
            (n, C) for one with C. Targets require the loss ½(f − y)².
        x_test: examples of the test split.
        y_test: their labels or targets.
        labels: ``"real"`` (y), ``"random"`` (drawn once per example) or ``"redrawn"`` (drawn at
            each use); the last two are for class labels.
        num_classes: number of classes of random labels; None takes that of y.
        num_samples: train on the first n examples; None takes all.
        sampling: ``"replacement"`` or ``"epochs"`` (a fresh order in each epoch).
        sha256: the digest that the arrays must have; None accepts any.
        integer: whether the net receives x as int32 instead of float32. A sweep sets it for a net
            that takes only integers, such as one with an embedding.

    Raises:
        InputError: names the array and what is wrong with it.

    >>> import numpy as np
    >>> data = Arrays(np.eye(4), np.array([0, 1, 1, 2]))
    >>> data.shape, data.num_classes
    ((4,), 3)
    >>> Arrays(np.eye(4), np.array([0.2, 1.5, 0.1, 2.0])).num_targets
    1
    """

    unidentifying = ("x",)

    def __init__(
        self,
        x: Any,
        y: Any = None,
        x_test: Any = None,
        y_test: Any = None,
        *,
        labels: str = "real",
        num_classes: int | None = None,
        num_samples: int | None = None,
        sampling: str = "replacement",
        sha256: str | None = None,
        integer: bool = False,
    ) -> None:
        path = str(file_path("data.x", x)) if isinstance(x, str | bytes | os.PathLike) else None
        if path is None:
            passed = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
            given = {k: _as_array(f"data.{k}", v) for k, v in passed.items() if v is not None}
            arrays, exact = _in_two_dtypes(given)
        else:
            arrays, exact = _SEEN[path] if path in _SEEN else _in_two_dtypes(_read(path))
        self.sha256 = arrays_digest(arrays)
        digest = self.sha256 if exact is arrays else arrays_digest(exact)
        if sha256 is not None and not isinstance(sha256, str):
            raise InputError("data.sha256", sha256, "give the 64 hex digits of the digest")
        if sha256 is not None and sha256 != self.sha256:
            raise InputError(
                "data.x",
                path or "arrays",
                f"has SHA-256 {self.sha256[:16]}… instead of {sha256[:16]}…; "
                "give the arrays that the sweep was created with",
            )
        _SEEN[f"sha256:{self.sha256}"] = _SEEN[f"sha256:{digest}"] = arrays, exact
        y = arrays["y"]
        self.num_targets = None if y.dtype == np.int32 else math.prod(y.shape[1:])
        self.real_classes = max(2, int(y.max()) + 1) if self.num_targets is None else 0
        self.labels, self.sampling, self.num_samples = labels, sampling, num_samples
        self.num_classes = self.real_classes if num_classes is None else num_classes
        self._check_fields()
        self.integer = flag("data.integer", integer)
        if self.integer and not _is_whole(arrays):
            remedy = "x has values that aren't whole or exceed 2²⁴; omit it"
            raise InputError("data.integer", integer, remedy)
        self.arguments: dict[str, Any] = {
            "x": path
            if path is not None and not path.startswith("sha256:")
            else f"sha256:{digest}",
            "labels": labels,
            "num_classes": self.num_classes or None,
            "num_samples": self.num_samples,
            "sampling": sampling,
            "sha256": self.sha256,
        } | ({"integer": True} if self.integer else {})
        self._split = Split(arrays)
        self._exact = self._split if exact is arrays else Split(exact), digest
        self.size(arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._split.arrays["x"].shape[1:]

    def real_labels(self) -> int:
        """Largest label of y plus 1, at least 2; 0 for real-valued targets."""
        return self.real_classes

    @property
    def x_dtype(self) -> str:  # type: ignore[override]
        """Dtype of x as the net receives it."""
        return "int32" if self.integer else "float32"

    def as_integers(self) -> Arrays | None:
        """The same arrays with x in int32 for the net; None if x isn't whole."""
        whole = _is_whole(self._split.arrays)
        return Arrays(**{**self.arguments, "integer": True}) if whole else None

    def in_float64(self) -> Arrays:
        """The arrays with all their digits; the digest of these is part of a sweep's identity."""
        source = copy.copy(self)
        source._split, source.sha256 = self._exact
        source.arguments = {**self.arguments, "sha256": source.sha256}
        return source

    def standardised(self, x: Array) -> Array:
        """Examples as the network receives them."""
        return x.astype(jnp.int32 if self.integer else float)

    def load(self) -> Split:
        """The arrays on the host."""
        return self._split

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the arrays."""
        return {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in self._split.arrays.items()}

    def __repr__(self) -> str:
        return f"Arrays({self.arguments['x']!r}, shape={self.shape}, labels={self.labels!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arrays) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        return tuple(v for k, v in self.arguments.items() if k != "x")


def _is_whole(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether all examples are whole numbers that float32 holds exactly."""
    examples = [x for name, x in arrays.items() if name.startswith("x")]
    return all(bool((np.rint(x) == x).all() and (np.abs(x) <= 2**24).all()) for x in examples)


def _read(path: str) -> Named:
    """The arrays of an .npz file."""
    if path.startswith("sha256:"):
        raise InputError(
            "data.x",
            path,
            "these arrays were passed in memory, and they aren't saved with a sweep; run the file "
            "or call that made them again instead, or use an .npz file",
        )
    try:
        return read_npz(os.path.expanduser(path), ARRAYS)
    except FileNotFoundError:
        raise InputError(
            "data.x", path, "there is no such file; give the path of an .npz file with x and y"
        ) from None
    except PermissionError:
        raise InputError("data.x", path, "can't be read; change its permissions") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, zlib.error) as error:
        raise InputError(
            "data.x",
            path,
            "is damaged or isn't an .npz file of numeric arrays "
            f"({one_line(error).partition('. ')[0]}); write it with np.savez(path, x=x, y=y)",
        ) from None


def _as_array(field: str, values: Any) -> np.ndarray:
    """Values of the user as an array; a mask or a ragged list raises an InputError."""
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.getmaskarray(values).any():
            remedy = "has masked entries, which would be used as data; remove those examples first"
            raise InputError(field, values.shape, remedy)
        values = values.data
    try:
        return np.asarray(values)
    except Exception as error:
        remedy = f"isn't an array ({one_line(error)}); give equally long rows of numbers"
        raise InputError(field, type(values).__name__, remedy) from None


def _in_two_dtypes(given: Named) -> tuple[Named, Named]:
    """The arrays in float32, checked, and in float64; the same ones twice if no digit is lost."""
    arrays = _checked(given, np.float32)
    real = [name for name, array in arrays.items() if array.dtype == np.float32]
    lost = any((arrays[name].ravel() != given[name].ravel()).any() for name in real)
    return arrays, _checked(given, np.float64) if lost else arrays


def _checked(arrays: Named, dtype: type[np.floating]) -> Named:
    """The arrays in the dtypes that jthermo stores, once shapes and values have been checked.

    x is uint8 or of this dtype, class labels are int32, real-valued targets of this dtype.
    """
    for name in ("x", "y"):
        if name not in arrays:
            raise InputError(
                f"data.{name}", None, f"is missing; give both x and y, not only {sorted(arrays)}"
            )
    if ("x_test" in arrays) != ("y_test" in arrays):
        absent = "y_test" if "x_test" in arrays else "x_test"
        raise InputError(
            f"data.{absent}", None, "is missing; give both x_test and y_test, or neither"
        )
    checked: Named = {}
    for ending in ("", "_test") if "x_test" in arrays else ("",):
        x, y = arrays[f"x{ending}"], arrays[f"y{ending}"]
        if x.ndim < 2 or x.dtype.kind not in "uifb" or x.size == 0:
            raise InputError(
                f"data.x{ending}",
                (x.shape, x.dtype),
                "give n ≥ 1 examples of real numbers in an array of shape (n, d) or (n, …)",
            )
        if x.shape[1:] != arrays["x"].shape[1:]:
            raise InputError(
                f"data.x{ending}",
                x.shape,
                f"training examples have the shape {arrays['x'].shape[1:]}; give test examples of "
                "the same shape",
            )
        if len(x) > MOST_WHOLE:
            raise InputError(f"data.x{ending}", x.shape, f"give at most {MOST_WHOLE:,} examples")
        x = x if x.dtype == np.uint8 else _real(f"data.x{ending}", x, dtype)
        y = _labels(f"data.y{ending}", y, len(x), dtype)
        train_y = checked.get("y", y)
        if y.dtype != train_y.dtype or y.shape[1:] != train_y.shape[1:]:
            raise InputError(
                f"data.y{ending}",
                (y.shape, y.dtype),
                f"must be like y, {(train_y.shape, train_y.dtype)}: both class labels, or both "
                "real-valued targets of the same shape",
            )
        if y.dtype == np.int32 and y.max() > (largest := max(train_y.max(), 1)):
            raise InputError(
                f"data.y{ending}",
                int(y.max()),
                f"the classes of the training set are 0 to {largest}; remove the test examples of "
                "other classes",
            )
        checked |= {f"x{ending}": x, f"y{ending}": y}
    return checked


def _labels(field: str, y: np.ndarray, number: int, dtype: type[np.floating]) -> np.ndarray:
    """Class labels as int32 (n,), or real-valued targets in this dtype, (n,) or (n, C)."""
    real = y.dtype.kind == "f" and y.ndim in (1, 2) and y.size > 0
    if y.ndim == 0 or len(y) != number or not (real or (y.ndim == 1 and y.dtype.kind in "uib")):
        remedy = (
            f"give {number} integer class labels, or real-valued targets of shape ({number},) or "
            f"({number}, C)"
        )
        raise InputError(field, (y.shape, y.dtype), remedy)
    if not real:
        if y.min() < 0:
            raise InputError(field, int(y.min()), "isn't a class label; number the classes from 0")
        if y.max() >= MOST_CLASSES:
            remedy = (
                f"would make {int(y.max()) + 1:,} classes, the limit is {MOST_CLASSES:,}; number "
                "the classes from 0 without gaps, as np.unique(y, return_inverse=True)[1] does"
            )
            raise InputError(field, int(y.max()), remedy)
        return y.astype(np.int32)
    if y.ndim == 1 and (y == np.rint(y)).all():
        remedy = (
            "a float array of whole numbers is ambiguous; give y.astype(int) for classes or "
            "y[:, None] for real-valued targets"
        )
        raise InputError(field, y.dtype, remedy)
    y = _real(field, y, dtype)
    # the shape of the outputs of a net with one output
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _real(field: str, values: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """The values in this dtype; those that aren't finite there raise an InputError."""
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if not np.isfinite(converted).all():
        remedy = (
            "contains NaN, or values that are infinite in float32; remove those examples or rescale"
        )
        raise InputError(field, values.shape, remedy)
    return converted


def arrays_digest(arrays: Named) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of the arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
