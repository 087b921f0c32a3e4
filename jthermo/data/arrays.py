"""A user's own arrays as a data source: given in memory, or an .npz file."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jthermo.data.in_memory import InMemory
from jthermo.data.source import Split
from jthermo.errors import InputError

# arrays by digest: a sweep read back from JSON finds its own again
_SEEN: dict[str, dict[str, np.ndarray]] = {}


class Arrays(InMemory):
    """Examples of the user's own with class labels, or with real targets for regression.

    Identity is the SHA-256 of the arrays, not where they lie. A sweep's JSON names an .npz file by its path; arrays given
    in memory are named by their digest and have to be given again in another process.

    Args:
        x: (n, …) examples, of any real dtype and used as they are; or the path of an .npz file with x, y and, if
            wanted, x_test and y_test.
        y: (n,) whole class labels from 0; or real targets, (n,) for a net with one output, (n, C) for one with C. Real
            targets go with the loss ½(f − y)² alone.
        x_test: examples of the test split.
        y_test: their labels or targets.
        labels: ``"real"``, ``"random"`` (once for each example) or ``"redrawn"`` (each time it is seen); targets are real.
        num_classes: for random labels; None counts the real ones.
        num_samples: train on the first n examples; None takes all.
        sampling: ``"replacement"`` or ``"epochs"``.
        sha256: refuse other arrays than these.

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
    ) -> None:
        path = os.fspath(x) if isinstance(x, str | os.PathLike) else None
        if path is None:
            given = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
            arrays = {k: np.asarray(v) for k, v in given.items() if v is not None}
        else:
            arrays = _SEEN[path] if path in _SEEN else _read(path)
        arrays = _checked(arrays)
        self.sha256 = _arrays_digest(arrays)
        if sha256 is not None and sha256 != self.sha256:
            raise InputError(
                "data.x", path or "arrays", "holds other arrays than when the sweep was made"
            )
        _SEEN[f"sha256:{self.sha256}"] = arrays
        y = arrays["y"]
        self.num_targets = None if y.dtype == np.int32 else math.prod(y.shape[1:])
        self.real_classes = max(2, int(y.max()) + 1) if self.num_targets is None else 0
        self.labels, self.sampling, self.num_samples = labels, sampling, num_samples
        self.num_classes = self.real_classes if num_classes is None else num_classes
        self.arguments = {
            "x": path
            if path is not None and not path.startswith("sha256:")
            else f"sha256:{self.sha256}",
            "labels": labels,
            "num_classes": self.num_classes or None,
            "num_samples": num_samples,
            "sampling": sampling,
            "sha256": self.sha256,
        }
        self._check_fields()
        self._split = Split(arrays)
        self.size(arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._split.arrays["x"].shape[1:]

    def real_labels(self) -> int:
        """Largest label + 1, at least 2; 0 for real targets."""
        return self.real_classes

    def load(self) -> Split:
        """The arrays."""
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


def _read(path: str) -> dict[str, np.ndarray]:
    if path.startswith("sha256:"):
        raise InputError(
            "data.x",
            path,
            "these arrays were given in memory and aren't kept; give them again, or save them as .npz",
        )
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as made:
            return dict(made)
    except FileNotFoundError:
        raise InputError("data.x", path, "is no file; give an .npz file with x and y") from None
    except PermissionError:
        raise InputError("data.x", path, "can't be read; change its permissions") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InputError(
            "data.x", path, f"is no .npz file of plain arrays, or damaged ({error})"
        ) from None


def _checked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they are held: x as bytes or float32, labels as int32, real targets as float32; matching and finite."""
    for name in ("x", "y"):
        if name not in arrays:
            raise InputError(f"data.{name}", sorted(arrays), "x and y have to be given together")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise InputError(
            "data.x_test", sorted(arrays), "x_test and y_test have to be given together"
        )
    made: dict[str, np.ndarray] = {}
    for ending in ("", "_test") if "x_test" in arrays else ("",):
        x, y = arrays[f"x{ending}"], arrays[f"y{ending}"]
        if x.ndim < 2 or x.dtype.kind not in "uifb" or len(x) == 0:
            raise InputError(
                f"data.x{ending}", (x.shape, x.dtype), "give numbers of shape (n, …), n ≥ 1"
            )
        if x.shape[1:] != arrays["x"].shape[1:]:
            raise InputError(
                f"data.x{ending}", x.shape, f"the training examples have {arrays['x'].shape[1:]}"
            )
        x = x if x.dtype == np.uint8 else x.astype(np.float32)
        if not np.isfinite(x).all():
            raise InputError(
                f"data.x{ending}", x.shape, "has values that are not finite; drop those examples"
            )
        y = _labels(f"data.y{ending}", y, len(x))
        if y.dtype != made.get("y", y).dtype or y.shape[1:] != made.get("y", y).shape[1:]:
            raise InputError(
                f"data.y{ending}",
                (y.shape, y.dtype),
                "is of another kind than y of the training set",
            )
        if y.dtype == np.int32 and y.max() > max(made.get("y", y).max(), 1):
            raise InputError(f"data.y{ending}", int(y.max()), "is no class of the training set")
        made |= {f"x{ending}": x, f"y{ending}": y}
    return made


def _labels(field: str, y: np.ndarray, number: int) -> np.ndarray:
    """Class labels as int32 (n,), real targets as float32 (n,) or (n, C); refuses what could be either."""
    real = y.dtype.kind == "f" and y.ndim in (1, 2)
    if len(y) != number or not (real or (y.ndim == 1 and y.dtype.kind in "uib")):
        remedy = f"give {number} whole class labels, or real targets of shape ({number},) or ({number}, C)"
        raise InputError(field, (y.shape, y.dtype), remedy)
    if not real:
        if y.min() < 0:
            raise InputError(field, int(y.min()), "is no class; count them from 0")
        return y.astype(np.int32)
    if not np.isfinite(y).all():
        raise InputError(field, y.shape, "has values that are not finite; drop those examples")
    if y.ndim == 1 and (y == np.rint(y)).all():
        remedy = "are whole numbers: give y.astype(int) if they are classes, y[:, None] if they are real targets"
        raise InputError(field, y.dtype, remedy)
    y = y.astype(np.float32)
    # as a net with one output gives them
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _arrays_digest(arrays: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
