"""Depth metrics as published, and those that a robot needs: error by distance, edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

METRICS = ("rmse", "mae", "rel", "log10", "delta1", "delta2", "delta3")
BANDS = ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 5.0), (5.0, float("inf")))
"""Distances in metres by which errors are told apart; the lower end belongs to the band."""
EIGEN_WINDOW = (45, 471, 41, 601)
"""Rows and columns of a 480x640 map of NYU Depth v2 that most papers after Eigen et al. (2014) compare."""
EDGE_REACH = 10.0
"""Pixels beyond which an edge counts as missed (Koch et al. 2018)."""
EDGE_STEP = 0.05
"""Relative step of depth from which on it is an edge."""


@dataclass(frozen=True)
class Rule:
    """Which pixels of a frame are compared, and how far predictions are believed.

    `valid`: "target" compares pixels with target > 0. "either" is FastDepth's own rule, target > 0 OR prediction > 0:
    where a target is unknown (0), REL and log10 become infinite, so it is of use on dense depth only.
    `crop`: "none"; "eigen", for 480x640 maps; or a window "top:bottom,left:right" in pixels, ends exclusive.
    `min_depth`, `max_depth`: metres. Only targets strictly between them count, and predictions are clipped to them:
    +Inf becomes max_depth, -Inf and NaN min_depth, as BTS and those after it do. Without a cap, predictions that are
    not finite are left out and told by `valid`.

    Raises:
        ValueError: an unknown rule, a crop that is none of these, or a cap that holds nothing.
    """

    valid: str = "target"
    crop: str = "none"
    min_depth: float = 0.0
    max_depth: float = float("inf")

    def __post_init__(self) -> None:
        if self.valid not in ("target", "either"):
            raise ValueError(f"valid-pixel rule {self.valid!r} is unknown; accepted: target, either")
        if not 0 <= self.min_depth < self.max_depth:
            raise ValueError(f"cap {self.min_depth}:{self.max_depth} holds no depth; give metres, as in 0.001:10")
        if self.valid == "either" and self.capped:
            raise ValueError("the rule 'either' comes without a cap: FastDepth has none")
        _window(self.crop)

    @property
    def capped(self) -> bool:
        """Whether a cap was given."""
        return self.min_depth > 0 or self.max_depth < float("inf")

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The window of `array` (height, width, ...) that is compared.

        Raises:
            ValueError: the window does not lie in the map.
        """
        window = _window(self.crop)
        if window is None:
            return array
        height, width = array.shape[:2]
        top, bottom, left, right = window
        if (self.crop == "eigen" and (height, width) != (480, 640)) or bottom > height or right > width:
            raise ValueError(
                f"crop {self.crop!r} does not fit depth of {height}x{width}: 'eigen' is for 480x640, a window must lie "
                "inside. The readers of NYU Depth v2 cut the white frame off, which leaves 426x561; use --crop none"
            )
        return array[top:bottom, left:right]

    def compared(self, prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Predictions and targets of the pixels that count, float64 (n,), and the share of known targets among them.

        Raises:
            ValueError: shapes that differ, or that the crop does not fit.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction of shape {prediction.shape} and target of shape {target.shape} differ")
        p, t = self.cut(prediction).astype(np.float64), self.cut(target).astype(np.float64)
        t = np.where(np.isfinite(t), t, 0.0)
        known = (t > self.min_depth) & (t < self.max_depth)
        if self.capped:
            p = np.clip(np.where(np.isnan(p), self.min_depth, p), self.min_depth, self.max_depth)
        finite = np.isfinite(p)
        counted = (known | (p > 0) if self.valid == "either" else known) & finite
        share = float((known & finite).sum() / known.sum()) if known.any() else 0.0
        return np.maximum(p[counted], 0.0), t[counted], share


def _window(crop: str) -> tuple[int, int, int, int] | None:
    if crop in ("none", "eigen"):
        return EIGEN_WINDOW if crop == "eigen" else None
    parts = [part.split(":") for part in crop.split(",")]
    if [len(part) for part in parts] == [2, 2] and all(number.isdigit() for part in parts for number in part):
        (top, bottom), (left, right) = (map(int, part) for part in parts)
        if top < bottom and left < right:
            return top, bottom, left, right
    raise ValueError(f"crop {crop!r} is unknown; accepted: none, eigen, or top:bottom,left:right as in 45:471,41:601")


PLAIN = Rule()
"""Every pixel with target > 0, no crop, no cap."""


def metrics(prediction: np.ndarray, target: np.ndarray, rule: Rule = PLAIN) -> dict[str, float]:
    """Depth metrics of one frame, as FastDepth's evaluation computes them (ICRA 2019, section IV; Eigen et al. 2014).

    RMSE = sqrt(mean d^2) and MAE = mean |d| are in metres here (FastDepth prints millimetres); REL = mean |d| / target;
    log10 = mean |log10 p - log10 t|; delta_k = share of pixels with max(p / t, t / p) strictly below 1.25^k. A data
    set's figure is the mean of its images' figures, not the figure of all its pixels. No scale or shift is fitted.

    Args:
        prediction, target: metres, same shape; a target that is not finite and positive is unknown. A prediction below
            0 counts as 0, whose ratio is infinite: p / t would be negative and pass as below 1.25.

    Returns:
        `METRICS`, and `valid`, the share of known targets that were predicted. NaN where nothing is left to compare.

    Raises:
        ValueError: shapes that differ, or that the crop does not fit.
    """
    p, t, share = rule.compared(prediction, target)
    if not t.size:
        return dict.fromkeys(METRICS, float("nan")) | {"valid": 0.0}
    difference = np.abs(p - t)
    with np.errstate(divide="ignore", invalid="ignore"):  # a depth of 0 on either side: infinite, as published
        ratio = np.maximum(p / t, t / p)
        values = (
            np.sqrt(np.mean(difference**2)),
            difference.mean(),
            np.mean(difference / t),
            np.mean(np.abs(np.log10(p) - np.log10(t))),
            *(np.mean(ratio < 1.25**k) for k in (1, 2, 3)),
        )
    return dict(zip(METRICS, map(float, values), strict=True)) | {"valid": share}


def band_name(band: tuple[float, float]) -> str:
    """E.g. "1-2 m" or "5+ m"."""
    low, high = band
    return f"{low:g}+ m" if high == float("inf") else f"{low:g}-{high:g} m"


def band_sums(prediction: np.ndarray, target: np.ndarray, rule: Rule = PLAIN) -> dict[str, list[float]]:
    """For each of `BANDS` of true distance: pixels, sum |d| (metres), sum |d| / target, pixels within delta1.

    Sums, so that a data set's figures are over all of its pixels at that distance: few images have some in every band.
    """
    p, t, _ = rule.compared(prediction, target)
    p, t = p[t > 0], t[t > 0]
    difference, close = np.abs(p - t), np.maximum(p, t) < 1.25 * np.minimum(p, t)
    sums = {}
    for low, high in BANDS:
        inside = (t >= low) & (t < high)
        d = difference[inside]
        sums[band_name((low, high))] = [
            float(inside.sum()),
            float(d.sum()),
            float((d / t[inside]).sum()),
            float(close[inside].sum()),
        ]
    return sums


def edge_errors(prediction: np.ndarray, target: np.ndarray, rule: Rule = PLAIN) -> dict[str, float]:
    """Depth boundary errors in the manner of iBims-1 (Koch et al., ECCV workshops 2018, section 4), in pixels.

    `edge_accuracy`: mean distance of predicted edges to the next true edge, over those within `EDGE_REACH`.
    `edge_completeness`: mean distance of true edges to the next predicted edge, cut at `EDGE_REACH`. Both are
    `EDGE_REACH` where no predicted edge is near a true one, NaN where there is no true edge.

    iBims-1 draws its true edges by hand; here the same detector finds them in the true and in the predicted map, so
    that figures compare between models on one data set, not with the paper's.
    """
    p, t = rule.cut(prediction), rule.cut(target)
    true_edges, edges = find_edges(t), find_edges(p)
    near = _distance(np.isfinite(t) & (t > 0)) < 4  # elsewhere nobody knows where an edge is
    true_edges, edges = true_edges & near, edges & near
    if not true_edges.any():
        return {"edge_accuracy": float("nan"), "edge_completeness": float("nan")}
    to_true, to_predicted = _distance(true_edges), _distance(edges)
    reached = to_true[edges & (to_true < EDGE_REACH)]
    return {
        "edge_accuracy": float(reached.mean()) if reached.size else EDGE_REACH,
        "edge_completeness": float(np.minimum(to_predicted[true_edges], EDGE_REACH).mean()),
    }


def find_edges(metres: np.ndarray) -> np.ndarray:
    """Where depth steps by more than `EDGE_STEP`: bool (height, width), by Canny on the logarithm of depth.

    Unknown pixels get the depth of the nearest known one, so that an edge in a gap lies in its middle.
    """
    known = np.isfinite(metres) & (metres > 0)
    if not known.any():
        return np.zeros(metres.shape, bool)
    depth = np.where(known, metres, 1).astype(np.float32)
    if not known.all():
        _, labels = cv2.distanceTransformWithLabels(
            (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        nearest = np.zeros(labels.max() + 1, np.float32)
        nearest[labels[known]] = depth[known]
        depth = nearest[labels]
    sigma = np.sqrt(2)
    smooth = cv2.GaussianBlur(np.log(depth), (0, 0), sigma)
    # A step of 1 has the slope 1 / (sigma sqrt(2 pi)) after the blur, Sobel's kernel sums to 8, Canny takes integers.
    unit = 1000.0
    dx, dy = (
        np.clip(cv2.Sobel(smooth, cv2.CV_32F, *axis) / 8 * unit, -32000, 32000).astype(np.int16)
        for axis in ((1, 0), (0, 1))
    )
    high = unit * np.log1p(EDGE_STEP) / (sigma * np.sqrt(2 * np.pi))
    return cv2.Canny(dx, dy, high / 2, high, L2gradient=True) > 0


def _distance(mask: np.ndarray) -> np.ndarray:
    """From each pixel to the next one of `mask`, pixels; Inf where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
