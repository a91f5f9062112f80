"""Results of an evaluation: kept sample by sample on disk, so that a run can go on, and summed up at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.tasks.depth_metrics import METRICS

Row = dict[str, Any]
FORMAT = 2
"""Raised when a row's content changes its meaning, so that older files are not continued."""


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


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """What the rows of a data set say together.

    Returns:
        `metrics`: the mean over images of each image's figure. `ci95`: half a 95 % interval of each of these means,
        1.96 standard errors over the images; it takes images for independent, which those of a sequence are not.
        `bands`: over all pixels of a distance. `edges`: means over the images that have edges. `latency_ms`: of single
        inferences. `stability` of a sequence, as medians over frames. `half_view`: medians over frames of the lens
        test, as shares of depth: `bias` of `shift` with its sign, `shift` and `change` of their sizes.
        `failed`: name and error of each broken sample; they are in no figure.
    """
    good = [row for row in rows if "error" not in row]
    summary: dict[str, Any] = {
        "samples": len(rows),
        "failed": [{"name": row["name"], "error": row["error"]} for row in rows if "error" in row],
    }
    scores = {name: np.array([row["metrics"][name] for row in good]) for name in (*METRICS, "valid")}
    summary["metrics"] = {name: float(np.mean(values)) for name, values in scores.items()}
    summary["ci95"] = {name: half_interval(values) for name, values in scores.items()}
    if not all("bands" in row for row in good):
        return summary
    summary["bands"] = _bands(good)
    summary["edges"] = {name: _mean([row["edges"][name] for row in good]) for name in good[0]["edges"]}
    times = [row["milliseconds"] for row in good if math.isfinite(row["milliseconds"])]
    if times:
        summary["latency_ms"] = {f"p{q}": float(np.percentile(times, q)) for q in (50, 99)}
    if any("scale" in row for row in good):
        summary["stability"] = _stability(rows)
    views = [row["half_view"] for row in good if math.isfinite(row.get("half_view", {}).get("shift", math.nan))]
    if views:
        # Where the lens is not followed, all frames go the same way: the bias. A network that sees less of the scene
        # moves single frames either way too, which the sizes of their shifts tell.
        medians = {name: float(np.median([abs(view[name]) for view in views])) for name in views[0]}
        bias = float(np.median([view["shift"] for view in views]))
        summary["half_view"] = {"bias": bias} | medians | {"frames": len(views)}
    return summary


def half_interval(values: np.ndarray) -> float:
    """1.96 standard errors of the mean; NaN where a value is not finite."""
    if not np.isfinite(values).all():
        return float("nan")
    return float(1.96 * np.std(values, ddof=min(1, len(values) - 1)) / np.sqrt(len(values)))


def difference(rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
    """Mean of delta1 and rmse minus the reference's over the samples that both have, with half its 95 % interval.

    Differences sample by sample vary far less than the samples do, so that small ones show.
    """
    pairs = [
        (row["metrics"], other["metrics"])
        for row, other in zip(rows, reference, strict=True)
        if "error" not in row and "error" not in other
    ]
    found = {}
    for name in ("delta1", "rmse"):
        values = np.array([mine[name] - theirs[name] for mine, theirs in pairs])
        found[name] = float(values.mean()) if len(values) else float("nan")
        found[f"{name}_ci95"] = half_interval(values) if len(values) else float("nan")
    return found


def _bands(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    bands = {}
    for name in rows[0]["bands"]:
        pixels, absolute, relative, close = np.sum([row["bands"][name] for row in rows], axis=0).tolist()
        if pixels:
            bands[name] = {
                "pixels": pixels,
                "mae": absolute / pixels,
                "rel": relative / pixels,
                "delta1": close / pixels,
            }
    return bands


def _stability(rows: Sequence[Row]) -> dict[str, float]:
    """Medians over neighbouring frames: of the change of depth, and of the change of scale."""
    changes = [row["change"] for row in rows if math.isfinite(row.get("change", math.nan))]
    scales = np.array([row.get("scale", math.nan) for row in rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        jumps = np.abs(np.diff(np.log(scales)))
    jumps = jumps[np.isfinite(jumps)]
    return {
        "change": float(np.median(changes)) if changes else float("nan"),
        "flicker": float(np.median(jumps)) if len(jumps) else float("nan"),
        "pairs": float(len(jumps)),
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
