"""The same training as a good user would write it: in plain JAX, and as an ensemble of Equinox."""

from __future__ import annotations

from typing import Any

from scripts.benchmark.cases import Net
from scripts.benchmark.contestant import ETA, Contestant, images


def plain_jax(net: Net) -> Contestant:
    """All runs at once, their batches drawn step by step; it records nothing."""
    import jax
    import jax.numpy as jnp
    import optax

    init, apply = flax_cnn(net) if net.channels else dense(net)
    optimizer = optax.sgd(ETA)
    if net.channels:
        held = images().load().arrays
        x_all, y_all = jnp.asarray(held["x"]), jnp.asarray(held["y"], jnp.int32)

    def draw(key: Any) -> Any:
        key_x, key_y = jax.random.split(key)
        if net.channels:
            index = jax.random.randint(key_x, (net.batch,), 0, len(x_all))
            return (x_all[index] / 255.0 - 0.286) / 0.353, y_all[index]
        law = jax.random.normal if net.data == "gaussian" else jax.random.uniform
        return law(key_x, (net.batch, net.inputs)), jax.random.bernoulli(
            key_y, 0.5, (net.batch,)
        ) * 1.0

    def loss(params: Any, x: Any, y: Any) -> Any:
        outputs = apply(params, x)
        if net.channels:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()
        return optax.sigmoid_binary_cross_entropy(outputs, y).mean()

    def train(params: Any, opt_state: Any, keys: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            params, opt_state = carry
            grads = jax.grad(loss)(params, *draw(key))
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, opt_state), keys)[0]

    chunk = 2 if net.channels else 256
    advance = jax.jit(jax.vmap(train), donate_argnums=(0, 1))
    split = jax.jit(
        jax.vmap(lambda key, i: jax.random.split(jax.random.fold_in(key, i), chunk), (0, None))
    )
    keys = jax.random.split(jax.random.key(0), net.runs)
    state = jax.jit(jax.vmap(lambda key: (p := init(key), optimizer.init(p))))(keys)

    def run(steps: int) -> None:
        nonlocal state
        for i in range(-(-steps // chunk)):
            state = advance(*state, split(keys, i))
        jax.block_until_ready(state)

    return Contestant(run, net.runs, unit=chunk)


def equinox(net: Net) -> Contestant:
    """An ensemble of `eqx.nn.MLP` by `filter_vmap`, with `lax.scan` over the steps."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    optimizer, chunk = optax.sgd(ETA), 256
    law = jax.random.normal if net.data == "gaussian" else jax.random.uniform

    def make(key: Any) -> Any:
        sizes = (net.inputs, "scalar", net.hidden[0], len(net.hidden))
        return eqx.nn.MLP(*sizes, use_bias=net.bias, use_final_bias=net.bias, key=key)

    def loss(model: Any, x: Any, y: Any) -> Any:
        return optax.sigmoid_binary_cross_entropy(jax.vmap(model)(x), y).mean()

    @eqx.filter_vmap
    def step(model: Any, opt_state: Any, key: Any) -> Any:
        key_x, key_y = jax.random.split(key)
        x = law(key_x, (net.batch, net.inputs))
        y = jax.random.bernoulli(key_y, 0.5, (net.batch,)) * 1.0
        grads = eqx.filter_grad(loss)(model, x, y)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(model, updates), opt_state

    models = eqx.filter_vmap(make)(jax.random.split(jax.random.key(0), net.runs))
    arrays, static = eqx.partition(models, eqx.is_array)
    opt_state = eqx.filter_vmap(lambda a: optimizer.init(a))(arrays)

    @eqx.filter_jit(donate="all")
    def train(arrays: Any, opt_state: Any, key: Any) -> Any:
        def body(carry: Any, key: Any) -> Any:
            arrays, opt_state = carry
            keys = jax.random.split(key, net.runs)
            models, opt_state = step(eqx.combine(arrays, static), opt_state, keys)
            return (eqx.filter(models, eqx.is_array), opt_state), None

        return jax.lax.scan(body, (arrays, opt_state), jax.random.split(key, chunk))[0]

    state, seed = (arrays, opt_state), jnp.uint32(0)

    def run(steps: int) -> None:
        nonlocal state
        for i in range(-(-steps // chunk)):
            state = train(*state, jax.random.fold_in(jax.random.key(seed), i))
        jax.block_until_ready(state)

    return Contestant(run, net.runs, unit=chunk)


def dense(net: Net) -> Any:
    """A ReLU net as a list of (W, b)."""
    import jax
    import jax.numpy as jnp

    widths = (net.inputs, *net.hidden, 1)

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(widths) - 1)
        shapes = zip(keys, widths[:-1], widths[1:], strict=True)
        return [
            {"w": jax.random.normal(k, (n, m)) / n**0.5} | ({"b": jnp.zeros(m)} if net.bias else {})
            for k, n, m in shapes
        ]

    def apply(params: Any, x: Any) -> Any:
        for i, layer in enumerate(params):
            x = x @ layer["w"] + layer.get("b", 0.0)
            x = jax.nn.relu(x) if i < len(params) - 1 else x
        return x[:, 0]

    return init, apply


def flax_cnn(net: Net) -> Any:
    """The CNN with flax's own convolution."""
    import flax.linen as nn
    import jax.numpy as jnp

    class Module(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for block in net.channels:
                for width in block:
                    x = nn.relu(nn.Conv(width, (3, 3))(x))
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = x.reshape(len(x), -1)
            for width in net.hidden:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(10)(x)

    module = Module()
    return lambda key: module.init(key, jnp.zeros((1, 28, 28, 1))), module.apply
