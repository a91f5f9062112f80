"""Model configurations: checks and the way through JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.config import Input, ModelConfig, Output, Part


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


def parted() -> ModelConfig:
    return config(
        outputs=(Output("field", (1, 8), ""), Output("view", (1, 3, 64, 96), "intensity")),
        more_inputs=(Input("pose", (1, 4, 4), "m"),),
        parts=(Part("make", ("image",), ("field",)), Part("show", ("field", "pose"), ("view",))),
    )


def test_a_part_has_a_configuration_of_its_own() -> None:
    whole = parted()
    assert ModelConfig.from_json(whole.to_json()) == whole
    assert [tensor.name for tensor in whole.inputs] == ["image", "pose"]
    assert whole.inputs[0].shape == (1, 64, 96, 3) and whole.inputs[0].dtype == "uint8"
    make, show = whole.of_part("make"), whole.of_part("show")
    assert make.inputs == config().inputs and [output.name for output in make.outputs] == ["field"]
    assert show.inputs == (Input("field", (1, 8), ""), *whole.more_inputs) and show.outputs == whole.outputs[1:]
    assert (show.part, show.parts, show.sees) == ("show", whole.parts, False)
    assert ModelConfig.from_json(show.to_json()) == show
    with pytest.raises(ValueError, match="'m' has no part 'tell'; its parts: make, show"):
        whole.of_part("tell")
    with pytest.raises(ValueError, match="'m' has no part 'make'; its parts: none"):
        config().of_part("make")
