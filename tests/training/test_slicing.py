"""Slices of vision transformers: what is least important, and that what is cut away is all that goes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from torch.nn import functional as F  # noqa: E402

from perception.models import create_model  # noqa: E402
from perception.models.vit import ViT  # noqa: E402
from perception.training.slicing import choose_units, importance, multiplied, slice_state, unit_counts  # noqa: E402

SIZE = (16, 16)
LABELS = ("ant", "bee", "cow", "dog")


def network(
    stem: str = "patches", heads: int = 3, labels: tuple[str, ...] = LABELS, seed: int = 0, name: str = "vit_tiny"
) -> ViT:
    """With all parameters at random, norms too, which begin alike for all channels."""
    torch.manual_seed(seed)
    patch = 4 if stem == "more convolutions" else 8
    model = create_model(name, False, SIZE, heads=heads, labels=labels, patch=patch, depth=2, stem=stem)
    assert isinstance(model, ViT)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize(
    ("stem", "layers"),
    [("patches", []), ("convolutions", [48, 96, 192]), ("more convolutions", [32, 64, 64, 128, 192])],
)
def test_units_of_every_group_are_counted(stem: str, layers: list[int]) -> None:
    counts = unit_counts(network(stem))
    expected = {"width": 192, "heads.0": 3, "hidden.0": 768, "heads.1": 3, "hidden.1": 768}
    assert {name: count for name, count in counts.items() if "stem" not in name} == expected
    assert {name: count for name, count in counts.items() if "stem" in name} == {
        f"stem.{number}": count for number, count in enumerate(layers)
    }
    assert unit_counts(network(stem), 1) == unit_counts(network(stem, 1))


@pytest.mark.parametrize(
    ("stem", "name", "width"),
    [("patches", "vit_tiny", 192), ("convolutions", "vit_tiny", 192), ("more convolutions", "vit_compact", 96)],
)
def test_what_is_cut_away_is_all_that_goes(stem: str, name: str, width: int) -> None:
    """What is left answers as the whole does whose removed heads, hidden channels and channels of the stem are zero."""
    whole = network(stem, name=name)
    found = {name: torch.rand(count) for name, count in unit_counts(whole).items()}
    units = choose_units(found, unit_counts(whole, 1)) | {"width": range(width)}
    counts = {name: len(kept) for name, kept in units.items()}
    assert counts["heads.0"] == 1 and counts["hidden.1"] == 4 * width // 3
    state = slice_state(whole, units, torch.eye(4))
    image = torch.randn(2, 3, *SIZE)
    factors = {
        name: torch.zeros(2, count).index_fill(1, torch.tensor(list(units[name])), 1.0)
        for name, count in unit_counts(whole).items()
    }
    with multiplied(whole, factors), torch.no_grad():
        expected = whole(image)
    assert not torch.allclose(expected, whole(image), atol=1e-3)
    torch.testing.assert_close(run_with(state, network(stem, name=name), image), expected, rtol=1e-4, atol=1e-4)


def run_with(state: dict[str, torch.Tensor], model: ViT, image: torch.Tensor) -> torch.Tensor:
    """What a network of all of the model's embedding, with fewer heads and hidden channels, says."""
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        module = model.get_submodule(".".join(path))
        if isinstance(getattr(module, leaf), torch.nn.Parameter):
            setattr(module, leaf, torch.nn.Parameter(tensor))
        else:
            setattr(module, leaf, tensor)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.num_features = len(layer.weight)
    for block in model.blocks:
        block.attention.heads = 1
    with torch.no_grad():
        return model.eval()(image)


@pytest.mark.parametrize("stem", ["patches", "convolutions", "more convolutions"])
def test_a_slice_is_a_network_with_fewer_heads(stem: str) -> None:
    whole = network(stem)
    whole.eval()
    units = choose_units(importance(whole, torch.randn(4, 3, *SIZE)), unit_counts(whole, 2))
    rows = torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0]])
    state = slice_state(whole, units, rows)
    part = network(stem, 2, ("other", "bee"))
    part.load_state_dict(state)
    assert part(torch.randn(2, 3, *SIZE)).shape == (2, 2)
    width = list(units["width"])
    assert torch.equal(part.classify.weight[1], whole.classify.weight[1, width])
    torch.testing.assert_close(part.classify.weight[0], whole.classify.weight[[0, 2, 3]][:, width].mean(0))
    heads = units["heads.1"]
    rows_of_values = [2 * 192 + head * 64 + place for head in heads for place in range(64)]
    values = whole.blocks[1].attention.qkv.weight[rows_of_values][:, width]
    assert torch.equal(part.blocks[1].attention.qkv.weight[256:], values)


def test_a_channel_of_the_embedding_goes_wherever_it_runs() -> None:
    whole = network()
    counts = unit_counts(whole)
    units = {name: range(count) for name, count in counts.items()} | {"width": range(64, 192)}
    state = slice_state(whole, units, torch.eye(4))
    for name, tensor in whole.state_dict().items():
        cut = [have - left for have, left in zip(tensor.shape, state[name].shape, strict=True)]
        across = "qkv" in name or "widen" in name or "classify" in name
        if across and name.endswith("bias"):
            assert cut == [0]
        else:
            assert sum(cut) == 64 and (cut[1] == 64) == across if tensor.ndim == 2 else sum(cut) == 64, name


def test_importance_is_the_divergence_that_removal_causes() -> None:
    """To second order: half-way removed, a unit of small effect causes a quarter of it."""
    torch.manual_seed(1)
    whole = network(seed=3).double().eval()
    images = torch.randn(6, 3, *SIZE, dtype=torch.float64)
    found = importance(whole, images, batch=4)
    assert {name: len(values) for name, values in found.items()} == unit_counts(whole)
    with torch.no_grad():
        before = whole(images).log_softmax(1)
        for name, unit in (("width", 5), ("heads.0", 1), ("hidden.1", 100)):
            factors = {group: torch.ones(6, count, dtype=torch.float64) for group, count in unit_counts(whole).items()}
            factors[name][:, unit] = 1 - 0.01
            with multiplied(whole, factors):
                after = whole(images).log_softmax(1)
            divergence = F.kl_div(after, before, reduction="batchmean", log_target=True).item()
            assert divergence == pytest.approx(0.01**2 * found[name][unit].item(), rel=0.05)


def test_importance_ranks_as_removal_does() -> None:
    whole = network(seed=2).eval()
    images = torch.randn(8, 3, *SIZE)
    found = importance(whole, images)["hidden.0"]
    exact = torch.zeros(40)
    with torch.no_grad():
        before = whole(images).log_softmax(1)
        for unit in range(40):
            factors = {group: torch.ones(8, count) for group, count in unit_counts(whole).items()}
            factors["hidden.0"][:, unit] = 0
            with multiplied(whole, factors):
                after = whole(images).log_softmax(1)
            exact[unit] = F.kl_div(after, before, reduction="batchmean", log_target=True)
    ranks = torch.stack([values.argsort().argsort().float() for values in (found[:40], exact)])
    assert torch.corrcoef(ranks)[0, 1] > 0.9


def test_choices_are_sorted_and_ties_go_to_the_first() -> None:
    found = {"width": torch.tensor([1.0, 3.0, 1.0, 2.0])}
    assert choose_units(found, {"width": 3}) == {"width": [0, 1, 3]}
