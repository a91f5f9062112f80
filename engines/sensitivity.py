"""Which layers int8 harms: each one quantised alone, and what is won by leaving the worst in float32.

Quantised graphs are run with their Quantize/Dequantize pairs as they are and float32 arithmetic between them. That is
exact for every scheme on every machine, and says nothing about a kernel's own mistakes; parity and accuracy of the
build do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx

from perception.engines.graph import to_bytes
from perception.engines.quantize import Statistics, layer_name, layers, place_pairs
from perception.engines.runtimes import Frame, Progress, Quantization, by_name
from perception.tasks import get_task
from perception.tasks.config import ModelConfig

TRIED = (0, 1, 2, 4, 8, 16, 32)
"""Numbers of layers that are left in float32 to see what it gives."""


@dataclass(frozen=True)
class Layer:
    """What int8 does to a network of which only this layer is quantised."""

    name: str
    operator: str
    harm: float
    """Mean disagreement with the float32 graph over the frames, in the task's own metric."""


@dataclass(frozen=True)
class Report:
    """Every layer, the worst first."""

    model: str
    scheme: str
    frames: int
    bound: float
    """The largest disagreement of a frame that the build accepts of int8."""
    layers: tuple[Layer, ...]
    kept: Mapping[int, float]
    """Largest disagreement of a frame with so many of the worst layers left in float32."""

    @property
    def enough(self) -> int | None:
        """The smallest tried number of float32 layers that meets the bound; None if none does."""
        return min((number for number, found in self.kept.items() if found <= self.bound), default=None)

    def to_json(self) -> str:
        """All fields, and `enough`."""
        return json.dumps(asdict(self) | {"enough": self.enough}, indent=2)

    def to_markdown(self) -> str:
        """Two tables and the action that follows from them."""
        total = sum(layer.harm for layer in self.layers) or 1.0
        lines = [
            f"# int8 sensitivity of {self.model}",
            "",
            f"{self.scheme}; disagreement with float32 over {self.frames} frames, one layer quantised at a time.",
            "",
            "| layer | operator | disagreement | running sum |",
            "|---|---|---|---|",
        ]
        running = 0.0
        for layer in self.layers:
            running += layer.harm
            lines.append(f"| {layer.name} | {layer.operator} | {layer.harm:.5f} | {running / total:.0%} |")
        lines += ["", "| worst layers in float32 | largest disagreement of a frame |", "|---|---|"]
        lines += [f"| {number} | {found:.4f} |" for number, found in self.kept.items()]
        return "\n".join([*lines, "", self.advice()])

    def advice(self) -> str:
        """What to do, in a sentence."""
        if self.enough == 0:
            return f"With all layers quantised int8 meets its bound of {self.bound}; none needs float32."
        if self.enough is None:
            return (
                f"None of these meets the bound of {self.bound}. Train with quantisation, calibrate on frames that are "
                "more like the robot's, or use fp16."
            )
        return f"Build with --keep-float {self.enough}: that is the least tried that meets the bound of {self.bound}."


class Bench:
    """A float32 graph, its calibration, and the frames that its quantised variants are compared on."""

    def __init__(
        self,
        model: onnx.ModelProto,
        statistics: Mapping[str, Statistics],
        scheme: Quantization,
        frames: Sequence[Frame],
        config: ModelConfig,
    ) -> None:
        self.model, self.statistics, self.scheme = model, statistics, scheme
        self.frames, self.config = frames, config
        self.layers = layers(model)
        self._reference = self._outputs(model)

    def disagreements(self, keep: Collection[str]) -> list[float]:
        """Of each frame, with the layers in `keep` in float32 and all others quantised."""
        outputs = self._outputs(place_pairs(self.model, self.statistics, self.scheme, keep))
        compare = get_task(self.config.task).disagreement
        pairs = zip(self._reference, outputs, strict=True)
        return [float(compare(expected, got, self.config)) for expected, got in pairs]

    def rank(self, progress: Progress = lambda line: None) -> list[Layer]:
        """All layers, the most harmful first; of equal ones the one nearer to the image."""
        operators = {layer_name(node): node.op_type for node in self.model.graph.node if node.output}
        found = []
        for number, name in enumerate(self.layers):
            if number % 8 == 0:
                progress(f"quantising one layer at a time: {number + 1} of {len(self.layers)}")
            harm = float(np.mean(self.disagreements([other for other in self.layers if other != name])))
            found.append(Layer(name, operators[name], harm))
        return sorted(found, key=lambda layer: -layer.harm)

    def report(self, progress: Progress = lambda line: None) -> Report:
        """The ranking and what follows from it."""
        ranked = self.rank(progress)
        numbers = [number for number in TRIED if number < len(ranked)]
        kept = {}
        for number in numbers:
            progress(f"leaving {number} layers in float32")
            kept[number] = max(self.disagreements([layer.name for layer in ranked[:number]]))
        bound = float(get_task(self.config.task).PARITY_BOUNDS["int8"])
        return Report(self.config.name, str(self.scheme), len(self.frames), bound, tuple(ranked), kept)

    def _outputs(self, model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = ort.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in self.config.outputs]
        return [dict(zip(names, session.run(names, dict(by_name(frame))), strict=True)) for frame in self.frames]
