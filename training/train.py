"""The training loop: deterministic by seed, resumable, with an exponential moving average of the weights."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tensorboardX import SummaryWriter
from torch import nn
from tqdm import tqdm

from perception.evaluation.datasets import open_dataset
from perception.evaluation.harness import Predict, evaluate_depth
from perception.models import create_model, model_config
from perception.tasks.config import ModelConfig
from perception.training.data import Mixture, prefetch
from perception.training.losses import log_depth_loss
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
    """
    out.mkdir(parents=True, exist_ok=True)
    mixture = Mixture(
        [list(open_dataset(data / source.path, source.split)) for source in recipe.sources],
        [source.share for source in recipe.sources],
    )
    run = Run(recipe, mixture, data, device)
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
    return _finish(recipe, run.average.to("cpu"), data, out)


class Run:
    """Everything of a run that changes from step to step: the model, its average, the optimiser."""

    def __init__(self, recipe: Recipe, mixture: Mixture, data: Path, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.config = model_config(recipe.model).replace(focal=recipe.focal)
        self.normalize = Normalize(self.config).to(device)
        model = create_model(recipe.model, pretrained=False)
        if recipe.start:
            images, _ = mixture.batch(0, recipe.seed, 32, self.config.input_size, recipe.focal, recipe.augmentation)
            start_encoder(model.encoder, recipe.start, data, self.normalize.cpu()(images), recipe.seed)  # type: ignore[arg-type]
            self.normalize.to(device)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model)
        self.optimizer = _optimizer(self.model, recipe)

    def step(self, step: int, images: torch.Tensor, depths: torch.Tensor) -> float:
        """One step on images (N, 3, H, W) in [0, 1] and depths (N, 1, H, W) in canonical metres; the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate_at(self.recipe, step)
        self.model.train()
        if step < self.recipe.frozen_norms:
            for module in self.model.encoder.modules():  # type: ignore[union-attr]
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        images = self.normalize(images.to(self.device, memory_format=torch.channels_last))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
            prediction = self.model(images)
        loss = log_depth_loss(prediction.float(), depths.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        _update_average(self.average, self.model, min(self.recipe.average, (1 + step) / (10 + step)))
        return loss.item()

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint, never half of one."""
        temporary = path.with_suffix(".tmp")
        state = {"recipe": self.recipe.identity, "step": step, "optimizer": self.optimizer.state_dict()}
        torch.save(state | {"model": self.model.state_dict(), "average": self.average.state_dict()}, temporary)
        os.replace(temporary, path)

    def resume(self, path: Path) -> int:
        """Load the checkpoint if there is one; the step to go on with.

        Raises:
            ValueError: the checkpoint is of another recipe.
        """
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True, map_location=self.device)
        if state["recipe"] != self.recipe.identity:
            raise ValueError(f"{path} belongs to another recipe or version of it; choose another --out or remove it")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


class Normalize(nn.Module):
    """An image in [0, 1] as a model's config wants it; shapes (N, 3, H, W)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


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


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and norms, a lower rate for a started encoder."""
    groups = []
    for name, parameter in model.named_parameters():
        scale = recipe.encoder_rate if recipe.start and name.startswith("encoder") else 1.0
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "scale": scale, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=recipe.rate)


def _batches(recipe: Recipe, mixture: Mixture, first: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    sizes = [stage for stage in recipe.stages for _ in range(stage.steps)]
    for step in range(first, recipe.steps):
        stage = sizes[step]
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
    config = model_config(recipe.model).replace(focal=recipe.focal)
    scores = evaluate_depth(
        torch_predict(model.eval(), config), config, tqdm(open_dataset(data / recipe.evaluate, "eval"), desc="evaluate")
    )
    entry = {
        "weights": path.name,
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "focal": recipe.focal,
        "data_licence": recipe.data_licence,
        "metrics": {name: round(value, 4) for name, value in scores.items()},
    }
    (out / f"{recipe.model}.json").write_text(json.dumps({recipe.model: entry}, indent=2) + "\n")
    return path
