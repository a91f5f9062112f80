"""Which device runs which part of a split network."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.training.placement import (
    Cost,
    Device,
    Fleet,
    compute_ms,
    energy_j,
    latency_ms,
    partition,
    place,
    read_fleet,
    refusals,
)

PI = Device("pi", memory=4.0, gflops=10.0, watts=5.0, bandwidth=8.0)


def cost_of(heads: int) -> Cost:
    """1 MB and 50 million multiply-accumulates for each head squared: 10 ms on a Pi."""
    return Cost(250_000 * heads**2, 50_000_000 * heads**2, 64 * heads)


def device(name: str, **changes: float) -> Device:
    fields = {"memory": 4.0, "gflops": 10.0, "watts": 5.0, "bandwidth": 8.0}
    return Device(name, **fields | changes)


@given(st.integers(2, 40), st.data())
def test_classes_are_divided_evenly_and_in_order(classes: int, data: st.DataObject) -> None:
    labels = [str(number) for number in range(classes)]
    parts = partition(labels, data.draw(st.integers(1, classes)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and [name for part in parts for name in part] == labels


def test_more_workers_than_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 classes cannot be divided among 3 workers"):
        partition(["a", "b"], 3)


def test_costs_are_predicted() -> None:
    cost = cost_of(1)
    assert compute_ms(PI, cost.macs) == pytest.approx(10.0)
    assert latency_ms(PI, cost) == pytest.approx(10.0 + (128 + 256) * 8 / 8000)
    assert energy_j(PI, cost) == pytest.approx(5 * latency_ms(PI, cost) / 1000)
    assert cost.bytes == 1_000_000 and refusals(PI, cost) == []
    assert refusals(device("d", latency=8.0), cost) == ["latency 10.4 of 8 ms"]
    assert latency_ms(device("d", overhead=4.0), cost) == pytest.approx(4.0 + 10.0 + 0.384)
    assert energy_j(device("d", overhead=4.0), cost) == pytest.approx(5 * 14.384 / 1000)
    tight = device("d", memory=0.5, energy=0.01)
    assert refusals(tight, cost) == ["memory 1 of 0.5 MB", "energy 0.0519 of 0.01 J"]


def test_an_overhead_keeps_small_parts_from_being_as_fast_as_they_are_small() -> None:
    """A worker with a fifth of the heads has a 25th of the arithmetic: 250 ms and 10 ms beside 15 ms."""
    slow = device("d", overhead=15.0, bandwidth=1e9)
    whole, part = (latency_ms(slow, cost_of(heads)) for heads in (5, 1))
    assert whole == pytest.approx(265.0) and part == pytest.approx(25.0) and whole / part == pytest.approx(10.6)
    fleet = Fleet((slow,), fusion_overhead=2.0)
    assert fleet.fusion_ms(5_000_000) == pytest.approx(2.0 + 1.0), "of 10 MFLOP at 10 GFLOP/s"


def test_the_fastest_device_that_fits_is_taken_and_leaves_the_pool() -> None:
    fleet = Fleet((device("slow"), device("fast", gflops=20.0), device("small", gflops=50.0, memory=0.5)))
    placed = place([("a",), ("b",)], fleet, 1, cost_of)
    assert [part.device.name for part in placed] == ["fast", "slow"] and [part.heads for part in placed] == [1, 1]
    alike = Fleet((device("hungry", watts=9.0), device("frugal", watts=3.0)))
    assert place([("a",)], alike, 1, cost_of)[0].device.name == "frugal"


def test_a_part_that_fits_nowhere_loses_heads_and_all_begins_anew() -> None:
    """The first device takes two heads, the second one; nothing stays taken from a try that failed."""
    fleet, said = Fleet((device("small", memory=1.0), device("large"))), []
    placed = place([("a",), ("b",)], fleet, 3, cost_of, said.append)
    assert [(part.heads, part.device.name) for part in placed] == [(2, "large"), (1, "small")]
    assert len(said) == 3 and "fits nowhere (small: memory 9 of 1 MB; large: memory 9 of 4 MB): 2 heads" in said[0]


@pytest.mark.parametrize("limit", [{"memory": 0.9}, {"energy": 0.02}, {"latency": 9.0}])
def test_limits_that_cannot_be_met_are_told(limit: dict) -> None:
    with pytest.raises(ValueError, match=f"a, b fit on no free device, not even with one head .*{next(iter(limit))}"):
        place([("a", "b")], Fleet((device("d", **limit),)), 2, cost_of)


def test_devices_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "devices.yaml"
    line = "{name: %s, memory: 4, gflops: 10, watts: 5, bandwidth: 8%s}"
    path.write_text("devices:\n" + "".join(f"  - {line % one}\n" for one in (("a", ""), ("b", ", latency: 20"))))
    fleet = read_fleet(path)
    assert [one.name for one in fleet.devices] == ["a", "b"] and fleet.devices[1].latency == 20
    assert fleet.devices[0].energy is None and fleet.fusing.name == "a"
    path.write_text(path.read_text() + "fusion: b\nfusion_overhead: 2\n")
    assert read_fleet(path).fusing.name == "b" and read_fleet(path).fusion_overhead == 2
    for text, said in (
        ("devices: []", "devices need different names"),
        (f"devices: [{line % ('a', '')}]\nfusion: c", "fusion is 'c'"),
        (f"devices: [{line % ('a', ', colour: 3')}]", "unknown fields: colour"),
        ("devices: [{name: a, memory: 0, gflops: 1, watts: 1, bandwidth: 1}]", "memory of device 'a' is 0"),
        (f"devices: [{line % ('a', ', overhead: -1')}]", "overhead of device 'a' is -1; accepted: milliseconds"),
        (f"devices: [{line % ('a', '')}]\nfusion_overhead: -1", "fusion_overhead is -1; accepted: milliseconds"),
        ("devices: [{name: a}]", "devices lacks: memory, gflops"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_fleet(path)
    with pytest.raises(ValueError, match="does not exist; it lists the devices"):
        read_fleet(tmp_path / "absent.yaml")
