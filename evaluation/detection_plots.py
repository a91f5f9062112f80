"""Curves of precision over recall.

Needs matplotlib; whoever imports this module says so where it is missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from perception.evaluation.average_precision import Evaluation
from perception.evaluation.replay_plots import COLOURS, DPI, GRID, WIDTH

CLASSES = 6
"""Those with the most objects have curves of their own."""


def draw_curves(evaluation: Evaluation, path: Path) -> None:
    """Write a PNG: the mean over classes at three overlaps, and the curves of some classes at an overlap of 0.5."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    means, classes = figure.subplots(1, 2, sharey=True)
    owed = [place for place, match in enumerate(evaluation.matches) if match.owed.any()]
    for overlap, colour in zip((0, 5, 8), COLOURS, strict=False):
        curve = evaluation.precision[overlap][:, owed].mean(axis=1) if owed else np.zeros_like(evaluation.recalls)
        label = f"overlap {evaluation.overlaps[overlap]:.2f}: AP {curve.mean():.3f}"
        means.plot(evaluation.recalls, curve, color=colour, linewidth=1.6, label=label)
    means.set_title(f"mean of {len(owed)} classes", fontsize=9)
    most = sorted(owed, key=lambda place: -evaluation.matches[place].owed.sum())[:CLASSES]
    for place, colour in zip(most, COLOURS, strict=False):
        curve = evaluation.precision[0][:, place]
        label = f"{evaluation.classes[place]}: AP50 {curve.mean():.3f}"
        classes.plot(evaluation.recalls, curve, color=colour, linewidth=1.4, label=label)
    classes.set_title("classes with the most objects, overlap 0.50", fontsize=9)
    means.set_ylabel("precision")
    for panel in (means, classes):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=GRID)
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1.02)
        panel.set_xlabel("recall")
        if panel.lines:
            panel.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)
    figure.savefig(path, dpi=DPI)
