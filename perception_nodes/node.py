"""The base of every node: lifecycle, parameters, diagnostics, and the way it is started and stopped."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, ClassVar

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from perception.nodes import diagnostics
from perception.nodes.environment import prepare
from perception.nodes.parameters import Parameters, changed, declare, parameter, rules
from perception.nodes.statistics import Statistics

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@dataclasses.dataclass(frozen=True)
class NodeParameters(Parameters):
    """Parameters that every node has."""

    autostart: bool = parameter(True, "Configure and activate at start; false leaves it to a lifecycle manager.")


class BaseNode(LifecycleNode):
    """A lifecycle node with checked parameters and diagnostics.

    A subclass names its parameters' dataclass and implements `setup` (load what is heavy, create outputs), `start`
    (subscribe), `stop` (return when nothing runs any more) and `teardown` (free what `setup` made).
    """

    parameters_type: ClassVar[type[NodeParameters]] = NodeParameters

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.parameters = declare(self, self.parameters_type)
        self.statistics = Statistics()
        self.active = False
        self.add_on_set_parameters_callback(self._apply_parameters)
        self._reporter = diagnostics.Reporter(self)
        # Steady: under use_sim_time a paused clock must not silence the diagnostics.
        self._timer = self.create_timer(1.0, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def setup(self) -> None:
        """On configure. Raises ValueError, OSError or RuntimeError with a sentence where it cannot be done."""

    def start(self) -> None:
        """On activate."""

    def stop(self) -> None:
        """On deactivate; returns when no frame is under way."""

    def teardown(self) -> None:
        """On cleanup, and after a `setup` that failed half-way."""

    def watch(self) -> list[str]:
        """Once a second while active: what is amiss just now, for the diagnostics."""
        return []

    def describe(self) -> dict[str, str]:
        """What the diagnostics say about this node besides counts and durations."""
        return {}

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.setup()
        except Exception as error:
            self._report_failure("configure", error)
            self.teardown()
            return FAILURE
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.start()
        except Exception as error:
            self._report_failure("activate", error)
            self.stop()
            return FAILURE
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.teardown()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return SUCCESS

    def close(self) -> None:
        """Stop and free everything, from any state."""
        self.active = False
        self.stop()
        self.teardown()

    def autostart(self) -> bool:
        """Configure and activate if the parameter asks for it; False if that failed."""
        if not self.parameters.autostart:
            return True
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Each on its own, as the service of that name does."""
        return [self.set_parameters_atomically([item]) for item in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """All or none. Our rules come before rclpy's, whose refusals do not say what follows."""
        try:
            changed(self.parameters, self._ours(parameter_list))
        except ValueError as error:
            self.get_logger().warning(str(error))
            return SetParametersResult(successful=False, reason=str(error))
        return super().set_parameters_atomically(parameter_list)

    def _apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        self.parameters = changed(self.parameters, self._ours(parameter_list))
        return SetParametersResult(successful=True)

    def _ours(self, parameter_list: list[Parameter]) -> dict[str, Any]:
        names = rules(self.parameters_type)
        return {item.name: item.value for item in parameter_list if item.name in names}

    def _tick(self) -> None:
        self._reporter.publish(self.watch() if self.active else ["not active"])

    def _report_failure(self, transition: str, error: Exception) -> None:
        expected = isinstance(error, (ValueError, OSError, RuntimeError))
        detail = str(error) if expected else f"{type(error).__name__}: {error}"
        self.get_logger().error(f"cannot {transition}: {detail}")


def spin(nodes: list[BaseNode]) -> int:
    """Start the nodes, serve them until SIGINT or SIGTERM, and close them; the exit status."""
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    try:
        if not all(node.autostart() for node in nodes):
            return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        for node in nodes:
            node.close()
        executor.shutdown(timeout_sec=1.0)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def run_node(node_type: type[BaseNode], arguments: list[str] | None = None) -> int:
    """The `main` of an executable with one node; `arguments` are ROS's (default: the command line's)."""
    prepare()
    rclpy.init(args=arguments)
    try:
        node = node_type()  # type: ignore[call-arg]
    except ValueError as error:
        print(f"{node_type.__name__}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    return spin([node])
