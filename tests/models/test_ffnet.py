"""FFNet against the published counts, its head against its description, and the graphs of the forms that are rare."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from perception.models import count_macs, count_parameters, create_model, list_models, model_config  # noqa: E402
from perception.models.ffnet import ClassHead, FFNet, Gaussian, Seg, SegHead, classify, published  # noqa: E402
from perception.models.registry import find_encoder  # noqa: E402
from perception.models.resnet import ResNet  # noqa: E402
from perception.tasks.labels import CAMVID_LABELS, CITYSCAPES_LABELS, NYU_LABELS  # noqa: E402

LARGE, SMALL = (1024, 2048), (512, 1024)
COUNTS = {  # as published, of 19 classes: parameters, GMAC (None: not given), size of the image
    "86s_dbbb_mobile": (26_607_347, 104.4, LARGE),
    "78s_dbbb_mobile": (27_491_059, 96.0, LARGE),
    "54s_dbbb_mobile": (18_044_659, 75.7, LARGE),
    "40s_dbbb_mobile": (13_911_283, 62.4, LARGE),
    "150s_bbb_mobile": (48_006_259, 157.9, SMALL),
    "86s_bbb_mobile": (26_603_123, 102.1, SMALL),
    "78s_bbb_mobile": (27_486_835, 93.8, SMALL),
    "54s_bbb_mobile": (18_040_435, 73.4, SMALL),
    "40s_bbb_mobile": (13_907_059, 60.1, SMALL),
    "30s_bbb_mobile": (10_364_531, None, SMALL),
    "22s_bbb_mobile": (7_486_323, None, SMALL),
    "150s_bcc_mobile": (47_347_859, 143.8, SMALL),
    "86s_bcc_mobile": (25_944_723, 88.0, SMALL),
    "78s_bcc_mobile": (26_828_435, 79.6, SMALL),
    "54s_bcc_mobile": (17_382_035, 59.2, SMALL),
    "40s_bcc_mobile": (13_248_659, 45.9, SMALL),
    "30s_bcc_mobile": (9_706_131, 37.4, SMALL),
    "22s_bcc_mobile": (6_827_923, 30.3, SMALL),
    "122ns_cbb_mobile": (32_815_891, 65.1, SMALL),
    "74ns_cbb_mobile": (23_956_243, 50.6, SMALL),
    "46ns_cbb_mobile": (13_181_203, 42.2, SMALL),
    "122ns_ccc_mobile": (32_165_683, 51.0, SMALL),
    "74ns_ccc_mobile": (23_306_035, 36.5, SMALL),
    "46ns_ccc_mobile": (12_530_995, 28.0, SMALL),
    "101_aaa": (47_545_171, 664, LARGE),
    "50_aaa": (28_553_043, 509, LARGE),
    "150_aaa": (98_843_475, 1045, LARGE),
    "134_aaa": (98_251_603, 968, LARGE),
    "86_aaa": (53_987_155, 736, LARGE),
    "56_aaa": (33_624_915, 591, LARGE),
    "34_aaa": (25_285_203, 485, LARGE),
    "150_abb": (96_108_435, None, LARGE),
    "86_abb": (51_252_115, 511, LARGE),
    "56_abb": (30_889_875, None, LARGE),
    "34_abb": (22_550_163, None, LARGE),
    "150s_bbb": (48_006_259, None, LARGE),
    "86s_bbb": (26_603_123, 408.5, LARGE),
    "122n_cbb": (51_393_555, 367.5, LARGE),
    "74n_cbb": (37_148_179, 263.7, LARGE),
    "46n_cbb": (20_214_035, 207.5, LARGE),
    "101_daaa": (47_545_171, None, LARGE),
    "50_daaa": (28_553_043, None, LARGE),
    "150_daaa": (98_847_699, None, LARGE),
    "134_daaa": (98_255_827, None, LARGE),
    "86_daaa": (53_991_379, None, LARGE),
    "56_daaa": (33_629_139, None, LARGE),
    "34_daaa": (25_289_427, None, LARGE),
    "18_daaa": (15_181_267, 105.7, LARGE),
    "150_daac": (97_069_779, None, LARGE),
    "86_daac": (52_213_459, None, LARGE),
    "34_daac": (23_511_507, 66.8, LARGE),
    "18_daac": (13_403_347, 47.5, LARGE),
    "150s_dbbb": (48_010_483, 160.2, LARGE),
    "86s_dbbb": (26_607_347, 104.4, LARGE),
}

CLASSIFIERS = {  # of 1000 classes, as counted in the authors' repository
    "150s_bbx_mobile": 58_918_088,
    "86s_bbx_mobile": 37_514_952,
    "78s_bbx_mobile": 38_398_664,
    "54s_bbx_mobile": 28_952_264,
    "40s_bbx_mobile": 24_818_888,
    "122ns_cbx_mobile": 43_727_720,
    "74ns_cbx_mobile": 34_868_072,
    "46ns_cbx_mobile": 24_093_032,
    "122n_cbx": 62_305_384,
    "74n_cbx": 48_060_008,
    "46n_cbx": 31_125_864,
    "150_aax": 108_255_400,
    "134_aax": 107_663_528,
    "101_aax": 56_957_096,
    "86_aax": 63_399_080,
    "56_aax": 43_036_840,
    "50_aax": 37_964_968,
    "34_aax": 34_697_128,
    "18_aax": 24_588_968,
    "150s_bbx": 58_918_088,
    "86s_bbx": 37_514_952,
}


def on_meta(name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network without its numbers, and without BatchNorm, which changes no shape and takes most of the time."""
    monkeypatch.setattr(nn.init, "normal_", lambda tensor, *_: tensor)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda _, x: x)
    with torch.device("meta"):
        return published(name)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, gmac, size = COUNTS[name]
    model = on_meta(name, monkeypatch)
    assert count_parameters(model) == parameters
    assert gmac is None or count_macs(model, size) / 1e9 == pytest.approx(gmac, abs=0.51 if gmac > 408.5 else 0.051)


@pytest.mark.parametrize(
    ("name", "size", "logits"),
    [
        ("40s_dbbb_mobile", LARGE, (128, 256)),
        ("40s_bcc_mobile", SMALL, (128, 256)),
        ("40s_bcc_mobile_pre_down", LARGE, (128, 256)),
        ("46ns_ccc_mobile", SMALL, (128, 256)),
        ("50_aaa", (256, 512), (64, 128)),
        ("18_daac", (360, 488), (45, 61)),
    ],
)
def test_sizes(name: str, size: tuple[int, int], logits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = on_meta(name, monkeypatch), torch.zeros(1, 3, *size, device="meta")
    assert model.train()(image).shape == (1, 19, *logits)
    outputs = model.eval()(image)
    assert [tuple(output.shape) for output in outputs] == [(1, *size)] * 2
    assert {output.dtype for output in outputs} == {torch.uint8}
    assert model.logits(image).shape == (1, 19, *logits)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = on_meta(name, monkeypatch), model_config(f"ffnet_{name}")
    assert count_parameters(model) == CLASSIFIERS[name]
    # Sizes that halve unevenly: the levels' sizes are rounded up, as those of what is halved between them are.
    for mode in (model.train(), model.eval()):
        assert mode(torch.zeros(2, 3, 90, 123, device="meta")).shape == (2, 1000)
    assert (config.task, config.input_size, len(config.labels)) == ("classification", (224, 224), 1000)
    assert [output.shape for output in config.outputs] == [(1, 1000)]


def test_a_class_head_adds_levels_from_the_finest_on() -> None:
    torch.manual_seed(0)
    head = ClassHead((8, 6, 4, 4), 5).eval()
    maps = [torch.randn(2, c, *size) for c, size in zip((8, 6, 4, 4), ((9, 14), (5, 7), (3, 4), (2, 2)), strict=True)]
    x = head.widen[0](maps[0])
    for level in (1, 2, 3):
        weight, bias = head.steps[level - 1][0].weight, head.steps[level - 1][0].bias
        norm = head.steps[level - 1][1]
        halved = F.relu(norm(F.conv2d(x, weight, bias, stride=2, padding=1)))
        x = head.widen[level](maps[level]) + halved
    mean = F.relu(head.last[1](head.last[0](x))).mean((2, 3))
    expected = mean @ head.classify.weight.T + head.classify.bias
    torch.testing.assert_close(head(maps), expected)
    assert [block.layers[0][0].weight.shape for block in head.widen] == [
        (32, 8, 1, 1), (64, 6, 1, 1), (128, 4, 1, 1), (256, 4, 1, 1)
    ]  # fmt: skip


def test_a_classifier_of_other_classes() -> None:
    model = create_model("ffnet_46ns_cbx_mobile", pretrained=False, labels=("wet", "dry"))
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert model.class_layers == [model.head.classify] and model.class_layers[0].out_features == 2


@pytest.mark.parametrize(
    "name", ["40s_abb", "46ns_bcc", "18_bbb", "41s_bbb", "40s_bbd", "40s_bbx_mobile_pre_down", "fastdepth"]
)
def test_what_is_no_ffnet(name: str) -> None:
    with pytest.raises(ValueError, match="no (FFNet|residual network) is called"):
        published(name)


def test_narrow_networks_have_no_deeper_form() -> None:
    with pytest.raises(ValueError, match="the narrow network 46ns has no deeper form"):
        published("46ns_dccc")


def test_the_form_with_a_gaussian_takes_the_weights_of_the_form_without() -> None:
    plain, down = published("22s_bcc_mobile"), published("22s_bcc_mobile_pre_down")
    assert plain.state_dict().keys() == down.state_dict().keys()
    assert count_parameters(plain) == count_parameters(down)


def test_the_gaussian_keeps_brightness_and_mirrors_rows() -> None:
    layer = Gaussian()
    assert torch.allclose(layer(torch.full((1, 3, 16, 32), 0.7)), torch.tensor(0.7), atol=1e-4)
    image = torch.rand(1, 3, 16, 32)
    taps = torch.tensor([0.009678, 0.205408, 0.569842, 0.205408, 0.009678])
    rows = torch.stack([image[..., row, :] for row in (1, 0, 1, 2, 3)], -1) @ taps  # around the first row that counts
    expected = torch.stack([rows[..., 2 * x : 2 * x + 5] @ taps for x in range(14)], -1)
    result = layer(image)
    assert result.shape == (1, 3, 7, 14) and torch.allclose(result[..., 0, :], expected, atol=1e-6)


def test_a_head_adds_from_the_coarsest_level_to_the_finest() -> None:
    """By hand, on a network whose sizes do not halve evenly."""
    model = create_model("ffnet_mobilenet_v2")
    image = torch.rand(1, 3, 72, 104)
    up, features = model.up, model.encoder(image)[-4:]
    assert [tuple(f.shape[-2:]) for f in features] == [(18, 26), (9, 13), (5, 7), (3, 4)]
    running = up.adapters[3](features[3])
    maps = [up.outputs[3](running)]
    for level in (2, 1, 0):
        step = F.interpolate(up.steps[level](running), size=features[level].shape[-2:], mode="nearest")
        running = up.adapters[level](features[level]) + step
        maps.insert(0, up.outputs[level](running))
    joined = torch.cat([F.interpolate(x, size=(18, 26), mode="nearest") for x in maps], 1)
    assert torch.allclose(model.logits(image), model.seg(joined), atol=1e-6)


def test_large_heads_interpolate_with_corners_aligned() -> None:
    model = published("18_daac").eval()
    features = model.encoder(torch.rand(1, 3, 128, 192))
    kinds: list[dict] = []
    original, F.interpolate = F.interpolate, lambda x, **options: (kinds.append(options), original(x, **options))[1]
    try:
        model.up(features)
    finally:
        F.interpolate = original
    assert len(kinds) == 7 and all(kind["mode"] == "bilinear" and kind["align_corners"] for kind in kinds)


def test_masks_are_the_largest_logits_and_their_softmax() -> None:
    torch.manual_seed(0)
    logits = F.interpolate(3 * torch.randn(2, 7, 5, 6), size=(20, 24), mode="bicubic")
    mask, confidence = classify(logits, (80, 96))
    assert mask.shape == confidence.shape == (2, 80, 96) and mask.dtype == confidence.dtype == torch.uint8
    exact = F.interpolate(logits, size=(80, 96), mode="bilinear")
    assert (mask == exact.argmax(1)).float().mean() > 0.94  # borders are drawn in steps of two pixels
    half = F.interpolate(logits, size=(40, 48), mode="bilinear").softmax(1)
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        chosen = mask[:, row::2, column::2].long()[:, None]
        probability = half.gather(1, chosen)[:, 0]
        assert (confidence[:, row::2, column::2].float() - 255 * probability).abs().max() <= 0.51
    sides = torch.tensor([[50.0, 0.0], [0.0, 50.0]]).repeat_interleave(4, 1)[None, :, None].expand(1, 2, 8, 8)
    mask, confidence = classify(sides, (32, 32))
    assert confidence[0, 16].min() == 255, "so sure that the border falls between two pixels"
    mask, confidence = classify(sides / 10, (32, 32))
    assert confidence[0, 16, 15:17].max() < 240 < confidence[0, 16, :8].min(), "less sure at a border than beside it"
    one = torch.zeros(1, 3, 4, 4)
    one[:, 1] = 100.0
    mask, confidence = classify(one, (16, 16))
    assert (mask == 1).all() and (confidence == 255).all()


@pytest.mark.parametrize(
    ("name", "budget"),
    [("ffnet_mobilenet_v2", 2e9), ("ffnet_efficientnet_lite0", 2.1e9)],
)
def test_small_networks_stay_within_the_budget(name: str, budget: float) -> None:
    model = create_model(name, pretrained=False, labels=NYU_LABELS)
    assert model_config(name).input_size == (360, 480)
    assert count_macs(model, (360, 480)) <= budget
    assert model.class_layers[0].out_channels == 39 * 4
    config = model_config(name, labels=NYU_LABELS)
    assert config.labels == NYU_LABELS and config.outputs[0].shape == (1, 360, 480)


def test_the_small_road_network_stays_within_the_budget_at_its_own_size() -> None:
    config = model_config("ffnet_mobilenet_v2_road")
    assert config.labels == CAMVID_LABELS and config.input_size >= (360, 480)
    assert count_macs(create_model(config.name, pretrained=False, labels=config.labels), config.input_size) <= 2e9


def test_a_larger_network_has_heads_of_published_widths() -> None:
    model = create_model("ffnet_efficientnet_lite2", pretrained=False, labels=NYU_LABELS)
    assert count_macs(model, (360, 480)) <= 6.2e9 and model.class_layers[0].in_channels == 128
    assert model_config("ffnet_efficientnet_lite2").std == model_config("ffnet_efficientnet_lite0").std


def test_any_encoder_carries_the_head() -> None:
    for name in ("mobilenet_v1", "mobiledet_cpu"):
        model = FFNet(find_encoder(name).build(), "small", "small", 5, fine=2).eval()
        assert model.logits(torch.rand(1, 3, 64, 96)).shape == (1, 5, 32, 48)


def test_sub_pixels_are_told_apart_once_they_have_learned_to() -> None:
    head = SegHead(4, Seg(8, 1), 3, fine=2).eval()
    features = torch.rand(1, 4, 5, 6)
    logits = head(features)
    assert logits.shape == (1, 3, 10, 12)
    for rows, columns in ((0, 1), (1, 0), (1, 1)):
        assert torch.equal(logits[..., rows::2, columns::2], logits[..., ::2, ::2]), "alike at first"
    with torch.no_grad():
        head[3].bias[4 + 3] += 5.0  # the last sub-pixel of the second class
    changed = head(features) - logits
    expected = torch.zeros(1, 3, 10, 12)
    expected[:, 1, 1::2, 1::2] = 5.0
    assert torch.allclose(changed, expected, atol=1e-4)


def test_logits_at_half_the_resolution_are_taken_as_they_are() -> None:
    logits = torch.randn(1, 4, 8, 10)
    mask, _ = classify(logits, (16, 20))
    assert torch.equal(mask[:, ::2, ::2].long(), logits.argmax(1))


def test_deeper_encoders_have_coarser_features() -> None:
    image = torch.rand(1, 3, 128, 128)
    assert [f.shape[-1] for f in ResNet("18").eval()(image)] == [32, 16, 8, 4]
    assert [f.shape[-1] for f in ResNet("22s", deeper=True).eval()(image)] == [16, 8, 4, 2]
    assert [f.shape[1] for f in ResNet("50").eval()(image)] == [256, 512, 1024, 2048] == list(ResNet("50").channels)


@pytest.mark.parametrize("name", COUNTS)
def test_every_published_network_is_found_by_its_name(name: str) -> None:
    config = model_config(f"ffnet_{name}")
    assert config.input_size == COUNTS[name][2] and config.labels == CITYSCAPES_LABELS
    if config.input_size == SMALL:
        assert model_config(f"ffnet_{name}_pre_down").input_size == LARGE


def test_few_stand_for_the_others_in_lists() -> None:
    listed = set(list_models("segmentation"))
    small = {"mobilenet_v2", "efficientnet_lite0", "efficientnet_lite2"}
    trained = {"mobilenet_v2_indoor", "mobilenet_v2_road", "mobilenet_v2_road_large"}
    assert listed == {f"ffnet_{name}" for name in (*small, *trained, "22s_bcc_mobile", "46ns_ccc_mobile")}
