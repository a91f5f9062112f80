"""One frame at a time through an engine, the newest of each source, with the work around it overlapped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Job = TypeVar("Job")
Result = TypeVar("Result")

HANDOVER_SECONDS = 5e-4
"""What threads of one interpreter need to wake each other."""


class Duration:
    """Running mean of how long a step takes, and of how far it strays from that (Jacobson 1988, for round trips)."""

    GAIN = 0.2
    """Weight of the newest."""

    def __init__(self) -> None:
        self.mean = self.deviation = 0.0

    def add(self, seconds: float) -> None:
        error = seconds - self.mean
        self.mean += self.GAIN * error
        self.deviation += self.GAIN * (abs(error) - self.deviation)


@dataclass
class Work(Generic[Item, Job, Result]):
    """An item on its way."""

    item: Item
    job: Job
    result: Result | None = None
    inferred: bool = False


class Worker(Generic[Item, Job, Result]):
    """Takes the newest item through `prepare`, `infer` and `finish`; never a queue, so age does not grow under load.

    Where several sources feed it, each has a slot of its own for its newest item, and they take turns.

    Two threads do the three steps hand over hand: while one infers, the other publishes the result before or prepares
    the item after. If that is ready when the inference ends, the first goes on with it and the other publishes. Each
    step is done by one thread at a time and items keep their order. The next item is taken only when the engine is soon
    free: taken earlier, it would wait and grow old; later, the engine would idle.

    Args:
        prepare: item to job, or to None if there is nothing to compute for it.
        infer: job to result; the step that overlaps with the two others, and should release the GIL.
        finish: publishes a job's result.
        failed: told of an item whose step raised; serving goes on.
        dropped: told of an item that a newer one replaced, or that `stop` kept from the engine.
        occupies: whether a job keeps the engine busy; how long others take says nothing of the next one.
    """

    THREADS = 2

    def __init__(
        self,
        prepare: Callable[[Item], Job | None],
        infer: Callable[[Job], Result],
        finish: Callable[[Job, Result], None],
        failed: Callable[[Item, Exception], None],
        dropped: Callable[[Item], None],
        occupies: Callable[[Job], bool] = lambda job: True,
    ) -> None:
        self._prepare, self._infer, self._finish = prepare, infer, finish
        self._failed, self._dropped, self._occupies = failed, dropped, occupies
        self._preparing, self._finishing = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()  # guards what follows; held for moments only
        self._changed, self._engine_left = threading.Condition(self._lock), threading.Condition(self._lock)
        self._engine_used = False
        self._prepared: Work[Item, Job, Result] | None = None
        """What waits for the engine while that is used."""
        self._handed_over: Work[Item, Job, Result] | None = None
        """What the thread at the engine leaves to the one whose work it took."""
        self._newest: dict[Hashable, Item] = {}
        """Slot to item, the slot first that has waited longest: a newer item takes the older one's turn."""
        self._stopped = True
        self._infer_start: float | None = None
        self._infer_duration, self._prepare_duration = Duration(), Duration()
        self._threads: list[threading.Thread] = []

    def put(self, item: Item, slot: Hashable = None) -> None:
        """Offer an item; it replaces one that waits in its slot. Returns at once. Without effect before `start`."""
        with self._lock:
            if self._stopped:
                return
            replaced = self._newest.get(slot)
            self._newest[slot] = item
            self._changed.notify()  # one thread at most waits in `_take`
        if replaced is not None:
            self._dropped(replaced)

    def start(self) -> None:
        """Begin to serve."""
        with self._lock:
            self._stopped = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"worker-{index}", daemon=True) for index in range(self.THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what the engine has begun, drop what waits for it, and return when no step runs any more."""
        with self._lock:
            self._stopped = True
            waiting, self._newest = self._newest, {}
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads = []
        for item in waiting.values():
            self._dropped(item)

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Take one item to the engine and finish one, the same or another's; False when stopped.

        A step's lock is taken before the one before it is released, which keeps the order.
        """
        with self._preparing:
            item = self._take()
            if item is None:
                return False
            start = time.perf_counter()
            try:
                job = self._prepare(item)
            except Exception as error:
                self._failed(item, error)
                return True
            self._prepare_duration.add(time.perf_counter() - start)
            if job is None:
                return True
            work = self._enter_engine(Work(item, job))
        if work is None:
            self._dropped(item)
            return False
        if not work.inferred:
            work = self._infer_in_turn(work)
        if work is not None:
            self._finish_one(work)
        return True

    def _enter_engine(self, own: Work[Item, Job, Result]) -> Work[Item, Job, Result] | None:
        """Wait for the engine: `own` once it is to be inferred here, the work of the other thread where that has taken
        `own` over and left its result to be finished here, None when stopped."""
        with self._lock:
            self._prepared = own
            while self._engine_used and self._handed_over is None:
                self._engine_left.wait()
            handed_over, self._handed_over, self._prepared = self._handed_over, None, None
            if handed_over is not None:
                return handed_over
            if self._stopped:
                return None
            self._engine_used = True
            return own

    def _infer_in_turn(self, work: Work[Item, Job, Result]) -> Work[Item, Job, Result] | None:
        """Infer what is given and then, at once, whatever the other thread has prepared, which finishes the result
        meanwhile: a thread that had to be woken first would leave the engine idle for up to a tick of the scheduler.

        Returns what is left to finish here, `_finishing` locked for it; None if it failed.
        """
        while True:
            try:
                work.result = self._timed_infer(work.job)
                work.inferred = True
                self._finishing.acquire()
            except Exception as error:
                self._failed(work.item, error)
            with self._lock:
                if self._prepared is None or not work.inferred or self._stopped:
                    self._engine_used = False
                    self._engine_left.notify()
                    return work if work.inferred else None
                self._handed_over, work, self._prepared = work, self._prepared, None
                self._engine_left.notify()

    def _finish_one(self, work: Work[Item, Job, Result]) -> None:
        """Finish a result, for which `_finishing` has been locked, by whichever thread."""
        try:
            self._finish(work.job, work.result)  # type: ignore[arg-type]
        except Exception as error:
            self._failed(work.item, error)
        finally:
            self._finishing.release()

    def _take(self) -> Item | None:
        """The newest item whose turn it is, once the engine is about to be free; None when stopped."""
        with self._lock:
            while not self._stopped:
                delay = self._seconds_to_start() if self._newest else None
                if delay is not None and delay <= 0:
                    return self._newest.pop(next(iter(self._newest)))
                self._changed.wait(delay)
            return None

    def _seconds_to_start(self) -> float:
        """How long to wait so that preparing is done when the inference under way is."""
        if self._infer_start is None:
            return 0.0
        # Rather too early than too late: a waiting item ages by that, a waiting engine is lost to all.
        infer, prepare = self._infer_duration, self._prepare_duration
        lead = prepare.mean + 2 * prepare.deviation + HANDOVER_SECONDS
        return self._infer_start + infer.mean - lead - time.perf_counter()

    def _timed_infer(self, job: Job) -> Result:
        if not self._occupies(job):
            return self._infer(job)
        start = time.perf_counter()
        with self._lock:
            self._infer_start = start
        try:
            return self._infer(job)
        finally:
            with self._lock:
                self._infer_start = None
                self._infer_duration.add(time.perf_counter() - start)
                if self._newest:  # woken for nothing, the other thread would only delay this one
                    self._changed.notify()
