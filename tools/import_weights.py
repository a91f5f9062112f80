"""Bring weights that somebody else has trained to a registered model: a state dict of PyTorch becomes a .safetensors
file with the .json file beside it that every command takes in place of a model's name.

The tensors must come in the order of the model's, whatever they are called. Usage:

    python tools/import_weights.py MODEL STATE_DICT OUT.safetensors --data-licence "..."
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from perception.models.registry import create_model, model_config
from perception.training.start import load_in_order
from perception.training.train import half_tensors, write_entry


def main() -> None:
    """Convert, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="registered name")
    parser.add_argument("tensors", type=Path, help=".pt, .pth or .th file: a state dict, or a dict that holds one")
    parser.add_argument("out", type=Path, help=".safetensors file to write")
    parser.add_argument("--data-licence", required=True, help="what the weights were trained on, and their licence")
    options = parser.parse_args()

    found = torch.load(options.tensors, weights_only=True, map_location="cpu")
    model = create_model(options.model, pretrained=False)
    load_in_order(model, found.get("state_dict", found))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(half_tensors(model), options.out)
    size = model_config(options.model).input_size
    write_entry(options.out, options.model, {"input_size": size, "data_licence": options.data_licence})
    print(f"{options.out} holds {options.model}; measure it with `perception eval {options.out} --data ...`")


if __name__ == "__main__":
    main()
