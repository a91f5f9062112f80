"""The depth node as a process, with the fake engine in place of a built one: for tests of signals and of readers."""

from __future__ import annotations

import sys

from conftest import FakeEngine

from perception.nodes import depth_node, model_node

if __name__ == "__main__":
    model_node.engines.load = lambda *_: FakeEngine(lambda image: image.mean(axis=2) / 10)  # type: ignore[assignment]
    sys.exit(depth_node.main())
