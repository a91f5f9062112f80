"""The training loop: resumable, with an exponential moving average of the weights.

The same recipe on the same device with as many threads gives the same weights, interrupted or not.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tensorboardX import SummaryWriter
from torch import nn
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.engines.runtimes import Frame, by_name
from perception.engines.store import write_atomically
from perception.models import model_config
from perception.tasks.config import ModelConfig
from perception.training import quantization
from perception.training.data import Normalize, prefetch, prefetch_in_processes, to_unit
from perception.training.depthwise import FloatDepthwiseGradients
from perception.training.lesson import Lesson, find_lesson
from perception.training.norms import fix_norms
from perception.training.recipe import Recipe
from perception.training.start import start_encoder

LOGGED = 100
"""Steps between two lines of the log, each of which goes with a checkpoint."""


def train(recipe: Recipe, data: Path, out: Path, device: str = "cpu", lesson: Lesson | None = None) -> Path:
    """Run a recipe, or what is left of it if `out` holds its checkpoint.

    Args:
        data: the folder to which the recipe's paths are relative.
        out: gets checkpoint.pt, log.jsonl, events for TensorBoard and, at the end, NAME.safetensors (fp16) and
            NAME.json, an entry for models/weights/weights.json.
        device: of torch. On a GPU, arithmetic is bfloat16 where autocast allows.
        lesson: None: that of the recipe's model.

    Returns:
        The weights file.

    Raises:
        ValueError: a device that is not there, data or weights that the recipe names and that do not fit, or the
            checkpoint of another recipe in `out`; a loss that is no number.
    """
    _check_device(device)
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.deterministic = True
    lesson = lesson or find_lesson(recipe.model).open(recipe, data, out)
    out.mkdir(parents=True, exist_ok=True)
    model = lesson.narrow(_started(lesson, data).to(device), out)
    run = Run(lesson, model, device)
    began = copy.deepcopy(run.average) if recipe.kept_start else None
    first = run.resume(out / "checkpoint.pt")
    steps = range(first, recipe.steps)
    in_processes = lesson.forks and device != "cpu"
    batches = (
        prefetch_in_processes(lesson.batch, steps) if in_processes else prefetch(lesson.batch, steps, lesson.workers)
    )
    progress = tqdm(steps, initial=first, total=recipe.steps, desc=recipe.name)
    losses: deque[torch.Tensor] = deque(maxlen=LOGGED)
    with SummaryWriter(str(out)) as board, (out / "log.jsonl").open("a") as log:
        for step, batch in zip(progress, batches, strict=True):
            losses.append(run.step(step, *batch))
            if (step + 1) % LOGGED == 0 or step + 1 == recipe.steps:
                line = {"loss": _finite(float(torch.stack(list(losses)).mean()), step), "rate": rate_at(recipe, step)}
                progress.set_postfix(loss=f"{line['loss']:.3f}")
                log.write(json.dumps({"step": step + 1} | line) + "\n")
                log.flush()
                for name, value in line.items():
                    board.add_scalar(name, value, step + 1)
                run.save(out / "checkpoint.pt", step + 1)
    if began is not None:
        _update_average(run.average, began, 1 - recipe.kept_start)
    if recipe.quantization:
        quantization.finish(run.average)
    return _finish(lesson, run.average.to("cpu"), out)


def _finite(loss: float, step: int) -> float:
    """The loss.

    Raises:
        ValueError: it is no number; then the checkpoint before it stands.
    """
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss of the {LOGGED} steps before step {step + 1} is {loss}; the last checkpoint is older than that. "
            "Lower the recipe's rate, or look for what is no number in the data"
        )
    return loss


class Run:
    """Everything of a run that changes from step to step: the model, its average, the distiller, the optimiser."""

    PARTS = ("model", "average", "distiller", "optimizer")

    def __init__(self, lesson: Lesson, model: nn.Module, device: str) -> None:
        self.lesson, self.device = lesson, device
        recipe = self.recipe = lesson.recipe
        self.normalize = Normalize(model_config(recipe.model)).to(device)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.quantization:
            quantization.prepare(self.model, self.normalize(to_unit(lesson.sample(recipe.stages[0].size)).to(device)))
        self.frozen = _first_layers(self.model, recipe.frozen_layers).requires_grad_(False)
        self.average = copy.deepcopy(self.model)
        self.distiller = lesson.teach(self.model).to(device)
        self.optimizer = _optimizer(self.model, self.distiller, recipe)

    def step(self, step: int, images: torch.Tensor, *truth: torch.Tensor) -> torch.Tensor:
        """One step on a batch as `Lesson.batch` gives it; the loss, which a GPU may not have computed yet."""
        torch.manual_seed(self.recipe.seed * self.recipe.steps + step)  # layers that draw do so anew when a run resumes
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate_at(self.recipe, step)
        self.model.train()
        self.frozen.eval()
        if step < self.recipe.frozen_norms:
            fix_norms(self.model if self.recipe.weights else self.model.encoder)  # type: ignore[arg-type]
        images, *rest = (part.to(self.device, non_blocking=True) for part in (images, *truth))
        images = to_unit(images).contiguous(memory_format=torch.channels_last)
        loss = self.lesson.loss(step, self.model, self._forward, images, *rest)
        self.optimizer.zero_grad(set_to_none=True)
        with FloatDepthwiseGradients():
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        _update_average(self.average, self.model, min(self.recipe.average, (1 + step) / (10 + step)))
        return loss.detach()

    def _forward(self, images: torch.Tensor) -> Any:
        with self.lesson.autocast(self.device):
            outputs = self.model(self.normalize(images))
        return tuple(output.float() for output in outputs) if isinstance(outputs, tuple) else outputs.float()

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
        strange = f"{path} belongs to another recipe or version of it; choose another --out or remove it"
        if state["recipe"] != self.recipe.identity:
            raise ValueError(strange)
        try:
            for name in self.PARTS:
                getattr(self, name).load_state_dict(state.get(name, {}))
        except (ValueError, RuntimeError) as error:  # its parts have other names or shapes
            raise ValueError(strange) from error
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

    def predict(frame: Frame) -> Mapping[str, np.ndarray]:
        image, *more = (torch.from_numpy(by_name(frame)[tensor.name]) for tensor in config.inputs)
        with torch.inference_mode():
            outputs = model(normalize(to_unit(image.permute(0, 3, 1, 2))), *more)
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        return {output.name: tensor.numpy() for output, tensor in zip(config.outputs, tensors, strict=True)}

    return predict


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch that was built without CUDA
        raise ValueError(f"device {device!r} cannot be used: {error}; accepted here: cpu") from error


def _started(lesson: Lesson, data: Path) -> nn.Module:
    """The network that training begins with."""
    recipe = lesson.recipe
    config = model_config(recipe.model)
    if recipe.weights:
        begun = model_config(recipe.weights)
        if not begun.weights:
            raise ValueError(f"the recipe goes on from {recipe.weights!r}, which has no weights yet; train it first")
        if (begun.mean, begun.std) != (config.mean, config.std):
            raise ValueError(f"{recipe.weights!r} and {recipe.model!r} want their images normalised differently")
        return lesson.go_on(recipe.weights)
    model = lesson.build()
    if recipe.start:
        images = Normalize(config)(to_unit(lesson.sample(config.input_size)))
        start_encoder(lesson.encoder(model), recipe.start, data, images, recipe.seed)
    return model


def _optimizer(model: nn.Module, distiller: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; no decay on biases, norms and steps of quantisation, a rate of its own for the encoder."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in (*model.named_parameters(), *distiller.named_parameters()):
        scale = recipe.encoder_scale if name.startswith("encoder") else 1.0
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "scale": scale, "weight_decay": decay} for (scale, decay), group in groups.items()],
        lr=recipe.rate,
    )


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    numbers, counts = ([p for p in pairs if p[0].is_floating_point() == kind] for kind in (True, False))
    # All tensors in one call: one by one they would take a GPU longer to start than to compute.
    torch._foreach_lerp_([mine for mine, _ in numbers], [theirs for _, theirs in numbers], 1 - decay)
    for mine, theirs in counts:
        mine.copy_(theirs)


def _finish(lesson: Lesson, model: nn.Module, out: Path) -> Path:
    """Write the averaged weights in half precision and measure exactly those on the evaluation split."""
    recipe, config = lesson.recipe, lesson.config()
    lesson.finish(model, torch_predict(model.eval(), config))
    tensors = half_tensors(model)
    path = out / f"{recipe.model}.safetensors"
    save_file(tensors, path)
    model.load_state_dict({key: value.float() for key, value in tensors.items()})
    scores = lesson.measure(torch_predict(model.eval(), config), config)
    metrics = {name: round(value, 4) for name, value in scores.items()}
    write_entry(path, recipe.model, lesson.entry(model) | {"data_licence": recipe.data_licence, "metrics": metrics})
    return path


def half_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What is written of a network: its tensors, numbers in half precision."""
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}


def write_entry(path: Path, model: str, fields: Mapping[str, Any]) -> None:
    """Write the JSON file beside weights, by which they stand for a registered model. Where it is, both are whole."""
    weights = {"weights": path.name, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_atomically(path.with_suffix(".json"), json.dumps({model: weights | dict(fields)}, indent=2).encode() + b"\n")
