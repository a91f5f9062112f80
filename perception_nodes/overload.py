"""What a node with a model does with more input than it can take, in bursts, and beside a reader that stands still."""

from __future__ import annotations

from collections.abc import Mapping

from perception.nodes.diagnostics import counts_of, stages_of
from perception.nodes.rig import Figures, Rig

BURST = 10
"""Images that come at once."""
MARGIN, AROUND_MS = 1.25, 5.0
"""What an inference may take beyond its p99, and the work around it in milliseconds: the bound of the age."""


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
            "bursts": self._figures(rare, self._node_values(rare, self.threads, feed={"burst": BURST}), bursts=True),
        }

    def _figures(self, rate: float, values: Mapping[str, str], bursts: bool = False) -> Figures:
        """Beside the age what it may be: an inference, the work around it, and what the newest image had to wait: in an
        even flood for the next one at most, in a burst for the inference of the first."""
        stages, counts = stages_of(values), counts_of(values)
        inference = MARGIN * stages["infer"]["p99"]
        bound = inference + (inference if bursts else 1e3 / rate) + AROUND_MS
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
