"""What a bag says is true of its images, from the messages in it to the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from perception.evaluation import bags
from perception.evaluation.bag_frames import find_truths
from perception.evaluation.bags import Bag, BagWriter
from perception.evaluation.frames import BoxFrame
from perception.evaluation.recording import FrameWriter
from perception.evaluation.true_boxes import KIND, frame_of, named
from perception.evaluation.truth import STRIDE, BoxTruth, DepthTruth, accuracy_text
from perception.tasks.image import Image
from perception.tasks.messages import MessageError, NamedBoxes

SECOND = 1_000_000_000
SIZE = (48, 64)
LABELS = ("cat", "dog", "eel")
CAT, DOG, EEL = [4.0, 4.0, 20.0, 24.0], [30.0, 10.0, 60.0, 40.0], [0.5, 1.25, 9.5, 8.0]


def frame(*objects: tuple[str, list[float]], difficult: Sequence[int] = (), crowd: Sequence[int] = ()) -> BoxFrame:
    """`difficult` and `crowd` are places in the objects."""
    places = np.arange(len(objects))
    return BoxFrame(
        np.zeros((*SIZE, 3), np.uint8),
        np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        np.array([LABELS.index(name) for name, _ in objects], np.int64),
        np.isin(places, [*difficult, *crowd]),
        crowd=np.isin(places, crowd),
    )


def write(
    path: Path,
    frames: Sequence[BoxFrame],
    depth: Mapping[int, np.ndarray] | None = None,
    compression: str = "none",
    storage: str = "mcap",
) -> Path:
    """A frame a second, from the first second on; true depth of those in `depth`."""
    with BagWriter(path, storage) as bag:
        writer = FrameWriter(bag, compression=compression)
        for index, one in enumerate(frames):
            image = Image(one.rgb, "rgb8")
            metres = (depth or {}).get(index)
            writer.write((index + 1) * SECOND, image, depth=metres, boxes=named(one, LABELS))
    return path


def truths(path: Path) -> list:
    with Bag(path) as bag:
        return find_truths(bag, bags.choose_images(bag))


def say(*objects: tuple[str, list[float], float]) -> NamedBoxes:
    """As a pipeline says it."""
    rows = np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in objects], np.float32)
    return NamedBoxes(rows, scores, tuple(name for name, _, _ in objects), ("",) * len(objects))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compression", ["none", "jpeg"])
def test_boxes_are_in_the_bag_as_in_the_data_set(tmp_path: Path, storage: str, compression: str) -> None:
    first = frame(("dog", DOG), ("eel", EEL), ("cat", CAT), difficult=[1], crowd=[2])
    path = write(tmp_path / "bag", [first, frame()], compression=compression, storage=storage)
    (truth,) = truths(path)
    assert isinstance(truth, BoxTruth) and truth.labels == LABELS and truth.stamps == [SECOND, 2 * SECOND]
    one, empty = truth[0], truth[1]
    assert truth.label(0) == "1.000000" and truth.knows(2 * SECOND) and not truth.knows(3 * SECOND)
    np.testing.assert_array_equal(one.boxes, first.boxes)
    assert one.labels.tolist() == [1, 2, 0] and one.ignore.tolist() == [False, True, True]
    assert one.crowd is not None and one.crowd.tolist() == [False, False, True] and len(empty.boxes) == 0
    with Bag(path) as bag:
        message = next(bag.messages(["/camera/detections_true"])).message
        assert bag.types["/camera/detections_true"] == KIND and message.detections[0].header == message.header
        assert [detection.id for detection in message.detections] == ["", "difficult", "crowd"]


def test_the_message_is_the_one_of_ros() -> None:
    path = Path(pytest.importorskip("vision_msgs", reason="vision_msgs is not built; run tools/set_up.py").__file__)
    for prefix in path.parents:
        if (known := prefix / "share" / "vision_msgs" / "msg" / "Detection2DArray.json").is_file():
            hashes = {one["type_name"]: one["hash_string"] for one in json.loads(known.read_text())["type_hashes"]}
            assert bags.TYPES.hash_rihs01(KIND) == hashes[KIND]
            return
    pytest.skip("this vision_msgs, of Humble, has no hashes of its types")


def test_boxes_are_scored_as_in_an_evaluation() -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
    known = [named(one, LABELS) for one in (frame(("dog", DOG), ("cat", CAT)), frame(("dog", DOG)), frame())]
    truth = BoxTruth({(place + 1) * SECOND: one for place, one in enumerate(known)})
    assert truth.labels == ("cat", "dog")
    found = {
        SECOND: say(("dog", DOG, 0.9), ("dog", CAT, 0.8), ("bat", CAT, 0.99)),  # another thing, and another name
        2 * SECOND: say(("dog", [30, 10, 60, 28], 0.7)),  # an overlap of 0.6
        9 * SECOND: say(("dog", CAT, 1.0)),  # of no frame of the bag
    }
    scores = truth.scores(found)
    assert scores["task"] == "detection" and scores["frames"] == 2, "the third frame was lost"
    dog = (51 + 50 * 2 / 3) / 101  # of three the first and the last are right
    assert scores["metrics"]["AP50"] == pytest.approx(dog / 2, abs=1e-4), "the cat was found under no name"
    assert scores["metrics"]["AP75"] == pytest.approx(51 / 101 / 2, abs=1e-4)
    said = accuracy_text(scores)
    assert said.startswith("mAP 0.") and f"AP50 {dog / 2:.3f} ± " in said and said.endswith(f"AP75 {51 / 202:.3f}")


def test_what_cannot_be_compared_is_said() -> None:
    truth = BoxTruth({SECOND: named(frame(("dog", DOG)), LABELS)})
    with pytest.raises(ValueError, match="no class in common: the results are called 18, the true boxes dog"):
        truth.scores({SECOND: say(("18", DOG, 0.9))})
    with pytest.raises(ValueError, match="no result has the stamp of a true frame"):
        truth.scores({2 * SECOND: say()})
    depth = DepthTruth({SECOND: np.ones((3, 4), np.float32), 2 * SECOND: np.ones((3, 4), np.float32)})
    half = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match=r"none of 1 results can be compared; the first: prediction of shape \(3, 2\)"):
        depth.scores({SECOND: half})
    assert depth.scores({SECOND: half, 2 * SECOND: np.full((3, 4), 2.0, np.float32)})["frames"] == 1


def test_depth_is_thinned_and_known_by_stamp(tmp_path: Path) -> None:
    metres = np.arange(SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE) + 1
    depth, boxes = truths(write(tmp_path / "bag", [frame()] * 3, {0: metres, 2: 2 * metres}))
    assert isinstance(depth, DepthTruth) and isinstance(boxes, BoxTruth) and depth.stamps == [SECOND, 3 * SECOND]
    np.testing.assert_array_equal(depth[1].depth, 2 * metres[::STRIDE, ::STRIDE])
    scores = depth.scores({SECOND: metres[::STRIDE, ::STRIDE], 3 * SECOND: metres[::STRIDE, ::STRIDE]})
    assert scores["metrics"]["rel"] == pytest.approx(0.25) and scores["frames"] == 2 and scores["task"] == "depth"
    assert accuracy_text(scores).endswith("REL 0.250")


def test_a_bag_may_know_nothing_and_topics_elsewhere_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with BagWriter(path) as bag:
        FrameWriter(bag, "front").write(SECOND, Image(frame().rgb, "rgb8"))
        FrameWriter(bag, "rear").write(SECOND, Image(frame().rgb, "rgb8"), boxes=named(frame(("dog", DOG)), LABELS))
    with Bag(path) as bag:
        assert find_truths(bag, "/front/image_raw") == [] and len(find_truths(bag, "/rear/image_raw")) == 1


def test_depth_on_a_topic_of_colours_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        message = bags.image_message(Image(frame().rgb, "rgb8"), bags.header(SECOND, "eye"))
        bag.write("/eye/image", message, SECOND)
        bag.write("/eye/depth_true", message, SECOND)
    with Bag(tmp_path / "bag") as bag, pytest.raises(MessageError, match="encoding 'rgb8' is no depth"):
        find_truths(bag, "/eye/image")


def test_scores_of_a_network_stay_with_its_boxes() -> None:
    drawn = BoxFrame(
        frame().rgb, np.array([DOG], np.float32), np.array([1]), np.array([False]), scores=np.array([0.25], np.float32)
    )
    boxes = named(drawn, LABELS)
    assert boxes.scores.tolist() == [0.25] and boxes.names == ("dog",) and boxes.ids == ("",)
    assert named(frame(("dog", DOG)), LABELS).scores.tolist() == [1.0]
    assert frame_of(boxes, LABELS).labels.tolist() == [1]
