"""The worker: newest only, order, overlap, and that nothing is lost, stuck or left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.nodes.worker import Duration, Work, Worker

STEPS = ("prepare", "infer", "finish")
Event = tuple[str, str, int]


class Recorder:
    """Steps that note when they begin and end, and can be held, slowed, or made to fail or skip, item by item."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        self.times: dict[Event, float] = {}
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.raising: set[tuple[str, int]] = set()
        self.skipping: set[int] = set()
        self.dropped: list[int] = []
        self.failed: list[tuple[int, str]] = []
        self.worker: Worker[int, int, int] = Worker(
            self._prepare, self._infer, self._finish, self._fail, self.dropped.append, lambda item: item >= 0
        )

    def hold(self, step: str, item: int) -> threading.Event:
        """A gate that this step of this item waits for."""
        return self.gates.setdefault((step, item), threading.Event())

    def done(self, step: str) -> list[int]:
        """Items whose step ended, in that order."""
        return [item for name, what, item in list(self.events) if (name, what) == (step, "end")]

    def reached(self, step: str, item: int, what: str = "begin") -> bool:
        return (step, what, item) in list(self.events)

    def running(self, step: str, item: int) -> bool:
        return self.reached(step, item) and not self.reached(step, item, "end")

    def _note(self, *event: str | int) -> None:
        self.times[event] = time.perf_counter()  # type: ignore[index]
        self.events.append(event)  # type: ignore[arg-type]

    def _step(self, step: str, item: int) -> int:
        self._note(step, "begin", item)
        if gate := self.gates.get((step, item)):
            assert gate.wait(10)
        if self.seconds[step]:
            time.sleep(self.seconds[step])
        if (step, item) in self.raising:
            raise ValueError(f"{step} {item}")
        self._note(step, "end", item)
        return item

    def _prepare(self, item: int) -> int | None:
        self._step("prepare", item)
        return None if item in self.skipping else item

    def _infer(self, item: int) -> int:
        return self._step("infer", item)

    def _finish(self, item: int, result: int) -> None:
        assert item == result
        self._step("finish", item)

    def _fail(self, item: int, error: Exception) -> None:
        self.failed.append((item, str(error)))


@contextmanager
def serving(recorder: Recorder) -> Iterator[Recorder]:
    recorder.worker.start()
    try:
        yield recorder
    finally:
        for gate in recorder.gates.values():
            gate.set()
        recorder.worker.stop()


def until(condition: object, what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.001)


def fill(recorder: Recorder, slot: str | None = None) -> None:
    """Item 1 keeps the engine busy, and item 2 is ready for it: from here on, items wait."""
    recorder.worker.put(1, slot)
    until(lambda: recorder.running("infer", 1), "the engine to be busy")
    recorder.worker.put(2, slot)
    until(lambda: recorder.reached("prepare", 2, "end"), "the next item to be ready")


def worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]


def test_only_the_newest_waits_and_the_others_are_dropped() -> None:
    recorder = Recorder()
    gate = recorder.hold("infer", 1)
    with serving(recorder):
        fill(recorder)
        for item in (3, 4, 5):
            recorder.worker.put(item)
        assert recorder.dropped == [3, 4]
        gate.set()
        until(lambda: recorder.reached("finish", 5, "end"), "the newest item")
    assert recorder.done("finish") == [1, 2, 5]
    assert recorder.dropped == [3, 4] and not recorder.failed


def put_two(recorder: Recorder) -> None:
    """Item 1, which is held at the engine, and item 2, which is prepared then."""
    recorder.worker.put(1)
    until(lambda: recorder.running("infer", 1), "the engine to be busy")
    recorder.worker.put(2)
    until(lambda: recorder.reached("prepare", 2, "end"), "item 2 to be prepared")


def test_the_next_item_is_prepared_while_the_engine_runs() -> None:
    recorder = Recorder()
    recorder.hold("infer", 1)
    with serving(recorder):
        put_two(recorder)
        assert recorder.running("infer", 1) and not recorder.reached("infer", 2)


def test_a_result_is_published_while_the_engine_runs_the_next() -> None:
    recorder = Recorder()
    engine = recorder.hold("infer", 1)
    recorder.hold("finish", 1)
    recorder.hold("infer", 2)
    with serving(recorder):
        put_two(recorder)
        engine.set()
        until(lambda: recorder.running("finish", 1) and recorder.running("infer", 2), "both steps at once")


def test_a_slow_publisher_neither_reorders_nor_doubles_a_step() -> None:
    recorder = Recorder()
    recorder.seconds = {"prepare": 0.001, "infer": 0.002, "finish": 0.004}
    with serving(recorder):
        for item in range(200):
            recorder.worker.put(item)
            time.sleep(0.0005)
        until(lambda: recorder.reached("finish", 199, "end"), "the last item")
    for step in STEPS:
        whats = [what for name, what, _ in recorder.events if name == step]
        assert whats == ["begin", "end"] * (len(whats) // 2), f"two of {step} ran at once"
        assert recorder.done(step) == sorted(recorder.done(step))
    assert len(recorder.done("finish")) + len(recorder.dropped) == 200
    overlaps = sum(
        recorder.times["finish", "begin", item] < recorder.times["infer", "end", following]
        and recorder.times["finish", "end", item] > recorder.times["infer", "begin", following]
        for item, following in zip(recorder.done("finish"), recorder.done("finish")[1:], strict=False)
    )
    assert overlaps > 0


class SlowLock:
    """A lock whose first owner is held up before it gets it, as a thread may be at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first = True
        self.release = self._lock.release

    def acquire(self) -> None:
        if self._first:
            self._first = False
            time.sleep(0.05)
        self._lock.acquire()


def test_a_thread_held_up_before_it_finishes_is_not_overtaken() -> None:
    recorder = Recorder()
    recorder.worker._finishing = SlowLock()  # type: ignore[assignment]
    two_in_order(recorder, "infer")


def test_a_thread_held_up_before_the_engine_is_not_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    enter, late = recorder.worker._enter_engine, [0.05]

    def held_up(work: Work[int, int, int]) -> Work[int, int, int] | None:
        time.sleep(late.pop() if late else 0)
        return enter(work)

    monkeypatch.setattr(recorder.worker, "_enter_engine", held_up)
    two_in_order(recorder, "prepare")


def two_in_order(recorder: Recorder, step: str) -> None:
    """The second item comes when the first has ended the step, after which its thread is held up."""
    with serving(recorder):
        recorder.worker.put(1)
        until(lambda: recorder.reached(step, 1, "end"), f"{step} to end")
        recorder.worker.put(2)
        until(lambda: len(recorder.done("finish")) == 2, "both items")
    assert recorder.done("infer") == recorder.done("finish") == [1, 2]


def test_the_engine_goes_on_in_the_thread_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another would have to be woken first; that one finishes instead."""
    recorder = Recorder()
    recorder.seconds["infer"] = 0.02
    threads: dict[str, list[str]] = {"infer": [], "finish": []}
    step = recorder._step

    def noting(name: str, item: int) -> int:
        if name in threads:
            threads[name].append(threading.current_thread().name)
        return step(name, item)

    monkeypatch.setattr(recorder, "_step", noting)
    with serving(recorder):
        for item in range(10):
            recorder.worker.put(item)
            until(lambda n=item: recorder.reached("prepare", n, "end"), "the item to be prepared")
        until(lambda: len(recorder.done("finish")) == 10, "all items")
    assert recorder.done("finish") == list(range(10)) and not recorder.dropped
    assert len(set(threads["infer"])) == 1
    assert set(threads["finish"][:-1]).isdisjoint(threads["infer"]), "only the last is finished where it was inferred"


def test_a_failed_inference_leaves_the_engine_to_what_is_prepared() -> None:
    recorder = Recorder()
    gate = recorder.hold("infer", 1)
    recorder.raising.add(("infer", 1))
    with serving(recorder):
        put_two(recorder)
        gate.set()
        until(lambda: recorder.done("finish") == [2], "item 2")
    assert recorder.failed == [(1, "infer 1")]


def test_the_next_item_is_taken_just_before_the_engine_is_free() -> None:
    """Under overload an item taken at once would be a whole inference old; one taken after it would keep it idle."""
    recorder = Recorder()
    recorder.seconds["infer"] = 0.08
    with serving(recorder):
        item = 0
        while len(recorder.done("infer")) < 22:
            recorder.worker.put(item)
            item += 1
            time.sleep(0.003)
    served = recorder.done("finish")[12:]  # the first ones teach it how long the engine takes
    taken = [
        (recorder.times["prepare", "begin", following] - recorder.times["infer", "begin", item])
        / (recorder.times["infer", "end", item] - recorder.times["infer", "begin", item])
        for item, following in zip(served, served[1:], strict=False)
    ]
    assert 0.5 < np.median(taken) < 1.0


def test_an_item_that_comes_late_is_taken_at_once() -> None:
    """The wait is for items that would have to wait anyway; an idle engine starts without one."""
    recorder = Recorder()
    recorder.seconds["infer"] = 0.05
    with serving(recorder):
        for item in range(3):
            recorder.worker.put(item)
            until(lambda item=item: recorder.reached("finish", item, "end"), "the item")
    assert recorder.done("finish") == [0, 1, 2] and not recorder.dropped


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_raises_is_told_and_the_next_item_served(step: str) -> None:
    recorder = Recorder()
    recorder.raising = {(step, 1), (step, 3)}
    with serving(recorder):
        for item in range(5):
            recorder.worker.put(item)
            until(lambda: len(recorder.done("finish")) + len(recorder.failed) > item, "the item")  # noqa: B023
    assert recorder.failed == [(1, f"{step} 1"), (3, f"{step} 3")]
    assert recorder.done("finish") == [0, 2, 4]


def test_nothing_runs_for_an_item_that_prepare_declines() -> None:
    recorder = Recorder()
    recorder.skipping = {0, 2}
    with serving(recorder):
        for item in range(4):
            recorder.worker.put(item)
            until(lambda item=item: recorder.reached("prepare", item, "end"), "the item")
        until(lambda: recorder.reached("finish", 3, "end"), "the last item")
    assert recorder.done("infer") == recorder.done("finish") == [1, 3]
    assert not recorder.failed and not recorder.dropped


@pytest.mark.parametrize("step", STEPS)
def test_stop_waits_for_the_step_under_way_and_lets_nothing_follow(step: str) -> None:
    recorder = Recorder()
    gate = recorder.hold(step, 1)
    recorder.worker.start()
    recorder.worker.put(1)
    until(lambda: recorder.running(step, 1), f"{step} to begin")
    stopping = threading.Thread(target=recorder.worker.stop)
    stopping.start()
    time.sleep(0.05)
    assert stopping.is_alive(), f"stop returned while {step} ran"
    recorder.worker.put(2)
    gate.set()
    stopping.join(10)
    assert not stopping.is_alive() and not worker_threads()
    assert not any(item == 2 for _, _, item in recorder.events)
    begun = step != "prepare"  # only what the engine has begun is finished
    assert recorder.done("infer") == recorder.done("finish") == ([1] if begun else [])
    assert recorder.dropped == ([] if begun else [1])


def test_stop_does_not_wait_for_items_that_wait_for_the_engine() -> None:
    recorder = Recorder()
    gate = recorder.hold("infer", 1)
    recorder.worker.start()
    put_two(recorder)
    recorder.worker.put(3)
    stopping = threading.Thread(target=recorder.worker.stop)
    stopping.start()
    time.sleep(0.05)
    gate.set()
    stopping.join(10)
    assert recorder.done("finish") == [1] and sorted(recorder.dropped) == [2, 3]


def test_put_has_no_effect_before_start_and_after_stop() -> None:
    recorder = Recorder()
    recorder.worker.put(1)
    with serving(recorder):
        time.sleep(0.02)
    recorder.worker.put(2)
    time.sleep(0.02)
    assert not recorder.events and not recorder.dropped
    with serving(recorder):
        recorder.worker.put(3)
        until(lambda: recorder.reached("finish", 3, "end"), "the item")
    assert recorder.done("finish") == [3] and not recorder.dropped


def test_starting_and_stopping_leaves_no_thread() -> None:
    recorder = Recorder()
    for round_ in range(200):
        with serving(recorder):
            assert len(worker_threads()) == Worker.THREADS
            recorder.worker.put(round_)
        assert not worker_threads()
    assert len(recorder.done("finish")) + len(recorder.dropped) == 200


OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(["well", "prepare", "infer", "finish", "skip"])),
    st.tuples(st.just("pause"), st.sampled_from(["0", "0.0005", "0.002"])),
    st.tuples(st.just("restart"), st.just("")),
)


@settings(max_examples=60)
@given(st.lists(OPERATIONS, max_size=30))
def test_every_item_ends_in_exactly_one_way(operations: list[tuple[str, str]]) -> None:
    recorder = Recorder()
    recorder.seconds["infer"] = 0.0005
    received = 0
    with serving(recorder):
        for operation, how in operations:
            if operation == "put":
                recorder.raising.add((how, received))
                if how == "skip":
                    recorder.skipping.add(received)
                recorder.worker.put(received)
                received += 1
            elif operation == "pause":
                time.sleep(float(how))
            else:
                recorder.worker.stop()
                recorder.worker.start()
    skipped = [item for item in recorder.done("prepare") if item in recorder.skipping]
    ends = recorder.done("finish") + recorder.dropped + [item for item, _ in recorder.failed] + skipped
    assert sorted(ends) == list(range(received))
    assert recorder.done("finish") == sorted(recorder.done("finish"))


def test_a_duration_follows_its_mean_and_how_far_it_strays() -> None:
    steady, wild = Duration(), Duration()
    for index in range(100):
        steady.add(0.01)
        wild.add(0.01 + (0.004 if index % 2 else -0.004))
    assert steady.mean == pytest.approx(0.01) and steady.deviation < 1e-6
    assert wild.mean == pytest.approx(0.01, abs=0.002) and wild.deviation == pytest.approx(0.004, rel=0.3)


def test_what_does_not_occupy_the_engine_tells_nothing_of_how_long_it_takes() -> None:
    recorder = Recorder()
    recorder.seconds["infer"] = 0.02
    with serving(recorder):
        for item in (1, 2, 3):
            recorder.worker.put(item)
            until(lambda item=item: recorder.reached("finish", item, "end"), "the item")
        before = recorder.worker._infer_duration.mean
        recorder.seconds["infer"] = 0.0
        for item in (-1, -2, -3):
            recorder.worker.put(item)
            until(lambda item=item: recorder.reached("finish", item, "end"), "the item")
        assert recorder.worker._infer_duration.mean == before > 0


def test_slots_take_turns_with_the_newest_of_each() -> None:
    """A source that floods its slot gets no more than its turn."""
    recorder = Recorder()
    gate = recorder.hold("infer", 1)
    with serving(recorder):
        fill(recorder, "a")
        for item, slot in ((3, "a"), (4, "a"), (5, "b"), (6, "a"), (7, "b"), (8, "c")):
            recorder.worker.put(item, slot)
        assert recorder.dropped == [3, 4, 5]
        gate.set()
        until(lambda: recorder.reached("finish", 8, "end"), "the last slot")
    assert recorder.done("finish") == [1, 2, 6, 7, 8]
    assert recorder.dropped == [3, 4, 5] and not recorder.failed


def test_stop_drops_what_waits_in_every_slot() -> None:
    recorder = Recorder()
    gate = recorder.hold("infer", 1)
    with serving(recorder):
        fill(recorder, "a")
        recorder.worker.put(3, "a")
        recorder.worker.put(4, "b")
        threading.Timer(0.2, gate.set).start()
        recorder.worker.stop()
    assert recorder.done("finish") == [1] and sorted(recorder.dropped) == [2, 3, 4]
