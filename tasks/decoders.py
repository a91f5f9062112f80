"""How the raw outputs of detectors become candidates: boxes of the network's image with a class and a score.

A decoder is data, part of a model's config. `ssd` reads codes relative to anchors, `yolox` cells of three grids, and
`boxes` what a graph has decoded itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from perception.tasks.anchors import Shape, corners, decode, grid_anchors

Outputs = Mapping[str, np.ndarray]
SCORES = ("sigmoid", "softmax", "none")
"""What turns a network's class outputs into scores from 0 to 1."""


@dataclass(frozen=True)
class Candidates:
    """What the classes of some boxes are held for: `owners` (K,) which box, `classes` (K,), `scores` (K,) float32.

    `owners` ascend; scores are finite, and none lies under what was asked for.
    """

    owners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


class Decoder(Protocol):
    """One way to read a detector's outputs."""

    @property
    def kind(self) -> str:
        """Its name in files."""

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs that it reads."""

    def classes(self, outputs: Outputs) -> int:
        """How many classes of objects the outputs tell apart."""

    def given_scores(self, outputs: Outputs) -> np.ndarray | None:
        """What is taken for scores as it comes; None where it is computed of something else."""

    def candidates(self, outputs: Outputs, least: float, classes: np.ndarray | None) -> Candidates:
        """All that score `least` or more, of the classes that are true in bool (C,) (None: all)."""

    def boxes(self, outputs: Outputs, size: tuple[int, int], places: np.ndarray) -> np.ndarray:
        """The boxes of these numbers, float32 (K, 4): x1, y1, x2, y2 in pixels of the network's image of size =
        (height, width); what the outputs do not tell is not finite."""


@dataclass(frozen=True)
class SsdDecoder:
    """SSD's heads: codes (1, N, 4) relative to anchors, and class outputs (1, N, C)."""

    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of each map."""
    shapes: tuple[tuple[Shape, ...], ...]
    """Scale and aspect of the anchors of a place, map by map."""
    coder: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """What the network's ty, tx, th, tw are divided by."""
    score: str = "sigmoid"
    background: bool = True
    """Whether the first class output is for "nothing here"; with softmax it takes part, and no box comes of it."""
    box_output: str = "boxes"
    score_output: str = "scores"
    kind: ClassVar[str] = "ssd"

    def __post_init__(self) -> None:
        if len(self.grids) != len(self.shapes):
            raise ValueError(f"decoder has {len(self.grids)} grids and anchors of {len(self.shapes)}; give both alike")
        _check_score(self.score)

    @cached_property
    def anchors(self) -> np.ndarray:
        """See `grid_anchors`."""
        return grid_anchors(self.grids, self.shapes)

    @property
    def outputs(self) -> list[str]:
        """See `Decoder.outputs`."""
        return [self.box_output, self.score_output]

    def classes(self, outputs: Outputs) -> int:
        """See `Decoder.classes`."""
        return _flat(outputs, self.score_output).shape[1] - self.background

    def given_scores(self, outputs: Outputs) -> np.ndarray | None:
        """See `Decoder.given_scores`."""
        return _flat(outputs, self.score_output) if self.score == "none" else None

    def candidates(self, outputs: Outputs, least: float, classes: np.ndarray | None) -> Candidates:
        """See `Decoder.candidates`."""
        return _select(_flat(outputs, self.score_output), self.score, self.background, least, classes)

    def boxes(self, outputs: Outputs, size: tuple[int, int], places: np.ndarray) -> np.ndarray:
        """See `Decoder.boxes`."""
        for name in self.outputs:
            if (count := len(_flat(outputs, name))) != len(self.anchors):
                raise ValueError(
                    f"output {name!r} has {count} places, but grids and shapes make {len(self.anchors)} anchors; "
                    "correct grids, shapes or input size"
                )
        codes = _flat(outputs, self.box_output)[places]
        return _scaled(corners(decode(codes, self.anchors[places], self.coder)), size)


@dataclass(frozen=True)
class YoloxDecoder:
    """YOLOX's output (1, N, 5 + C): centre within the cell, logarithm of size, objectness and class scores (Ge et al.,
    2021); the scores are sigmoids already."""

    strides: tuple[int, ...] = (8, 16, 32)
    output: str = "output"
    kind: ClassVar[str] = "yolox"

    @property
    def outputs(self) -> list[str]:
        """See `Decoder.outputs`."""
        return [self.output]

    def classes(self, outputs: Outputs) -> int:
        """See `Decoder.classes`."""
        return _flat(outputs, self.output).shape[1] - 5

    def given_scores(self, outputs: Outputs) -> np.ndarray | None:
        """See `Decoder.given_scores`."""
        return _flat(outputs, self.output)[:, 4:]

    def candidates(self, outputs: Outputs, least: float, classes: np.ndarray | None) -> Candidates:
        """See `Decoder.candidates`."""
        raw = _flat(outputs, self.output)
        places = np.flatnonzero(raw[:, 4] >= least)  # a class's score is a share of it
        found = _select(raw[places, 5:] * raw[places, 4:5], "none", False, least, classes)
        return dataclasses.replace(found, owners=places[found.owners])

    def boxes(self, outputs: Outputs, size: tuple[int, int], places: np.ndarray) -> np.ndarray:
        """See `Decoder.boxes`."""
        raw = _flat(outputs, self.output)
        grid, stride = self.cells(size)
        if len(grid) != len(raw):
            raise ValueError(
                f"output {self.output!r} has {len(raw)} places, but an image of {size[0]}x{size[1]} with strides "
                f"{', '.join(map(str, self.strides))} has {len(grid)}; correct strides or input size"
            )
        shift, growth = np.split(raw[places, :4], 2, 1)
        return corners(np.concatenate([shift + grid[places], np.exp(growth)], 1) * stride[places])

    def cells(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Column and row (N, 2) of each cell, and its stride (N, 1)."""
        if size not in self._grids:
            grids, strides = [], []
            for stride in self.strides:
                rows, columns = (length // stride for length in size)
                y, x = np.mgrid[:rows, :columns]
                grids.append(np.stack([x, y], -1).reshape(-1, 2))
                strides.append(np.full((rows * columns, 1), stride))
            self._grids[size] = np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)
        return self._grids[size]

    @cached_property
    def _grids(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        return {}


@dataclass(frozen=True)
class BoxDecoder:
    """Boxes that the graph has decoded: (1, N, 4), or (1, 4, N), and class scores likewise; both may be one output."""

    form: str = "xyxy"
    """"xyxy", "yxyx" or "cxcywh"."""
    unit: str = "pixel"
    """"pixel" of the network's image, or "share" of it."""
    score: str = "none"
    background: bool = False
    channels_first: bool = False
    """Whether the outputs are (1, 4, N) and (1, C, N)."""
    box_output: str = "boxes"
    score_output: str = "scores"
    """The same name as `box_output`: the classes follow the four coordinates."""
    kind: ClassVar[str] = "boxes"
    FORMS: ClassVar[Mapping[str, list[int]]] = {"xyxy": [0, 1, 2, 3], "yxyx": [1, 0, 3, 2], "cxcywh": [0, 1, 2, 3]}

    def __post_init__(self) -> None:
        _check_score(self.score)
        if self.form not in self.FORMS or self.unit not in ("pixel", "share"):
            raise ValueError(
                f"form {self.form!r} with unit {self.unit!r} is unknown; accepted: {', '.join(self.FORMS)}, and pixel "
                "or share"
            )

    @property
    def outputs(self) -> list[str]:
        """See `Decoder.outputs`."""
        return list(dict.fromkeys([self.box_output, self.score_output]))

    def classes(self, outputs: Outputs) -> int:
        """See `Decoder.classes`."""
        return self._scores(outputs).shape[1] - self.background

    def given_scores(self, outputs: Outputs) -> np.ndarray | None:
        """See `Decoder.given_scores`."""
        return self._scores(outputs) if self.score == "none" else None

    def candidates(self, outputs: Outputs, least: float, classes: np.ndarray | None) -> Candidates:
        """See `Decoder.candidates`."""
        return _select(self._scores(outputs), self.score, self.background, least, classes)

    def boxes(self, outputs: Outputs, size: tuple[int, int], places: np.ndarray) -> np.ndarray:
        """See `Decoder.boxes`."""
        boxes, scores = self._rows(outputs, self.box_output), self._scores(outputs)
        if len(boxes) != len(scores):
            raise ValueError(
                f"output {self.box_output!r} has {len(boxes)} boxes, but {self.score_output!r} has the scores of "
                f"{len(scores)}; correct box_output, score_output or channels_first"
            )
        boxes = boxes[places, :4][:, self.FORMS[self.form]]
        boxes = corners(boxes) if self.form == "cxcywh" else boxes
        return _scaled(boxes, size) if self.unit == "share" else boxes

    def _scores(self, outputs: Outputs) -> np.ndarray:
        raw = self._rows(outputs, self.score_output)
        return raw[:, 4:] if self.score_output == self.box_output else raw

    def _rows(self, outputs: Outputs, name: str) -> np.ndarray:
        rows = _flat(outputs, name)
        return rows.T if self.channels_first else rows


@dataclass(frozen=True)
class FoundDecoder:
    """What `perception.engines.suppression` leaves to do: boxes (1, M, 4), scores (1, M) and classes (1, M) of what was
    found, best first, and zeros behind it."""

    least: float
    """Score below which the graph drops boxes."""
    threshold: float
    """Overlap above which the graph drops the worse of two boxes of a class."""
    kind: ClassVar[str] = "found"

    @property
    def outputs(self) -> list[str]:
        """See `Decoder.outputs`."""
        return ["found_boxes", "found_scores", "found_labels"]

    def classes(self, outputs: Outputs) -> int:
        """See `Decoder.classes`: as many as were seen so far."""
        return int(outputs["found_labels"].max()) + 1

    def given_scores(self, outputs: Outputs) -> np.ndarray | None:
        """See `Decoder.given_scores`."""
        return outputs["found_scores"]

    def candidates(self, outputs: Outputs, least: float, classes: np.ndarray | None) -> Candidates:
        """See `Decoder.candidates`."""
        scores, labels = outputs["found_scores"].ravel(), outputs["found_labels"].ravel().astype(np.int64)
        owners = np.flatnonzero((scores >= least) & (scores > 0))
        if classes is not None:
            owners = owners[classes[labels[owners]]]
        return Candidates(owners, labels[owners], scores[owners])

    def boxes(self, outputs: Outputs, size: tuple[int, int], places: np.ndarray) -> np.ndarray:
        """See `Decoder.boxes`."""
        return outputs["found_boxes"].reshape(-1, 4)[places]

    def full(self, outputs: Outputs, least: float) -> bool:
        """Whether all M places are in use by what scores `least` or more: there may have been more, of any class."""
        last = float(outputs["found_scores"].min())
        return last > 0 and last >= least


DESCRIBED: Mapping[str, type[Any]] = {kind.kind: kind for kind in (SsdDecoder, YoloxDecoder, BoxDecoder)}
"""Those of networks, which a description may name."""
DECODERS: Mapping[str, type[Any]] = {**DESCRIBED, FoundDecoder.kind: FoundDecoder}


def make_decoder(fields: Mapping[str, Any], decoders: Mapping[str, type[Any]] = DECODERS) -> Decoder:
    """The decoder that `kind` names, with its fields as JSON or YAML has them.

    Args:
        decoders: the kinds that are accepted.

    Raises:
        ValueError: an unknown kind or field, or a value that is not possible.
    """
    given = dict(fields)
    kind = given.pop("kind", None)
    if kind not in decoders:
        raise ValueError(f"decoder {kind!r} is unknown; accepted: {', '.join(decoders)}")
    known = [field.name for field in dataclasses.fields(decoders[kind])]
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"decoder {kind!r} has no {', '.join(unknown)}; accepted: {', '.join(known)}")
    try:
        decoder: Decoder = decoders[kind](**{name: _frozen(value) for name, value in given.items()})
    except TypeError as error:
        raise ValueError(f"decoder {kind!r} lacks something: {error}") from error
    return decoder


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _check_score(score: str) -> None:
    if score not in SCORES:
        raise ValueError(f"score {score!r} is unknown; accepted: {', '.join(SCORES)}")


def _flat(outputs: Outputs, name: str) -> np.ndarray:
    """An output without its batch."""
    if name not in outputs:
        raise ValueError(f"the model has no output {name!r}; it has {', '.join(outputs)}")
    return outputs[name].reshape(outputs[name].shape[-2:])


def _scaled(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return boxes * np.array([width, height, width, height], np.float32)


def _select(raw: np.ndarray, score: str, background: bool, least: float, classes: np.ndarray | None) -> Candidates:
    """What of class outputs (N, C) scores `least` or more; what is no number scores nothing."""
    if score == "softmax":
        raw = np.exp(raw - raw.max(1, keepdims=True))
        raw = raw / raw.sum(1, keepdims=True)
    # Few outputs pass: the sigmoid of those suffices. NumPy finds them in one row ten times as fast as in many.
    places = np.flatnonzero(raw >= (logit(least) if score == "sigmoid" else least))
    owners, found = np.divmod(places, raw.shape[1])
    scores = raw.ravel()[places]
    if background:
        objects = found > 0
        owners, found, scores = owners[objects], found[objects] - 1, scores[objects]
    if classes is not None:
        allowed = classes[found]
        owners, found, scores = owners[allowed], found[allowed], scores[allowed]
    if score == "sigmoid":
        scores = 1 / (1 + np.exp(-scores))
    return Candidates(owners, found, np.clip(scores, least, 1).astype(np.float32))  # rounding may leave one below


def logit(share: float) -> float:
    """Whose sigmoid is `share`; infinite for 0 and 1, and for what lies beyond."""
    if 0 < share < 1:
        return math.log(share / (1 - share))
    return -math.inf if share <= 0 else math.inf
