"""Which engines a command means."""

from __future__ import annotations

import pytest

from perception.engines import EngineError
from perception.evaluation import contenders as module
from perception.evaluation.contenders import Contender, contenders


def test_choices_are_read() -> None:
    assert contenders(["a"], []) == [Contender("a", "auto", "auto")]
    assert contenders(["a", "b"], ["openvino:int8", "torch"], "fp32") == [
        Contender("a", "openvino", "int8"),
        Contender("a", "torch", "fp32"),
        Contender("b", "openvino", "int8"),
        Contender("b", "torch", "fp32"),
    ]
    assert len(contenders(["a"], ["torch", "torch"])) == 1


@pytest.mark.parametrize("choice", ["tensorflow", "torch:int4", ":fp32", ""])
def test_unknown_choices_are_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="accepted: all, auto or TARGET.*openvino.*int8"):
        contenders(["a"], [choice])


def test_all_means_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        def precisions(self) -> tuple[str, ...]:
            return ("fp32", "int8")

    def get_runtime(name: str) -> Runtime:
        if name == "tensorrt":
            raise EngineError("not here")
        return Runtime()

    monkeypatch.setattr(module, "get_runtime", get_runtime)
    found = [(contender.target, contender.precision) for contender in contenders(["a"], ["all"])]
    assert found[0] == ("torch", "fp32") and ("openvino", "int8") in found and ("tensorrt", "auto") in found
    only = {(contender.target, contender.precision) for contender in contenders(["a"], ["all"], "int8")}
    assert only == {("torch", "int8"), ("openvino", "int8"), ("onnxruntime", "int8"), ("tensorrt", "auto")}
