"""The same net for linen, nnx, Equinox, stax and as functions has equal records; integers."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.example_libraries import stax

import jthermo as jt

DIM, WIDTH = 3, 6
RNG = np.random.default_rng(0)
SHAPES = {"W": (DIM, WIDTH), "b": (WIDTH,), "V": (WIDTH, 1), "c": (1,)}
START = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def fixed(name):
    """An initialiser that returns the same numbers for every key."""
    return lambda key, shape, dtype: jnp.asarray(START[name], dtype).reshape(shape)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        a = nn.Dense(WIDTH, kernel_init=fixed("W"), bias_init=fixed("b"))(x)
        self.sow("preactivations", "hidden", a)
        return nn.Dense(1, kernel_init=fixed("V"), bias_init=fixed("c"))(nn.relu(a))


class Nnx(nnx.Module):
    def __init__(self, width, *, rngs):
        first, second = ({"kernel_init": fixed(w), "bias_init": fixed(b)} for w, b in ("Wb", "Vc"))
        self.hidden = nnx.Linear(DIM, width, rngs=rngs, **first)
        self.output = nnx.Linear(width, 1, rngs=rngs, **second)

    def __call__(self, x):
        a = self.hidden(x)
        self.sow(nnx.Intermediate, "hidden", a)
        return self.output(nnx.relu(a))


def equinox_init(key):
    net = eqx.nn.MLP(DIM, 1, WIDTH, 1, key=key)
    new = [jnp.asarray(v.T) for v in START.values()]
    return eqx.tree_at(
        lambda n: [v for layer in n.layers for v in (layer.weight, layer.bias)], net, new
    )


def equinox_apply(net, x):
    return jax.vmap(net)(x)


def equinox_preactivations(net, x):
    return {"hidden": jax.vmap(net.layers[0])(x)}


def plain_init(key):
    return {name: jnp.asarray(value) for name, value in START.items()}


def plain_hidden(params, x):
    return {"hidden": x @ params["W"] + jnp.expand_dims(params["b"], 0)}


def plain_apply(params, x):
    return (jnp.maximum(plain_hidden(params, x)["hidden"], 0) @ params["V"] + params["c"][None])[
        :, 0
    ]


def plain(name):
    """An initialiser of stax."""
    return lambda key, shape: fixed(name)(key, shape, jnp.float32)


STAX_INIT, STAX_APPLY = stax.serial(
    stax.Dense(WIDTH, plain("W"), plain("b")), stax.Relu, stax.Dense(1, plain("V"), plain("c"))
)


def stax_init(key):
    return STAX_INIT(key, (-1, DIM))[1]


def stax_apply(params, x):
    # stax adds a bias (C,) to outputs (M, C)
    with jax.numpy_rank_promotion("allow"):
        return STAX_APPLY(params, x)


def stax_hidden(params, x):
    return {"hidden": x @ params[0][0] + params[0][1][None]}


MODELS = {
    "linen": Linen(),
    "nnx": jt.models.NNX(Nnx, WIDTH),
    "equinox": jt.models.Function(
        init=equinox_init, apply=equinox_apply, preactivations=equinox_preactivations
    ),
    "stax": jt.models.Function(init=stax_init, apply=stax_apply, preactivations=stax_hidden),
    "functions": jt.models.Function(
        init=plain_init, apply=plain_apply, preactivations=plain_hidden
    ),
}
# The output weights, by the path of each library.
OUTPUT = {
    "linen": "Dense_1/kernel",
    "nnx": "output/kernel",
    "equinox": "layers/1/weight",
    "stax": "2/0",
}


def sweep_of(name, **changes):
    norm = jt.weight_norm(OUTPUT.get(name, "V"))
    measured = (jt.loss(), jt.activation_rate(), jt.gradient_variance(), jt.kappa(), norm)
    fields = {
        "model": MODELS[name],
        "data": jt.data.Gaussian(dim=DIM),
        "learning_rate": 0.1,
        "batch_size": 4,
        "seed": range(2),
        "num_steps": 30,
        "record": jt.Record(steps=(0, 30), observables=measured, probe_size=32),
        "lane_width": 2,
        "common_data": True,
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.fixture(scope="module")
def records():
    return {name: jt.run(sweep_of(name), progress=False) for name in MODELS}


@pytest.mark.parametrize("name", ["nnx", "equinox", "stax", "functions"])
def test_the_same_net_has_the_same_records(records, name):
    reference, other = records["linen"], records[name]
    for variable in ("loss", "activation_rate", "gradient_variance", "gradient_snr", "kappa"):
        values = other[variable].values
        np.testing.assert_allclose(values, reference[variable].values, rtol=2e-4, atol=1e-6)
        assert (variable == "activation_rate") or (values[:, 0] != values[:, 1]).all()
    norm = "weight_norm_" + OUTPUT.get(name, "V").replace("/", "_")
    np.testing.assert_allclose(
        other[norm].values, reference["weight_norm_Dense_1_kernel"].values, rtol=1e-5
    )
    assert "evaluation mode" not in other.loss.long_name


def haiku_init(key):
    return haiku_net().init(key, jnp.zeros((1, DIM)))


def haiku_apply(params, x):
    with jax.numpy_rank_promotion("allow"):
        return haiku_net().apply(params, x)


def haiku_net():
    import haiku as hk

    def layer(size, w, b):
        return hk.Linear(size, w_init=lambda *_: START[w], b_init=lambda *_: START[b])

    def net(x):
        return layer(1, "V", "c")(jax.nn.relu(layer(WIDTH, "W", "b")(x)))

    return hk.without_apply_rng(hk.transform(net))


def test_a_net_of_haiku_has_the_same_records(records):
    pytest.importorskip("haiku")
    model = jt.models.Function(init=haiku_init, apply=haiku_apply)
    measured = (jt.loss(), jt.gradient_variance())
    record = jt.Record(steps=(0, 30), observables=measured, probe_size=32)
    ds = jt.run(sweep_of("functions", model=model, record=record), progress=False)
    for variable in ("loss", "gradient_variance"):
        values = records["functions"][variable].values
        np.testing.assert_allclose(ds[variable].values, values, rtol=2e-4, atol=1e-6)


def margin(model, params, probe):
    """Mean of (2y − 1) f."""
    return ((2 * probe.y - 1) * model.apply(params, probe.x)).mean()


def own_margin(model, params, probe):
    """Mean of (2y − 1) f."""
    return ((2 * probe.y - 1) * model.apply(params, probe.x)[:, 0]).mean()


def biased(model, params, probe):
    """Promotes ranks, but not those of the outputs."""
    return (model.apply(params, probe.x) + probe.x.mean(0)).mean()


def test_a_column_of_outputs_that_is_combined_with_a_vector_is_refused():
    """(M,) and (M, 1) would become (M, M)."""
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(jt.InputError, match=r"has the shape \(M, 1\).*use \[:, 0\]"):
            sweep_of("linen", record=jt.Record(steps=(0,), observables=margin))
        for name, observable in (("functions", margin), ("linen", own_margin), ("linen", biased)):
            sweep_of(name, record=jt.Record(steps=(0,), observables=observable))


@pytest.mark.parametrize("name", MODELS)
def test_outputs_have_the_shape_of_the_net(name):
    model = sweep_of(name).configs[0].model
    params, one = model.init(jax.random.key(0)), () if name == "functions" else (1,)
    x = jnp.asarray(RNG.normal(size=(5, DIM)), jnp.float32)
    assert model.apply(params, x).shape == (5, *one)
    assert model.apply(params, x[0]).shape == ()
    hidden = np.maximum(np.asarray(x, float) @ START["W"] + START["b"], 0)
    expected = hidden @ START["V"] + START["c"]
    np.testing.assert_allclose(model.apply(params, x).reshape(5, 1), expected, rtol=1e-5, atol=1e-5)
    assert model.num_outputs == 1


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_a_value_and_is_read_from_json(name):
    sweep = sweep_of(name)
    again = jt.Sweep.from_json(sweep.to_json())
    assert again == sweep
    assert hash(again.configs[0].model) == hash(sweep.configs[0].model)
    assert again.configs[0].model == sweep.configs[0].model
    others = [sweep_of(other) for other in MODELS if other != name]
    assert sweep.id not in {other.id for other in others}


def start(key, width, scale=1.0):
    return {"w": scale * jax.random.normal(key, (DIM, width)), "v": jnp.ones((width,))}


def net(params, x, power=1):
    return jnp.maximum(x @ params["w"], 0) ** power @ params["v"]


def test_arguments_of_a_net_are_axes():
    model = jt.models.Function(init=start, apply=net, width=2)
    wider = sweep_of("functions", model=model, vary={"model.width": (2, 5)}, record=LOSS)
    assert {c.model.shapes["w"].shape for c in wider.configs} == {(DIM, 2), (DIM, 5)}
    deeper = sweep_of(
        "nnx", model=jt.models.NNX(Free, 2), vary={"model.width": (2, 5)}, record=LOSS
    )
    assert {c.model.shapes["layer"]["kernel"].shape for c in deeper.configs} == {(DIM, 2), (DIM, 5)}
    assert jt.models.NNX(Free, 2) == jt.models.NNX(Free, width=2) != jt.models.NNX(Free, 3)


class Free(nnx.Module):
    def __init__(self, width, bias=True, *, rngs):
        self.layer = nnx.Linear(DIM, width, use_bias=bias, rngs=rngs)

    def __call__(self, x):
        return self.layer(x).sum(1)


LOSS = jt.Record(steps=(0, 3), observables=jt.loss())
VOCABULARY = 5
TABLE = RNG.normal(size=(VOCABULARY, 4)).astype(np.float32)
TOKENS = RNG.integers(0, VOCABULARY, (40, 2))
SUMS = TOKENS.sum(1) % VOCABULARY


def table(key, shape, dtype):
    return jnp.asarray(TABLE, dtype)


def output(key, shape, dtype):
    return jnp.linspace(-1, 1, 8 * VOCABULARY, dtype=dtype).reshape(shape)


class Embedded(nn.Module):
    """Sees tokens as integers; a negative control for the float net below."""

    @nn.compact
    def __call__(self, x):
        assert x.dtype == jnp.int32
        h = nn.Embed(VOCABULARY, 4, embedding_init=table)(x)
        return nn.Dense(VOCABULARY, kernel_init=output)(h.reshape(len(x), -1))


class OneHot(nn.Module):
    """The same function of numbers."""

    @nn.compact
    def __call__(self, x):
        assert x.dtype == jnp.float32
        h = nn.Dense(4, use_bias=False, kernel_init=table)(
            jax.nn.one_hot(x.astype(int), VOCABULARY)
        )
        return nn.Dense(VOCABULARY, kernel_init=output)(h.reshape(len(x), -1))


class NnxEmbedded(nnx.Module):
    def __init__(self, *, rngs):
        self.embed = nnx.Embed(VOCABULARY, 4, embedding_init=table, rngs=rngs)
        self.output = nnx.Linear(8, VOCABULARY, kernel_init=output, rngs=rngs)

    def __call__(self, x):
        return self.output(self.embed(x).reshape(len(x), -1))


def test_integers_stay_integers_for_a_net_that_takes_only_these():
    data = jt.data.Arrays(TOKENS, SUMS)
    records = []
    for model in (OneHot(), Embedded(), jt.models.NNX(NnxEmbedded)):
        sweep = sweep_of("linen", model=model, data=data, record=LOSS)
        assert sweep.configs[0].data.x_dtype == sweep.configs[0].model.input_dtype
        assert jt.Sweep.from_json(sweep.to_json()) == sweep
        records.append(jt.run(sweep, progress=False).loss.values)
    np.testing.assert_allclose(records[1], records[0], rtol=1e-5)
    np.testing.assert_allclose(records[2], records[0], rtol=1e-5)
    assert (records[0][:, 0] != records[0][:, 1]).all()
    with pytest.raises(jt.InputError, match="fails on examples of shape"):
        sweep_of("linen", model=Embedded(), data=jt.data.Arrays(TOKENS + 0.5, SUMS), record=LOSS)


def test_equinox_leaves_that_are_no_numbers_are_fixed():
    model = sweep_of("equinox").configs[0].model
    params = model.init(jax.random.key(0))
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(6, 3), (6,), (1, 6), (1,)]
    assert isinstance(params, eqx.nn.MLP)
    assert params.activation is None
