"""Tracking: which boxes of successive images are one object.

ByteTrack (Zhang et al., ECCV 2022): boxes of high score are matched with the tracks first, and those of low score with
what is left of them, so that an object that is half hidden keeps its number. In between, objects move at constant
velocity as far as the stamps say, so that neither lost images nor a changing rate matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from perception.tasks.anchors import pairwise_iou
from perception.tasks.detection import Detections

BLUR = 0.05
"""Standard deviation of a box's place and size, as a share of the box, as ByteTrack has it."""
SPEED = 2.0
"""That of the velocity of an object seen for the first time, in lengths of its own a second."""
AGITATION = 2.0
"""That by which a velocity strays in a second, in lengths a second."""
OVERLAP: Mapping[str, float] = {"high": 0.2, "low": 0.5, "new": 0.3}
"""Overlap (IoU) that a box needs with where a track should be: a box of high score, one of low score, and one of high
score where the track was seen only once."""


@dataclasses.dataclass
class Tracks:
    """Objects that are followed, one a row.

    Places and velocities are those of centre x, centre y, width and height, in pixels and seconds.
    """

    numbers: np.ndarray
    """int64 (N,), from 1 on; 0 for what was seen only once."""
    labels: np.ndarray
    seen: np.ndarray
    """int64 (N,), the newest stamp with a box of it."""
    lengths: np.ndarray
    """(N, 1), root of the area of that box."""
    places: np.ndarray
    velocities: np.ndarray
    covariances: np.ndarray
    """(N, 3, 4): variance of the place, covariance with the velocity, variance of the velocity."""

    @classmethod
    def begun(cls, boxes: np.ndarray, labels: np.ndarray, stamp: int) -> Tracks:
        """A track for each box (N, 4), x1, y1, x2, y2."""
        places = _places(boxes)
        lengths = _lengths(places)
        covariances = np.zeros((len(places), 3, 4))
        covariances[:, 0], covariances[:, 2] = (BLUR * lengths) ** 2, (SPEED * lengths) ** 2
        numbers, seen = np.zeros(len(places), np.int64), np.full(len(places), stamp)
        return cls(numbers, labels, seen, lengths, places, np.zeros_like(places), covariances)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def boxes(self) -> np.ndarray:
        """Where the objects should be, (N, 4)."""
        half = np.maximum(self.places[:, 2:], 1) / 2
        return np.concatenate([self.places[:, :2] - half, self.places[:, :2] + half], 1)

    def only(self, which: np.ndarray) -> Tracks:
        """Some of them, by numbers of rows or as bool (N,)."""
        return Tracks(*(values[which] for values in self._columns()))

    def joined(self, others: Tracks) -> Tracks:
        """These, then the others."""
        return Tracks(*map(np.concatenate, zip(self._columns(), others._columns(), strict=True)))

    def _columns(self) -> list[np.ndarray]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def advance(self, seconds: float) -> None:
        """Predict: velocities stay but for white noise in the acceleration."""
        place, both, velocity = self.covariances.swapaxes(0, 1)
        noise = (AGITATION * self.lengths) ** 2
        self.places += seconds * self.velocities
        place += seconds * (2 * both + seconds * velocity) + noise * seconds**3 / 3
        both += seconds * velocity + noise * seconds**2 / 2
        velocity += noise * seconds

    def correct(self, which: np.ndarray, boxes: np.ndarray, stamp: int) -> None:
        """Update these rows with the boxes that were found of them (Kalman, 1960)."""
        measured = _places(boxes)
        place, both, velocity = self.covariances[which].swapaxes(0, 1)
        self.lengths[which] = _lengths(measured)
        total = place + (BLUR * self.lengths[which]) ** 2
        error = measured - self.places[which]
        self.places[which] += place / total * error
        self.velocities[which] += both / total * error
        left = place - place**2 / total, both - place * both / total, velocity - both**2 / total
        self.covariances[which] = np.stack(left, 1)
        self.seen[which] = stamp


class Tracker:
    """Follows the objects of one camera. Objects of different classes are never taken for each other."""

    def __init__(self) -> None:
        self._stamp = 0
        self._count = 0
        self._tracks = _none()
        self._ended = False

    def forget(self) -> None:
        """End all tracks; while an `update` runs in another thread, too."""
        self._ended = True

    def update(self, found: Detections, stamp: int, threshold: float, memory: float) -> Detections:
        """The boxes of the next image that score `threshold` or more or belong to a track, with `tracks`.

        An object has a number from the second image in a row on in which it is found. Numbers are never used again. A
        stamp before the last one's, as when a recording starts over, ends all tracks.

        Args:
            found: boxes of low score too, of which some may belong to what was found with a higher one before.
            stamp: nanoseconds.
            memory: seconds without a box of it after which an object is forgotten.
        """
        tracks = self._tracks if stamp >= self._stamp and not self._ended else _none()
        self._ended = False
        tracks.advance((stamp - self._stamp) * 1e-9 if len(tracks) else 0.0)
        recent = tracks.seen == self._stamp  # however long ago that image was made
        tracks = tracks.only(recent | (stamp - tracks.seen <= memory * 1e9))
        known, recent = tracks.numbers > 0, tracks.seen == self._stamp
        high = found.scores >= threshold
        owners = np.full(len(found), -1)
        for step, some, boxes in (("high", known, high), ("low", known & recent, ~high), ("new", ~known, high)):
            free = some & ~np.isin(np.arange(len(tracks)), owners)
            _match(tracks, np.flatnonzero(free), found, np.flatnonzero(boxes & (owners < 0)), OVERLAP[step], owners)
        mine = np.flatnonzero(owners >= 0)
        for row in owners[mine]:
            if tracks.numbers[row] == 0 and tracks.seen[row] < stamp:  # the same image again says nothing new
                self._count += 1
                tracks.numbers[row] = self._count
        tracks.correct(owners[mine], found.boxes[mine], stamp)
        numbers = np.zeros(len(found), np.int64)
        numbers[mine] = tracks.numbers[owners[mine]]
        new = high & (owners < 0)
        begun = Tracks.begun(found.boxes[new], found.labels[new], stamp)
        self._tracks = tracks.only((tracks.numbers > 0) | (tracks.seen == stamp)).joined(begun)
        self._stamp = stamp
        kept = high | (numbers > 0)
        return Detections(found.boxes[kept], found.scores[kept], found.labels[kept], numbers[kept])


def assign(gains: np.ndarray) -> np.ndarray:
    """Pairs (K, 2) of a row and a column, each in one pair at most, whose gains have the largest sum there is.

    By shortest augmenting paths (Jonker and Volgenant, 1987), which is exact.

    Args:
        gains: (rows, columns), not negative; what gains nothing is not paired.
    """
    if len(gains) > gains.shape[1]:
        return assign(gains.T)[:, ::-1]
    rows, columns = gains.shape
    prices, worth = np.zeros(columns), np.zeros(rows)
    owner, place = np.full(columns, -1), np.full(rows, -1)
    for row in range(rows):
        shortest, before = np.full(columns, np.inf), np.full(columns, -1)
        reached = np.zeros(columns, bool)
        current, length = row, 0.0
        while True:
            lengths = length - gains[current] - worth[current] - prices
            better = ~reached & (lengths < shortest)
            shortest[better], before[better] = lengths[better], current
            column = int(np.argmin(np.where(reached, np.inf, shortest)))
            length = shortest[column]
            if owner[column] < 0:
                break
            reached[column] = True
            current = owner[column]
        worth[row] += length
        worth[owner[reached]] += length - shortest[reached]
        prices[reached] -= length - shortest[reached]
        while column >= 0:  # every row on the path moves to the column after it
            current = before[column]
            owner[column], place[current], column = current, column, place[current]
    pairs = np.stack([np.arange(rows), place], 1)
    return pairs[gains[pairs[:, 0], pairs[:, 1]] > 0]


def _match(
    tracks: Tracks, rows: np.ndarray, found: Detections, boxes: np.ndarray, least: float, owners: np.ndarray
) -> None:
    """Note in `owners` to which of the `rows` each of the `boxes` belongs, where it does."""
    if not (len(rows) and len(boxes)):
        return
    gains = pairwise_iou(tracks.boxes[rows], found.boxes[boxes])
    gains[(gains < least) | (tracks.labels[rows][:, None] != found.labels[boxes])] = 0
    pairs = assign(gains)
    owners[boxes[pairs[:, 1]]] = rows[pairs[:, 0]]


def _none() -> Tracks:
    return Tracks.begun(np.zeros((0, 4)), np.zeros(0, np.int64), 0)


def _places(boxes: np.ndarray) -> np.ndarray:
    """Centre x, centre y, width and height."""
    near, far = boxes[:, :2].astype(float), boxes[:, 2:].astype(float)
    return np.concatenate([(near + far) / 2, far - near], 1)


def _lengths(places: np.ndarray) -> np.ndarray:
    return np.sqrt(places[:, 2:3] * places[:, 3:4])
