"""Items of several workers joined by stamp: what is waited for, how long, and what becomes of the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from conftest import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.nodes.gathering import LATE_SECONDS, MOST_OPEN, Arrival, Gathered, Gatherer, Gathering

MS = 1_000_000
DEADLINE = 0.1
OPENED, JOINED, LATE, TWICE = Arrival.OPENED, Arrival.JOINED, Arrival.LATE, Arrival.TWICE


class Images:
    """A gathering of three workers on a clock of the test's."""

    def __init__(self, workers: int = 3) -> None:
        self.gathering: Gathering[str] = Gathering(workers)
        self.now = 50.0

    def add(self, worker: int, stamp: int) -> Arrival:
        """`stamp` in milliseconds; the item says worker and stamp."""
        return self.gathering.add(worker, stamp * MS, f"{worker}@{stamp}", self.now, DEADLINE)

    def take(self) -> list[tuple[int, list[int]]]:
        """Stamp and missing workers of what is answered now."""
        taken = self.gathering.take(self.now)
        for gathered in taken:
            for worker, item in enumerate(gathered.items):
                assert item is None or item == f"{worker}@{gathered.stamp // MS}"
        return [(gathered.stamp // MS, gathered.missing) for gathered in taken]


@pytest.fixture
def images() -> Images:
    return Images()


def test_an_image_is_answered_when_the_last_worker_has_spoken(images: Images) -> None:
    assert [images.add(worker, 10) for worker in (2, 0)] == [OPENED, JOINED]
    assert images.take() == [] and images.gathering.next_due() == 50.0 + DEADLINE
    assert images.add(1, 10) == JOINED
    assert images.take() == [(10, [])] and images.gathering.next_due() is None


def test_at_the_deadline_it_is_answered_with_what_is_there(images: Images) -> None:
    images.add(1, 10)
    images.now += 0.04
    images.add(0, 10)
    images.now += 0.059
    assert images.take() == []
    images.now += 0.0011  # of the first arrival
    assert images.take() == [(10, [2])]
    assert images.add(2, 10) == LATE and images.take() == []


def test_who_speaks_of_a_later_image_is_not_waited_for(images: Images) -> None:
    images.add(0, 10)
    images.add(1, 10)
    images.add(0, 43)
    assert images.take() == []
    images.add(2, 43)  # its word on 10 was lost, or never came to be
    assert images.take() == [(10, [2])]
    images.add(1, 43)
    assert images.take() == [(43, [])]


def test_an_answer_ends_all_that_is_older(images: Images) -> None:
    images.add(0, 43)
    images.now += 0.05
    images.add(1, 10)
    images.now += 0.051
    assert images.take() == [(10, [0, 2]), (43, [1, 2])]
    assert [images.add(2, stamp) for stamp in (10, 43)] == [LATE, LATE]


def test_workers_that_are_not_there_are_not_waited_for(images: Images) -> None:
    images.gathering.expect([0, 2])
    images.add(0, 10)
    images.add(2, 10)
    assert images.take() == [(10, [1])]
    images.gathering.expect([0, 1, 2])
    images.add(0, 20)
    images.add(2, 20)
    assert images.take() == []
    images.gathering.expect([0, 2])  # it has left
    assert images.take() == [(20, [1])]
    images.add(1, 30)  # come back, before it is known to be there
    images.add(0, 30)
    assert images.take() == []
    images.add(2, 30)
    assert images.take() == [(30, [])]
    images.add(0, 40)
    images.add(2, 40)
    assert images.take() == []


def test_nobody_speaks_twice_of_an_image(images: Images) -> None:
    images.add(0, 10)
    assert images.add(0, 10) == TWICE
    assert images.take() == []


def test_a_clock_that_goes_back_begins_anew(images: Images) -> None:
    for stamp in (5000, 5010):
        for worker in range(3):
            images.add(worker, stamp)
    assert images.take() == [(5000, []), (5010, [])]
    assert images.add(0, 4990) == LATE  # out of order
    assert images.add(1, 5020) == OPENED
    assert images.add(0, 10) == OPENED
    assert images.take() == [(5020, [0, 2])]
    assert [images.add(worker, 10) for worker in (1, 2)] == [JOINED, JOINED]
    assert images.take() == [(10, [])]
    assert images.add(1, 20) == OPENED


def test_what_is_on_its_way_when_the_clock_goes_back_is_late(images: Images) -> None:
    for stamp in (4800, 4900):
        for worker in range(3):
            images.add(worker, stamp)
    assert [images.add(worker, 5000) for worker in (0, 2)] == [OPENED, JOINED]
    assert images.take() == [(4800, []), (4900, [])]
    assert images.add(0, 10) == OPENED
    assert images.take() == [(5000, [1])]
    assert images.add(1, 5000) == LATE, "not an image of its own, nor a clock that is set forward"
    assert [images.add(worker, 10) for worker in (1, 2)] == [JOINED, JOINED]
    assert images.take() == [(10, [])]
    assert [images.add(worker, 110) for worker in range(3)] == [OPENED, JOINED, JOINED]
    assert images.take() == [(110, [])]


def test_who_speaks_long_after_the_clock_went_back_is_heard(images: Images) -> None:
    for worker in range(3):
        images.add(worker, 5000)
    assert images.add(0, 10) == OPENED
    assert images.take() == [(5000, [])]
    images.now += LATE_SECONDS + 1
    assert images.take() == [(10, [1, 2])]
    assert [images.add(worker, 9000) for worker in (0, 1)] == [OPENED, JOINED], "past where the clock was before"
    assert images.add(2, 9000) == JOINED
    assert images.take() == [(9000, [])]


def test_a_worker_that_is_seconds_behind_does_not_set_the_clock_back(images: Images) -> None:
    for stamp in range(0, 5000, 40):
        images.now += 0.04
        for worker in (0, 1):
            images.add(worker, 10 + stamp)
        if stamp > 3000 and not stamp % 400:
            assert images.add(2, 10 + stamp - 3000) == LATE
        taken = images.take()
        assert all(missing == [2] for _, missing in taken)


def test_what_is_late_is_forgotten_in_time(images: Images) -> None:
    """A worker that left may have been ahead of all others, by a clock that was set back."""
    images.add(0, 90_000)
    images.now += DEADLINE
    images.take()
    images.now += LATE_SECONDS  # as a slow worker may take for one of few images
    assert images.add(1, 10) == LATE
    images.now += DEADLINE + 0.01
    assert images.add(1, 10) == OPENED


def test_no_more_than_some_seconds_of_images_are_open(images: Images) -> None:
    for stamp in range(1, MOST_OPEN + 3):
        images.add(0, stamp)
    assert images.take() == [(1, [1, 2]), (2, [1, 2])]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 12), st.floats(0, 0.08)),
        max_size=60,
    )
)
def test_whatever_comes_each_image_is_answered_once_in_order_and_in_time(
    events: list[tuple[int, int, float]],
) -> None:
    images = Images()
    opened: dict[int, float] = {}
    answered: list[int] = []

    def answer() -> None:
        for stamp, _ in images.take():
            assert stamp not in answered and images.now <= opened[stamp] + DEADLINE + 1e-9
            answered.append(stamp)

    for worker, stamp, pause in events:
        end = images.now + pause
        while (due := images.gathering.next_due()) is not None and due <= end:
            images.now = max(images.now, due)
            answer()
        images.now = end
        if images.add(worker, stamp) == OPENED:
            opened[stamp] = images.now
        answer()
    images.now += 1
    left = [stamp for stamp, _ in images.take()]
    assert answered + left == sorted(opened)


Start = Callable[..., Gatherer[str]]


@pytest.fixture
def start():
    made: list[Gatherer[str]] = []

    def start(answer: Callable[[Gathered[str]], None], deadline: float = DEADLINE, **calls) -> Gatherer[str]:
        failed = calls.get("failed", lambda gathered, error: pytest.fail(str(error)))
        made.append(Gatherer(3, answer, failed, calls.get("drop", lambda _: None), lambda: deadline))
        return made[-1]

    yield start
    for gatherer in made:
        gatherer.stop()


def test_the_thread_answers_at_the_deadline(start: Start) -> None:
    done: list[tuple[float, Gathered[str]]] = []
    gatherer = start(lambda gathered: done.append((time.perf_counter(), gathered)), 0.05)
    gatherer.add(1, 10 * MS, "x")
    wait_until(lambda: done, 5, "the answer")
    (when, gathered), *_ = done
    assert gathered.due <= when and gathered.items == [None, "x", None]
    assert gatherer.add(0, 10 * MS, "y") == LATE


def test_answers_that_take_time_begin_so_much_before_the_deadline(start: Start) -> None:
    spare: list[float] = []

    def answer(gathered: Gathered[str]) -> None:
        spare.append(gathered.due - time.perf_counter())
        time.sleep(0.03)

    gatherer = start(answer, 0.2)
    for number in range(1, 7):
        gatherer.add(1, 1000 * number * MS, "x")
        wait_until(lambda number=number: len(spare) == number, 5, "the answer")
    assert spare[0] <= 0 and 0.01 < sorted(spare[2:])[2] <= 0.1, "by half of the deadline at most"


def test_the_thread_answers_at_once_when_all_is_there(start: Start) -> None:
    done = threading.Event()
    gatherer = start(lambda _: done.set(), 60.0)
    for worker in range(3):
        gatherer.add(worker, 10 * MS, "x")
    assert done.wait(5)
    gatherer.add(0, 20 * MS, "x")
    done.clear()
    gatherer.expect([0])
    assert done.wait(5)


def test_an_answer_that_raises_ends_nothing(start: Start) -> None:
    said: list[str] = []
    done: list[int] = []

    def answer(gathered: Gathered[str]) -> None:
        if gathered.stamp == MS:
            raise ValueError("no")
        done.append(gathered.stamp)

    gatherer = start(answer, 0.01, failed=lambda _, error: said.append(str(error)))
    gatherer.add(0, MS, "x")
    wait_until(lambda: said == ["no"], 5)
    gatherer.add(0, 2 * MS, "x")
    wait_until(lambda: done == [2 * MS], 5)


def test_answers_that_nobody_needs_any_more_are_dropped(start: Start) -> None:
    go, dropped, done = threading.Event(), [], []

    def answer(gathered: Gathered[str]) -> None:
        done.append(gathered.stamp)
        go.wait(5)

    gatherer = start(answer, 0.02, drop=lambda gathered: dropped.append(gathered.stamp))
    gatherer.add(0, MS, "x")
    wait_until(lambda: done, 5)
    for stamp in (2, 3, 4):  # while an answer takes long
        gatherer.add(0, stamp * MS, "x")
    time.sleep(0.06)
    go.set()
    wait_until(lambda: done == [MS, 4 * MS], 5, "the newest")
    assert dropped == [2 * MS, 3 * MS]


def test_what_is_open_at_the_end_is_dropped(start: Start) -> None:
    dropped: list[int] = []
    gatherer = start(lambda _: pytest.fail("too soon"), 60.0, drop=lambda gathered: dropped.append(gathered.stamp))
    gatherer.add(0, MS, "x")
    gatherer.stop()
    assert dropped == [MS]
