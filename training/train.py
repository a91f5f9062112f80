"""The training loop: resumable, with an exponential moving average of the weights.

The same recipe on the same device with as many threads gives the same weights, interrupted or not.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tensorboardX import SummaryWriter
from torch import nn
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.engines.store import write_atomically
from perception.evaluation.datasets import open_dataset
from perception.evaluation.frames import RGBDFrame
from perception.evaluation.harness import evaluate_depth
from perception.evaluation.rgbd_folder import RGBDFolder
from perception.models import create_model, model_config
from perception.tasks.config import ModelConfig
from perception.training import quantization
from perception.training.data import Mixture, Normalize, evened, prefetch
from perception.training.distillation import Distiller, RelativeFrames, RelativeTeacher
from perception.training.losses import lens_loss, log_depth_loss, squared_loss
from perception.training.narrowing import narrow
from perception.training.norms import fix_norms, fixed_norms
from perception.training.recipe import Recipe
from perception.training.start import start_encoder

LOGGED = 100
"""Steps between two lines of the log, each of which goes with a checkpoint."""


def train(recipe: Recipe, data: Path, out: Path, device: str = "cpu") -> Path:
    """Run a recipe, or what is left of it if `out` holds its checkpoint.

    Args:
        data: the folder to which the recipe's paths are relative.
        out: gets checkpoint.pt, log.jsonl, events for TensorBoard and, at the end, NAME.safetensors (fp16) and
            NAME.json, an entry for models/weights/weights.json.
        device: of torch. On a GPU, arithmetic is bfloat16 where autocast allows.

    Returns:
        The weights file.

    Raises:
        ValueError: a device that is not there, data or weights that the recipe names and that do not fit, or the
            checkpoint of another recipe in `out`.
    """
    open_dataset(data / recipe.evaluate, "eval")  # better refused now than after hours
    _check_device(device)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.deterministic = True
    mixture = _mixture(recipe, data, out)
    model = _started(recipe, mixture, data).to(device)
    if recipe.pruning:
        model = narrow(model, recipe, mixture, out)
    run = Run(recipe, model, mixture, device)
    first = run.resume(out / "checkpoint.pt")
    batches = prefetch(_batches(recipe, mixture, first))
    progress = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc=recipe.name)
    losses = []
    with SummaryWriter(str(out)) as board, (out / "log.jsonl").open("a") as log:
        for step, (images, depths) in zip(progress, batches, strict=True):
            losses.append(run.step(step, images, depths))
            if (step + 1) % LOGGED == 0 or step + 1 == recipe.steps:
                line = {"loss": float(np.mean(losses[-LOGGED:])), "rate": rate_at(recipe, step)}
                progress.set_postfix(loss=f"{line['loss']:.3f}")
                log.write(json.dumps({"step": step + 1} | line) + "\n")
                log.flush()
                for name, value in line.items():
                    board.add_scalar(name, value, step + 1)
                run.save(out / "checkpoint.pt", step + 1)
    if recipe.quantization:
        quantization.finish(run.average)
    return _finish(recipe, run.average.to("cpu"), data, out)


class Run:
    """Everything of a run that changes from step to step: the model, its average, the distiller, the optimiser."""

    PARTS = ("model", "average", "distiller", "optimizer")

    def __init__(self, recipe: Recipe, model: nn.Module, mixture: Mixture, device: str) -> None:
        self.recipe, self.device = recipe, device
        self.normalize = Normalize(model_config(recipe.model)).to(device)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.quantization:
            quantization.prepare(self.model, self.normalize(_sample(recipe, mixture, recipe.stages[0].size).to(device)))
        self.frozen = _first_layers(self.model, recipe.frozen_layers).requires_grad_(False)
        self.average = copy.deepcopy(self.model)
        self.distiller = Distiller(self.model, recipe.distillation, recipe.focal).to(device)
        self.optimizer = _optimizer(self.model, self.distiller, recipe)

    def step(self, step: int, images: torch.Tensor, depths: torch.Tensor) -> float:
        """One step on images (N, 3, H, W) in [0, 1] and depths (N, 1, H, W) in canonical metres; the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate_at(self.recipe, step)
        self.model.train()
        self.frozen.eval()
        if step < self.recipe.frozen_norms:
            fix_norms(self.model if self.recipe.weights else self.model.encoder)  # type: ignore[arg-type]
        images = images.to(self.device, memory_format=torch.channels_last)
        depths = depths.to(self.device)
        prediction = self._predict(images)
        loss = log_depth_loss(prediction, depths) + self.distiller(images, depths, prediction)
        if self.recipe.squared:
            loss = loss + self.recipe.squared * squared_loss(prediction, depths)
        if lens := self.recipe.stage_at(step).lens:
            count = (len(images) + 1) // 2
            rng = np.random.default_rng((self.recipe.seed, step))
            height, width = prediction.shape[-2:]
            corner = int(rng.integers(0, height // 2 + 1)), int(rng.integers(0, width // 2 + 1))
            with fixed_norms(self.model):  # half views by themselves have other statistics than what a robot sees
                loss = loss + lens * lens_loss(
                    self._predict, images[:count], prediction[:count], corner, self.recipe.pads_narrow_views
                )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        _update_average(self.average, self.model, min(self.recipe.average, (1 + step) / (10 + step)))
        return loss.item()

    def _predict(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.device != "cpu"):
            metres: torch.Tensor = self.model(self.normalize(images)).float()
        return metres

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint, never half of one."""
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        buffer = io.BytesIO()
        torch.save({"recipe": self.recipe.identity, "step": step} | parts, buffer)
        write_atomically(path, buffer.getvalue())

    def resume(self, path: Path) -> int:
        """Load the checkpoint if there is one; the step to go on with.

        Raises:
            ValueError: the checkpoint is of another recipe.
        """
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["recipe"] != self.recipe.identity:
            raise ValueError(f"{path} belongs to another recipe or version of it; choose another --out or remove it")
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state.get(name, {}))
        return int(state["step"])


def _first_layers(model: nn.Module, count: int) -> nn.ModuleList:
    """Of its encoder, which keeps its layers in `features` or is a sequence of them.

    Raises:
        ValueError: it has not so many, or does not tell its layers.
    """
    if not count:
        return nn.ModuleList()
    encoder = model.encoder
    found = getattr(encoder, "features", encoder)
    layers = list(found) if isinstance(found, (nn.ModuleList, nn.Sequential)) else []
    if not 0 < count < len(layers):
        most = max(0, len(layers) - 1)
        raise ValueError(f"frozen_layers is {count}; accepted for a {type(encoder).__name__}: 0 to {most}")
    return nn.ModuleList(layers[:count])


def rate_at(recipe: Recipe, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine to zero; a pure function of the step."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    return recipe.rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def torch_predict(model: nn.Module, config: ModelConfig) -> Predict:
    """The float32 definition behind the interface of an engine."""
    normalize = Normalize(config)

    def predict(image: np.ndarray) -> Mapping[str, np.ndarray]:
        with torch.inference_mode():
            outputs = model(normalize(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255))
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        return {output.name: tensor.numpy() for output, tensor in zip(config.outputs, tensors, strict=True)}

    return predict


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch that was built without CUDA
        raise ValueError(f"device {device!r} cannot be used: {error}; accepted here: cpu") from error


def _mixture(recipe: Recipe, data: Path, out: Path) -> Mixture:
    """The recipe's frames: in memory, but for those of a relative teacher, which are too many."""
    teach = recipe.distillation
    sources: list[Sequence[RGBDFrame]] = []
    for source in recipe.sources:
        if source.relative:
            teacher = RelativeTeacher(data / teach.relative_teacher, teach.relative_form)
            sources.append(RelativeFrames(RGBDFolder(data / source.path), teacher, out / "relative"))
            continue
        frames = list(open_dataset(data / source.path, source.split))
        useless = [frame.name for frame in frames if frame.depth is None or frame.camera is None]
        if useless:
            raise ValueError(
                f"{data / source.path}: frame {useless[0]!r} lacks depth or camera, and training needs both"
            )
        sources.append(frames)
    chances = [
        evened(frames, recipe.focal, source.even) if source.even else None
        for frames, source in zip(sources, recipe.sources, strict=True)
    ]
    return Mixture(sources, [source.share for source in recipe.sources], chances)


def _started(recipe: Recipe, mixture: Mixture, data: Path) -> nn.Module:
    """The network that training begins with."""
    if recipe.weights:
        begun, config = model_config(recipe.weights), model_config(recipe.model)
        if not begun.weights:
            raise ValueError(f"the recipe goes on from {recipe.weights!r}, which has no weights yet; train it first")
        if (begun.mean, begun.std) != (config.mean, config.std):
            raise ValueError(f"{recipe.weights!r} and {recipe.model!r} want their images normalised differently")
        return create_model(recipe.weights)
    model = create_model(recipe.model, pretrained=False)
    if recipe.start:
        config = model_config(recipe.model)
        images = Normalize(config)(_sample(recipe, mixture, config.input_size))
        start_encoder(model.encoder, recipe.start, data, images, recipe.seed)  # type: ignore[arg-type]
    return model


def _sample(recipe: Recipe, mixture: Mixture, size: tuple[int, int]) -> torch.Tensor:
    """Images of the training set, for statistics."""
    return mixture.batch(0, recipe.seed, 32, size, recipe.focal, recipe.augmentation)[0]


def _optimizer(model: nn.Module, distiller: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; no decay on biases, norms and steps of quantisation, a lower rate for a started encoder."""
    groups = []
    for name, parameter in (*model.named_parameters(), *distiller.named_parameters()):
        scale = recipe.encoder_rate if recipe.start and name.startswith("encoder") else 1.0
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "scale": scale, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=recipe.rate)


def _batches(recipe: Recipe, mixture: Mixture, first: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for step in range(first, recipe.steps):
        stage = recipe.stage_at(step)
        yield mixture.batch(step, recipe.seed, stage.batch, stage.size, recipe.focal, recipe.augmentation)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _finish(recipe: Recipe, model: nn.Module, data: Path, out: Path) -> Path:
    """Write the averaged weights in half precision and measure exactly those on the evaluation split."""
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    path = out / f"{recipe.model}.safetensors"
    save_file(tensors, path)
    model.load_state_dict({key: value.float() for key, value in tensors.items()})
    config = model_config(recipe.model).replace(focal=recipe.focal, pads_narrow_views=recipe.pads_narrow_views)
    scores = evaluate_depth(
        torch_predict(model.eval(), config), config, tqdm(open_dataset(data / recipe.evaluate, "eval"), desc="evaluate")
    )
    entry = {
        "weights": path.name,
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "focal": recipe.focal,
        "pads_narrow_views": recipe.pads_narrow_views,
        "data_licence": recipe.data_licence,
        "metrics": {name: round(value, 4) for name, value in scores.items()},
    }
    # A network that the recipe went on from may be narrower than the model is by itself; others need not know widths.
    if recipe.weights and model.widths != create_model(recipe.model, pretrained=False).widths:
        entry["options"] = {"widths": model.widths}
    (out / f"{recipe.model}.json").write_text(json.dumps({recipe.model: entry}, indent=2) + "\n")
    return path
