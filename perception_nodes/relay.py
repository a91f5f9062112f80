"""Passes images on as they are: a stage of a pipeline that costs nothing but its place in it, for benchmarks."""

from __future__ import annotations

import sys
from typing import Any

from perception.nodes.inputs import Frame, ImageInput
from perception.nodes.node import BaseNode, run_node
from perception.nodes.outputs import ImageOutput
from perception.nodes.worker import Worker
from perception.tasks.image import Image


class RelayNode(BaseNode):
    """`image` in, `relayed` out, through the worker that every node with a model has."""

    def __init__(self, name: str = "relay", **options: Any) -> None:
        super().__init__(name, **options)
        self._output: ImageOutput | None = None
        self._input: ImageInput | None = None
        self._worker: Worker[Frame, Frame, Image] = Worker(
            self._prepare,
            lambda frame: frame.image,
            self._finish,
            lambda _, error: self.statistics.fail("failed", str(error)),
            lambda _: self.statistics.count("dropped"),
        )

    def setup(self) -> None:
        self._output = ImageOutput(self, "relayed")

    def teardown(self) -> None:
        if self._output:
            self._output.close()
        self._output = None

    def start(self) -> None:
        self._worker.start()
        self._input = ImageInput(self, "raw", self._on_frame, self.statistics.refuse)

    def stop(self) -> None:
        if self._input:
            self._input.close()
        self._input = None
        self._worker.stop()

    def _on_frame(self, frame: Frame) -> None:
        self.statistics.count("received")
        self._worker.put(frame)

    def _prepare(self, frame: Frame) -> Frame | None:
        if self._output and self._output.wanted:
            return frame
        self.statistics.count("skipped")
        return None

    def _finish(self, frame: Frame, image: Image) -> None:
        assert self._output
        self._output.publish(image, frame.header)
        self.statistics.count("published")


def main() -> int:
    return run_node(RelayNode)


if __name__ == "__main__":
    sys.exit(main())
