"""Values of a wrong type or size, from which the trials draw."""

import datetime
import decimal
import fractions
import itertools
import math
import pathlib

import numpy as np
import pandas as pd


class Hostile:
    """An object whose text, comparison, length and hash all fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    __hash__ = None  # type: ignore[assignment]


def failing():
    """A generator that raises after one value."""
    yield 1
    raise RuntimeError("no more values")


def lines() -> str:
    """A text of two lines."""
    return "a\nb"


# Python expressions, since a generator can be used once and a message should show the expression.
VALUES = (
    "None", "True", "False", "0", "-1", "1", "2", "3", "4", "7", "0.1", "1.5", "-0.5", "2.0",
    "math.nan", "math.inf", "-math.inf", "1e-320", "1e-45", "1e300", "-1e300", "1e38", "0.0",
    "2**24", "2**31 - 1", "2**31", "2**32", "2**32 - 1", "2**63", "2**64", "10**30", "10**400",
    "10**5000", "''", "'x'", "'ten'", "'he'", "'epochs'", "'auto'", "'fused'", "'no'", "'3'",
    "'a' * 300", "'\\0'", "lines()", "'\\udcff'", "b'x'", "b''", "bytearray(b'ab')",
    "memoryview(b'ab')", "()", "(1,)", "(0,)", "(1, 2, 3)", "(0, 1)", "(1, 1)", "(0.1, 0.2)",
    "[]", "[1, 2]", "[[1]]", "[None]", "['x']", "{}", "{'a': 1}", "{'learning_rate': 0.1}",
    "set()", "{1, 2}", "frozenset({1})", "range(3)", "range(0)", "range(10**12)",
    "range(10**20)", "range(5, 0, -1)", "itertools.count()", "itertools.repeat(0.1)",
    "failing()", "iter(())", "np.float32(0.1)", "np.float64(0.2)", "np.int64(3)", "np.int8(-3)",
    "np.uint64(2**63)", "np.bool_(True)", "np.str_('he')", "np.array(3)", "np.array(0.1)",
    "np.array([1, 2])", "np.array([0.1, 0.2])", "np.array([])", "np.zeros((2, 2))",
    "np.array(['a'])", "np.array([None])", "np.array([math.nan])", "np.float16(0.1)",
    "np.longdouble(0.1)", "np.datetime64('2026-01-01')", "np.ma.masked_array([1, 2], [0, 1])",
    "np.ma.masked", "complex(1, 2)", "decimal.Decimal('0.1')", "fractions.Fraction(1, 3)",
    "fractions.Fraction(4, 1)", "datetime.date(2026, 1, 1)", "pathlib.Path('x')", "pd.NA",
    "pd.Series([1, 2])", "pd.DataFrame({'a': [1]})", "object()", "object", "int", "print",
    "lambda *_: 1", "lambda: 1 / 0", "Ellipsis", "NotImplemented", "Hostile()", "Hostile",
    "type('T', (), {})()", "iter(range(3))", "dict.fromkeys('ab')", "ValueError('x')",
)  # fmt: skip


def value(expression: str) -> object:
    """A new value of one of these expressions."""
    return eval(expression, _NAMES)


_NAMES = {
    **{module.__name__: module for module in (datetime, decimal, fractions, itertools, math)},
    **{"np": np, "pd": pd, "pathlib": pathlib, "Hostile": Hostile},
    **{"failing": failing, "lines": lines},
}
