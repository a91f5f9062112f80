"""Pruning: which channels belong together, what a network computes without some of them, and the search over widths."""

from __future__ import annotations

import copy
import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from perception.models import count_macs, create_model, list_models  # noqa: E402
from perception.training import costs  # noqa: E402
from perception.training.channels import channel_groups, importance, remove_channels  # noqa: E402
from perception.training.costs import Latency, LayerShape, gigamacs, layer_shapes, narrowed, time_layer  # noqa: E402
from perception.training.norms import refresh_norms  # noqa: E402
from perception.training.pruning import Pruning, propose, prune  # noqa: E402

SIZE = (64, 96)


@cache
def network(name: str) -> nn.Module:
    """A registered network whose BatchNorms are not the identity that they start as."""
    torch.manual_seed(0)
    model = create_model(name, pretrained=False)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.3, 0.3)
    refresh_norms(model, torch.rand(4, 3, 32, 32))
    return model


@given(data=st.data(), name=st.sampled_from(list_models("depth")))
@settings(max_examples=15)
def test_what_is_left_computes_as_with_the_other_channels_zero(data: st.DataObject, name: str) -> None:
    full, narrow = copy.deepcopy(network(name)), copy.deepcopy(network(name))
    group = data.draw(st.sampled_from(channel_groups(full)), label="group")
    kept = data.draw(st.sets(st.integers(0, group.width - 1), min_size=2, max_size=group.width - 1), label="keep")
    keep = sorted(kept)
    remove_channels(narrow, group, keep)
    removed = sorted(set(range(group.width)) - kept)
    layers = dict(full.named_modules())
    for layer in filter(lambda layer: isinstance(layer, nn.BatchNorm2d), map(layers.get, group.followers)):
        layer.weight.data[removed] = layer.bias.data[removed] = 0
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(narrow(image), full(image), rtol=1e-3, atol=1e-4)
    again = create_model(name, pretrained=False, widths=narrow.widths)
    again.load_state_dict(narrow.state_dict())
    assert gigamacs(narrowed(layer_shapes(full, SIZE), group, len(keep))) == count_macs(narrow, SIZE) / 1e9
    assert again.encoder.channels == narrow.encoder.channels


@pytest.mark.parametrize(("name", "count"), [("fastdepth", 16), ("fastdepth_mobilenet_v2", 29)])
def test_groups_are_tied_by_sums_and_end_at_input_and_output(name: str, count: int) -> None:
    """FastDepth: 14 encoder and 5 decoder widths, of which three skips tie two each."""
    model = create_model(name, pretrained=False)
    groups = channel_groups(model)
    assert len(groups) == count
    by_name = {group.name: group for group in groups}
    if name == "fastdepth":
        assert by_name["encoder.5.1.0"].producers == ["encoder.5.1.0", "decoder.1.1.0"]
        assert by_name["encoder.5.1.0"].readers == ["encoder.6.1.0", "decoder.2.1.0"]
    else:
        stage = by_name["encoder.features.4.conv.2"]
        assert stage.producers == [f"encoder.features.{block}.conv.2" for block in (4, 5, 6)]
        assert by_name["decoder.0.1.0"].producers == ["decoder.0.1.0", "laterals.0.0"]
    assert not any("head.0" in group.producers for group in groups)


def test_networks_that_it_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot tell where the channels of .*Flatten"):
        channel_groups(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten()))
    with pytest.raises(ValueError, match="full and depthwise convolutions"):
        channel_groups(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2)))
    group = channel_groups(toy())[0]
    with pytest.raises(ValueError, match=r"0..31, .*not \[3, 2\]"):
        remove_channels(toy(), group, [3, 2])


def test_important_channels_are_those_whose_folded_filters_are_large() -> None:
    model = toy()
    group = channel_groups(model)[0]
    before = importance(model, group)
    model[0].weight.data[3] *= 10
    assert importance(model, group).argmax() == 3
    model[1].running_var[3] *= 100  # what training brings with it: the output is the same
    assert torch.allclose(importance(model, group), before, rtol=1e-3)
    model[1].weight.data[5] = 9
    assert importance(model, group).argmax() == 5


def test_refreshed_norms_have_the_images_statistics() -> None:
    model, images = toy(), torch.rand(8, 3, 16, 16)
    refresh_norms(model, images)
    with torch.no_grad():
        out = model[:2](images)
    assert out.mean((0, 2, 3)).abs().max() < 1e-4 and model[1].momentum == 0.1 and not model.training


def toy() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 24, 1), nn.ReLU(), nn.Conv2d(24, 1, 1),
    ).eval()  # fmt: skip


def test_proposals_are_the_widest_that_meet_the_target() -> None:
    model = toy()
    shapes, groups = layer_shapes(model, (16, 16)), channel_groups(model)
    target = 0.8 * gigamacs(shapes)
    proposals = propose(groups, shapes, target, gigamacs, 8)
    assert [(proposal.group.name, proposal.width) for proposal in proposals] == [("0", 24), ("3", 8)]
    for group, width, cost in proposals:
        assert cost == gigamacs(narrowed(shapes, group, width)) <= target
        assert gigamacs(narrowed(shapes, group, width + 8)) > target
    assert propose(groups, shapes, 0.0, gigamacs, 8) == []


class Bench:
    """Scores by the distance from what the unpruned network said; counts what is done, and can be stopped."""

    def __init__(self, model: nn.Module, stop: int = 10**9) -> None:
        self.images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            self.target = model(self.images)
        self.firsts: list[int] = []
        self.stop = stop

    def score(self, model: nn.Module) -> float:
        with torch.no_grad():
            return -float((model(self.images) - self.target).square().mean())

    def tune(self, model: nn.Module, *, first: int) -> None:
        if len(self.firsts) == self.stop:
            raise KeyboardInterrupt
        self.firsts.append(first)
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            (model(self.images) - self.target).square().mean().backward()
            optimizer.step()

    def prune(self, model: nn.Module, pruning: Pruning, out: Path) -> nn.Module:
        return prune(model, pruning, (16, 16), self.images, self.score, self.tune, out, progress=lambda line: None)


def test_pruning_meets_the_budget_reports_and_resumes_to_the_same(tmp_path: Path) -> None:
    model = toy()
    start = gigamacs(layer_shapes(model, (16, 16)))
    pruning = Pruning(budget=0.4 * start, step=0.2, decay=0.9, candidates=1, tune_steps=3)
    bench = Bench(model)
    pruned = bench.prune(model, pruning, tmp_path / "a")
    lines = [json.loads(line) for line in (tmp_path / "a" / "pruning.jsonl").read_text().splitlines()]
    reached = [line["cost"] for line in lines]
    assert reached[0] == start and reached[-1] <= pruning.budget < reached[-2]
    assert reached == sorted(reached, reverse=True)
    assert reached[-1] == gigamacs(layer_shapes(pruned, (16, 16)))
    assert all(line["after"] < line["before"] and line["after"] % 8 == 0 for line in lines[1:])
    assert bench.firsts == [3 * iteration for iteration in range(len(lines) - 1)]
    assert model[0].out_channels == 32, "the network it began with is left as it is"

    with pytest.raises(KeyboardInterrupt):
        Bench(model, stop=1).prune(model, pruning, tmp_path / "b")
    again = Bench(model)
    resumed = again.prune(model, pruning, tmp_path / "b")
    assert again.firsts == bench.firsts[1:]
    assert all(
        torch.equal(a, b) for a, b in zip(pruned.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match="belongs to other settings"):
        bench.prune(model, dataclasses.replace(pruning, step=0.1), tmp_path / "b")


def test_without_screening_every_proposal_is_tuned(tmp_path: Path) -> None:
    model = toy()
    bench = Bench(model)
    bench.prune(model, Pruning(gigamacs(layer_shapes(model, (16, 16))) * 0.9, candidates="all", step=0.2), tmp_path)
    assert bench.firsts == [0, 0]


def test_dead_channels_go_first(tmp_path: Path) -> None:
    """Eight channels of the second group do nothing, so the search must take those and lose nothing."""
    model = toy()
    model[3].weight.data[8:16] = model[3].bias.data[8:16] = 0
    refresh_norms(model, Bench(model).images)
    bench = Bench(model)
    macs = gigamacs(layer_shapes(model, (16, 16)))
    pruned = bench.prune(model, Pruning(0.9 * macs, step=0.1, candidates=1), tmp_path)
    assert pruned[3].out_channels == 16 and bench.score(pruned) > -1e-8


def test_a_budget_out_of_reach_and_a_divergence_are_told(tmp_path: Path) -> None:
    model = toy()
    with pytest.raises(ValueError, match="choose a larger budget or a smaller step"):
        Bench(model).prune(model, Pruning(1e-9, step=0.3), tmp_path / "a")
    bench = Bench(model)
    bench.score = lambda model: float("nan")  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="diverged for every proposal; lower `rate`"):
        bench.prune(model, Pruning(1e-9, step=0.1), tmp_path / "b")


def test_latency_is_a_sum_over_a_table_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[LayerShape] = []

    def measure(shape: LayerShape, threads: int) -> float:
        timed.append(shape)
        return float(shape.outputs)

    monkeypatch.setattr(costs, "time_layer", measure)
    shapes = layer_shapes(toy(), (16, 16))
    assert Latency(tmp_path / "latency.json")(shapes) == 32 + 24 + 1
    assert len(timed) == 3
    assert Latency(tmp_path / "latency.json")(shapes) == 32 + 24 + 1
    assert len(timed) == 3, "known times are not measured again"


def test_layers_are_timed_by_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; latency is measured with it")
    small, large = LayerShape(8, 8, 3, 2, 8, 8, 8), LayerShape(256, 256, 3, 1, 1, 32, 32)
    assert 0 < time_layer(small, 1) < time_layer(large, 1)
