"""`perception train`: run a training recipe."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("train", help="train a model by a recipe; run again to resume")
    parser.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("--data", type=Path, required=True, help="folder to which the recipe's paths are relative")
    parser.add_argument("--out", type=Path, help="folder for checkpoint, log and weights (default: out/train/RECIPE)")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import torch

    from perception.training.reading import load_recipe
    from perception.training.train import train

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = load_recipe(args.recipe)
    weights = train(recipe, args.data, args.out or Path("out/train") / recipe.name, args.device)
    print(f"wrote {weights}")
    print(weights.with_suffix(".json").read_text())
    return 0
