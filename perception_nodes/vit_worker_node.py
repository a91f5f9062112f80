"""A worker of a vision transformer that is split across devices: images in, features out, for `vit_fusion_node`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.nodes.features import TOPIC, FeaturesOutput
from perception.nodes.model_node import Job, ModelNode, ModelParameters, Stream
from perception.nodes.node import run_node
from perception.nodes.parameters import parameter
from perception.tasks.features import KINDS, Features
from perception.tasks.vit_split import Split, SplitWorker, read_split


@dataclass(frozen=True)
class VitWorkerParameters(ModelParameters):
    model: str = parameter("", "The worker's ONNX file in the folder of its split, such as split/worker_0.onnx.")
    features: str = parameter(
        KINDS[0], "How features are sent: two bytes a number, or one, rounded more.", choices=KINDS, live=True
    )


class VitWorkerNode(ModelNode):
    """Publishes `features/NAME`, where NAME is the worker's in the split."""

    parameters_type = VitWorkerParameters
    tasks = ("classification",)
    parameters: VitWorkerParameters

    def __init__(self, name: str = "vit_worker_node", **options: object) -> None:
        super().__init__(name, **options)
        self._split: Split | None = None
        self._part: SplitWorker | None = None
        """Which of its workers this is."""

    def setup(self) -> None:
        path = Path(self.parameters.model)
        self._split = read_split(path.parent if self.parameters.model else "")
        self._part = self._split.worker_of(path.name)
        self._split.graph_path(self._part)  # is there, and of this split
        super().setup()

    def teardown(self) -> None:
        super().teardown()
        self._split = self._part = None

    def try_out(self, outputs: Mapping[str, np.ndarray]) -> None:
        assert self._part
        found = {name: array.shape for name, array in outputs.items()}
        if found.get("features") != (1, self._part.features):
            raise ValueError(
                f"{self.parameters.model} gives {found}; {self._part.name} of the split gives features of the shape "
                f"(1, {self._part.features})"
            )

    def create_outputs(self, stream: Stream) -> FeaturesOutput:
        assert self._part
        return self.add_output(stream, FeaturesOutput, f"{TOPIC}/{self._part.name}")

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        assert self._split and self._part
        output: FeaturesOutput = job.stream.results
        features = Features(outputs["features"][0], self._part.name, self._split.short_hash)
        output.publish(features, self.parameters.features, job.frame.header)

    def describe(self) -> dict[str, str]:
        split, part = self._split, self._part
        if not split or not part or not self.engine:
            return super().describe()
        return super().describe() | {"worker": part.name, "split": split.short_hash, "split_device": part.device}


def main() -> int:
    return run_node(VitWorkerNode)


if __name__ == "__main__":
    sys.exit(main())
