"""Operations of traced programs, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from jthermo.observables import cost


def counted(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost.operations(jax.make_jaxpr(function)(*arguments).jaxpr)


def product(a, b):
    return a @ b


PRODUCT = 2 * 2 * 3 * 4


@pytest.mark.parametrize(
    ("function", "shapes", "operations"),
    [
        (product, ((2, 3), (3, 4)), PRODUCT),
        (jax.jit(product), ((2, 3), (3, 4)), PRODUCT),
        # one comparison, then the more expensive of the branches
        (
            lambda a, b: jax.lax.cond(a[0, 0] > 0, product, lambda a, b: jnp.zeros((2, 4)), a, b),
            ((2, 3), (3, 4)),
            PRODUCT,
        ),
        # seven products and seven additions
        (
            lambda a, b: jax.lax.scan(lambda c, _: (c + a @ b, None), 1.0 + a @ b, length=7)[0],
            ((2, 3), (3, 4)),
            PRODUCT + 7 * (PRODUCT + 8),
        ),
        # each of 4 × 5 × 6 outputs is a product with a window of 2 × 3 × 2 numbers
        (
            lambda x, w: jax.lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            ((1, 4, 5, 2), (2, 3, 2, 6)),
            2 * 4 * 5 * 6 * (2 * 3 * 2),
        ),
        # a sum reads every number
        (lambda x: x.sum(), ((5, 6),), 30),
    ],
)
def test_operations_of_a_program(function, shapes, operations):
    assert counted(function, *shapes) == pytest.approx(operations, abs=8)


def test_branches_count_once():
    """A sparse observable costs what it computes, not what it skips."""

    def sparse(a, b):
        return jax.lax.cond(a[0, 0] > 0, product, lambda a, b: 2 * product(a, b), a, b)

    more = counted(lambda a, b: 2 * product(a, b), (20, 30), (30, 40))
    assert counted(sparse, (20, 30), (30, 40)) == pytest.approx(more, rel=1e-3)
