"""Results of an evaluation, kept sample by sample on disk, so that a run can go on; and what sums them up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
FORMAT = 5
"""Raised when a row's content changes its meaning, so that older files are not continued."""

DRAWS = 200
"""Draws of images for an interval where a figure is no mean over them."""
DRAWS_TOLD = (
    f"± half a 95 % interval of {DRAWS} draws of as many images with replacement, which takes images for independent, "
    "as those of a video are not."
)


class ResultLog:
    """Rows of one engine on one data set, a line of JSON each behind a line that says what they belong to.

    A line that a crash cut short is dropped, and so is all that follows it. Where the header is another one, the file
    starts anew; `note` says what was done.

    Args:
        header: all that the rows follow from (engine key, data hash, rule, ...); compared by its JSON.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.rows, self.note = path, list[Row](), ""
        wanted = json.loads(json.dumps({"format": FORMAT, **header}))
        lines = _whole_lines(path)
        found = lines[0] if lines else None
        if found == wanted:
            self.rows = lines[1:]
            self.note = f"goes on after {len(self.rows)} samples" if self.rows else ""
        elif found is not None:
            changed = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
            self.note = f"starts anew: {', '.join(changed)} changed since {path.name} was written"
        elif path.exists():
            self.note = f"starts anew: {path.name} is damaged"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in (wanted, *self.rows))
        path.write_text(text)  # without what was cut short

    def append(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file up to the first that is not whole."""
    lines: list[dict[str, Any]] = []
    if not path.is_file():
        return lines
    for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last line break is not whole
        try:
            content = json.loads(line)
        except ValueError:
            break
        if not isinstance(content, dict):
            break
        lines.append(content)
    return lines


def half_interval(values: np.ndarray, groups: Sequence[str] | None = None) -> float:
    """1.96 standard errors of the mean; NaN where a value is not finite, or all are of one group.

    Args:
        groups: of each value the name of its group; values of one hang together (Liang and Zeger, 1986). None: each is
            independent of all others.
    """
    places = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    if not np.isfinite(values).all() or (groups is not None and not places.any()):
        return float("nan")
    sums = np.bincount(places, values - values.mean())
    return float(1.96 * np.sqrt(len(sums) / max(1, len(sums) - 1) * np.square(sums).sum()) / len(values))


def draw_images(images: int, times: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each image comes in draws of as many, with replacement (Efron, 1979): float32 (times, images).

    The same seed draws the same images.
    """
    if not images:
        return np.zeros((times, 0), np.float32)
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), times).astype(np.float32)


def half_width(values: np.ndarray) -> float:
    """Half the width of the middle 95 % of what draws give; NaN where none gives a number."""
    low, high = np.nanpercentile(values, (2.5, 97.5)) if np.isfinite(values).any() else (math.nan, math.nan)
    return float(high - low) / 2


def measured_by_both(rows: Sequence[Row], reference: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of samples that are broken in neither."""
    pairs = [pair for pair in zip(rows, reference, strict=True) if not any("error" in row for row in pair)]
    return [mine for mine, _ in pairs], [theirs for _, theirs in pairs]


def mean(values: Sequence[float]) -> float:
    """Of those that are finite; NaN where none is."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def image_means(rows: Sequence[Row]) -> dict[str, Any]:
    """`metrics`: the mean over rows of each figure in their `metrics`; `ci95`: half a 95 % interval of each mean."""
    scores = {name: np.array([row["metrics"][name] for row in rows]) for name in rows[0]["metrics"]}
    return {
        "metrics": {name: float(np.mean(values)) for name, values in scores.items()},
        "ci95": {name: half_interval(values) for name, values in scores.items()},
    }


def image_differences(
    rows: Sequence[Row], reference: Sequence[Row], names: Sequence[str], group: str = ""
) -> dict[str, float]:
    """Mean of these metrics minus the reference's, over the rows that both have, and `..._ci95`, half its interval.

    Differences image by image vary far less than the images do, so that small ones show.

    Args:
        group: what rows have that names their group, see `half_interval`; empty: nothing.
    """
    both = measured_by_both(rows, reference)
    groups = [row[group] for row in both[0]] if group else None
    found = {}
    for name in names:
        mine, theirs = (np.array([row["metrics"][name] for row in side]) for side in both)
        values = mine - theirs
        found[name] = float(values.mean()) if len(values) else float("nan")
        found[f"{name}_ci95"] = half_interval(values, groups) if len(values) else float("nan")
    return found
