"""A source and stages that pass its images on, one behind the other, for benchmarks: what stages cost besides models.

As a program it serves all of them in one process: `python -m perception.nodes.chain SOURCE STAGES`.
"""

from __future__ import annotations

import sys

from perception.nodes.composition import run_in_process
from perception.nodes.pipeline import NodeDescription

NAMESPACE = "chain"
FASTEST = 10000.0
"""Images a second: more than any stage can take."""


def chain(source: str, stages: int, rate: float = FASTEST) -> list[NodeDescription]:
    """The nodes; each stage takes what the one before published.

    Args:
        source: folder of images, which is kept in memory and starts over at its end.
    """
    fed = {"source": source, "loop": True, "cache": 512, "rate": rate, "publish_depth_true": False}
    nodes = [NodeDescription("image_source_node", "source", NAMESPACE, fed, {"image": "stage_0"})]
    for number in range(1, stages + 1):
        topics = {"image": f"stage_{number - 1}", "relayed": f"stage_{number}"}
        nodes.append(NodeDescription("relay", f"relay_{number}", NAMESPACE, {}, topics))
    return nodes


if __name__ == "__main__":
    sys.exit(run_in_process(chain(sys.argv[1], int(sys.argv[2])), "info"))
