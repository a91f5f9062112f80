"""Segmentation: from masks of the network's image to the camera's, parity, pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.tasks import get_task, task_names
from perception.tasks import segmentation as task
from perception.tasks.colors import class_colors, palette
from perception.tasks.config import LETTERBOXES, ModelConfig, Output
from perception.tasks.geometry import Fit
from perception.tasks.labels import UNLABELED, UNUSED

LABELS = ("floor", "wall", "chair")


def config(size: tuple[int, int] = (4, 6), labels: tuple[str, ...] = LABELS, **fields) -> ModelConfig:
    outputs = (Output("mask", (1, *size), "class", "uint8"), Output("confidence", (1, *size), "1/255", "uint8"))
    return ModelConfig("s", "segmentation", size, outputs, labels=labels, **fields)


def outputs(mask: np.ndarray, confidence: np.ndarray | int = 255) -> dict[str, np.ndarray]:
    mask = np.asarray(mask, np.uint8)
    return {"mask": mask[None], "confidence": np.full(mask.shape, confidence, np.uint8)[None]}


def test_segmentation_is_a_task() -> None:
    assert "segmentation" in task_names() and get_task("segmentation") is task


@settings(max_examples=200)
@given(
    st.tuples(st.integers(1, 250), st.integers(1, 250)),
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.sampled_from(LETTERBOXES),
)
def test_every_pixel_has_what_the_network_says_at_its_place(
    network: tuple[int, int], source: tuple[int, int], letterbox: str
) -> None:
    """Whatever the two sizes, and however the source lay in the network's image.

    The mask is the numbers of the rows here, the confidence those of the columns.
    """
    model = config(network, tuple(map(str, range(250))), letterbox=letterbox)
    fit = Fit.of(source, model)
    rows, columns = np.indices(network)
    found = task.parse(outputs(rows, columns), fit, model)
    for values, axis in ((found.mask, 0), (found.confidence, 1)):
        assert values.shape == source and values.dtype == np.uint8
        window, length = fit.window[axis], source[axis]
        expected = window.start + (np.arange(length) + 0.5) * (window.stop - window.start) / length
        line = values[:, 0] if axis == 0 else values[0]
        assert (np.abs(line + 0.5 - expected) <= 0.502).all()  # a pixel's centre lies in the network's pixel
        assert (values == (line[:, None] if axis == 0 else line)).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=3, max_size=3))
def test_ids_are_labels_or_unlabeled(seed: int, counted: list[bool]) -> None:
    """Also of a graph that gives ids which no label has."""
    model, said = config(labels=("floor", UNUSED, "chair")), np.random.default_rng(seed).integers(0, 256, (4, 6))
    found = task.parse(outputs(said), Fit.of((4, 6), model), model, np.array(counted)).mask
    counts = [index for index in (0, 2) if counted[index]]
    assert (found == np.where(np.isin(said, counts), said, UNLABELED)).all()


def test_results_are_not_the_engines_buffers() -> None:
    said = outputs(np.ones((4, 6)), np.full((4, 6), 9))
    found = task.parse(said, Fit.of((4, 6), config()), config())
    for array in said.values():
        array[:] = 0
    assert (found.mask == 1).all() and (found.confidence == 9).all()


def test_results_go_where_they_are_wanted() -> None:
    out = np.zeros((8, 12), np.uint8), np.zeros((8, 12), np.uint8)
    found = task.parse(outputs(np.full((4, 6), 2), 7), Fit.of((8, 12), config()), config(), out=out)
    assert found.mask is out[0] and found.confidence is out[1] and (out[0] == 2).all() and (out[1] == 7).all()


def test_more_classes_than_a_byte_has_are_refused() -> None:
    model = config(labels=tuple(map(str, range(256))))
    with pytest.raises(ValueError, match="tells 255 classes apart, and the model has 256"):
        task.parse(outputs(np.zeros((4, 6))), Fit.of((4, 6), model), model)


def apart(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Disagreement of images that say the same everywhere: (class, confidence)."""
    sides = (outputs(np.full((4, 6), label), confidence) for label, confidence in (one, other))
    return task.disagreement(*sides, config())


def test_disagreement() -> None:
    assert apart((1, 200), (1, 200)) == 0
    assert apart((1, 200), (1, 190)) == pytest.approx(10 / 200)
    assert apart((1, 255), (2, 255)) == 1
    assert apart((1, 200), (2, 200)) == pytest.approx(145 / 200)
    assert apart((1, 130), (2, 130)) == pytest.approx(task.TIED)  # 0.51 to 0.49 became 0.49 to 0.51
    assert apart((1, 60), (2, 60)) == pytest.approx(task.TIED)  # among many classes both may have had as much before
    assert apart((1, 60), (2, 250)) == apart((2, 250), (1, 60)) == pytest.approx(190 / 250)
    assert apart((0, 0), (0, 0)) == 0
    small = outputs(np.zeros((2, 2)))
    assert task.disagreement(outputs(np.zeros((4, 6))), small, config()) == math.inf


def test_disagreement_counts_pixels_alike() -> None:
    reference, candidate = outputs(np.zeros((4, 6))), outputs(np.repeat([[0, 0, 0, 0, 0, 1]], 4, 0))
    assert task.disagreement(reference, candidate, config()) == pytest.approx(1 / 6)


def test_wrong_masks_are_found_however_unsure_they_are() -> None:
    """As of an engine that mixes up the classes of a network that is sure of none."""
    rng = np.random.default_rng(0)
    mask, unsure = rng.integers(0, 3, (40, 60)), rng.integers(0, 127, (40, 60))
    reference = outputs(mask) | {"confidence": unsure.astype(np.uint8)[None]}
    found = task.disagreement(reference, reference | {"mask": outputs((mask + 1) % 3)["mask"]}, config())
    assert found > 2 * task.PARITY_BOUNDS["int8"]
    few = mask.copy()
    few[::20, ::20] = (few[::20, ::20] + 1) % 3  # 6 of 2400 pixels are tied, and rounded otherwise
    found = task.disagreement(reference, reference | {"mask": outputs(few)["mask"]}, config())
    assert 0 < found < task.PARITY_BOUNDS["fp32"]


@given(st.integers(0, 255), st.integers(0, 255), st.booleans())
def test_no_more_moves_than_there_is(c: int, d: int, same: bool) -> None:
    assert 0 <= apart((0, c), (0 if same else 1, d)) <= 1


def test_pictures_show_classes_and_leave_the_rest() -> None:
    colors = class_colors("chair=#102030", LABELS)
    assert colors[2].tolist() == [0x30, 0x20, 0x10] and (colors[:2] == palette(3)[:2]).all()
    mask = np.array([[0, 2, UNLABELED]], np.uint8)
    assert task.colorize(mask, colors).tolist() == [[colors[0].tolist(), [0x30, 0x20, 0x10], [0, 0, 0]]]
    image = np.full((1, 3, 3), 100, np.uint8)
    picture = task.overlay(image, mask, colors, 0.25)
    assert picture[0, 2].tolist() == [100] * 3
    assert picture[0, 1] == pytest.approx(0.75 * 100 + 0.25 * colors[2].astype(float), abs=1)
    assert (image == 100).all()


@pytest.mark.parametrize("text", ["chair", "chair=red", "#102030", "chair: #102030", "=#102030", "chair = #1020301"])
def test_what_is_no_color_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="gives no class a colour; write name=#rrggbb"):
        class_colors(text, LABELS)


def test_colors_of_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="class 'chairs' is unknown here; like it are 'chair'"):
        class_colors("floor=#000000, chairs = #102030", LABELS)


@pytest.mark.parametrize("rule", ["colors:=floor=#804080, chair=#dc143c", "colors:=chair=#dc143c"])
def test_colors_are_one_text_on_a_command_line(rule: str) -> None:
    """ROS reads the values of parameters there as YAML, in which "chair: #dc143c" is a table with a comment."""
    text = yaml.safe_load(rule.partition(":=")[2])
    assert class_colors(text, LABELS)[2].tolist() == [0x3C, 0x14, 0xDC]


def test_colors_differ() -> None:
    colors = palette(39)
    assert len({tuple(color) for color in colors.tolist()}) == 39 and palette(0).shape == (0, 3)
