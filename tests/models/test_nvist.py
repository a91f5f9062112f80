"""NViST: the published numbers, what the parts of the network do, and the compact one as two engines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from safetensors.torch import save_file  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from perception import engines  # noqa: E402
from perception.engines.graph import to_bytes  # noqa: E402
from perception.engines.source import complete, open_source  # noqa: E402
from perception.engines.trt_support import check_precisions  # noqa: E402
from perception.models import count_macs, count_parameters, create_model, model_config  # noqa: E402
from perception.models.nvist import NViST  # noqa: E402
from perception.models.rendering import Canvas, Refiner, largest  # noqa: E402
from perception.tasks.geometry import Camera  # noqa: E402
from perception.tasks.view_synthesis import lens_numbers, typical_inputs  # noqa: E402

SIZE = (32, 32)
SMALL = {
    "patch": 8, "heads": 1, "encoder_depth": 1, "decoder_depth": 2, "grid": 3, "piece": 2, "width": 8, "samples": 8,
    "looks": 3,
}  # fmt: skip
EVERYTHING = {"depth": True, "instances": True, "mask": True}


def small(**options: object) -> NViST:
    torch.manual_seed(0)
    model = create_model("nvist_compact", False, SIZE, **SMALL | options)
    assert isinstance(model, NViST)
    return model


def inputs(**options: object) -> list[torch.Tensor]:
    """An image, and what goes in beside it."""
    config = model_config("nvist_compact", SIZE, **SMALL | options)
    torch.manual_seed(1)
    return [torch.randn(1, 3, *SIZE), *map(torch.from_numpy, typical_inputs(config, 0).values())]


def macs_of_parts(name: str) -> list[float]:
    config = model_config(name)
    with torch.device("meta"):
        model, found = create_model(name, pretrained=False), []
        for part in config.parts:
            tensors = config.of_part(part.name).inputs
            shapes = [(1, 3, *config.input_size) if tensor.name == "image" else tensor.shape for tensor in tensors]
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                getattr(model, part.name)(*map(torch.zeros, shapes))
            found.append(counter.get_total_flops() / 2e9)
    assert sum(found) == pytest.approx(count_macs(model, config.input_size, config.more_inputs) / 1e9)
    return found


def test_the_published_network() -> None:
    """Its renderer multiplies a direction once a ray, not once a sample as the published one: 7.34 G less 1.13 G."""
    with torch.device("meta"):
        model = create_model("nvist", pretrained=False)
    assert count_parameters(model.encoder) == 85_558_272
    assert count_parameters(model.decoder) == 130_141_824
    assert sum(x.numel() for x in model.decoder.parameters() if x.requires_grad) == 129_514_368
    assert {count_parameters(block) for block in model.decoder.blocks} == {10_631_424}
    assert count_parameters(model.renderer) == 10_755
    field, view = macs_of_parts("nvist")
    assert field == pytest.approx(55.1 + 67.9 + 10.5, abs=0.15)
    rays, samples = 160 * 90, 48
    compositing = samples * samples + samples  # light that gets through, and depth, as products of matrices
    assert view * 1e9 == pytest.approx(rays * (samples * 10_624 - (samples - 1) * 27 * 64 + compositing), rel=1e-4)


def test_the_compact_one_is_small() -> None:
    with torch.device("meta"):
        model = create_model("nvist_compact", pretrained=False, **EVERYTHING)
    assert count_parameters(model) <= 6_000_000
    field, view = macs_of_parts("nvist_compact")
    assert field < 2 and view < 0.5


def test_a_view_has_what_the_configuration_says() -> None:
    for options in ({}, {"depth": True}, {"instances": True, "refines": False, "stride": 1}, EVERYTHING):
        config = model_config("nvist_compact", SIZE, **SMALL | options)
        outputs = small(**options)(*inputs(**options))
        assert [tuple(tensor.shape) for tensor in outputs] == [output.shape for output in config.outputs]
    assert [output.name for output in config.outputs] == ["planes", "lines", "surface", "view", "depth", "mask"]
    view, depth, mask = outputs[3:]
    assert view.min() >= 0 and view.max() <= 1 and mask.min() >= 0 and mask.max() <= 1
    assert (depth > 0).all()


def test_structures_mean_nothing_at_the_start_and_are_learned() -> None:
    model, (image, *given) = small(**EVERYTHING), inputs(**EVERYTHING)
    camera, depth, instances = given[:3]
    planes, lines, surface = model.field(image, camera, depth, instances)
    other = model.field(image, camera, depth * 0, instances * 0)
    torch.testing.assert_close(planes, other[0], rtol=0, atol=0)
    torch.testing.assert_close(surface, other[2], rtol=0, atol=0)
    (planes.square().mean() + lines.square().mean()).backward()
    slope = model.encoder.structure.weight.grad
    assert slope[:, 0].any() and slope[:, 1].any()
    with torch.no_grad():
        model.encoder.structure.weight.normal_()
        known = model.field(image, camera, depth, instances)[0]
        assert not torch.allclose(known, model.field(image, camera, depth, instances * 0)[0])
        assert torch.isfinite(model.field(image, camera, depth * 0, instances)[0]).all(), "0: unknown"


def test_distance_and_focal_length_change_the_field() -> None:
    model, (image, camera, *_) = small(), inputs()
    with torch.no_grad():
        before = model.field(image, camera)[0]
        for place, matters in ((4, True), (1, True), (0, False)):
            other = camera.clone()
            other[0, place] *= 1.5
            assert torch.equal(model.field(image, other)[0], before) != matters


def test_pieces_lie_side_by_side() -> None:
    decoder = small().decoder
    pieces = torch.arange(9 * 2 * 2 * 5.0).reshape(1, 9, 20)  # of 2 x 2 pixels of 5 channels
    plane = decoder.lay(pieces)
    assert plane.shape == (1, 5, 6, 6) and plane[0, :, 3, 4].tolist() == pieces[0, 5].reshape(2, 2, 5)[1, 0].tolist()
    line = decoder.lay(torch.arange(3 * 2 * 5.0).reshape(1, 3, 10))
    assert line.shape == (1, 5, 6, 1) and line[0, 0, :, 0].tolist() == [0, 5, 10, 15, 20, 25]


def test_the_input_s_pixels_are_where_the_depth_says() -> None:
    """All of them from the input camera itself; moved by a whole number of pixels from aside."""
    model = small()
    camera = Camera(32, 32, 32.0, 32.0, 15.5, 15.5)
    image, depth = torch.randn(1, 3, *SIZE), torch.full((1, 1, *SIZE), 2.0)
    lens, pose = torch.from_numpy(lens_numbers(camera, 2.0)), torch.eye(4)[None]
    shown = image * model.std + model.mean

    def seen() -> torch.Tensor:
        rays = model.canvas.pixels(pose, lens[:, :4])
        return model.pixels_along(rays, image, depth.flatten(2), lens).unflatten(2, SIZE)

    torch.testing.assert_close(seen(), shown, rtol=1e-3, atol=1e-3)
    pose[0, 0, 3] = 4 * 2.0 / 32
    moved = seen()
    torch.testing.assert_close(moved[..., :-4], shown[..., 4:], rtol=1e-3, atol=1e-3)


def test_a_window_of_a_view_is_the_view_of_a_smaller_camera() -> None:
    """What training draws is what a robot sees of it."""
    model, (image, camera, pose, target) = small(refines=False), inputs()
    lens = target[0].tolist()
    part = torch.tensor([[2 * lens[0], 2 * lens[1], 2 * lens[2] - 1, 2 * lens[3]]])  # top, right
    with torch.no_grad():
        field = model.field(image, camera)
        whole = model.draw(model.canvas, *field, camera, pose, target)
        window = model.draw(Canvas((16, 16), 2), *field, camera, pose, part)
    rays = whole.rendered.values.unflatten(2, (16, 16))[..., :8, 8:].flatten(2)
    torch.testing.assert_close(window.rendered.values, rays, rtol=1e-4, atol=1e-5)
    assert window.view.shape == (1, 3, 16, 16)


def test_colour_is_that_of_the_samples_that_count_most() -> None:
    shares, places = largest(torch.tensor([[[0.1], [0.5], [0.1], [0.3]]]), 2)
    torch.testing.assert_close(shares, torch.tensor([[[0.4], [0.2]]]) / 0.6)
    assert places.tolist() == [[[1], [3]]]
    tied = largest(torch.tensor([[[0.3], [0.3], [0.4]]]), 2)[0]
    torch.testing.assert_close(tied, torch.tensor([[[1.0], [0.0]]]))
    given = inputs(refines=False)
    some, every = (small(refines=False, looks=looks)(*given)[-2:] for looks in (3, 0))
    assert torch.equal(some[1], every[1]), "depth is that of all"
    assert 1e-6 < (some[0] - every[0]).abs().mean() < 0.05


def test_a_refined_view_is_half_rendered_and_half_seen_at_first() -> None:
    refiner = small().refiner
    assert isinstance(refiner, Refiner)
    values, pixels = torch.rand(1, 11, 8, 8), torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(refiner(values, pixels), (values[:, :3] + pixels) / 2)


def test_both_parts_are_engines(tmp_path: Path) -> None:
    """Of weights that training wrote, on frames of the shipped clip, with parity; and TensorRT takes every operator."""
    model = small(**EVERYTHING)
    torch.nn.init.normal_(model.encoder.structure.weight, std=0.05)
    torch.nn.init.normal_(model.refiner.last.weight, std=0.05)
    path, directory = tmp_path / "mine.safetensors", tmp_path / "engines"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    entry = {"weights": path.name, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    entry |= {"input_size": SIZE, "options": SMALL | EVERYTHING}
    path.with_suffix(".json").write_text(json.dumps({"nvist_compact": entry}))
    source, file = open_source(str(path)), tmp_path / "mine.onnx"
    file.write_bytes(to_bytes(source.plain()))
    frame = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    for part, target in (("field", "openvino"), ("view", "onnxruntime")):
        assert check_precisions(open_source(str(file), part=part)) == {"fp32": [], "fp16": [], "int8": []}
        for precision in ("fp32", "fp16"):
            engines.build(str(file), target, precision, directory=directory, part=part)
        definition = source.of_part(part)
        [given] = complete(definition, [frame])
        expected = next(iter(definition.reference([given])))
        with engines.load(str(file), target, "fp32", directory=directory, part=part) as engine:
            for name, array in engine.run(given).items():
                np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-4)


def test_a_surface_is_where_rays_end() -> None:
    """A wall that stands askew, of a field that says nothing: seen from its camera and from aside."""
    model, (_, camera, *_), pose = small(refines=False, samples=32), inputs(), torch.eye(4)[None]
    model.renderer.eval()
    rows = torch.linspace(0.2, 1.2, 16)[:, None].expand(16, 16)  # 1 / m, from top to bottom
    surface = torch.stack([rows, torch.full((16, 16), 9.0)])[None]
    nothing = [torch.zeros(1, 3, 16, side, 1 if flat else side) for side, flat in ((6, False), (6, True))]
    lens = camera[:, :4]
    depth = model.draw(model.canvas, *nothing, surface, camera, pose, lens).rendered.depth.reshape(16, 16)
    torch.testing.assert_close(depth, 1 / rows, rtol=0.06, atol=0)
    flat = surface.clone()
    flat[:, 0] = 0.5  # 2 m
    pose[0, 2, 3] = 0.5
    nearer = model.draw(model.canvas, *nothing, flat, camera, pose, lens).rendered
    torch.testing.assert_close(nearer.depth, torch.full_like(nearer.depth, 1.5), rtol=0.1, atol=0)
    assert (nearer.weights.sum(1) > 0.99).all()
    close = flat.clone()
    close[:, 0] = 5.0  # 0.2 m, before rays begin at 0.5
    assert (model.draw(model.canvas, *nothing, close, camera, torch.eye(4)[None], lens).rendered.depth < 0.6).all()
    clear = flat.clone()
    clear[:, 1] = -9  # holds nothing back
    assert (model.draw(model.canvas, *nothing, clear, camera, pose, lens).rendered.depth > 5).all()


def test_a_surface_is_told_depth_and_learns_from_what_is_seen() -> None:
    model, (image, camera, depth, *_) = small(depth=True), inputs(depth=True)
    surface = model.field(image, camera, depth)[2]
    assert surface.shape == (1, 2, 16, 16) and (surface[:, 0] > 0).all()
    assert torch.equal(surface, model.field(image, camera, depth * 2)[2]), "it means nothing at the start"
    longer = camera.clone()
    longer[0, 1] *= 2
    torch.testing.assert_close(model.field(image, longer, depth)[2][:, 0], surface[:, 0] / 2)
    view, _ = model.view(image, *model.field(image, camera, depth), camera, *map(torch.from_numpy, target_of()))
    view.mean().backward()
    assert model.surface.mix[1][0].weight.grad[:, -1].any(), "what is told gets its share"
    assert model.encoder.embed.encoder.features[0][0].weight.grad.any()


def target_of() -> list[np.ndarray]:
    given = typical_inputs(model_config("nvist_compact", SIZE, **SMALL), 1)
    return [given["pose"], given["target"]]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"convolutions": ""}, "surface needs `convolutions`"),
        ({"patch": 16}, "patch is 16; patches of convolutions are 8 pixels wide"),
        ({"convolutions": "resnet"}, "unknown encoder 'resnet'"),
    ],
)
def test_surfaces_that_nothing_tells_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("nvist_compact", False, SIZE, **SMALL | options)
