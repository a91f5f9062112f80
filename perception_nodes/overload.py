"""What the depth node does with more input than it can take, in bursts, and beside a reader that stands still."""

from __future__ import annotations

from collections.abc import Mapping

from perception.nodes.diagnostics import counts_of, stages_of
from perception.nodes.rig import Figures, Rig

BURST = 10
"""Images that come at once."""


class Overload(Rig):
    """Age of the output and counts of frames, of which every one must have an end."""

    def overload(self) -> Figures:
        """Age of the output at 3 times the input that the node can take, without and with a stalled reader, and of
        bursts at a rate that it could take evenly."""
        capacity = float(self._capacity(self.threads)[1]["rate_hz"])
        rate, rare = 3 * capacity, capacity / 2
        return {
            "free": self._figures(rate, self._node_values(rate, self.threads)),
            "stalled_reader": self._figures(rate, self._node_values(rate, self.threads, stalled_reader=True)),
            "bursts": self._figures(rare, self._node_values(rare, self.threads, feed={"burst": BURST})),
        }

    def _figures(self, rate: float, values: Mapping[str, str]) -> Figures:
        stages, counts = stages_of(values), counts_of(values)
        bound = 1.25 * stages["infer"]["p99"] + 1e3 / rate + 5
        ends = sum(counts[end] for end in ("published", "dropped", "failed", "skipped"))
        return {
            "input_hz": round(rate, 1),
            "age_ms": stages["age"],
            "infer_ms": stages["infer"],
            "bound_p99_ms": round(bound, 2),
            "within": stages["age"]["p99"] <= bound,
            "counts": counts,
            "unaccounted": counts["received"] - ends,
        }
