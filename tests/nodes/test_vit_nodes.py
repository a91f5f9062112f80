"""Workers and the fusion of a split on real topics, with engines of known answers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from conftest import Graph, overrides, wait_until
from lifecycle_msgs.msg import Transition
from rclpy.node import Node
from robot import exchange, total
from sensor_msgs.msg import CompressedImage
from splitting import LABELS, LENGTHS, SplitRobot, build_split, chances, plain, told, write_split
from std_msgs.msg import Header

from perception.nodes.features import FeaturesOutput
from perception.nodes.vit_fusion_node import VitFusionNode
from perception.nodes.vit_worker_node import VitWorkerNode
from perception.tasks.features import Features, decode_features
from perception.tasks.vit_split import Split

FUSION = "/robot/vit_fusion_node"
COLOR = (200, 100, 50)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    folder = tmp_path_factory.mktemp("colors")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PERCEPTION_ENGINES", str(folder / "engines"))
        yield build_split(folder)


def worker(graph: Graph, split: Split, number: int, **values: Any) -> VitWorkerNode:
    given = overrides(model=str(split.folder / f"worker_{number}.onnx"), **values)
    node = graph.add(VitWorkerNode(f"worker_{number}", namespace="/robot", parameter_overrides=given))
    assert node.autostart()
    return node


def fusion(graph: Graph, split: Split, **values: Any) -> VitFusionNode:
    given = overrides(**{"split": str(split.folder), "deadline": 5.0} | values)
    node = graph.add(VitFusionNode(namespace="/robot", parameter_overrides=given))
    assert node.autostart()
    return node


class Boards:
    """Sends features as the workers of a split would, from a context that is to this one what another process is."""

    def __init__(self, graph: Graph, split: Split, context: Any) -> None:
        self.node = graph.add(SplitRobot("classification"))
        self.sender = Node("boards", namespace="/robot", context=context)
        self.split = split
        self.outputs = [FeaturesOutput(self.sender, f"features/{worker.name}") for worker in split.workers]

    def send(self, number: int, stamp: int, *, split: str = "", length: int = 0, name: str = "") -> None:
        worker = self.split.workers[number]
        values = np.full(length or worker.features, COLOR[number] / 255, np.float32)
        features = Features(values, name or worker.name, split or self.split.short_hash)
        self.outputs[number].publish(features, "float16", self.node.header(stamp))

    def send_all(self, stamp: int, *numbers: int) -> None:
        for number in numbers:
            self.send(number, stamp)

    def answer(self, stamp: int) -> Any:
        return wait_until(lambda: self.node.got["classification"].get(stamp), what=f"the answer of {stamp}")


@pytest.fixture
def boards(graph: Graph, split: Split) -> Iterator[Boards]:
    context = rclpy.Context()
    rclpy.init(context=context)
    boards = Boards(graph, split, context)
    yield boards
    boards.sender.destroy_node()
    rclpy.shutdown(context=context)


def ready(boards: Boards, node: VitFusionNode) -> None:
    """Wait until all hear each other, and the fusion knows who is there."""

    def connected() -> bool:
        heard = all(output._publisher.get_subscription_count() for output in boards.outputs)
        return heard and len(node._input.present()) == 3 and bool(boards.node.count_publishers("/robot/classification"))

    wait_until(connected, what="boards and fusion")
    node.watch()  # which else happens once a second


def near(found: dict[str, float], expected: dict[str, float]) -> bool:
    return found.keys() == expected.keys() and all(abs(found[name] - expected[name]) < 2e-3 for name in found)


def test_an_image_becomes_an_answer(graph: Graph, split: Split) -> None:
    for number in range(3):
        worker(graph, split, number)
    fusion(graph, split)
    robot = graph.add(SplitRobot("classification", "features/worker_1"))
    answer = exchange(graph, robot, plain(*COLOR), 123456789)
    for message in answer.values():
        assert message.header == robot.header(123456789)
    assert near(told(answer["classification"]), chances(*COLOR))
    assert list(told(answer["classification"])) == ["red", "green", "blue"]
    features = answer["features/worker_1"]
    assert len(features.data) == 2 * LENGTHS[1]
    found = decode_features(bytes(features.data), features.format)
    assert (found.worker, found.split) == ("worker_1", split.short_hash) and np.allclose(
        found.values, 100 / 255, atol=1e-3
    )
    wait_until(lambda: robot.labels, what="the names")
    assert [(entry.class_id, entry.class_name) for entry in robot.labels[0].class_map] == list(enumerate(LABELS))
    # An image whose answer is slow is sent once more, and its features come twice.
    assert not [error for error in robot.errors() if "sent features of one image twice" not in error]
    assert not robot.warnings()


def test_one_process_and_messages_give_the_same_answer(graph: Graph, split: Split, boards: Boards) -> None:
    """As int8, whose rounding shows; workers of this process against features that were sent."""
    robot = graph.add(SplitRobot("classification", *(f"features/worker_{number}" for number in range(3))))
    nodes = [worker(graph, split, number, features="int8") for number in range(3)]
    node = fusion(graph, split)
    answer = exchange(graph, robot, plain(*COLOR), 5)
    for made in (node, *nodes):
        made.close()
    node = fusion(graph, split)
    sent = [answer[f"features/worker_{number}"] for number in range(3)]
    assert [len(message.data) for message in sent] == list(LENGTHS)

    def answered() -> Any:
        for output, message in zip(boards.outputs, sent, strict=True):
            message.header.stamp.nanosec += 1
            output._send(message)
        time.sleep(0.05)
        return not node._missing and boards.node.got["classification"].get(sent[0].header.stamp.nanosec)

    found = wait_until(answered, what="an answer of all")
    assert told(found) == told(answer["classification"])


def test_at_the_deadline_it_answers_without_the_missing(graph: Graph, split: Split, boards: Boards) -> None:
    node = fusion(graph, split, deadline=0.3)
    ready(boards, node)
    start = time.monotonic()
    boards.send_all(1, 0, 1)
    answer = boards.answer(1)
    assert 0.29 < time.monotonic() - start < 3
    assert near(told(answer), chances(200, 100, 0))
    boards.send(2, 1)
    wait_until(lambda: node.statistics.counts["late_worker_2"] == 1, what="the late features")
    counts = node.statistics.counts
    assert (counts["received"], counts["published"], counts["incomplete"], counts["late"]) == (1, 1, 1, 1)
    assert counts["missing_worker_2"] == 1 and not counts["missing_worker_0"]
    assert counts["without_1"] == 1 and not counts["without_2"]
    wait_until(lambda: boards.node.values().get("missing") == "worker_2 (pi_3)", what="diagnostics")
    boards.send_all(2, 0, 1, 2)
    assert near(told(boards.answer(2)), chances(*COLOR))
    wait_until(lambda: boards.node.values().get("missing") == "", what="diagnostics")
    assert len(boards.node.got["classification"]) == 2


def test_workers_that_left_are_not_waited_for_and_may_return(graph: Graph, split: Split, boards: Boards) -> None:
    node = fusion(graph, split, deadline=30.0)
    ready(boards, node)
    boards.outputs[2].close()
    wait_until(lambda: len(node._input.present()) == 2, what="the worker to leave")
    boards.send_all(1, 0, 1)
    assert near(told(boards.answer(1)), chances(200, 100, 0))
    boards.outputs[2] = FeaturesOutput(boards.sender, "features/worker_2")
    ready(boards, node)
    boards.send_all(2, 2, 1, 0)
    assert near(told(boards.answer(2)), chances(*COLOR))


def test_who_is_silent_is_named_and_not_waited_for(graph: Graph, split: Split, boards: Boards) -> None:
    node = fusion(graph, split, deadline=30.0)
    ready(boards, node)
    boards.send_all(1, 0, 1)
    (result,) = boards.node.set(FUSION, input_timeout=0.5)
    assert result.successful

    def answered() -> bool:
        stamp = answered.stamp = answered.stamp + 1
        boards.send_all(stamp, 0, 1)
        time.sleep(0.05)
        return stamp in boards.node.got["classification"]

    answered.stamp = 1
    wait_until(answered, what="an answer without the silent one")
    said = wait_until(boards.node.warnings, what="the log")
    assert len(said) == 1 and "no features from worker_2 (pi_3) for" in said[0] and "sends nothing of use" in said[0]
    wait_until(lambda: said[0][:31] in boards.node.statuses[-1].message, what="diagnostics")


def test_images_that_come_seldom_are_waited_for(graph: Graph, split: Split, boards: Boards) -> None:
    """All workers have been silent then for longer than `input_timeout`, and none is missing."""
    node = fusion(graph, split, deadline=30.0, input_timeout=0.2)
    ready(boards, node)
    boards.send_all(1, 0, 1, 2)
    boards.answer(1)
    time.sleep(0.3)
    node.watch()
    boards.send(0, 2)
    wait_until(lambda: node.statistics.counts["received"] == 2, what="the first features")
    time.sleep(0.1)
    assert 2 not in boards.node.got["classification"]
    boards.send_all(2, 1, 2)
    assert near(told(boards.answer(2)), chances(*COLOR)) and not node.statistics.counts["late"]


Bad = Callable[[Boards], None]


def send_unstamped(boards: Boards) -> None:
    features = Features(np.zeros(6, np.float32), "worker_1", boards.split.short_hash)
    boards.outputs[1].publish(features, "int8", Header())


def send_picture(boards: Boards) -> None:
    boards.outputs[1]._send(CompressedImage(format="jpeg", header=boards.node.header(7)))


REFUSED: dict[str, tuple[Bad, str]] = {
    "split": (lambda boards: boards.send(1, 7, split="0" * 16), "worker_1 (pi_2) is refused: it runs the split 0000"),
    "length": (
        lambda boards: boards.send(1, 7, length=5),
        "5 features of 'worker_1' came on its topic; expected are 6",
    ),
    "name": (lambda boards: boards.send(1, 7, name="worker_2"), "6 features of 'worker_2' came on its topic"),
    "stamp": (send_unstamped, "worker_1 (pi_2) sends features of images without stamps"),
    "format": (send_picture, "/robot/features/worker_1: a message of the format 'jpeg' is not features"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_of_this_split_is_refused_by_name(graph: Graph, split: Split, boards: Boards, kind: str) -> None:
    send, says = REFUSED[kind]
    node = fusion(graph, split, deadline=0.2)
    ready(boards, node)
    for count in range(1, 4):
        send(boards)
        wait_until(lambda: node.statistics.counts["refused"] == count, what="the count")  # noqa: B023
    boards.send_all(7, 0, 2)
    assert near(told(boards.answer(7)), chances(200, 0, 50))
    (said,) = wait_until(boards.node.errors, what="the log")
    assert says in said and "so far 1 of this kind" in said
    wait_until(lambda: boards.node.values().get("refused") == "3", what="diagnostics")


def test_two_nodes_of_a_name_are_told(graph: Graph, split: Split, boards: Boards) -> None:
    node = fusion(graph, split)
    ready(boards, node)
    boards.send(0, 1)
    wait_until(lambda: node.statistics.counts["received"] == 1, what="the first")
    boards.send(0, 1)
    (said,) = wait_until(boards.node.errors, what="the log")
    assert "worker_0 (pi_1) sent features of one image twice: two nodes run worker_0.onnx" in said


def test_a_worker_that_is_in_no_split_is_told(graph: Graph, split: Split, boards: Boards) -> None:
    FeaturesOutput(boards.sender, "features/worker_9")
    fusion(graph, split)
    (said,) = wait_until(boards.node.warnings, what="the log")
    assert said.startswith(f"worker_9 is refused: the split {split.short_hash} has no worker of this name")


def test_counts_add_up_over_activations(graph: Graph, split: Split, boards: Boards) -> None:
    node = fusion(graph, split, deadline=0.05)
    ready(boards, node)
    for stamp in range(1, 31):
        boards.send_all(stamp, *range(stamp % 4))
        time.sleep(0.005)
    wait_until(lambda: total(node.statistics.counts) == node.statistics.counts["received"] > 15, what="all answers")
    (result,) = boards.node.set(FUSION, deadline=30.0)
    assert result.successful
    boards.send(0, 50)
    wait_until(lambda: node.statistics.counts["received"] > total(node.statistics.counts), what="an open image")
    before = node.statistics.counts["received"]
    assert boards.node.change_state(FUSION, Transition.TRANSITION_DEACTIVATE)
    assert total(node.statistics.counts) == node.statistics.counts["received"] == before
    assert boards.node.change_state(FUSION, Transition.TRANSITION_ACTIVATE)
    ready(boards, node)
    boards.send_all(60, 0, 1, 2)
    boards.answer(60)


def test_without_listeners_nothing_is_fused(graph: Graph, split: Split) -> None:
    node = fusion(graph, split, deadline=0.05)
    stranger = graph.add(SplitRobot(name="stranger"))
    output = FeaturesOutput(stranger, "features/worker_0")
    wait_until(lambda: output.wanted, what="the fusion")
    features = Features(np.zeros(4, np.float32), "worker_0", split.short_hash)
    output.publish(features, "int8", stranger.header(1))
    wait_until(lambda: node.statistics.counts["skipped"] == 1, what="the count")
    output.close()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("", "no split in ''"),
        ("/nowhere/worker_0.onnx", "no split in '/nowhere'"),
        ("{folder}/other.onnx", "other.onnx is no worker of the split"),
    ],
)
def test_a_worker_says_what_it_lacks(graph: Graph, split: Split, model: str, says: str) -> None:
    robot = graph.add(SplitRobot())
    given = overrides(model=model.format(folder=split.folder))
    node = graph.add(VitWorkerNode("worker_0", namespace="/robot", parameter_overrides=given))
    assert not node.autostart()
    wait_until(lambda: any(says in text for text in robot.errors()), what="the log")


def test_a_worker_of_another_length_is_not_started(graph: Graph, split: Split, tmp_path: Any) -> None:
    first, *others = split.workers
    wrong = dataclasses.replace(first, features=5)
    other = write_split(tmp_path, workers=(wrong, *others))
    robot = graph.add(SplitRobot())
    given = overrides(model=str(other.folder / "worker_0.onnx"))
    assert not graph.add(VitWorkerNode("worker_0", namespace="/robot", parameter_overrides=given)).autostart()
    says = "worker_0 of the split gives features of the shape (1, 5)"
    wait_until(lambda: any(says in text for text in robot.errors()), what="the log")


def test_a_fusion_without_its_files_is_not_started(graph: Graph, tmp_path: Any) -> None:
    robot = graph.add(SplitRobot())
    split = write_split(tmp_path)
    (tmp_path / "fusion.npz").unlink()
    given = overrides(split=str(split.folder))
    assert not graph.add(VitFusionNode(namespace="/robot", parameter_overrides=given)).autostart()
    wait_until(lambda: any("fusion.npz is missing" in text for text in robot.errors()), what="the log")


def test_a_worker_tells_who_it_is(graph: Graph, split: Split) -> None:
    node = worker(graph, split, 1)
    robot = graph.add(SplitRobot())
    wait_until(lambda: robot.values().get("worker"), what="diagnostics")
    values = robot.values()
    assert (values["worker"], values["split_device"], values["split"]) == ("worker_1", "pi_2", split.short_hash)
    assert values["model"] == "sees_green" and node.describe()["target"] == "onnxruntime"
