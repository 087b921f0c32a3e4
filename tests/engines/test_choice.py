"""Which choice of an engine admits the results of which engine."""

import pytest

from jthermo.engines import choice


@pytest.mark.parametrize(
    ("engine", "choices"),
    [("xla", {"auto", "xla"}), ("fused", {"auto", "fused"}), ("pallas", {"auto", "fused"})],
)
def test_a_choice_admits_its_engines(engine, choices):
    """ "fused" is the kernel of the device, whatever its name in results."""
    assert {wanted for wanted in choice.ENGINES if choice.answers(wanted, engine)} == choices
