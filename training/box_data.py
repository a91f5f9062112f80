"""Frames with boxes, augmented and batched for training. Every batch is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from perception.evaluation.boxes import BoxDataset
from perception.evaluation.frames import BoxFrame
from perception.tasks.anchors import area
from perception.tasks.config import GREY
from perception.training.box_losses import IGNORED, NOTHING
from perception.training.data import QUARTERS, View, Window, stack_images, vary_color
from perception.training.pasting import TRIES, paste

COVERAGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Of which share of some object a crop must show, one of these is drawn; MobileDets were trained with the same."""
VISIBLE = 0.3
"""An object of which a crop shows less, or not the centre, need not be found there."""
SMALLEST = 2.0
"""Pixels of the network's image: what is narrower or lower need not be found."""
LEFT_OUT = -9
"""The class of boxes that a network is not to learn."""

Objects = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes float32 (N, 4) in an image's pixels; labels int64 (N,), `IGNORED` among them; and scores float32 (N,): how
surely each is there, 1 unless a teacher said less."""
Sample = tuple[np.ndarray, Objects]
"""Image uint8 (height, width, 3) RGB, and what it shows."""


@dataclass(frozen=True)
class BoxAugmentation:
    """How strongly a training frame is varied. Half of all are mirrored."""

    crop: float = 0.6
    """Share of frames of which a crop is seen, with an object in it (Liu et al., ECCV 2016, section 2.2)."""
    smallest: float = 0.1
    """Area of the smallest crop, as a share of the image."""
    aspect: float = 2.0
    """Largest factor between width and height of a crop, as shares of the image's."""
    expand: float = 0.3
    """Share of the frames without a crop that are laid into grey, which shows objects smaller than they are."""
    largest: float = 3.0
    """Largest factor between the grey image's sides and the frame's."""
    turn: float = 0.0
    """Share of frames that are turned, by a quarter to either side or upside down: for things seen from above."""
    mosaic: float = 0.0
    """Share of images that are made of four frames (Bochkovskiy et al., 2020, section 3.3)."""
    paste: int = 0
    """The most objects of other frames that are laid onto a frame (see `paste`); from none to so many are as likely."""
    color: float = 0.3
    """Largest relative change of brightness, contrast and saturation; gamma and white balance change by half of it."""
    hue: float = 0.0
    """Largest turn of colours around the axis of greys, in turns, where the colour of a thing says little of what it
    is."""

    def __post_init__(self) -> None:
        for name in ("crop", "expand", "turn", "mosaic", "smallest", "color"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share and must lie between 0 and 1")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}; it is in turns, and 0.5 reaches all colours")
        if self.paste < 0:
            raise ValueError(f"paste is {self.paste}; it is a number of objects, 0 or more")
        for name in ("aspect", "largest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a factor and must be 1 or more")


def augment(
    frames: Sequence[BoxFrame], size: tuple[int, int], amount: BoxAugmentation, rng: np.random.Generator
) -> Sample:
    """One training image of size = (height, width): of one frame, or a mosaic of four."""
    height, width = size
    image = np.full((height, width, 3), GREY, np.uint8)
    frames = [turned(frame, int(rng.integers(1, 4))) if rng.random() < amount.turn else frame for frame in frames]
    if len(frames) == 1:
        window = choose_window(frames[0], amount, rng)
        objects = draw(frames[0], window, image, (0, 0, width, height), rng)
    else:
        x, y = (int(length * rng.uniform(0.35, 0.65)) for length in (width, height))
        tiles = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
        parts = []
        for frame, tile in zip(frames, tiles, strict=True):
            window = tile_window(frame, (tile[2] - tile[0]) / (tile[3] - tile[1]), rng)
            parts.append(draw(frame, window, image, tile, rng))
        boxes, labels, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        objects = boxes, labels, scores
    return vary_color(image, amount.color, rng, amount.hue) if amount.color or amount.hue else image, objects


def turned(frame: BoxFrame, quarters: int) -> BoxFrame:
    """The frame turned by 1 to 3 quarters, against the clock."""
    boxes = frame.boxes
    for quarter in range(quarters):
        width = frame.rgb.shape[1 - quarter % 2]
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack([y1, width - x2, y2, width - x1], axis=1)
    rgb = cv2.rotate(frame.rgb, QUARTERS[quarters])
    return BoxFrame(rgb, boxes, frame.labels, frame.ignore, scores=frame.scores, name=frame.name)


def choose_window(frame: BoxFrame, amount: BoxAugmentation, rng: np.random.Generator) -> Window:
    """What is shown of a frame: a crop, all of it with grey around, or just all of it."""
    height, width = frame.rgb.shape[:2]
    if rng.random() < amount.crop:
        coverage = COVERAGES[rng.integers(len(COVERAGES))]
        for _ in range(TRIES):
            share, aspect = rng.uniform(amount.smallest, 1), amount.aspect ** rng.uniform(-1, 1)
            w, h = (min(1.0, (share * ratio) ** 0.5) for ratio in (aspect, 1 / aspect))
            x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            window = x * width, y * height, w * width, h * height
            shown = _shown(frame.boxes, window)
            if not len(shown) or shown.max() > 0 and shown.max() >= coverage:
                return window
    elif rng.random() < amount.expand:
        factor = rng.uniform(1, amount.largest)
        x, y = rng.uniform(0, factor - 1, 2)
        return -x * width, -y * height, factor * width, factor * height
    return 0.0, 0.0, float(width), float(height)


def tile_window(frame: BoxFrame, aspect: float, rng: np.random.Generator) -> Window:
    """A large crop of a frame with the tile's aspect (width / height), and with an object in it where there is one."""
    height, width = frame.rgb.shape[:2]
    longest = min(1.0, width / height / aspect)
    h = longest * height * rng.uniform(0.6, 1)
    w = h * aspect
    window = rng.uniform(0, width - w), rng.uniform(0, height - h), w, h
    for _ in range(TRIES):
        if not len(frame.boxes) or _shown(frame.boxes, window).max() >= VISIBLE:
            break
        window = rng.uniform(0, width - w), rng.uniform(0, height - h), w, h
    return window


def draw(
    frame: BoxFrame, window: Window, canvas: np.ndarray, place: tuple[int, int, int, int], rng: np.random.Generator
) -> Objects:
    """Show a window of a frame, mirrored or not, at a place (x1, y1, x2, y2) of a canvas; the objects there.

    What the window shows beyond the frame stays as the canvas was.
    """
    left, top, right, bottom = place
    tile = canvas[top:bottom, left:right]
    view = View.of(window, (frame.rgb.shape[0], frame.rgb.shape[1]), (bottom - top, right - left))
    view.show(frame.rgb, tile)
    # The boxes go with the pixels, wherever rounding has put those.
    boxes = ((frame.boxes.reshape(-1, 2, 2) - view.first) * view.scale + view.low).reshape(-1, 4)
    boxes, labels, scores = _visible(boxes, frame, (view.low, view.high))
    if rng.random() < 0.5:
        tile[:] = cv2.flip(tile, 1)
        boxes[:, [0, 2]] = (right - left) - boxes[:, [2, 0]]
    return (boxes + (left, top, left, top)).astype(np.float32), labels, scores


def _visible(boxes: np.ndarray, frame: BoxFrame, edges: tuple[np.ndarray, np.ndarray]) -> Objects:
    """Objects whose boxes are cut at the edges of what is shown, without those of which nothing is."""
    cut = np.clip(boxes, np.tile(edges[0], 2), np.tile(edges[1], 2))
    share = area(cut) / area(boxes).clip(1e-6)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres >= edges[0]) & (centres <= edges[1])).all(axis=1)
    found = inside & (share >= VISIBLE) & ((cut[:, 2:] - cut[:, :2]).min(axis=1, initial=np.inf) >= SMALLEST)
    labels = np.where(found & ~frame.ignore, frame.labels, IGNORED)
    scores = np.ones(len(labels), np.float32) if frame.scores is None else frame.scores
    return cut[share > 0], labels[share > 0], scores[share > 0]


def _shown(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Which share of each box lies within a window."""
    x, y, w, h = window
    return area(np.clip(boxes, (x, y, x, y), (x + w, y + h, x + w, y + h))) / area(boxes).clip(1e-6)


@dataclass(frozen=True)
class BoxMixture:
    """Sources of training frames, read from disk whenever they are drawn.

    `shares` is each source's in a batch; `chances` those of its frames (see `evened`), None where all are the same;
    `places` are the classes of the network, int64, by a source's own numbers; `LEFT_OUT` for what it does not know.
    """

    sources: Sequence[Sequence[BoxFrame] | BoxDataset]
    shares: Sequence[float]
    chances: Sequence[np.ndarray | None]
    places: Sequence[np.ndarray]

    def batch(
        self, step: int, seed: int, count: int, size: tuple[int, int], amount: BoxAugmentation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images uint8 (count, 3, *size), boxes float (count, M, 4) as x1, y1, x2, y2 in shares of the image,
        labels int64 and scores float (count, M) of one step; lists that are shorter than M end with `NOTHING`."""
        rng = np.random.default_rng((seed, step))
        samples = []
        for _ in range(count):
            needed = 4 if rng.random() < amount.mosaic else 1
            frames = [self._draw(rng) for _ in range(needed)]
            for place in range(len(frames) if amount.paste else 0):
                for _ in range(rng.integers(amount.paste + 1)):
                    frames[place] = paste(frames[place], self._draw(rng), rng)
            samples.append(augment(frames, size, amount, rng))
        images = stack_images([image for image, _ in samples])
        most = max(len(labels) for _, (_, labels, _) in samples)
        boxes, labels, scores = torch.zeros(count, most, 4), torch.full((count, most), NOTHING), torch.ones(count, most)
        height, width = size
        for place, (_, (found, names, sure)) in enumerate(samples):
            boxes[place, : len(found)] = torch.from_numpy(found / np.array([width, height, width, height], np.float32))
            labels[place, : len(found)] = torch.from_numpy(names)
            scores[place, : len(found)] = torch.from_numpy(sure)
        return images, boxes, labels, scores

    def _draw(self, rng: np.random.Generator) -> BoxFrame:
        source = rng.choice(len(self.sources), p=np.asarray(self.shares) / np.sum(self.shares))
        frames, chances = self.sources[source], self.chances[source]
        index = rng.integers(len(frames)) if chances is None else rng.choice(len(frames), p=chances)
        frame = frames[int(index)]
        labels = self.places[source][frame.labels]
        known = labels != LEFT_OUT
        scores = None if frame.scores is None else frame.scores[known]
        return BoxFrame(
            frame.rgb, frame.boxes[known], labels[known], frame.ignore[known], scores=scores, name=frame.name
        )


def evened(labels: Sequence[np.ndarray], amount: float) -> np.ndarray:
    """Chances of frames, summing to 1, by which rare classes come more often than they were recorded.

    Args:
        labels: of each frame's objects.
        amount: a frame's chance falls with this power of the number of frames that show its rarest class: 0 leaves all
            frames alike, 1 all classes. Frames without objects count as a class of their own.
    """
    shown = [np.unique(frame) if len(frame) else np.array([-1]) for frame in labels]
    classes, counts = np.unique(np.concatenate(shown), return_counts=True)
    rarest = np.array([counts[np.searchsorted(classes, frame)].min() for frame in shown])
    weights = rarest ** -float(amount)
    return weights / weights.sum()
