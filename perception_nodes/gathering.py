"""Brings together what several workers say of one image, by its stamp, and waits for none of them beyond a deadline."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from perception.nodes.worker import Duration

Item = TypeVar("Item")
MOST_OPEN = 256
"""Images that are waited for at a time, some seconds of a camera's; with a longer deadline the oldest go before it."""
OLD_SECONDS = 1.0
"""Stamps that go back by more than this are a clock that was set, or a bag that begins anew, and not late ones."""
LATE_SECONDS = 10.0
"""For so long after an answer what is older is late; no longer, since one that has left may have been ahead of all."""


class Arrival(Enum):
    """What becomes of an item."""

    OPENED = "the first of its image"
    JOINED = "one more of its image"
    LATE = "its image is answered"
    TWICE = "its worker has spoken of this image"


@dataclass
class Gathered(Generic[Item]):
    """What came of one image so far. Times are seconds of the steady clock."""

    stamp: int
    """Nanoseconds."""
    items: list[Item | None]
    """By the worker's number."""
    due: float
    """When it is answered at the latest."""
    arrivals: dict[int, float] = field(default_factory=dict)
    """Of the workers, in the order in which they came."""

    @property
    def first(self) -> float:
        """When the first came."""
        return next(iter(self.arrivals.values()))

    @property
    def missing(self) -> list[int]:
        """Numbers of the workers of which nothing has come."""
        return [number for number, item in enumerate(self.items) if item is None]


class Gathering(Generic[Item]):
    """The images that are waited for, without a clock or a thread of its own.

    An image is settled when every worker that is expected has spoken of it, or of a later one: workers take the newest
    image, so what they have skipped, or what was lost on the way, never comes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._open: list[Gathered[Item]] = []
        """By stamp."""
        self._past: list[Gathered[Item]] = []
        """From before the clock was set back."""
        self._expected = set(range(workers))
        self._newest = [0] * workers
        """Stamp of which each worker spoke last."""
        self._behind: dict[int, int] = {}
        """The same of those that have not spoken since the clock was set back: what they sent before may still come."""
        self._behind_until = 0.0
        self._closed, self._closed_until = 0, 0.0
        """Stamp of the last image that was answered, and until when it tells what is late."""

    def expect(self, workers: Collection[int]) -> None:
        """Which workers are there to be waited for; who speaks is, too."""
        self._expected = set(workers)

    def add(self, worker: int, stamp: int, item: Item, now: float, deadline: float) -> Arrival:
        """What a worker says of an image. An image that it opens is due `deadline` seconds later."""
        if stamp < self._newest[worker] - OLD_SECONDS * 1e9:
            self._begin_anew(worker, stamp, now)
        if (last := self._behind.get(worker)) is not None:
            if stamp >= last and now <= self._behind_until:
                return Arrival.LATE
            del self._behind[worker]
        if now > self._closed_until:
            self._closed = 0
        if stamp <= self._closed:
            return Arrival.LATE
        self._newest[worker] = stamp
        self._expected.add(worker)
        place = bisect.bisect_left(self._open, stamp, key=lambda gathered: gathered.stamp)
        arrival = Arrival.JOINED
        if place == len(self._open) or self._open[place].stamp != stamp:
            self._open.insert(place, Gathered(stamp, [None] * self._workers, now + deadline))
            arrival = Arrival.OPENED
        gathered = self._open[place]
        if worker in gathered.arrivals:
            return Arrival.TWICE
        gathered.items[worker], gathered.arrivals[worker] = item, now
        return arrival

    def _begin_anew(self, worker: int, stamp: int, now: float) -> None:
        limit = stamp + OLD_SECONDS * 1e9
        self._behind = {other: last for other, last in enumerate(self._newest) if other != worker and last > limit}
        self._behind_until = now + LATE_SECONDS
        self._closed, self._newest = 0, [0] * self._workers
        self._past, self._open = self._past + self._open, []

    def take(self, now: float) -> list[Gathered[Item]]:
        """The images whose time has come, and with each those before it, by stamp."""
        count = max(0, len(self._open) - MOST_OPEN)
        for number, gathered in enumerate(self._open, 1):
            if gathered.due <= now or self._settled(gathered):
                count = max(count, number)
        taken, self._open = self._open[:count], self._open[count:]
        if taken:
            last = taken[-1]
            self._closed, self._closed_until = last.stamp, now + (last.due - last.first) + LATE_SECONDS
        past, self._past = self._past, []
        return past + taken

    def next_due(self) -> float | None:
        """When `take` has something at the latest; None while nothing is waited for."""
        return min((gathered.due for gathered in self._open), default=None)

    def _settled(self, gathered: Gathered[Item]) -> bool:
        return all(worker in gathered.arrivals or self._newest[worker] > gathered.stamp for worker in self._expected)


class Gatherer(Generic[Item]):
    """A gathering with a thread that answers: as soon as an image is settled, or so long before it is due as answers
    have taken lately, for half of the deadline at most.

    Args:
        answer: called with an image in the thread; what it raises goes to `failed`.
        drop: called with an image that is overdue while a newer one can be answered, or that `stop` cut short.
        deadline: asked for the seconds that an image is waited for, from the first worker's arrival.
    """

    def __init__(
        self,
        workers: int,
        answer: Callable[[Gathered[Item]], None],
        failed: Callable[[Gathered[Item], Exception], None],
        drop: Callable[[Gathered[Item]], None],
        deadline: Callable[[], float],
    ) -> None:
        self._gathering: Gathering[Item] = Gathering(workers)
        self._answer, self._failed, self._drop, self._deadline = answer, failed, drop, deadline
        self._changed = threading.Condition()
        self._takes = Duration()
        """To wake up and to answer, seconds."""
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="gatherer", daemon=True)
        self._thread.start()

    def add(self, worker: int, stamp: int, item: Item) -> Arrival:
        """What a worker says of an image; returns at once."""
        with self._changed:
            arrival = self._gathering.add(worker, stamp, item, time.perf_counter(), self._deadline())
            self._changed.notify()
        return arrival

    def expect(self, workers: Collection[int]) -> None:
        """See `Gathering.expect`."""
        with self._changed:
            self._gathering.expect(workers)
            self._changed.notify()

    def stop(self) -> None:
        """End; when this returns, nothing is answered any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stopped:
            with self._changed:
                taken = self._wait()
            early = self._early
            for gathered in taken:
                begun = min(time.perf_counter(), gathered.due - early)
                # An answer that comes too late while a newer one is ready helps nobody.
                overdue = time.perf_counter() - gathered.due > gathered.due - gathered.first
                if self._stopped or (overdue and gathered is not taken[-1]):
                    self._drop(gathered)
                    continue
                try:
                    self._answer(gathered)
                except Exception as error:
                    self._failed(gathered, error)
                self._takes.add(time.perf_counter() - begun)

    @property
    def _early(self) -> float:
        """Seconds by which a thread that sleeps must wake up to answer in time."""
        return min(self._takes.mean + 4 * self._takes.deviation, self._deadline() / 2)

    def _wait(self) -> list[Gathered[Item]]:
        """The next images to answer; when stopped, all that are left."""
        early = self._early
        while not self._stopped:
            if taken := self._gathering.take(time.perf_counter() + early):
                return taken
            due = self._gathering.next_due()
            self._changed.wait(None if due is None else max(0.0, due - early - time.perf_counter()))
        return self._gathering.take(float("inf"))
