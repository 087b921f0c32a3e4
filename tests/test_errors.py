"""Errors keep their parts when they cross a process."""

import pickle

import flax.linen as nn
import pytest

from jthermo.errors import InputError, MissingData, StorageError


@pytest.mark.parametrize("kind", [InputError, MissingData, StorageError])
def test_an_error_from_another_process_is_the_same(kind):
    error = kind("batch_size", 0, "give a positive whole number")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.field, again.value, again.remedy) == ("batch_size", 0, error.remedy)
    assert str(again) == str(error) == "batch_size = 0: give a positive whole number"


def test_a_module_of_flax_is_shown_without_its_comments():
    text = str(InputError("model", nn.Dense(4), "give another"))
    assert "features = 4" in text
    assert "#" not in text


def test_a_long_value_is_cut_and_a_short_one_is_not():
    for length, cut in ((198, False), (199, True)):
        text = str(InputError("name", "x" * length, "shorten it"))
        assert ("..." in text) == cut
        assert len(text) == len("name = ") + 200 + len(": shorten it")
