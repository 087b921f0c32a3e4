"""``Sweep(start=…)``: parameters at which runs start, in place of the model's own.

They come from a pytree, from the last states of a results folder, or from a function. Each has a
form that is part of a run's settings and identifies the parameters of every seed.
"""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jthermo.data.arrays import arrays_digest
from jthermo.errors import InputError, file_path, one_line, whole_number
from jthermo.models import Model, named_leaves
from jthermo.npz import read_npz
from jthermo.randomness.jax_settings import pinned
from jthermo.randomness.streams import init_key, start_key
from jthermo.sweep.axes import label

GIVE = "give a pytree of parameters, a results folder, or a function fn(params, key) -> params"
# All parameters of this process that were passed in memory, by their digest, then by leaf.
_SEEN: dict[str, dict[str, np.ndarray]] = {}


@dataclass(frozen=True)
class Start:
    """The last parameters of the runs of a results folder, at which the runs of a sweep start.

    A run starts from the folder's run with the same values of all axes in which the folder's runs
    differ, such as the seed. ``Sweep(start="results/a")`` is short for
    ``Sweep(start=jt.Start("results/a"))``.

    Args:
        folder: the results folder.
        where: values of axes of the folder, such as ``{"learning_rate": 0.1}``: only its runs with
            these values count.
        runs: what the folder holds, as a sweep writes it into its JSON; None reads it.

    Raises:
        InputError: it is no results folder, or none of its runs has these values.
    """

    folder: str
    where: Mapping[str, Any] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        folder = str(file_path("start", self.folder))
        object.__setattr__(self, "folder", folder)
        if self.runs is None:
            if not isinstance(self.where, Mapping):
                raise InputError("start.where", self.where, "give a dict of values by axis")
            object.__setattr__(self, "runs", _selected(_groups(folder), self.where, folder))

    def of(self, at: Mapping[str, Any], seeds: Sequence[int]) -> StartRun:
        """The runs of the folder at which runs with these values of their axes start.

        Raises:
            InputError: there is none, or there are several.
        """
        assert self.runs is not None
        several = [
            name for name in self.runs[0]["at"] if len({str(g["at"][name]) for g in self.runs}) > 1
        ]
        if missing := [name for name in several if name not in at]:
            value = self.runs[0]["at"][missing[0]]
            remedy = f"has runs that differ in {missing[0]}; {self._choose(missing[0], value)}"
            raise InputError("start", self.folder, remedy)
        found = [g for g in self.runs if all(g["at"][name] == at[name] for name in several)]
        if not found:
            absent = [n for n in several if all(g["at"][n] != at[n] for g in self.runs)]
            name = (absent or several)[0]
            remedy = (
                f"has no run with {', '.join(f'{n} = {at[n]!r}' for n in several)}; "
                f"{self._choose(name, self.runs[0]['at'][name])}"
            )
            raise InputError("start", self.folder, remedy)
        (group,) = found
        spans = group["seeds"]
        single = sum(end - first for first, end in spans) == 1
        # a single run starts all seeds, unless the folder's runs differ in the seed too
        shared = single and all(g["seeds"] == spans for g in self.runs)
        for seed in () if shared else seeds:
            if not any(first <= seed < end for first, end in spans):
                remedy = f"has no run with seed = {seed}; {self._choose('seed', spans[0][0])}"
                raise InputError("start", self.folder, remedy)
        of_group = group["key"], group["engine"], group["lane_width"]
        return StartRun(*of_group, spans[0][0] if single else None)

    def _choose(self, name: str, value: Any) -> str:
        return f"choose one, as in start=jt.Start({self.folder!r}, where={{{name!r}: {value!r}}})"


@dataclass(frozen=True)
class StartRun:
    """A run of a folder at which runs start; its settings identify its parameters.

    Args:
        key: the run's key, which contains its settings and its number of steps.
        engine: the engine that trained it, which affects rounding.
        lane_width: W, which does too.
        seed: its seed; None for the seed of the run that starts.
    """

    key: str
    engine: str
    lane_width: int | None
    seed: int | None = None


@dataclass(frozen=True)
class StartArrays:
    """Parameters that all runs start from, by the SHA-256 of their arrays.

    A results folder keeps the arrays beside the sweep, so that it can be resumed without them.
    """

    sha256: str

    @staticmethod
    def of(params: Any) -> StartArrays:
        """The parameters of a pytree of arrays.

        Raises:
            InputError: it isn't one.
        """
        try:
            leaves = named_leaves(params)
            arrays = all(hasattr(leaf, "dtype") for leaf in leaves.values())
            named = {name: np.asarray(leaf) for name, leaf in leaves.items()} if arrays else {}
        except Exception as error:
            # keys of dicts that can't be sorted, and arrays of JAX that hold no numbers
            raise InputError("start", params, f"{one_line(error)}; {GIVE}") from None
        if not named:
            raise InputError("start", params, GIVE)
        for name, leaf in named.items():
            if np.issubdtype(leaf.dtype, np.number) and not np.isfinite(leaf).all():
                remedy = "has values that aren't finite; start from a run that did not diverge"
                raise InputError(f"start {name}", f"{leaf.dtype}{[*leaf.shape]}", remedy)
        sha256 = arrays_digest(named)
        _SEEN[sha256] = named
        return StartArrays(sha256)

    @property
    def arrays(self) -> dict[str, np.ndarray] | None:
        """The arrays by leaf; None in a process that has not seen them."""
        return _SEEN.get(self.sha256)

    def encoded(self) -> bytes:
        """The bytes of the file that keeps the arrays."""
        named, body = self.arrays or {}, io.BytesIO()
        # a leaf may have a name that np.savez does not take
        numbered = {str(i): leaf for i, leaf in enumerate(named.values())}
        np.savez(body, allow_pickle=False, names=np.array(list(named)), **numbered)
        return body.getvalue()

    @staticmethod
    def decode(file: Path) -> None:
        """Make the arrays of a file that :meth:`encoded` wrote known to this process."""
        numbered = read_npz(file)
        names = numbered.pop("names").tolist()
        named = {name: numbered[str(i)] for i, name in enumerate(names)}
        _SEEN[arrays_digest(named)] = named


def as_start(start: Any) -> Any:
    """`start` checked: None, a function, a :class:`Start` or a :class:`StartArrays`."""
    if start is None or isinstance(start, Start | StartArrays):
        return start
    if isinstance(start, str | os.PathLike):
        return Start(os.fspath(start))
    # modules of Equinox are trees and callable
    is_function = callable(start) and hasattr(start, "__qualname__")
    return start if is_function else StartArrays.of(start)


def start_of(start: Any, model: Model, at: Mapping[str, Any], seeds: Sequence[int]) -> Any:
    """The start of runs with these values of their axes: a part of their settings.

    Raises:
        InputError: it doesn't fit to the model, or a folder has no such runs.
    """
    if isinstance(start, Start):
        return start.of(at, seeds)
    if isinstance(start, StartArrays):
        if start.arrays is not None:
            fitted("start", start.arrays, model)
    elif start is not None:
        _check_function(start, model)
    return start


def fitted(name: str, found: Mapping[str, Any], model: Model) -> list[Any]:
    """The leaves of `found` in the order of a model's parameters.

    Args:
        name: what the user calls them.
        found: arrays or their shapes, by leaf.
        model: the model.

    Raises:
        InputError: names the first leaf that is missing, not of the model, or of another shape.
    """
    needed = named_leaves(model.shapes)
    for leaf, like in needed.items():
        if leaf not in found:
            raise InputError(name, [*found], f"has no leaf {leaf} of the model's {[*needed]}")
        shapes = [f"{np.dtype(a.dtype)}{[*a.shape]}" for a in (found[leaf], like)]
        if shapes[0] != shapes[1]:
            raise InputError(f"{name} {leaf}", shapes[0], f"the model needs {shapes[1]}")
    if other := [leaf for leaf in found if leaf not in needed]:
        raise InputError(name, other[0], f"is no leaf of the model's {[*needed]}")
    return [found[leaf] for leaf in needed]


@functools.lru_cache(maxsize=256)
@pinned()
def _check_function(start: Callable[..., Any], model: Model) -> None:
    try:
        made = jax.eval_shape(
            lambda params: start(params, start_key(init_key(jnp.uint32(0)))), model.shapes
        )
    except Exception as error:
        raise InputError("start", start, f"fails: {one_line(error)}; {GIVE}") from None
    fitted("start", named_leaves(made), model)


def _groups(folder: str) -> list[dict[str, Any]]:
    """The runs of a results folder without their seeds, with the engine that trained them."""
    try:
        described = json.loads((Path(folder) / "sweep.json").read_text(encoding="utf-8"))
        engine = described.get("engine", "xla")
        return [
            {
                "key": group["key"],
                "at": dict(group["at"]),
                "seeds": [[int(first), int(end)] for first, end in group["seeds"]],
                "lane_width": group.get("lane_width"),
                "engine": engine,
            }
            for group in described["runs"]
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError("start", folder, f"is no results folder of jthermo; {GIVE}") from None


def _selected(
    groups: list[dict[str, Any]], where: Mapping[str, Any], folder: str
) -> tuple[dict[str, Any], ...]:
    """The runs with these values of their axes."""
    for name, given in where.items():
        value = label(given)
        if not isinstance(value, str | int | float | np.generic | None):
            raise InputError(f"start.where {name}", given, "give a single value")
        if name == "seed":
            value = whole_number("start.where seed", given, 0, 2**32 - 1)
            spans = [
                [[value, value + 1]] if any(a <= value < b for a, b in g["seeds"]) else []
                for g in groups
            ]
            groups = [g | {"seeds": s} for g, s in zip(groups, spans, strict=True) if s]
        else:
            groups = [g for g in groups if name in g["at"] and g["at"][name] == value]
        if not groups:
            remedy = f"no run of {folder} has this value; jt.open_results shows its axes"
            raise InputError(f"start.where {name}", value, remedy)
    return tuple(groups)
