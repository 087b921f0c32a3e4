"""What a sweep computes, as digests of its traced programs, to recognise results of other code.

A sweep's id contains the source of the classes and functions that the sweep names. What these call
is not in it: helpers, constants, other files. So the programs are traced once per group of runs
that share their static settings, and ``sweep.json`` stores a digest of each part: ``init``,
``step``, ``data`` and every observable.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.data.source import Source
from jthermo.engines import run_state, xla
from jthermo.engines.batches import draw_batch, draw_probe, epoch_order
from jthermo.engines.program_digest import digest, digest_of_arrays
from jthermo.engines.step_program import (
    HeldArrays,
    Program,
    Run,
    bound,
    learning_rate_at,
    source_of,
    split,
)
from jthermo.models import Model
from jthermo.observables import Observable, Probe
from jthermo.randomness.jax_settings import real
from jthermo.randomness.streams import dataset_key, record_keys, streams
from jthermo.sweep import identity
from jthermo.sweep.sweep import Sweep
from jthermo.update_rule.residual_noise import Drift

# Batch size of the traced programs. The batch sizes of a sweep are not part of them, so that a
# sweep with further batch sizes has the same digests.
BATCH = 2
# Digests of one group by part, and "jax", the version that traced them.
Parts = Mapping[str, str]


def fingerprint(sweep: Sweep) -> dict[str, Parts]:
    """Digests of the traced programs of a sweep, by group of runs and part.

    They do not depend on the values of η, of batch sizes, of seeds and of other traced numbers, nor
    on the devices, the engine and W.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(
    ...     model=jt.models.TwoLayer(inputs=2, hidden=2),
    ...     data=jt.data.Gaussian(dim=2),
    ...     learning_rate=(0.1, 0.2),
    ...     batch_size=(1, 4),
    ...     num_steps=4,
    ...     record=jt.Record(steps=(4,), observables=jt.loss()),
    ... )
    >>> [list(parts) for parts in fingerprint(sweep).values()]
    [['jax', 'init', 'data', 'step', "observable 'loss'"]]
    """
    groups: dict[str, tuple[Program, Model, tuple[str, ...]]] = {}
    start = sweep.start if callable(sweep.start) else None
    for config in sweep.configs:
        program, floats = split(config, sweep.record)
        static = dataclasses.replace(program, batch_size=BATCH)
        groups.setdefault(_name(static, config.model), (static, config.model, tuple(floats)))
    # runs that differ in their initialisation only share everything else
    shared: dict[Program, Parts] = {}
    for group in groups.values():
        if group[0] not in shared:
            shared[group[0]] = _parts(*group)
    return {
        name: {"jax": jax.__version__, "init": _init(*group, start), **shared[group[0]]}
        for name, group in groups.items()
    }


def changed(stored: Mapping[str, Parts], now: Mapping[str, Parts]) -> tuple[list[str], list[str]]:
    """Compare the fingerprint of a folder with that of a sweep that has all of its runs.

    Returns:
        The parts that differ, and the versions whose digests can't be compared.
    """
    parts: dict[str, None] = {}
    versions: dict[str, None] = {}
    for name, old in stored.items():
        new = now.get(name)
        if new is None:
            versions["another version of jthermo"] = None
        elif old["jax"] != new["jax"]:
            versions[f"JAX {old['jax']}"] = None
        else:
            parts |= {k: None for k in (*old, *new) if old.get(k) != new.get(k)}
    return list(parts), list(versions)


def _name(program: Program, model: Model) -> str:
    """Sixteen hex digits of the static settings of a group, without its code and observables."""
    settings = dataclasses.replace(program, observables=())
    return identity.json_digest([identity.canonical(settings), identity.canonical(model)])[:16]


def _run(hyper: tuple[str, ...]) -> Run:
    """The shapes of one run's traced numbers."""
    word, number = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.uint32, real()))
    return Run(word, word, number, dict.fromkeys(hyper, number))


def _init(program: Program, model: Model, hyper: tuple[str, ...], start: run_state.Start) -> str:
    """Digest of the program that initialises a run."""
    init = functools.partial(run_state.init, model, program.optimizer, start=start)
    return digest(init, _run(hyper))


def _parts(program: Program, model: Model, hyper: tuple[str, ...]) -> Parts:
    """Digests of the data, the step and the observables of a group."""
    run, count, held = _run(hyper), jax.ShapeDtypeStruct((), jnp.int32), program.data.abstract()
    # an epoch of a single example has no batch of two
    if program.data.size(held) == 1 and not program.full_batch:
        program = dataclasses.replace(program, batch_size=1)

    def of(function: Callable[..., Any], *shapes: Any) -> str:
        return digest(functools.partial(function, program), run, *shapes)

    state = jax.eval_shape(functools.partial(run_state.init, model, program.optimizer), run)
    batch, probes = jax.eval_shape(functools.partial(_examples, program), run, count, held)
    last = xla.LastStep(state.params, state.params) if program.last_step else ()
    parts = {"data": of(_examples, count, held), "step": of(_step, state, batch, count)}
    drifts = isinstance(program.noise, Drift)
    if drifts and jax.make_jaxpr(functools.partial(learning_rate_at, program))(run, count).eqns:
        # a version of jthermo took η in any case
        parts["step"] += of(learning_rate_at, count)
    if _loads_unidentified(program.data):
        parts["data"] += digest_of_arrays(program.data.load().arrays)
    for observable in program.observables:
        name = next(iter(observable.variables(program.model, program.data)))
        measured = functools.partial(_measured, observable)
        inputs = (state.params, state.model_state, probes, count, state.opt_state, last)
        parts[f"observable {name!r}"] = of(measured, *inputs)
    return parts


def _examples(program: Program, run: Run, t: Array, held: HeldArrays) -> tuple[Any, Any]:
    """The batch of step t, and the probes from the training and the test split for a record."""
    keys, seen, dataset = streams(run), record_keys(run, t), dataset_key(run)
    batch = draw_batch(program, held, run, keys, epoch_order(program, held, keys, t), t)
    probes = [draw_probe(program, held, run, seen.probe, dataset)]
    if program.data.has_test:
        probes.append(draw_probe(program, held, run, seen.test, dataset, test=True))
    return batch, probes


def _step(program: Program, run: Run, state: Any, batch: Any, t: Array) -> Any:
    """One update with a given batch."""
    return xla._step(program, run, streams(run), state, batch, t)


def _measured(
    observable: Observable,
    program: Program,
    run: Run,
    params: Any,
    model_state: Any,
    probes: Any,
    t: Array,
    opt_state: Any,
    last: Any,
) -> dict[str, Array]:
    """An observable with given probes."""
    data, key, ((x, y), *test) = source_of(program, run), record_keys(run, t).estimate, probes
    loss = bound(program.loss, "loss", run)
    settings = (data, loss, run.learning_rate, program.batch_size, test[0] if test else None)
    return observable(
        program.model.with_state(model_state),
        params,
        Probe(x, y, *settings, key, t, program.whole_probe, opt_state, *last),
    )


def _loads_unidentified(data: Source) -> bool:
    """Whether the arrays of a source are the user's own; jthermo's have their digest in the id."""
    return type(data).load is not Source.load and not type(data).__module__.startswith("jthermo.")
