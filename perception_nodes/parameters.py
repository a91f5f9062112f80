"""Node parameters from one dataclass: declaration, checks, live changes and the documented table."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

_ROS_TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}


@dataclass(frozen=True)
class Rule:
    """What is said and asked of one parameter."""

    description: str
    live: bool = False
    """Whether it may change while the node runs; otherwise it is read-only."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()

    def text(self) -> str:
        """The accepted values in words; empty where all are."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        bounds = [f">= {self.minimum:g}"] if self.minimum is not None else []
        bounds += [f"<= {self.maximum:g}"] if self.maximum is not None else []
        return " and ".join(bounds)

    def objection(self, name: str, value: Any, kind: type) -> str:
        """Why a value is not accepted for the parameter `name` of type `kind`; empty if it is."""
        if type(value) is not kind:
            hint = f" (write {value}.0)" if kind is float and type(value) is int else ""
            return f"parameter {name} = {value!r} must be of type {_ROS_TYPES[kind]}{hint}"
        return "" if self.accepts(value) else f"parameter {name} = {value!r} must be {self.text() or 'a number'}"

    def accepts(self, value: Any) -> bool:
        """Whether a value of the right type is in range. NaN never is."""
        if self.choices:
            return value in self.choices
        above = self.minimum is None or value >= self.minimum
        below = self.maximum is None or value <= self.maximum
        return above and below and value == value


def parameter(default: Any, description: str, **rule: Any) -> Any:
    """A dataclass field that is a node parameter; `rule` as the fields of `Rule`."""
    return dataclasses.field(default=default, metadata={"rule": Rule(description, **rule)})


@dataclass(frozen=True)
class Parameters:
    """Base of a node's parameters; every field is made by `parameter`."""

    def check(self) -> None:
        """Rules that involve several parameters; raises ValueError. To be extended."""


P = TypeVar("P", bound=Parameters)


def rules(kind: type[Parameters]) -> dict[str, tuple[type, Rule, Any]]:
    """Name to (type, rule, default) of every parameter."""
    types = typing.get_type_hints(kind)
    return {
        field.name: (types[field.name], field.metadata["rule"], field.default) for field in dataclasses.fields(kind)
    }


def changed(current: P, changes: Mapping[str, Any], review: Callable[[P], None] = lambda _: None) -> P:
    """`current` with all of `changes`, or nothing at all.

    Args:
        review: raises ValueError where the result breaks rules that are not the parameters' own.

    Raises:
        ValueError: a change that is not accepted: parameter, value, rule and consequence in one sentence.
    """
    table = rules(type(current))
    for name, value in changes.items():
        kind, rule, _ = table[name]
        kept = f"keeping {getattr(current, name)!r}"
        if not rule.live:
            raise ValueError(f"parameter {name} = {value!r} is read-only: set it before the node starts; {kept}")
        if objection := rule.objection(name, value, kind):
            raise ValueError(f"{objection}; {kept}")
    result = dataclasses.replace(current, **changes)
    try:
        result.check()
        review(result)
    except ValueError as error:
        given = ", ".join(f"{name} = {value!r}" for name, value in changes.items())
        raise ValueError(f"parameters {given} are refused: {error}; nothing is changed") from error
    return result


def declare(node: Node, kind: type[P]) -> P:
    """Declare the parameters on `node` and read the values that launch file or command line gave.

    Raises:
        ValueError: a value that is not accepted, with the rule.
    """
    values = {}
    for name, (of_type, rule, default) in rules(kind).items():
        try:
            values[name] = node.declare_parameter(name, default, _descriptor(of_type, rule)).value
        except (InvalidParameterTypeException, InvalidParameterValueException):
            values[name] = node._parameter_overrides[name].value  # rclpy has no public way to the refused value
        if objection := rule.objection(name, values[name], of_type):
            raise ValueError(f"{objection}; the node does not start")
    result = kind(**values)
    try:
        result.check()
    except ValueError as error:
        raise ValueError(f"parameters are refused: {error}; the node does not start") from error
    return result


def _descriptor(of_type: type, rule: Rule) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=rule.description, read_only=not rule.live, additional_constraints=rule.text()
    )
    if rule.minimum is not None and rule.maximum is not None:
        if of_type is int:
            bounds = IntegerRange(from_value=int(rule.minimum), to_value=int(rule.maximum), step=0)
            descriptor.integer_range = [bounds]
        else:
            limits = FloatingPointRange(from_value=float(rule.minimum), to_value=float(rule.maximum), step=0.0)
            descriptor.floating_point_range = [limits]
    return descriptor


def markdown_table(kind: type[Parameters]) -> str:
    """The parameters as a Markdown table, for the README."""
    lines = ["| parameter | type | default | accepted | live | |", "|---|---|---|---|---|---|"]
    for name, (of_type, rule, default) in rules(kind).items():
        live = "yes" if rule.live else ""
        shown = f'"{default}"' if of_type is str else str(default).lower() if of_type is bool else default
        lines.append(f"| `{name}` | {_ROS_TYPES[of_type]} | `{shown}` | {rule.text()} | {live} | {rule.description} |")
    return "\n".join(lines)
