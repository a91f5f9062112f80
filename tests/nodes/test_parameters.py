"""Parameters: the rules, the refusals' words, all or nothing, and live changes through the real services."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from hypothesis import given
from hypothesis import strategies as st
from rcl_interfaces.srv import DescribeParameters
from rclpy.node import Node
from robot import SMALL, Robot, exchange, grey, metres

import perception.nodes
from perception.nodes.depth_node import DepthNode, DepthParameters
from perception.nodes.node import BaseNode
from perception.nodes.parameters import Parameters, Rule, changed, declare, markdown_table, parameter, rules
from perception.tasks.config import DEPTH_MODEL


@dataclass(frozen=True)
class Sample(Parameters):
    live: float = parameter(1.0, "Any change.", live=True, minimum=0.0, maximum=10.0)
    other: float = parameter(5.0, "Another one.", live=True, minimum=0.0, maximum=10.0)
    free: float = parameter(0.0, "Any number; the sensor's own unit.", live=True)
    count: int = parameter(3, "At least one.", live=True, minimum=1)
    mode: str = parameter("a", "Which.", live=True, choices=("a", "b"))
    fixed: int = parameter(7, "Only before start.")
    flag: bool = parameter(False, "Yes or no.", live=True)

    def check(self) -> None:
        if self.live >= self.other:
            raise ValueError(f"live {self.live} must be less than other {self.other}")


def node_types() -> list[type[BaseNode]]:
    """Every node of the package: each module *_node defines one."""
    found = []
    for module in pkgutil.iter_modules(perception.nodes.__path__):
        if module.name.endswith("_node"):
            members = vars(importlib.import_module(f"perception.nodes.{module.name}")).values()
            found += [kind for kind in members if isinstance(kind, type) and issubclass(kind, BaseNode)]
    return sorted(set(found), key=lambda kind: kind.__name__)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"live": 10.5}, ["live", "10.5", ">= 0 and <= 10", "keeping 1.0"]),
        ({"live": -0.1}, ["live", "-0.1", ">= 0 and <= 10", "keeping 1.0"]),
        ({"live": math.nan}, ["live", "nan", ">= 0 and <= 10", "keeping 1.0"]),
        ({"live": math.inf}, ["live", "inf", ">= 0 and <= 10", "keeping 1.0"]),
        ({"free": math.nan}, ["free", "nan", "a number", "keeping 0.0"]),
        ({"live": 2}, ["live", "2", "double", "write 2.0", "keeping 1.0"]),
        ({"live": "2"}, ["live", "'2'", "double", "keeping 1.0"]),
        ({"live": None}, ["live", "None", "double", "keeping 1.0"]),
        ({"count": 0}, ["count", "0", ">= 1", "keeping 3"]),
        ({"count": True}, ["count", "True", "integer", "keeping 3"]),
        ({"count": 2.0}, ["count", "2.0", "integer", "keeping 3"]),
        ({"mode": "c"}, ["mode", "'c'", "one of a, b", "keeping 'a'"]),
        ({"flag": 1}, ["flag", "1", "bool", "keeping False"]),
        ({"fixed": 8}, ["fixed", "8", "read-only", "before the node starts", "keeping 7"]),
        ({"live": 6.0}, ["live = 6.0", "must be less than other 5.0", "nothing is changed"]),
    ],
)
def test_a_refusal_names_parameter_value_rule_and_consequence(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        changed(Sample(), changes)
    missing = [word for word in words if word not in str(refusal.value)]
    assert not missing, f"{refusal.value!r} does not say {missing}"


def test_changes_that_only_fit_together_are_accepted_together() -> None:
    assert changed(Sample(), {"live": 6.0, "other": 8.0}) == dataclasses.replace(Sample(), live=6.0, other=8.0)


def test_one_bad_change_leaves_all_as_they_are() -> None:
    current = Sample()
    with pytest.raises(ValueError, match="count = 0"):
        changed(current, {"live": 2.0, "count": 0, "mode": "b"})
    assert current == Sample()


@given(st.floats(allow_nan=True), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_range_accepts_what_lies_in_it(value: float, minimum: float, maximum: float) -> None:
    assert Rule("", minimum=minimum, maximum=maximum).accepts(value) == (minimum <= value <= maximum)
    assert Rule("").accepts(value) != math.isnan(value)


def test_the_table_of_the_readme() -> None:
    lines = markdown_table(Sample).splitlines()
    assert len(lines) == 2 + len(dataclasses.fields(Sample)) and set(lines[1]) == set("|-")
    assert "| `live` | double | `1.0` | >= 0 and <= 10 | yes | Any change. |" in lines
    assert '| `mode` | string | `"a"` | one of a, b | yes | Which. |' in lines
    assert "| `fixed` | integer | `7` |  |  | Only before start. |" in lines
    assert "| `flag` | bool | `false` |  | yes | Yes or no. |" in lines
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("kind", node_types(), ids=lambda kind: kind.__name__)
def test_every_parameter_is_described_and_every_number_bounded(kind: type[BaseNode]) -> None:
    for name, (of_type, rule, default) in rules(kind.parameters_type).items():
        assert rule.description.endswith("."), f"{name} has no sentence"
        assert "|" not in rule.description, f"{name} would break the table"
        assert not rule.objection(name, default, of_type)
        bounded = rule.minimum is not None and rule.maximum is not None
        assert of_type not in (int, float) or bounded, f"{name} accepts any number"
    kind.parameters_type().check()


def test_declared_parameters_carry_rule_and_description(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot())
    names = list(rules(DepthParameters))
    request = DescribeParameters.Request(names=names)
    described = robot.call(DescribeParameters, "/robot/depth_node/describe_parameters", request).descriptors
    for name, descriptor in zip(names, described, strict=True):
        rule = rules(DepthParameters)[name][1]
        assert descriptor.description == rule.description and descriptor.read_only == (not rule.live)
    by_name = dict(zip(names, described, strict=True))
    depth_range = by_name["max_depth"].floating_point_range[0]
    assert (depth_range.from_value, depth_range.to_value) == (0.01, 1000.0)
    stride_range = by_name["points_stride"].integer_range[0]
    assert (stride_range.from_value, stride_range.to_value) == (1, 64)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_depth": -1.0}, ["max_depth = -1.0", ">= 0.01 and <= 1000"]),
        ({"max_depth": 20}, ["max_depth = 20", "double", "write 20.0"]),
        ({"points_stride": 0}, ["points_stride = 0", ">= 1 and <= 64"]),
        ({"image_transport": "theora"}, ["image_transport = 'theora'", "one of raw, compressed"]),
        ({"rectify": "yes"}, ["rectify = 'yes'", "bool"]),
        ({"overlay_opacity": math.nan}, ["overlay_opacity = nan", ">= 0 and <= 1"]),
        ({"min_depth": 20.0}, ["min_depth 20.0", "less than max_depth 10.0"]),
    ],
)
def test_a_wrong_value_at_start_is_one_sentence(ros: None, values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        DepthNode(parameter_overrides=overrides(**values))
    message = str(refusal.value)
    assert all(word in message for word in [*words, "the node does not start"]) and "\n" not in message, message


def test_declare_reads_what_the_launch_file_gave(graph: Graph) -> None:
    node = graph.add(Node("sample", parameter_overrides=overrides(live=2.5, mode="b")))
    assert declare(node, Sample) == dataclasses.replace(Sample(), live=2.5, mode="b")
    assert node.get_parameter("live").value == 2.5 and node.get_parameter("other").value == 5.0


@pytest.mark.parametrize("together", [False, True])
def test_a_live_change_takes_effect_in_the_next_frame(graph: Graph, depth_node: DepthNode, together: bool) -> None:
    robot = graph.add(Robot("depth"))
    assert (metres(exchange(graph, robot, grey(50), 1, camera=SMALL)["depth"]) == 5.0).all()
    results = robot.set("/robot/depth_node", together, max_depth=4.0, min_depth=1.5)
    assert all(result.successful for result in results)
    assert (metres(exchange(graph, robot, grey(50), 2, camera=SMALL)["depth"]) == math.inf).all()
    assert (metres(exchange(graph, robot, grey(10), 3, camera=SMALL)["depth"]) == -math.inf).all()
    assert depth_node.get_parameter("max_depth").value == 4.0


def test_together_is_all_or_nothing_and_one_by_one_is_not(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot())
    before = depth_node.parameters
    (result,) = robot.set("/robot/depth_node", together=True, max_depth=4.0, points_stride=0, overlay_opacity=0.9)
    assert not result.successful
    assert all(word in result.reason for word in ("points_stride = 0", ">= 1 and <= 64", "keeping 1"))
    assert depth_node.parameters == before and depth_node.get_parameter("max_depth").value == 10.0
    results = robot.set("/robot/depth_node", max_depth=4.0, points_stride=0, overlay_opacity=0.9)
    assert [result.successful for result in results] == [True, False, True]
    assert depth_node.parameters == dataclasses.replace(before, max_depth=4.0, overlay_opacity=0.9)
    wait_until(lambda: any("points_stride = 0" in text for text in robot.warnings()), what="the refusal in the log")


def test_read_only_and_unknown_parameters_are_refused_through_the_service(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot())
    before = depth_node.parameters
    (read_only,) = robot.set("/robot/depth_node", model="other")
    assert not read_only.successful
    assert all(word in read_only.reason for word in ("model = 'other'", "read-only", f"keeping '{DEPTH_MODEL}'"))
    (unknown,) = robot.set("/robot/depth_node", max_deth=3.0)
    assert not unknown.successful and "max_deth" in unknown.reason
    assert depth_node.parameters == before
    assert robot.set("/robot/depth_node", max_depth=3.0)[0].successful  # the node still answers


def test_parameters_of_ros_itself_pass_through(graph: Graph, engine: FakeEngine) -> None:
    node = graph.add(DepthNode(namespace="/robot"))
    robot = graph.add(Robot())
    assert robot.set("/robot/depth_node", use_sim_time=True)[0].successful
    assert node.get_parameter("use_sim_time").value is True
