"""Model configurations: checks and the way through JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.config import ModelConfig, Output


def config(**changes: object) -> ModelConfig:
    fields = {"name": "m", "task": "depth", "input_size": (64, 96), "outputs": (Output("depth", (1, 1, 64, 96), "m"),)}
    return ModelConfig(**fields | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"focal": None}, {"input_size": (36, 64)}])
def test_padding_needs_a_lens_and_sides_of_whole_windows(changes: dict) -> None:
    fields = {"focal": (0.9, 1.2), "input_size": (32, 64), "pads_narrow_views": True, "size_divisor": 1}
    assert config(**fields).pads_narrow_views
    with pytest.raises(ValueError, match="cannot pad narrow views with focal .*: give the training camera's focal"):
        config(**fields | changes)


@given(
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.tuples(*[st.floats(0.1, 2)] * 3),
    st.none() | st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
def test_json_round_trip(mean: tuple, std: tuple, focal: tuple | None, labels: tuple) -> None:
    made = config(mean=mean, std=std, focal=focal, labels=labels, metrics={"delta1": 0.5})
    assert ModelConfig.from_json(made.to_json()) == made


def test_outputs_are_floats_or_bytes() -> None:
    made = config(outputs=(Output("mask", (1, 64, 96), "class", "uint8"),))
    assert ModelConfig.from_json(made.to_json()) == made
    before = made.to_json().replace('"dtype": "uint8", ', "")  # as engines that were built before have it
    assert ModelConfig.from_json(before).outputs[0].dtype == "float32"
    with pytest.raises(ValueError, match="dtype 'int4' of output 'mask' is unknown; accepted: .*uint8"):
        Output("mask", (1, 64, 96), "class", "int4")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "m"}', '{"outputs": [], "nonsense": 1}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a model configuration"):
        ModelConfig.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (0, 96)}, "0x96"),
        ({"input_size": (60, 96), "size_divisor": 32}, "multiples of 32"),
        ({"color": "hsv"}, "hsv.*rgb"),
        ({"interpolation": "cubic"}, "cubic.*linear"),
        ({"std": (1.0, 0.0, 1.0)}, "positive"),
    ],
)
def test_impossible_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
