"""Enhancement: parsing with the details of the camera's image, parity, brightness, flicker."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_image import picture

from perception.evaluation.datasets import data_root
from perception.tasks import enhancement as task
from perception.tasks import get_task, task_names
from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit
from perception.tasks.image import COLOR_ENCODINGS, RESIZABLE, Image, resize, to_color

CONFIG = ModelConfig("t", "enhancement", (40, 60), (), interpolation="area")
SECOND = 10**9
SIDES = (2, 12, 40)
"""Of the fields of a texture, in pixels of which six are one of the network's."""


def network(picture: np.ndarray, size: tuple[int, int] = (40, 60)) -> dict[str, np.ndarray]:
    """What a network says that brightens an image into `picture`, float (h, w, 3) in [0, 1]."""
    return {"enhanced": resize(picture.astype(np.float32), size, "area").transpose(2, 0, 1)[None]}


def smooth(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A dim picture without details, in [0.05, 0.2]."""
    noise = np.random.default_rng(seed).uniform(0.05, 0.2, (4, 6, 3)).astype(np.float32)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_LINEAR)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b.astype(float)) ** 2) / 255**2))


def test_enhancement_is_a_task() -> None:
    assert "enhancement" in task_names() and get_task("enhancement") is task


@pytest.mark.parametrize("source", [(40, 60), (20, 30), (80, 120)])
def test_without_the_image_the_networks_one_is_resized(source: tuple[int, int]) -> None:
    bright = smooth((40, 60))
    image = task.parse(network(bright), Fit.of(source, CONFIG), CONFIG).image
    assert image.shape == (*source, 3) and image.dtype == np.uint8
    assert np.abs(image - 255 * resize(bright, source, "area")).max() <= 1


def test_intensities_are_cut_not_wrapped() -> None:
    outputs = network(np.array([[[-0.5, 0.5, 1.5]]]) * np.ones((40, 60, 1)))
    assert (task.parse(outputs, Fit.of((40, 60), CONFIG), CONFIG).image == [0, 128, 255]).all()


@pytest.mark.parametrize("encoding", task.ENCODINGS)
def test_details_that_the_network_did_not_see_are_brightened_as_their_surroundings(encoding: str) -> None:
    """In an image of whichever encoding, and as that has it."""
    rng = np.random.default_rng(3)
    scales = [rng.uniform(-0.05, 0.05, (240 // size, 360 // size, 1)).repeat(size, 0).repeat(size, 1) for size in SIDES]
    source = np.round(255 * (0.2 + np.sum(scales, 0)) * (1.0, 0.9, 0.7)).astype(np.uint8)
    outputs, fit = network(3.0 * source / 255), Fit.of((240, 360), CONFIG)
    code = {"rgb8": None, "bgr8": cv2.COLOR_RGB2BGR, "mono8": cv2.COLOR_RGB2GRAY}[encoding]
    given, wanted = (pixels if code is None else cv2.cvtColor(pixels, code) for pixels in (source, 3 * source))
    out = np.zeros_like(given)
    guided = task.parse(outputs, fit, CONFIG, Image(given, encoding), out=out).image
    assert guided is out
    enlarged = task.parse(outputs, fit, CONFIG).image
    assert psnr(guided, wanted) > psnr(enlarged if code is None else cv2.cvtColor(enlarged, code), wanted) + 6


def test_colours_are_the_networks() -> None:
    """What differs in colour alone from pixel to pixel, as noise does, is left out."""
    rows, columns = np.indices((240, 360))
    red = (rows + columns) % 2 * 20
    speckled = np.stack([30 + red, 40 - red * 0.299 / 0.587, 30 + 0 * red], 2).round().astype(np.uint8)
    scene = np.full((40, 60, 3), (0.5, 0.3, 0.4))
    result = task.parse(network(scene), Fit.of((240, 360), CONFIG), CONFIG, Image(speckled, "rgb8")).image
    assert np.abs(result.astype(int) - (128, 77, 102)).max() <= 4


def test_noise_is_not_brightened() -> None:
    """In a flat scene the network sees nothing but noise, and says that there is none."""
    noisy = np.random.default_rng(0).integers(8, 13, (240, 360, 3), np.uint8)
    result = task.parse(network(np.full((40, 60, 3), 0.5)), Fit.of((240, 360), CONFIG), CONFIG, Image(noisy, "rgb8"))
    assert result.image.astype(float).std() < 1 and result.image.mean() == pytest.approx(128, abs=1)


def test_what_the_network_saw_is_not_blurred() -> None:
    """A smooth image comes back as the network has it, waves as short as the windows included."""
    rows, columns = np.mgrid[:40, :60]
    outputs = network((0.5 + 0.2 * np.cos(rows / 3) * np.sin(columns / 4))[..., None].repeat(3, 2))
    rows, columns = np.mgrid[:240, :360]
    dim = 30 + 15 * np.sin(rows / 17) * np.cos(columns / 23)
    source = np.rint(dim)[..., None].repeat(3, 2).astype(np.uint8)
    seen = resize(
        task.parse(outputs, Fit.of((240, 360), CONFIG), CONFIG, Image(source, "rgb8")).image, (40, 60), "area"
    )
    assert np.abs(seen / 255 - outputs["enhanced"][0].transpose(1, 2, 0)).mean() < 0.004


def test_padding_is_taken_away() -> None:
    config = CONFIG.replace(letterbox="center")
    fit = Fit.of((120, 120), config)
    outputs = network(np.full((40, 60, 3), 0.9))
    outputs["enhanced"][..., fit.window[0], fit.window[1]] = 0.4
    assert (fit.window[1].start, fit.window[1].stop) == (10, 50)
    for image in (None, Image(np.full((120, 120, 3), 20, np.uint8), "rgb8")):
        assert np.abs(task.parse(outputs, fit, config, image).image - 102.0).max() <= 1


def test_a_perfect_small_network_leaves_real_details() -> None:
    folder = data_root() / "lol" / "train"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    config = CONFIG.replace(input_size=(160, 240))
    gains = []
    for path in sorted((folder / "low").iterdir())[::30]:
        low, high = (cv2.imread(str(folder / kind / path.name))[..., ::-1] for kind in ("low", "high"))
        outputs = network(high / 255, (160, 240))
        fit = Fit.of(low.shape[:2], config)
        enlarged, guided = (
            task.parse(outputs, fit, config, image).image for image in (None, Image(low.copy(), "rgb8"))
        )
        gains.append(psnr(guided, high) - psnr(enlarged, high))
    assert np.mean(gains) > 2


def test_what_cannot_be_parsed() -> None:
    outputs = network(np.full((40, 60, 3), 0.5))
    fit = Fit.of((80, 120), CONFIG)
    for image in (Image(np.zeros((80, 100, 3), np.uint8), "bgr8"), Image(np.zeros((80, 120, 4), np.uint8), "rgba8")):
        with pytest.raises(
            ValueError, match=f"a {image.encoding} image of .* is not the source of 120x80 as one of rgb8, bgr8, mono8"
        ):
            task.parse(outputs, fit, CONFIG, image)
    outputs["enhanced"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="no numbers"):
        task.parse(outputs, fit, CONFIG)


def test_disagreement() -> None:
    reference = {"enhanced": np.array([0.5, 1.0, 0.0, 0.25])}
    assert task.disagreement(reference, reference, CONFIG) == 0
    assert task.disagreement(reference, {"enhanced": np.array([0.6, 0.9, 0.0, 0.25])}, CONFIG) == pytest.approx(0.05)
    assert task.disagreement(reference, {"enhanced": np.array([0.5, np.nan, 0.0, 0.25])}, CONFIG) == math.inf
    assert task.disagreement(reference, {"enhanced": np.ones(2)}, CONFIG) == math.inf


@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_brightness_of_any_encoding(encoding: str) -> None:
    for level in (30, 120, 220):
        found = task.brightness(picture(encoding, (level, level, level), 64, 48))
        assert found == pytest.approx(level / 255, abs=0.01)


@pytest.mark.parametrize("encoding", RESIZABLE)
def test_brightness_takes_no_more_pixels_than_it_needs(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows, and those without a conversion."""
    image = picture(encoding, (30, 120, 220), 64, 48)
    image.data[8:24] = np.random.default_rng(0).integers(0, 255, image.data[8:24].shape, np.uint8)
    if encoding.endswith("a8"):
        image.data[..., 3] = 255
    expected = to_color(image)[:: task.SAMPLED].mean() / 255
    monkeypatch.setattr(task, "to_color", None)
    assert task.brightness(image) == pytest.approx(expected)


@given(st.floats(0.01, 10), st.lists(st.floats(0.2, 0.4), min_size=2, max_size=20))
def test_a_gain_follows_with_its_time_constant(seconds: float, levels: list[float]) -> None:
    """Behind the factor the gain is the exponential mean of what the network's was."""
    exposure, stops = task.Exposure(), math.log2(levels[0] / 0.1)
    for number, level in enumerate(levels):
        factor = exposure.factor(0.1, level, number * SECOND // 30, seconds)
        if number:
            stops += (math.log2(level / 0.1) - stops) * (1 - math.exp(-(SECOND // 30) / SECOND / seconds))
        assert math.log2(level * factor / 0.1) == pytest.approx(stops, abs=1e-6)


def test_a_scene_may_change_its_brightness_at_once() -> None:
    """A gain is damped, not a brightness."""
    exposure = task.Exposure()
    assert exposure.factor(0.1, 0.4, 0, 1.0) == 1
    assert exposure.factor(0.05, 0.2, SECOND // 30, 1.0) == pytest.approx(1)


def test_gains_begin_anew() -> None:
    def after(stamp: int, level: float = 0.3, seconds: float = 1.0, before: float = 0.1) -> float:
        exposure = task.Exposure()
        exposure.factor(0.1, 0.4, 10 * SECOND, 1.0)
        return exposure.factor(before, level, stamp, seconds)

    later = 10 * SECOND + SECOND // 30
    assert after(later) > 1.3, "nearly the gain before"
    assert after(9 * SECOND) == 1, "time went back"
    assert after(10 * SECOND + 60 * SECOND) == pytest.approx(1), "long ago"
    assert after(later, level=0.9) == 1, "another scene"
    assert after(later, seconds=0.0) == 1, "not asked for"
    assert after(later, before=0.0) == 1, "nothing can be told of a black image"


@given(st.floats(0.01, 10), st.booleans(), st.lists(st.booleans(), max_size=40))
def test_a_fade_follows_with_its_time_constant(seconds: float, first: bool, darks: list[bool]) -> None:
    """To its end, from wherever it is; steps smaller than REST take it away from the other end, too."""
    fade, tick = task.Fade(), SECOND // 30
    expected = float(first)
    assert fade.weight(first, 0.2, tick, seconds) == expected
    for number, dark in enumerate(darks, 2):
        weight = fade.weight(dark, 0.2, number * tick, seconds)
        expected = dark + (expected - dark) * math.exp(-tick / SECOND / seconds)
        if abs(expected - dark) < task.REST:
            expected = float(dark)
            assert weight == expected
        assert weight == pytest.approx(expected)


def test_a_fade_is_at_its_end_at_once_where_nothing_is_to_be_damped() -> None:
    def after(stamp: int, level: float = 0.3, seconds: float = 1.0) -> float:
        fade = task.Fade()
        assert fade.weight(True, 0.2, 10 * SECOND, 1.0) == 1
        return fade.weight(False, level, stamp, seconds)

    later = 10 * SECOND + SECOND // 30
    assert 0.9 < after(later) < 1
    assert after(9 * SECOND) == 0, "time went back"
    assert after(10 * SECOND + 60 * SECOND) == 0, "long ago"
    assert after(later, level=0.5) == 0, "another scene, or a light was switched"
    assert after(later, level=0.0) == 0, "or all went out"
    assert after(later, seconds=0.0) == 0, "not asked for"
