"""The depth node as a process, with the fake engine in place of a built one: for tests of signals and of readers.

The variable FAKE_LOAD_SECONDS says how long its engine takes to load.
"""

from __future__ import annotations

import os
import sys
import time

from conftest import FakeEngine

from perception.nodes import depth_node, model_node


def load(*_: object) -> FakeEngine:
    if seconds := float(os.environ.get("FAKE_LOAD_SECONDS", "0")):
        print("loading", file=sys.stderr, flush=True)
        time.sleep(seconds)
    return FakeEngine(lambda image: image.mean(axis=2) / 10)


if __name__ == "__main__":
    model_node.engines.load = load  # type: ignore[assignment]
    sys.exit(depth_node.main())
