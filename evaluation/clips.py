"""Splits of a data set of video frames by clip: neighbouring frames are nearly equal, and must not be on both sides.

    python -m perception.evaluation.clips FOLDER

reads a folder in VOC's layout whose images are numbered in the order of filming, and writes `train_clips.txt` and
`val_clips.txt` to its `ImageSets/Main`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from perception.evaluation.boxes import Annotation
from perception.evaluation.voc import VocBoxes

SIDE = 24
"""Pixels of a thumbnail."""
CUT, RISE = 8.0, 4.0
"""A cut changes the thumbnail by more than `CUT` grey levels in the mean, and by `RISE` times its usual change here."""
MOVED_RISE = 2.0
"""The same where the box jumps too, whatever the grey levels: an object that was exchanged on the same ground."""
NEARBY = 6
"""Frames to each side that say what is usual."""
ALIKE = 5.0
"""Grey levels up to which frames of one class may be of one clip: nine of ten neighbours are within."""
LEAST = 30
"""Frames of a clip at least: shorter pieces come from a camera that swings."""
HELD_OUT = 0.15
LISTS = "train_clips", "val_clips"


def find_clips(thumbnails: np.ndarray, annotations: Sequence[Annotation]) -> np.ndarray:
    """The number of the clip that each frame belongs to, int64 (N,), in the order of their beginnings.

    Frames are cut into pieces at the borders; then pieces that show the same classes are one clip again where a frame
    of one resembles a frame of the other, and where one is too short to be a clip. So where a border is in doubt, what
    is on both sides of it stays together.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3) of frames in the order of filming.
    """
    starts = find_borders(thumbnails, annotations)
    ends = [*starts[1:], len(thumbnails)]
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    kinds = [frozenset(annotations[start].labels.tolist()) for start in starts]
    clip = list(range(len(starts)))

    def join(a: int, b: int) -> None:
        low, high = sorted((clip[a], clip[b]))
        clip[:] = [low if number == high else number for number in clip]

    for a, b in combinations(range(len(starts)), 2):
        pieces = flat[starts[a] : ends[a] : 2], flat[starts[b] : ends[b] : 2]
        if kinds[a] == kinds[b] and clip[a] != clip[b] and any(_nearest(pieces[1], one) <= ALIKE for one in pieces[0]):
            join(a, b)
    for piece, (start, end) in enumerate(zip(starts, ends, strict=True)):
        changes = {  # at the borders to pieces of the same classes
            other: float(np.abs(flat[border] - flat[border - 1]).mean())
            for other, border in ((piece - 1, start), (piece + 1, end))
            if 0 <= other < len(starts) and kinds[other] == kinds[piece]
        }
        if end - start < LEAST and changes:
            join(piece, min(changes, key=changes.__getitem__))
    numbers = np.unique(clip, return_inverse=True)[1]
    return np.repeat(numbers, np.subtract(ends, starts))


def _nearest(frames: np.ndarray, frame: np.ndarray) -> float:
    """The mean difference of a frame to the one that resembles it most."""
    return float(np.abs(frames - frame).mean(axis=1).min())


def find_borders(thumbnails: np.ndarray, annotations: Sequence[Annotation]) -> list[int]:
    """Places of the frames with which a piece begins, 0 first.

    A piece ends where the classes in view change, where the picture changes by far more than before and after, and
    where it changes somewhat and the object is somewhere else.
    """
    changes = np.array(
        [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(thumbnails, thumbnails[1:], strict=False)]
    )
    borders = [0]
    for place, change in enumerate(changes):
        usual = max(0.5, float(np.median(changes[max(0, place - NEARBY) : place + NEARBY + 1])))
        before, after = annotations[place], annotations[place + 1]
        cut = change > CUT and change > RISE * usual
        if set(before.labels) != set(after.labels) or cut or (_moved(before, after) and change > MOVED_RISE * usual):
            borders.append(place + 1)
    return borders


def _moved(before: Annotation, after: Annotation) -> bool:
    """Whether no box overlaps one of the frame before."""
    low = np.maximum(before.boxes[:, None, :2], after.boxes[None, :, :2])
    high = np.minimum(before.boxes[:, None, 2:], after.boxes[None, :, 2:])
    return bool(low.size) and not (high > low).all(axis=2).any()


def hold_out(clips: Sequence[Counter[int]], share: float = HELD_OUT) -> set[int]:
    """The clips to evaluate on: of every class `share` of its clips, at least one and never all, which together have
    about that share of its frames. Rare classes choose first; the same clips always give the same choice.

    Args:
        clips: for each clip, how many of its frames show each class.
    """
    homes: dict[int, list[int]] = {}
    for place, clip in enumerate(clips):
        for label in clip:
            homes.setdefault(label, []).append(place)
    chosen: set[int] = set()
    for label, places in sorted(homes.items(), key=lambda item: (len(item[1]), item[0])):
        frames = {place: clips[place][label] for place in places}
        taken = chosen & frames.keys()
        for missing in range(max(1, round(share * len(places))) - len(taken), 0, -1):
            wanted = (share * sum(frames.values()) - sum(frames[place] for place in taken)) / missing
            allowed = [place for place in places if place not in chosen and _leaves_some(clips, homes, chosen, place)]
            best = min(allowed, key=lambda place: (abs(frames[place] - wanted), place), default=None)
            if best is None:
                break
            chosen.add(best)
            taken = chosen & frames.keys()
    return chosen


def _leaves_some(clips: Sequence[Counter[int]], homes: dict[int, list[int]], chosen: set[int], candidate: int) -> bool:
    """Whether every class of the candidate keeps a clip to train on."""
    return all(set(homes[label]) - chosen - {candidate} for label in clips[candidate])


def nearest_across(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """For each held-out thumbnail the mean difference, in grey levels, to the most similar one of the others.

    Args:
        train, held_out: uint8 (N, SIDE, SIDE, 3).
    """
    coarse, flat = (train[:, ::step, ::step].reshape(len(train), -1).astype(np.float32) for step in (4, 1))
    nearest = []
    for thumbnail in held_out.astype(np.float32):
        alike = np.argsort(np.abs(coarse - thumbnail[::4, ::4].ravel()).sum(axis=1))[:64]
        nearest.append(_nearest(flat[alike], thumbnail.ravel()))
    return np.array(nearest)


def thumbnail(path: Path) -> np.ndarray:
    """An image at `SIDE` pixels: uint8 (SIDE, SIDE, 3).

    Raises:
        ValueError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)
    if image is None:
        raise ValueError(f"{path} is not a readable image; remove it from the list or restore it")
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def split(dataset: VocBoxes) -> tuple[list[str], list[str], str]:
    """Names of the frames to train on and to evaluate on, and a report about them.

    Raises:
        ValueError: an image or an annotation is broken.
    """
    order = sorted(range(len(dataset)), key=dataset.label)
    thumbnails = np.stack([thumbnail(dataset.files(index)[0]) for index in tqdm(order, desc="thumbnails")])
    annotations = [dataset.annotation(index) for index in order]
    clips = find_clips(thumbnails, annotations)
    counts = [Counter[int]() for _ in range(clips.max() + 1)]
    for clip, annotation in zip(clips, annotations, strict=True):
        counts[clip].update(set(annotation.labels.tolist()))
    chosen = hold_out(counts)
    held_out = np.isin(clips, list(chosen))
    names = np.array([dataset.label(index) for index in order])
    apart = nearest_across(thumbnails[~held_out], thumbnails[held_out])
    return names[~held_out].tolist(), names[held_out].tolist(), _report(dataset.labels, counts, chosen, apart)


def _report(labels: Sequence[str], counts: Sequence[Counter[int]], chosen: set[int], apart: np.ndarray) -> str:
    lines = [f"{len(counts)} clips, {len(chosen)} of them held out", "class: clips and frames to train on; held out"]
    for label, name in enumerate(labels):
        frames = {place: count[label] for place, count in enumerate(counts) if count[label]}
        sides = ([number for place, number in frames.items() if (place in chosen) == side] for side in (False, True))
        lines.append(f"{name}: " + "; ".join(f"{len(side)} clips, {sum(side)} frames" for side in sides))
    if len(apart):
        low, middle = np.percentile(apart, (1, 50))
        lines.append(
            f"{len(apart)} held-out frames differ from the most similar one to train on by {apart.min():.1f} grey "
            f"levels at least, {low:.1f} in the first percentile, {middle:.1f} in the median"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of the module's description."""
    parser = argparse.ArgumentParser(prog="python -m perception.evaluation.clips", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="in VOC's layout, its images numbered in the order of filming")
    parser.add_argument("--split", default="trainval", help="list whose frames are divided (default: %(default)s)")
    args = parser.parse_args(arguments)
    *lists, report = split(VocBoxes(args.folder, args.split))
    for name, names in zip(LISTS, lists, strict=True):
        (args.folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{frame}\n" for frame in names))
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
