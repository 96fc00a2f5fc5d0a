#!/usr/bin/env python3
"""How many exports of models that people use import, and what stops the others, by operator.

    venv/bin/python bench/sweep_imports.py --importer PATH [--count 40] [--seed 15] [--folder FOLDER] [MODEL.pt2 ...]

Models are drawn by the seed from torchvision's, timm's and transformers' own lists, with random weights, few layers where a configuration
says how many, and a symbolic batch. PATH is a command that takes a model's file and ends with its error on stderr: `aotfarm import` does.
Exports stay in the folder. The venv holds torch, torchvision, timm and transformers.
"""

import argparse
import collections
import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
import tempfile

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "aotfarm-imports"
#: What a configuration of transformers is made small by, where it has it.
SIZES = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
    "num_key_value_heads": 2, "head_dim": 8, "d_model": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "use_cache": False,
}  # fmt: skip
LARGEST = 40_000_000
SECONDS = 150


def names():
    """Every model of the three libraries."""
    import timm
    import torchvision
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return {
        "torchvision": [name for name in torchvision.models.list_models(module=torchvision.models)],
        "timm": timm.list_models(),
        "transformers": sorted(MODEL_MAPPING_NAMES),
    }


def build(library, name):
    """The model, a sample of its inputs with batch 2, and which of them have a batch."""
    import torch

    if library == "torchvision":
        import torchvision

        return torchvision.models.get_model(name, weights=None).eval(), (torch.randn(2, 3, 224, 224),)
    if library == "timm":
        import timm

        model = timm.create_model(name, pretrained=False).eval()
        return model, (torch.randn(2, *model.default_cfg["input_size"]),)
    import transformers

    config_class = transformers.CONFIG_MAPPING[name]
    default = config_class()
    config = config_class(**{key: value for key, value in SIZES.items() if hasattr(default, key)})
    model = transformers.AutoModel.from_config(config).eval()
    main = model.main_input_name
    if main == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        size = size if isinstance(size, int) else size[0]
        return model, (torch.randn(2, getattr(config, "num_channels", 3), size, size),)
    if main != "input_ids":
        raise ValueError(f"its main input is {main}")
    ids = torch.randint(3, 99, (2, 16))
    return model, (ids, torch.ones_like(ids))


def export(library, name, path):
    """Writes the export; run in a process of its own."""
    import torch
    from torch.utils import _pytree as pytree

    model, sample = build(library, name)
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        raise ValueError("too large")

    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            text = len(inputs) == 2
            result = self.model(input_ids=inputs[0], attention_mask=inputs[1]) if text else self.model(*inputs)
            result = result.to_tuple() if hasattr(result, "to_tuple") else result
            return tuple(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))

    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = (tuple({0: batch} for _ in sample),)
    with torch.no_grad():
        try:
            program = torch.export.export(Outputs().eval(), sample, dynamic_shapes=shapes)
        except Exception:  # noqa: BLE001  some models are made for one batch
            program = torch.export.export(Outputs().eval(), sample)
    torch.export.save(program, path)


def exported(folder, count, seed):
    """Paths of as many exports, drawn in turn from the libraries."""
    chance = random.Random(seed)
    lists = {library: chance.sample(models, len(models)) for library, models in names().items()}
    paths, at = [], 0
    while len(paths) < count:
        library = list(lists)[at % len(lists)]
        at += 1
        name = lists[library].pop()
        path = folder / f"{library}-{name}.pt2"
        skipped = path.with_suffix(".skipped")
        if not path.exists() and not skipped.exists():
            command = [sys.executable, __file__, "--export", library, name, "--folder", str(folder)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
                why = None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
            except subprocess.TimeoutExpired:
                why = f"more than {SECONDS} s"
            if why:
                skipped.write_text(why)
        if path.exists():
            paths.append(path)
            print(f"{len(paths)}/{count} {path.stem}", file=sys.stderr)
    return paths


def judge(importer, paths):
    """Prints what imports, and reasons of refusal by how many models they stop."""
    reasons, alone, imported = collections.Counter(), collections.Counter(), 0
    for path in paths:
        with tempfile.TemporaryDirectory() as scratch:
            command = [*shlex.split(importer), str(path), "--output", f"{scratch}/model.graph"]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            imported += 1
            continue
        operators = re.findall(r"^\s+((?:aten|_operator|higher_order|torchvision|[\w.]+)\.[\w.]+): \d+ node", done.stderr, re.M)
        what = operators or [re.sub(r"`[^`]*: ([^`]*)`", r"\1", " ".join(done.stderr.split())).split(".pt2: ")[-1][:160]]
        reasons.update(what)
        if len(what) == 1:
            alone.update(what)
        print(f"  {path.stem}: {', '.join(what)}")
    print(f"{imported} of {len(paths)} import")
    for reason, models in reasons.most_common():
        print(f"{models:4} ({alone[reason]} alone) {reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=pathlib.Path, help="files to judge in place of a sample")
    parser.add_argument("--importer", default="aotfarm import")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--folder", type=pathlib.Path, default=CACHE)
    parser.add_argument("--export", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.export:
        export(*options.export, options.folder / f"{'-'.join(options.export)}.pt2")
        return
    os.nice(10)
    paths = options.models or exported(options.folder, options.count, options.seed)
    if options.importer:
        judge(options.importer, paths)


if __name__ == "__main__":
    main()
