"""A picture of which class is taken for which.

Needs matplotlib; whoever imports this module says so where it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from perception.evaluation.replay_plots import DPI

NOTHING = "no class"
LEAST = 0.005
"""Shares that are told in numbers, where there is room for them."""
ROOMY = 20
"""Classes up to which there is."""


def draw_confusion(confusion: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Write a PNG: of the pixels of each class (rows) the shares that were given to each.

    Args:
        confusion: (classes, classes + 1), as `segmentation_metrics.confusion_matrix` has it; classes without pixels are
            left out, and so is the last column where it has none.
    """
    rows = np.flatnonzero(confusion.sum(axis=1))
    columns = np.flatnonzero(confusion.any(axis=0) | np.isin(np.arange(len(labels) + 1), rows))
    shares = confusion[np.ix_(rows, columns)] / np.maximum(1, confusion[rows].sum(axis=1, keepdims=True))
    side = max(4.0, 0.36 * len(columns) + 1.6)
    figure = Figure(figsize=(side, max(3.2, 0.36 * len(rows) + 1.4)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = (*labels, NOTHING)
    axes.set_xticks(range(len(columns)), [names[place] for place in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [names[place] for place in rows], fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(rows) <= ROOMY:
        for row, column in np.argwhere(shares >= LEAST):
            share = shares[row, column]
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=7)
    figure.savefig(path, dpi=DPI)
