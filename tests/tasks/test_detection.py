"""Detection: from raw outputs to boxes, parity, pictures."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.tasks import detection as task
from perception.tasks import get_task, task_names
from perception.tasks.anchors import encode, ssd_grids, ssd_shapes
from perception.tasks.colors import palette
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder, SsdDecoder, YoloxDecoder, make_decoder
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess
from perception.tasks.labels import COCO_LABELS, UNUSED, coco_slots

SSD = SsdDecoder(ssd_grids((320, 320)), ssd_shapes())
LABELS = ("bolt", "nut", "pliers")


def config(decoder=SSD, labels: tuple[str, ...] = LABELS, **fields) -> ModelConfig:
    outputs = (Output("boxes", (1, 2034, 4), "code"), Output("scores", (1, 2034, len(labels) + 1), "logit"))
    return ModelConfig("d", "detection", (320, 320), outputs, labels=labels, decoder=decoder, **fields)


def ssd_outputs(objects: list[tuple[list[float], int, float]], labels: int = 3) -> dict[str, np.ndarray]:
    """What a network says that sees these objects: box (cx, cy, w, h as shares), class, logit."""
    codes = np.zeros((1, 2034, 4), np.float32)
    scores = np.full((1, 2034, labels + 1), -20, np.float32)
    for box, label, logit in objects:
        place = int(np.abs(SSD.anchors - box).sum(1).argmin())
        codes[0, place] = encode(np.array([box], np.float32), SSD.anchors[place : place + 1], SSD.coder)[0]
        scores[0, place, label + 1] = logit
    scores[..., 0] = 9  # the background says yes to everything, and counts for nothing
    return {"boxes": codes, "scores": scores}


def test_detection_is_a_task() -> None:
    assert "detection" in task_names() and get_task("detection") is task


def test_boxes_come_in_the_sources_pixels_best_first() -> None:
    outputs = ssd_outputs([([0.5, 0.25, 0.2, 0.1], 2, 0.0), ([0.1, 0.8, 0.1, 0.2], 0, 2.0)])
    found = task.parse(outputs, Fit.of((480, 640), config()), config(), 0.4)
    assert found.labels.tolist() == [0, 2] and found.labels.dtype == np.int64
    assert found.scores == pytest.approx([1 / (1 + math.exp(-2)), 0.5])
    assert found.boxes == pytest.approx(np.array([[32, 336, 96, 432], [256, 96, 384, 144]]), abs=0.01)
    assert found.boxes.dtype == np.float32


def test_boxes_end_at_the_image() -> None:
    outputs = ssd_outputs([([0.02, 0.9, 0.3, 0.6], 1, 3.0), ([-0.4, 0.5, 0.1, 0.1], 0, 3.0)])
    found = task.parse(outputs, Fit.of((100, 200), config()), config())
    assert found.boxes == pytest.approx(np.array([[0, 60, 34, 100]]), abs=0.01)


def test_thresholds_limits_and_classes() -> None:
    same = [0.5, 0.5, 0.3, 0.3]
    near = [0.52, 0.5, 0.3, 0.3]
    outputs = ssd_outputs([(same, 0, 3.0), ([0.56, 0.5, 0.3, 0.32], 0, 1.0), ([0.2, 0.2, 0.1, 0.1], 1, -1.0)])
    outputs["scores"][0, :, 2] = np.maximum(
        outputs["scores"][0, :, 2], ssd_outputs([(near, 1, 2.0)])["scores"][0, :, 2]
    )
    fit = Fit.of((320, 320), config())

    def labels(**options) -> list[int]:
        return task.parse(outputs, fit, config(), **options).labels.tolist()

    assert labels() == [0, 1]  # a box of another class is no double
    assert labels(iou_threshold=0.95) == [0, 1, 0]
    assert labels(score_threshold=0.2) == [0, 1, 1]
    assert labels(most=1) == [0]
    assert labels(classes=np.array([False, True, True])) == [1]


def test_a_letterbox_is_undone() -> None:
    for letterbox, top in (("corner", 0), ("center", 40)):
        boxed = config(letterbox=letterbox, pad_value=114)
        fit = Fit.of((480, 640), boxed)
        assert fit.window == (slice(top, top + 240), slice(0, 320))
        outputs = ssd_outputs([([0.5, (top + 120) / 320, 0.25, 0.3], 1, 4.0)])
        found = task.parse(outputs, fit, boxed)
        assert found.boxes == pytest.approx(np.array([[240, 144, 400, 336]]), abs=0.01)
        image = preprocess(Image(np.full((480, 640, 3), 7, np.uint8), "rgb8"), boxed, fit)[0]
        assert (image[top : top + 240] == 7).all() and (np.delete(image, np.s_[top : top + 240], 0) == 114).all()


def test_unused_classes_are_never_found() -> None:
    slots = coco_slots()
    assert [slots.index(name) for name in (UNUSED, "stop sign", "toothbrush")] == [11, 12, 89]
    assert tuple(name for name in slots if name != UNUSED) == COCO_LABELS
    model = config(labels=slots)
    outputs = ssd_outputs([([0.5, 0.5, 0.3, 0.3], 11, 5.0), ([0.5, 0.2, 0.3, 0.3], 12, 5.0)], 90)
    assert task.parse(outputs, Fit.of((320, 320), model), model).labels.tolist() == [12]


finite = st.floats(-1e38, 1e38, width=32)
wild = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30, 88.0, -88.0, 3.4e38])


@settings(max_examples=200)
@given(
    st.integers(0, 2**32),
    wild,
    st.floats(0, 1),
    st.sampled_from(["all", "none", "mixed"]),
    st.sampled_from([1e-8, 0.3]),
)
def test_any_output_gives_sound_boxes_or_none(seed, value, share, scored, threshold: float) -> None:
    """The other ten thousand of the bar are in `test_ten_thousand_outputs`."""
    check_sound(random_outputs(np.random.default_rng(seed), value, share, scored), threshold)


def random_outputs(rng: np.random.Generator, value: float, share: float, scored: str) -> dict[str, np.ndarray]:
    codes = rng.normal(0, 10 ** rng.uniform(-2, 3), (1, 2034, 4)).astype(np.float32)
    level = {"all": 20, "none": -30, "mixed": 0}[scored]
    scores = (level + rng.normal(0, 5 * (scored == "mixed"), (1, 2034, 4))).astype(np.float32)
    codes[rng.random(codes.shape) < share] = value
    if scored == "mixed":
        scores[rng.random(scores.shape) < share] = value
    return {"boxes": codes, "scores": scores}


def check_sound(outputs: dict[str, np.ndarray], threshold: float) -> None:
    with np.errstate(all="raise", under="ignore"):  # and nothing is computed that NumPy would warn of
        found = task.parse(outputs, Fit.of((97, 211), config()), config(), threshold)
    assert len(found) <= 100
    assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [211, 97, 211, 97]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (np.diff(found.scores) <= 0).all() and ((found.scores >= threshold) & (found.scores <= 1)).all()


def test_ten_thousand_outputs() -> None:
    """Of a small network, since it is the values that matter: six maps of one place each."""
    small = SsdDecoder(((1, 1),) * 6, ssd_shapes())
    model = ModelConfig("d", "detection", (320, 320), (), labels=LABELS, decoder=small)
    rng = np.random.default_rng(0)
    values = np.array([np.nan, np.inf, -np.inf, 0, 1e30, -1e30, 88, -88, 3.4e38, 1, -1], np.float32)
    for _ in range(10_000):
        outputs = {
            "boxes": rng.choice(values, (1, 33, 4)) if rng.random() < 0.5 else rng.normal(0, 9, (1, 33, 4)),
            "scores": rng.choice(values, (1, 33, 4))
            if rng.random() < 0.7
            else np.full((1, 33, 4), rng.choice([-30, 30])),
        }
        outputs = {name: array.astype(np.float32) for name, array in outputs.items()}
        found = task.parse(outputs, Fit.of((97, 211), model), model, 0.3)
        assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()
        assert (found.boxes >= 0).all() and (found.boxes <= [211, 97, 211, 97]).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


@pytest.mark.parametrize("decoder", [YoloxDecoder((32,)), BoxDecoder(score="sigmoid"), BoxDecoder("cxcywh", "share")])
def test_wild_outputs_of_other_decoders(decoder) -> None:
    model = ModelConfig("w", "detection", (64, 64), (), labels=LABELS, decoder=decoder)
    fit = Fit.of((480, 640), model)  # larger than the network's image
    rng = np.random.default_rng(0)
    values = np.array([np.nan, np.inf, -np.inf, 0, 1e30, -1e30, 88, -88, 3.4e38, 1, -1, 30], np.float32)
    widths = {"output": 8} if decoder.kind == "yolox" else {"boxes": 4, "scores": 3}
    for _ in range(1000):
        outputs = {name: rng.choice(values, (1, 4, width)) for name, width in widths.items()}
        with np.errstate(all="raise", under="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = task.parse(outputs, fit, model, 0.3)
        assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.boxes >= 0).all() and (found.boxes <= [640, 480, 640, 480]).all()
        assert ((found.scores >= 0.3) & (found.scores <= 1)).all()


def test_yolox_cells() -> None:
    decoder = YoloxDecoder()
    model = ModelConfig("y", "detection", (64, 96), (), labels=LABELS, decoder=decoder, letterbox="corner")
    raw = np.zeros((1, 8 * 12 + 4 * 6 + 2 * 3, 8), np.float32)
    place = 8 * 12 + 2 * 6 + 3  # of the second grid: row 2, column 3
    raw[0, place] = [0.5, -0.25, np.log(2), np.log(1.5), 0.9, 0.1, 0.2, 0.8]
    found = task.parse({"output": raw}, Fit.of((64, 96), model), model)
    x, y = (3 + 0.5) * 16, (2 - 0.25) * 16
    assert found.boxes == pytest.approx(np.array([[x - 16, y - 12, x + 16, y + 12]]), abs=1e-3)
    assert found.scores == pytest.approx([0.72]) and found.labels.tolist() == [2]
    with pytest.raises(ValueError, match="126 places.*64x64.*84"):
        decoder.boxes({"output": raw}, (64, 64), np.arange(3))


@pytest.mark.parametrize(
    ("form", "row"), [("xyxy", [16, 8, 48, 24]), ("yxyx", [8, 16, 24, 48]), ("cxcywh", [32, 16, 32, 16])]
)
@pytest.mark.parametrize("unit", ["pixel", "share"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_decoded_boxes(form: str, row: list[float], unit: str, channels_first: bool) -> None:
    values = np.array(row, np.float32) / (64 if unit == "share" else 1)
    output = np.concatenate([values, [0.1, 0.7, 0.2]]).astype(np.float32)[None, None]
    decoder = BoxDecoder(form, unit, channels_first=channels_first, score_output="boxes")
    model = ModelConfig("b", "detection", (64, 64), (), labels=LABELS, decoder=decoder)
    outputs = {"boxes": output.transpose(0, 2, 1) if channels_first else output}
    found = task.parse(outputs, Fit.of((64, 64), model), model)
    assert found.boxes.tolist() == [[16, 8, 48, 24]] and found.labels.tolist() == [1]


@pytest.mark.parametrize("logit", [3.0, -20.0], ids=["something found", "nothing found"])
@pytest.mark.parametrize("name", ["boxes", "scores"])
@pytest.mark.parametrize("count", [1917, 2035])
def test_outputs_that_do_not_fit_the_anchors_are_refused(count: int, name: str, logit: float) -> None:
    outputs = ssd_outputs([([0.1, 0.1, 0.1, 0.1], 0, logit)])
    outputs[name] = np.resize(outputs[name], (1, count, outputs[name].shape[2]))
    words = f"output '{name}' has {count} places, but grids and shapes make 2034 anchors; correct grids, shapes"
    with pytest.raises(ValueError, match=words):
        task.parse(outputs, Fit.of((320, 320), config()), config())


@pytest.mark.parametrize("score", [0.9, 0.0])
@pytest.mark.parametrize("channels_first", [False, True])
def test_as_many_boxes_as_scores(channels_first: bool, score: float) -> None:
    outputs = {"boxes": np.ones((1, 5, 4), np.float32), "scores": np.full((1, 7, 3), score, np.float32)}
    if channels_first:
        outputs = {name: array.transpose(0, 2, 1) for name, array in outputs.items()}
    model = config(BoxDecoder(channels_first=channels_first))
    with pytest.raises(ValueError, match="'boxes' has 5 boxes, but 'scores' has the scores of 7; correct box_output"):
        task.parse(outputs, Fit.of((320, 320), model), model)


def test_softmax_shares_with_the_background() -> None:
    decoder = SsdDecoder(SSD.grids, SSD.shapes, score="softmax")
    outputs = ssd_outputs([([0.5, 0.5, 0.3, 0.3], 1, 0.0)])
    outputs["scores"][outputs["scores"] < -1] = -np.inf
    outputs["scores"][..., 0] = math.log(3)
    found = task.parse(outputs, Fit.of((320, 320), config()), config(decoder), 0.2)
    assert found.scores == pytest.approx([0.25]) and found.labels.tolist() == [1]


def test_decoders_travel_as_json() -> None:
    for decoder in (SSD, YoloxDecoder((8, 16)), BoxDecoder("cxcywh", channels_first=True)):
        assert ModelConfig.from_json(config(decoder).to_json()) == config(decoder)
    with pytest.raises(ValueError, match="decoder 'ssdd' is unknown; accepted: ssd, yolox, boxes"):
        make_decoder({"kind": "ssdd"})
    with pytest.raises(ValueError, match="has no stride; accepted: strides"):
        make_decoder({"kind": "yolox", "stride": [8]})
    with pytest.raises(ValueError, match="lacks something"):
        make_decoder({"kind": "ssd"})
    with pytest.raises(ValueError, match="score 'relu' is unknown"):
        BoxDecoder(score="relu")


def test_disagreement() -> None:
    reference = ssd_outputs([([0.5, 0.5, 0.3, 0.3], 1, 2.0)])
    assert task.disagreement(reference, reference, config()) == 0
    moved = {name: array.copy() for name, array in reference.items()}
    moved["boxes"] += 1.0
    weaker = {name: array.copy() for name, array in reference.items()}
    weaker["scores"] -= 1.0
    other = ssd_outputs([([0.2, 0.5, 0.3, 0.3], 0, 2.0)])
    found = [task.disagreement(reference, outputs, config()) for outputs in (moved, weaker, other)]
    assert found[0] > 0 and 0 < found[1] < found[2]
    assert found[2] > task.PARITY_BOUNDS["int8"] and found[1] > task.PARITY_BOUNDS["fp16"]
    moved["boxes"][0, 0, 0] = np.nan
    assert task.disagreement(reference, moved, config()) == math.inf


@pytest.mark.parametrize("objects", [1, 5])
@pytest.mark.parametrize("background", [-5.0, -20.0])
def test_lost_or_misnamed_objects_are_never_parity(objects: int, background: float) -> None:
    """Beside two thousand places that rightly say nothing."""
    seen = [([0.15 * place + 0.1, 0.5, 0.1, 0.1], place % 3, 3.0) for place in range(objects)]
    reference, lost, renamed = ssd_outputs(seen), ssd_outputs([]), ssd_outputs(seen)
    renamed["scores"][..., 1:] = np.roll(renamed["scores"][..., 1:], 1, axis=2)
    for outputs in (reference, lost, renamed):
        outputs["scores"][outputs["scores"] < background] = background
    for outputs in (lost, renamed):
        assert task.disagreement(reference, outputs, config()) > task.PARITY_BOUNDS["int8"]


def test_disagreement_of_sides_that_say_different_numbers_of_boxes() -> None:
    model = config(BoxDecoder(), ("a",))
    boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (1, 5, 1))
    scores = np.array([0.9, 0.1, 0, 0, 0], np.float32).reshape(1, 5, 1)
    less = scores - np.float32(1e-4)  # the last ones below nought, where no score can be
    assert task.disagreement({"boxes": boxes, "scores": less}, {"boxes": boxes, "scores": scores}, model) < 0.001


def test_overlay_draws_boxes_in_their_classes_colours() -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    found = task.Detections(np.array([[20, 30, 60, 70]], np.float32), np.array([0.9], np.float32), np.array([1]))
    picture = task.overlay(image, found, LABELS)
    assert (image == 0).all() and (picture[50, 20] == palette(3)[1]).all() and (picture[50, 40] == 0).all()
    assert (picture[20:30] > 0).any() and not (
        task.overlay(image, task.Detections(*(a[:0] for a in (found.boxes, found.scores, found.labels))), LABELS)
    ).any()
