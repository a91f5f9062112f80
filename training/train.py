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
from torch import nn
from tqdm import tqdm

from perception.evaluation.datasets import open_dataset
from perception.evaluation.harness import Predict, evaluate_depth
from perception.models import create_model, model_config
from perception.models.fastdepth import FastDepth
from perception.tasks.config import ModelConfig
from perception.training.data import Mixture, prefetch
from perception.training.losses import log_depth_loss
from perception.training.recipe import Recipe
from perception.training.start import read_mobilenet_v1_tflite, resize_widths, start_encoder


def train(recipe: Recipe, data: Path, out: Path, device: str = "cpu") -> Path:
    """Run a recipe, or what is left of it if `out` holds its checkpoint.

    Args:
        data: the folder to which the recipe's paths are relative.
        out: gets checkpoint.pt, log.jsonl and, at the end, NAME.safetensors (fp16) and NAME.json.

    Returns:
        The weights file.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    sets = [open_dataset(data / source.path, source.split) for source in recipe.sources]
    mixture = Mixture(
        [list(frames) for frames in sets],
        [source.share for source in recipe.sources],
    )
    model = _started(recipe, data, mixture).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model)
    optimizer = _optimizer(model, recipe)
    first = _resume(out / "checkpoint.pt", recipe, model, average, optimizer)
    model.train()
    batches = prefetch(_batches(recipe, mixture, first))
    progress = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc=recipe.name)
    losses = []
    with (out / "log.jsonl").open("a") as log:
        for step, (images, depths) in zip(progress, batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * rate_at(recipe, step)
            with torch.autocast(device, enabled=device != "cpu"):
                prediction = model(images.to(device, memory_format=torch.channels_last))
            loss = log_depth_loss(prediction.float(), depths.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            _update_average(average, model, min(recipe.average, (1 + step) / (10 + step)))
            losses.append(loss.item())
            if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
                mean = float(np.mean(losses[-100:]))
                progress.set_postfix(loss=f"{mean:.3f}")
                log.write(json.dumps({"step": step + 1, "loss": mean, "rate": rate_at(recipe, step)}) + "\n")
                log.flush()
                _save_checkpoint(out / "checkpoint.pt", recipe, step + 1, model, average, optimizer)
    return _finish(recipe, average.to("cpu"), data, out)


def rate_at(recipe: Recipe, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine to zero; a pure function of the step."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    return recipe.rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def torch_predict(model: nn.Module, config: ModelConfig) -> Predict:
    """The float32 definition behind the interface of an engine."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))

    def predict(image: np.ndarray) -> Mapping[str, np.ndarray]:
        with torch.inference_mode():
            pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
            outputs = model((pixels - mean) / std)
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        return {output.name: tensor.numpy() for output, tensor in zip(config.outputs, tensors, strict=True)}

    return predict


def _started(recipe: Recipe, data: Path, mixture: Mixture) -> nn.Module:
    model = create_model(recipe.model, pretrained=False)
    assert isinstance(model, FastDepth)
    if recipe.start:
        original = read_mobilenet_v1_tflite(data / recipe.start)
        layers = resize_widths(original, model.encoder_widths, np.random.default_rng(recipe.seed))
        images, _ = mixture.batch(0, recipe.seed, 32, 224, recipe.focal, recipe.augmentation)
        start_encoder(model, layers, images)
    norm = model.head[1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.constant_(norm.bias, 2.7)  # the data's median depth in metres: the last ReLU starts out open
    return model


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


def _save_checkpoint(
    path: Path, recipe: Recipe, step: int, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    temporary = path.with_suffix(".tmp")
    state = {"recipe": repr(recipe), "step": step, "model": model.state_dict(), "average": average.state_dict()}
    torch.save(state | {"optimizer": optimizer.state_dict()}, temporary)
    os.replace(temporary, path)


def _resume(path: Path, recipe: Recipe, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint if there is one; the step to go on with."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state["recipe"] != repr(recipe):
        raise ValueError(f"{path} belongs to another recipe or version of it; choose another --out or remove it")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


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
