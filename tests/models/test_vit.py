"""Vision transformers and their slices: parameters, multiply-accumulates, and what their parts compute."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from torch.nn import functional as F  # noqa: E402

from perception.models import count_macs, count_parameters, create_model, list_models, model_config  # noqa: E402
from perception.models.vit import HEAD, Attention, Block, FusedViT, ViT  # noqa: E402
from perception.tasks.labels import CIFAR10_LABELS  # noqa: E402

SIZE = (224, 224)
SLICES = {
    1: (2.53, 0.185), 2: (9.55, 0.603), 3: (21.08, 1.253), 4: (37.11, 2.136), 5: (57.64, 3.251), 6: (82.66, 4.599),
    8: (146.22, 7.990), 10: (227.77, 12.312), 12: (327.33, 17.563),
}  # fmt: skip
"""Of ViT-B/16 with 10 classes: kept heads to MiB in float32 and GMAC."""
PARAMETERS = {("vit_base", 12): 85_806_346, ("vit_base", 2): 2_504_586, ("vit_small", 6): 21_669_514}


def on_meta(name: str, **options: object) -> ViT:
    with torch.device("meta"):
        model = create_model(name, pretrained=False, **options)
    assert isinstance(model, ViT)
    return model


def macs(width: int, depth: int = 12, tokens: int = 197, patch: int = 16, classes: int = 10) -> int:
    """As families.md 6.3 has it, less what nobody asks of the last block."""
    blocks = depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
    return blocks - unasked(width, tokens) + (tokens - 1) * 3 * patch**2 * width + classes * width


def unasked(width: int, tokens: int = 197) -> int:
    """What the last block would do beyond keys and values with all tokens but the class's."""
    return (tokens - 1) * (9 * width**2 + 2 * tokens * width)


@pytest.mark.parametrize("heads", SLICES)
def test_slices_of_the_base(heads: int) -> None:
    model = on_meta("vit_base", heads=heads)
    mebibytes, giga = SLICES[heads]
    assert count_parameters(model) * 4 / 2**20 == pytest.approx(mebibytes, abs=0.005)
    counted = count_macs(model, SIZE)
    assert counted == macs(HEAD * heads)
    assert (counted + unasked(HEAD * heads)) / 1e9 == pytest.approx(giga, abs=0.0005), "as published"


@pytest.mark.parametrize(("name", "heads"), PARAMETERS)
def test_parameters(name: str, heads: int) -> None:
    assert count_parameters(on_meta(name, heads=heads)) == PARAMETERS[name, heads]


def test_a_slice_is_the_smaller_network() -> None:
    """What is left of the base with three heads is a tiny one."""
    tiny, part = on_meta("vit_tiny").state_dict(), on_meta("vit_base", heads=3).state_dict()
    assert {key: value.shape for key, value in tiny.items()} == {key: value.shape for key, value in part.items()}
    assert count_macs(on_meta("vit_tiny"), SIZE) == macs(192)


def test_small_images() -> None:
    size, options = (32, 32), {"patch": 4, "depth": 6}
    model = on_meta("vit_small", input_size=size, **options)
    assert count_macs(model, size) == macs(384, 6, 65, 4)
    config = model_config("vit_small", size, **options)
    assert config.size_divisor == 4 and config.outputs[0].shape == (1, 10)
    with pytest.raises(ValueError, match="30x32.*multiples of 4"):
        model_config("vit_small", (30, 32), **options)


def test_the_compact_network_and_its_slices() -> None:
    """One head of six is cut small enough for ten devices: 28 times fewer parameters, 25 times less arithmetic."""
    whole, part = on_meta("vit_compact"), on_meta("vit_compact", heads=1, classifies=False)
    assert (whole.blocks[0].attention.heads, whole.blocks[0].attention.channels) == (6, 32)
    layers = [layer for layer in whole.embed.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [32, 64, 64, 128, 192, 192]
    assert whole.embed(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 192, 8, 8)
    assert model_config("vit_compact").input_size == (32, 32)
    assert model_config("vit_compact", heads=2, classifies=False).outputs[0].shape == (1, 64)
    images = torch.zeros(2, 3, 32, 32, device="meta")
    assert whole(images).shape == (2, 10) and part(images).shape == (2, 32)
    assert count_parameters(whole) > 28 * count_parameters(part)
    assert count_macs(whole, (32, 32)) > 25 * count_macs(part, (32, 32))


def test_convolutions_see_beyond_a_patch() -> None:
    size = (16, 16)
    torch.manual_seed(0)
    model = create_model("vit_tiny", False, size, heads=1, patch=4, depth=1, stem="convolutions")
    channels = [layer.out_channels for layer in model.embed.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert channels == [32, 64, 64] and model.embed(torch.zeros(1, 3, *size)).shape == (1, 64, 4, 4)
    image = torch.rand(1, 3, *size, requires_grad=True)
    model.embed(image)[0, :, 1, 1].sum().backward()
    seen = image.grad[0].abs().sum(0).nonzero().flatten().unique().tolist()
    assert seen == list(range(1, 8)), "a patch is 4 to 7"
    assert count_macs(model, size) == macs(64, 1, 17, 4) - 16 * 48 * 64 + 27 * 32 * 64 + 9 * 32 * 64 * 16 + 64 * 64 * 16


def test_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    layer, x = Attention(96, 2).eval(), torch.randn(3, 7, 96)
    q, k, v = layer.qkv(x).reshape(3, 7, 3, 2, 48).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(x, 7), layer.mix(seen), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x, 2), layer.mix(seen)[:, :2], rtol=1e-4, atol=1e-5)


def test_the_last_block_gives_the_class_token_that_it_would_give_with_all() -> None:
    torch.manual_seed(0)
    last = Block(64, 1, 0.0, last=True).eval()
    whole, x = Block(64, 1, 0.0).eval(), torch.randn(2, 5, 64)
    whole.load_state_dict(last.state_dict())
    assert last(x).shape == (2, 1, 64)
    torch.testing.assert_close(last(x), whole(x)[:, :1])
    assert [block.last for block in on_meta("vit_tiny").blocks] == [False] * 11 + [True]


def test_a_worker_gives_the_features_that_its_classes_are_told_by() -> None:
    options = {"heads": 2, "depth": 2, "labels": ("cat", "dog", "eel")}
    torch.manual_seed(0)
    whole = create_model("vit_small", False, (32, 32), **options)
    worker = create_model("vit_small", False, (32, 32), **options, classifies=False)
    worker.load_state_dict({key: value for key, value in whole.state_dict().items() if "classify" not in key})
    image = torch.randn(2, 3, 32, 32)
    features = worker(image)
    torch.testing.assert_close(features, whole.features(image))
    torch.testing.assert_close(whole.classify(features), whole(image))
    config = model_config("vit_small", (32, 32), **options, classifies=False)
    assert [(output.name, output.shape) for output in config.outputs] == [("features", (1, 128))]
    assert model_config("vit_small", **options).labels == ("cat", "dog", "eel")
    mean, deviation = features.mean(1), features.std(1, unbiased=False)
    torch.testing.assert_close(mean, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(2), atol=1e-2, rtol=0)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="7 heads of 'vit_small' are not possible; accepted: 1 to 6"):
        on_meta("vit_small", heads=7)
    with pytest.raises(ValueError, match="patch is 8; .* accepted: 4 for more convolutions"):
        on_meta("vit_small", input_size=(32, 32), patch=8, stem="more convolutions")
    with pytest.raises(ValueError, match="stem 'hybrid' is unknown; accepted: patches, convolutions"):
        on_meta("vit_small", stem="hybrid")
    with pytest.raises(ValueError, match="patch is 6; convolutions halve an image"):
        on_meta("vit_small", input_size=(36, 36), patch=6, stem="convolutions")


def test_one_stands_for_all_in_lists() -> None:
    assert list_models("classification") == ["vit_compact", "vit_small"]
    assert model_config("vit_base").labels == CIFAR10_LABELS and model_config("vit_tiny").input_size == SIZE


def fused(**options: object) -> FusedViT:
    """Three small workers of one, two and one heads."""
    torch.manual_seed(0)
    shared = {"patch": 8, "depth": 1, "classifies": False}
    workers = [create_model("vit_tiny", False, (16, 16), heads=heads, **shared) for heads in (1, 2, 1)]
    return FusedViT(workers, 5, (32,), **options)


def test_features_are_fused_in_the_order_of_workers() -> None:
    model, image = fused().eval(), torch.randn(2, 3, 16, 16)
    features = torch.cat([worker(image) for worker in model.workers], 1)
    first, last = model.layers
    assert features.shape == (2, 256) and first.in_features == 256 and last.out_features == 5
    torch.testing.assert_close(model(image), last(F.relu(first(features))))


def test_in_training_some_workers_are_missing() -> None:
    model = fused(missing=0.6).train()
    there = model._there(4000, torch.device("cpu"))
    lacking = 3 - there.sum(1)
    assert lacking.unique().tolist() == [0, 1, 2] and (lacking > 0).float().mean() == pytest.approx(0.6, abs=0.03)
    assert (~there).float().mean(0).tolist() == pytest.approx([0.3] * 3, abs=0.03), "each as often"
    seen: list[torch.Tensor] = []
    model.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.randn(40, 3, 16, 16))
    parts = seen[0].split([64, 128, 64], 1)
    zeros = torch.stack([(part == 0).all(1) for part in parts], 1)
    assert 0 < zeros.sum() < 60 and not zeros.all(1).any()
    many = FusedViT([*model.workers, *model.workers], 5, (8,), missing=0.5)
    counts = (6 - many._there(8000, torch.device("cpu")).sum(1)).bincount(minlength=7) / 8000
    assert counts.tolist() == pytest.approx([0.5, 0.22, 0.22, 0.02, 0.02, 0.02, 0], abs=0.02)
    one = FusedViT(list(model.workers)[:1], 5, (8,), missing=1.0)
    assert one._there(50, torch.device("cpu")).all(), "a worker that is alone is always there"


def test_workers_learn_with_the_fusion_network_or_stay() -> None:
    for tuned in (True, False):
        model = fused(tuned=tuned).train()
        model(torch.randn(2, 3, 16, 16)).sum().backward()
        learned = [parameter.grad is not None for parameter in model.workers.parameters()]
        assert all(learned) if tuned else not any(learned)
        assert all(worker.training == tuned for worker in model.workers) and model.fuse.training
