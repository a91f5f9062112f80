"""The base of every node: lifecycle, parameters, diagnostics, and the way it is started and stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from perception.nodes import diagnostics
from perception.nodes.environment import prepare
from perception.nodes.parameters import Parameters, changed, declare, parameter, rules
from perception.nodes.statistics import Statistics
from perception.tasks.memory import keep_freed_memory

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)

SWITCH_SECONDS = 5e-5
"""How soon a thread that waits for the interpreter gets it: Python's 5 ms are as long as a whole frame may take."""

ERROR_PERIOD = 5.0
"""Seconds between two log lines of a kind about what is not usable; all of it is counted."""


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
        self._complained: dict[tuple[str, str], float] = {}
        self.add_on_set_parameters_callback(self._apply_parameters)
        self._refuse_impossible_transitions()
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

    def review(self, parameters: Any) -> None:
        """Rules that involve what the node has loaded, before parameters change; raises ValueError."""

    def adopt(self) -> None:
        """What follows from `self.parameters` at once, after they changed."""

    def describe(self) -> dict[str, str]:
        """What the diagnostics say about this node besides counts and durations."""
        return {}

    def complain(self, event: str, reason: str, about: str = "") -> None:
        """Log why something was not usable, now and then for each counted `event` and what it is `about`."""
        now, kind = time.monotonic(), (event, about)
        if now >= self._complained.get(kind, 0.0) and self.context.ok():
            self._complained[kind] = now + ERROR_PERIOD
            count = self.statistics.counts[event]
            self.get_logger().error(f"{reason} (the node goes on; so far {count} of this kind)")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("configure", self.setup, self.teardown)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.statistics.reset()
        result = self._attempt("activate", self.start, self.stop)
        self.active = result == SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._attempt("deactivate", self.stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("clean up", self.teardown)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("shut down", self.close)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an action that failed and could not be undone: unconfigured if all can be freed, else finalized."""
        return self._attempt("recover", self.close)

    def _attempt(
        self, name: str, action: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        """Do a transition's `action`; if it fails say why, and FAILURE if it could be undone, else ERROR."""
        try:
            action()
        except Exception as error:
            expected = isinstance(error, (ValueError, OSError, RuntimeError))
            self.get_logger().error(f"cannot {name}: {error if expected else f'{type(error).__name__}: {error}'}")
            return FAILURE if undo and self._attempt(f"undo {name}", undo) == SUCCESS else ERROR
        return SUCCESS

    def end(self) -> None:
        """Stop, from any state."""
        self.active = False
        self.stop()

    def close(self) -> None:
        """Stop and free everything, from any state."""
        self.end()
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
            if unknown := [item.name for item in parameter_list if not self.has_parameter(item.name)]:
                known = ", ".join(rules(self.parameters_type))
                raise ValueError(f"parameter {unknown[0]} is unknown; this node has {known}; nothing is changed")
            changed(self.parameters, self._ours(parameter_list), self.review)
        except ValueError as error:
            self.get_logger().warning(str(error))
            return SetParametersResult(successful=False, reason=str(error))
        return super().set_parameters_atomically(parameter_list)

    def _apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        if ours := self._ours(parameter_list):  # rclpy asks about those of topics' QoS too
            self.parameters = changed(self.parameters, ours, self.review)
            self.adopt()
        return SetParametersResult(successful=True)

    def _ours(self, parameter_list: list[Parameter]) -> dict[str, Any]:
        names = rules(self.parameters_type)
        return {item.name: item.value for item in parameter_list if item.name in names}

    def _tick(self) -> None:
        self._reporter.publish(self.watch() if self.active else ["not active"])

    def _refuse_impossible_transitions(self) -> None:
        """Answer them with success false; rclpy raises instead, which ends the process (ros2/rclpy#1209)."""
        service = self._service_change_state
        change_state = service.callback

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except RuntimeError as error:  # what rclpy's RCLError is
                self.get_logger().error(f"transition {request.transition.id} is refused: {error}")
                response.success = False
                return response

        service.callback = answer


def spin(nodes: list[BaseNode]) -> int:
    """Start the nodes, serve them until SIGINT or SIGTERM, and close them; the exit status."""
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_freed_memory()
    executor = SingleThreadedExecutor()
    try:
        for node in nodes:
            executor.add_node(node)
        if not all(node.autostart() for node in nodes):
            return 1
        # A full collection takes 20 ms in the middle of some frame, nearly all of it for what libraries made when they
        # were imported: from here on, only what is made while serving is looked at.
        gc.collect()
        gc.freeze()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:  # RCLError: a signal shut ROS down just before the executor began to wait
        if rclpy.ok():
            raise
    finally:
        # A terminal and launch both interrupt; the second time, what is being closed would be left half-way.
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _close(nodes)
        executor.shutdown(timeout_sec=1.0)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _close(nodes: list[BaseNode]) -> None:
    """Stop all, then free all, whatever one of them says: none may take from another what that still uses."""
    for close in (BaseNode.end, BaseNode.close):
        for node in nodes:
            try:
                close(node)
            except Exception as error:
                node.get_logger().error(f"cannot close: {type(error).__name__}: {error}")


def run_node(node_type: type[BaseNode], arguments: list[str] | None = None) -> int:
    """The `main` of an executable with one node; `arguments` are ROS's (default: the command line's)."""
    initialised = False
    try:
        prepare()
        rclpy.init(args=arguments)
        initialised = True
        node = node_type()  # type: ignore[call-arg]
    except KeyboardInterrupt:
        return 0
    except (ValueError, RuntimeError) as error:  # RuntimeError: what rclpy says of ROS arguments it cannot read
        if initialised and not rclpy.ok():  # a signal shut ROS down while the node was made
            return 0
        print(f"{node_type.__name__}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    return spin([node])
