"""Average precision by COCO's protocol (Lin et al., ECCV 2014), which pycocotools implements, and its uncertainty.

Needs pycocotools; whoever imports this module says so where it is missing.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from perception.evaluation.results import DRAWS, draw_images

SIZES = ("small", "medium", "large")
"""Up to 32 squared pixels, up to 96 squared, and beyond."""
CHUNK = 4_000_000
"""Numbers that are held in memory at a time."""


@dataclass(frozen=True)
class Matches:
    """What became of the detections of a class, best first, at T overlaps.

    `image` int (D,): the place of each one's image; `score` float (D,); `hit` bool (T, D): whether it found an object
    that nothing better had found; `skipped` bool (T, D): whether it found what is to be ignored; `owed` int (images,):
    the objects of each image.
    """

    image: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    skipped: np.ndarray
    owed: np.ndarray


class Protocol(COCOeval):
    """COCO's, and VOC's for what is to be ignored without being a crowd: a difficult object.

    Either may be found any number of times. It is enough to lie in a crowd, while a difficult object must be overlapped
    as any other. pycocotools takes every object with `iscrowd` for a crowd, and only those are ignored: whatever
    "ignore" says is overwritten.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Overlaps of detections and objects: with a crowd as shares of the detection's area."""
        objects = self._gts[imgId, catId]
        ignored = [entry["iscrowd"] for entry in objects]
        for entry in objects:
            entry["iscrowd"] = entry["crowd"]
        overlaps = super().computeIoU(imgId, catId)
        for entry, value in zip(objects, ignored, strict=True):
            entry["iscrowd"] = value
        return overlaps


class Evaluation:
    """Detections of some images held against their objects.

    Args:
        scenes: an image each, as plain data: "size" (height, width); "truth" with "boxes" (x1, y1, x2, y2), "labels"
            (names), "ignore", "areas", "crowd"; "found" with "boxes", "labels", "scores".
    """

    def __init__(self, scenes: Sequence[Mapping[str, Any]]) -> None:
        names = {name for scene in scenes for part in ("truth", "found") for name in scene[part]["labels"]}
        self.classes = sorted(names)
        numbers = {name: number for number, name in enumerate(self.classes, 1)}
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
            coco = Protocol(*_tables(scenes, numbers), "bbox")
            coco.evaluate()
            coco.accumulate()
        self.overlaps: np.ndarray = coco.params.iouThrs
        self.recalls: np.ndarray = coco.params.recThrs
        self.precision: np.ndarray = coco.eval["precision"][:, :, :, 0, -1]
        """(overlaps, recalls, classes), at most 100 detections an image; -1 for a class without objects."""
        self.images = len(scenes)
        self.matches = [_matches(coco, number, self.images) for number in range(len(self.classes))]
        self.metrics = self._metrics(coco)
        """mAP, AP50, AP75, mAP of each of `SIZES`, AR100, and VOC_AP50: the area under the whole curve at an overlap of
        0.5 (VOC from 2010 on), with COCO's matches. NaN where there is no object."""

    def _metrics(self, coco: COCOeval) -> dict[str, float]:
        precision, recall = coco.eval["precision"], coco.eval["recall"]
        once = np.ones((1, self.images), np.float32)
        areas = [whole_area(match, once)[0] for match in self.matches if match.owed.any()]
        return {
            "mAP": _mean(precision[:, :, :, 0, -1]),
            "AP50": _mean(precision[0, :, :, 0, -1]),
            "AP75": _mean(precision[5, :, :, 0, -1]),
            **{f"mAP_{size}": _mean(precision[:, :, :, place, -1]) for place, size in enumerate(SIZES, 1)},
            "AR100": _mean(recall[:, :, 0, -1]),
            "VOC_AP50": float(np.mean(areas)) if areas else float("nan"),
        }

    def by_class(self) -> dict[str, dict[str, float]]:
        """`objects`, `mAP` and `AP50` of every class that has objects."""
        return {
            name: {
                "objects": float(match.owed.sum()),
                "mAP": _mean(self.precision[:, :, place]),
                "AP50": _mean(self.precision[0, :, place]),
            }
            for place, (name, match) in enumerate(zip(self.classes, self.matches, strict=True))
            if match.owed.any()
        }

    def resampled(self, times: int = DRAWS) -> dict[str, np.ndarray]:
        """mAP and AP50 of draws of images, see `draw_images`: float (times,) each; NaN where one has no object.

        An image keeps its matches, so that only sums are made anew.
        """
        draws = draw_images(self.images, times)
        total, known = np.zeros((times, len(self.overlaps))), np.zeros((times, 1))
        for match in self.matches:
            found = average_precisions(match, draws, self.recalls)
            total += np.nan_to_num(found)
            known += np.isfinite(found[:, :1])
        means = np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)
        return {"mAP": means.mean(axis=1), "AP50": means[:, 0]}


def _matches(coco: COCOeval, number: int, images: int) -> Matches:
    """Those of a class, of objects of all sizes."""
    ranges, overlaps = len(coco.params.areaRng), len(coco.params.iouThrs)
    kept = coco.evalImgs[number * ranges * images :][:images]
    known = [(place, image) for place, image in enumerate(kept) if image is not None]
    owed = np.zeros(images, np.int64)
    for place, image in known:
        owed[place] = int((np.asarray(image["gtIgnore"]) == 0).sum())
    none = np.zeros((overlaps, 0), bool)
    image = np.concatenate([[], *(np.full(len(one["dtScores"]), place) for place, one in known)]).astype(np.int64)
    score = np.concatenate([[], *(one["dtScores"] for _, one in known)])
    matched = np.concatenate([none, *(one["dtMatches"] > 0 for _, one in known)], axis=1)
    skipped = np.concatenate([none, *(one["dtIgnore"] > 0 for _, one in known)], axis=1)
    order = np.argsort(-score, kind="mergesort")
    return Matches(image[order], score[order], (matched & ~skipped)[:, order], skipped[:, order], owed)


def _tables(scenes: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> tuple[COCO, COCO]:
    """Objects and detections as COCO's tables; ids begin with 1, since 0 says that nothing was matched."""
    images = [
        {"id": place, "height": scene["size"][0], "width": scene["size"][1]} for place, scene in enumerate(scenes)
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    tables = []
    for part in ("truth", "found"):
        table = COCO()
        entries = [entry for place, scene in enumerate(scenes) for entry in _entries(place, scene[part], numbers)]
        for number, entry in enumerate(entries, 1):
            entry["id"] = number
        table.dataset = {"images": images, "categories": categories, "annotations": entries}
        table.createIndex()
        tables.append(table)
    return tables[0], tables[1]


def _entries(place: int, part: Mapping[str, Any], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    boxes = np.asarray(part["boxes"], np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = part["areas"] if part.get("areas") else sides.prod(axis=1).tolist()
    ignore, crowd = (part.get(name) or [False] * len(boxes) for name in ("ignore", "crowd"))
    scores = part.get("scores") or [1.0] * len(boxes)
    return [
        {
            "image_id": place,
            "category_id": numbers[name],
            "bbox": box,
            "area": area,
            "iscrowd": int(is_ignored),
            "crowd": int(is_crowd),
            "score": score,
        }
        for name, box, area, is_ignored, is_crowd, score in zip(
            part["labels"], np.hstack([boxes[:, :2], sides]).tolist(), areas, ignore, crowd, scores, strict=True
        )
    ]


def average_precisions(match: Matches, weights: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """Precision at `recalls`, averaged, where each image counts as often as it weighs: float (B, T), NaN where no image
    that counts has an object.

    Args:
        weights: float32 (B, images).
    """
    found = np.full((len(weights), len(match.hit)), np.nan)
    owed = weights @ match.owed.astype(np.float32)
    step = max(1, CHUNK // max(1, len(match.image)))
    for start in range(0, len(weights), step):
        rows = slice(start, start + step)
        for overlap in range(len(match.hit)):
            recall, precision = _curves(match, weights[rows], owed[rows], overlap)
            for place, (reached, best) in enumerate(zip(recall, precision, strict=True), start):
                if owed[place] > 0:
                    places = np.searchsorted(reached, recalls, side="left")
                    found[place, overlap] = best[places[places < len(best)]].sum() / len(recalls)
    return found


def whole_area(match: Matches, weights: np.ndarray) -> np.ndarray:
    """The area under the curve at the first overlap, float (B,); see `average_precisions`."""
    owed = weights @ match.owed.astype(np.float32)
    recall, precision = _curves(match, weights, owed, 0)
    return (np.diff(recall, axis=1, prepend=0) * precision).sum(axis=1)


def _curves(match: Matches, weights: np.ndarray, owed: np.ndarray, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall after each hit, and the best precision from there on, both (B, hits): what lies between hits is worse."""
    hits = np.flatnonzero(match.hit[overlap])
    if not len(hits):
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    counts = weights[:, match.image[: hits[-1] + 1]] * ~match.skipped[overlap, : hits[-1] + 1]
    right = np.cumsum(counts[:, hits], axis=1, dtype=np.float64)
    begins = np.concatenate([[0], hits[:-1] + 1])
    all_ = np.cumsum(np.add.reduceat(counts, begins, axis=1), axis=1, dtype=np.float64)
    precision = right / np.maximum(all_, np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return right / np.maximum(owed, np.spacing(1))[:, None], best


def _mean(values: np.ndarray) -> float:
    """Of what is known: -1 stands for a class without objects."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
