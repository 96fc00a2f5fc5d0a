#!/usr/bin/env python3
"""Export image classifiers with seeded random weights: for the peers and for us the same file's worth of numbers.

    models.py OUT NAME [NAME ...] [--seed N] [--batches 1,8]

Needs torch, torchvision, onnx, onnxscript. Each model becomes OUT/NAME/ with NAME.pt2 (torch.export, batch 2..32 or up to the largest of the batches), NAME.onnx (dynamic batch)
and cases.npz: for each batch B the input `x<B>` and `y<B>`, the output computed in float64.
"""

import argparse
import copy
import pathlib

import numpy as np


def randomise(model, generator):
    """Weights and batch-norm statistics that keep activations near 1: a trained network's numbers do not change what a kernel costs."""
    import torch

    def normal(tensor, scale):
        return torch.randn(tensor.shape, generator=generator) * scale

    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.weight.data = normal(module.weight, (1.6 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.data = normal(module.bias, 0.1)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.data = normal(module.running_mean, 0.1)
            module.running_var.data = torch.rand(module.running_var.shape, generator=generator) + 0.5
            module.weight.data = torch.rand(module.weight.shape, generator=generator) * 0.5 + 0.75
            module.bias.data = normal(module.bias, 0.1)


def build(name, seed=7):
    """The model in eval mode, and the generator that made its weights."""
    import torch
    import torchvision

    generator = torch.Generator().manual_seed(seed)
    model = getattr(torchvision.models, name)(weights=None).eval()
    randomise(model, generator)
    return model, generator


def export(name, out, batches, seed=7, onnx=True):
    """Writes the folder OUT/NAME, unless it is there; returns it."""
    import torch
    from torch.export import Dim

    folder = pathlib.Path(out) / name
    if (folder / "cases.npz").exists() and all(f"x{b}" in np.load(folder / "cases.npz") for b in batches):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model, generator = build(name, seed)

    def images(batch):
        return torch.randn(batch, 3, 224, 224, generator=generator)

    with torch.no_grad():
        program = torch.export.export(model, (images(2),), dynamic_shapes=({0: Dim("batch", min=2, max=max(32, *batches))},))
        torch.export.save(program, folder / f"{name}.pt2")
        if onnx:
            torch.onnx.export(program, (), folder / f"{name}.onnx", dynamo=True, external_data=False, verbose=False)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        exact, cases = copy.deepcopy(model).double().to(device), {}
        for batch in batches:
            x = images(batch)
            cases[f"x{batch}"], cases[f"y{batch}"] = x.numpy(), exact(x.double().to(device)).cpu().numpy()
    np.savez(folder / "cases.npz", **cases)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--batches", default="1,8")
    arguments = parser.parse_args()
    for each in arguments.names:
        print(export(each, arguments.out, [int(b) for b in arguments.batches.split(",")], arguments.seed))
