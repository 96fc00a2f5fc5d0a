#!/usr/bin/env python3
"""Random element-wise programs over mixed types, ranks and numbers: what torch computes of them, and whether aotfarm does.

    python3 -m venv venv && venv/bin/pip install torch==2.14.1 numpy safetensors
    venv/bin/python tests/programs.py FOLDER [--seed N] [--files N] [--programs N] [--in-place] [--decomposed] [--aotfarm PATH]

writes FOLDER/<seed>.pt2 (each output is a program), <seed>.case.safetensors with `in.<i>` and `out.<i>` as torch computes them eagerly, and
<seed>.txt with a line for each program. The importer and the interpreter are checked on them by

    AOTFARM_PROGRAMS=FOLDER cargo test -p aotfarm-frontend --test types

and artifacts by `--aotfarm PATH`, the program, which compiles and runs each file. tests/fixtures/programs holds the files of seeds 0 and 1, which the
test reads when no folder is named.

A program is of two to four operators. Torch decides which operands go together: what it refuses is drawn again. Beside each value a second
one is computed in f64; where rounding alone would change a result that is not continuous (a comparison, a floor) the program is drawn again, too.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import warnings
import zipfile

import torch
from safetensors.torch import load_file, save_file

TYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
SHAPES = [(2, 3), (3,), ()]
NUMBERS = [True, 0, 1, 2, 3, -1, -2, 0.5, 1.5, 2.0, -2.5]

# A template is a Python expression of x, y, z (values of the program) and n, m (numbers).
UNARY = """-x | x.abs() | torch.sqrt(x) | torch.rsqrt(x) | torch.exp(x) | torch.sin(x) | torch.cos(x) | torch.tanh(x) | torch.sigmoid(x)
torch.erf(x) | torch.log1p(x) | torch.reciprocal(x) | torch.floor(x) | torch.ceil(x) | torch.round(x) | torch.relu(x) | ~x
torch.logical_not(x) | x.sum(-1) | x.sum() | x.sum(-1, dtype=torch.float32) | x.prod(-1) | x.amax(-1) | x.amin(-1) | x.any(-1) | x.all(-1)
x.mean(-1) | x.mean(-1, dtype=torch.float64) | x.to(torch.int32) | x.to(torch.float16) | x.to(torch.float32) | x.to(torch.int64)
torch.clamp(x, n, m) | torch.clamp(x, min=n) | torch.clamp(x, max=n) | torch.nn.functional.hardtanh(x, -1, 2) | torch.nn.functional.relu6(x)
x + n | n + x | x - n | n - x | x * n | x / n | n / x | x // n | x % n | torch.remainder(n, x) | torch.fmod(x, n) | x**n | n**x
torch.add(x, n, alpha=2) | torch.rsub(x, n, alpha=3) | torch.div(x, n, rounding_mode="trunc") | torch.div(x, n, rounding_mode="floor")
x > n | x >= n | x < n | x <= n | x == n | x != n | x & n | x | n | x ^ n | x.masked_fill(x > 0, n) | torch.where(x > 0, x, n)
torch.where(x > 0, n, x) | torch.full_like(x, n) | torch.softmax(x, -1, dtype=torch.float32)"""
BINARY = """x + y | x - y | x * y | x / y | x // y | x % y | torch.fmod(x, y) | torch.maximum(x, y) | torch.minimum(x, y)
torch.add(x, y, alpha=2) | torch.add(x, y, alpha=0.5) | torch.sub(x, y, alpha=3) | torch.rsub(x, y) | x > y | x >= y | x < y | x <= y | x == y
x != y | torch.logical_and(x, y) | torch.logical_or(x, y) | torch.logical_xor(x, y) | x & y | x | y | x ^ y | x**y
torch.div(x, y, rounding_mode="floor") | torch.div(x, y, rounding_mode="trunc") | torch.where(x > 0, x, y) | torch.cat([x, y]) | torch.stack([x, y])
torch.clamp(x, y) | torch.clamp(x, y, z) | torch.clamp(x, max=y) | torch.where(z > 0, x, y) | x.masked_fill(z > 0, n)"""
IN_PLACE = """x.clone().add_(y) | x.clone().sub_(y) | x.clone().mul_(y) | x.clone().div_(y) | x.clone().add_(n) | x.clone().mul_(n) | x.clone().sub_(n)
x.clone().add_(y, alpha=2) | x.clone().relu_()"""

KINDS = [UNARY, BINARY, BINARY]


def templates(text, bitwise_or="|"):
    """`x | y` is also a program, so templates are parted by a bar between blanks that is not one of these."""
    text = text.replace("x | n", "x \0 n").replace("x | y", "x \0 y").replace("\n", " | ")
    return [template.strip().replace("\0", bitwise_or) for template in text.split(" | ")]


class Draw:
    """Draws programs over the inputs."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.inputs = {}
        generator = torch.Generator().manual_seed(seed)
        for dtype in TYPES:
            for shape in SHAPES:
                values = torch.randint(-12, 13, shape, generator=generator) / 4
                if not dtype.is_floating_point:
                    values = (values * 4).round()
                if dtype in (torch.bool, torch.uint8):
                    values = values.abs()
                self.inputs[f"a{len(self.inputs)}"] = (values > 5) if dtype == torch.bool else values.to(dtype)

    def program(self):
        """Its steps `(name, expression)`, or None when torch or rounding refuses it."""
        names = self.random.sample(list(self.inputs), self.random.randint(1, 3))
        values = {name: self.inputs[name] for name in names}
        shadows = {name: exact(value) for name, value in values.items()}
        steps = []
        for k in range(self.random.randint(2, 4)):
            kind = self.random.choice(KINDS)
            template = self.random.choice(templates(kind))
            # The newest value is always used, so that every step counts.
            newest = steps[-1][0] if steps else names[0]
            others = [name for name in values if name != newest] or [newest]
            chosen = [newest, self.random.choice(others), self.random.choice(others)]
            if kind == BINARY and self.random.random() < 0.5:
                chosen[0], chosen[1] = chosen[1], chosen[0]
            given = dict(zip("xyz", chosen)) | {key: repr(self.random.choice(NUMBERS)) for key in "nm"}
            expression = substitute(template, given)
            try:
                value, shadow = evaluate(expression, values), evaluate_exactly(expression, shadows)
            except (RuntimeError, TypeError, ZeroDivisionError, NotImplementedError, IndexError, ValueError):
                return None
            if not isinstance(value, torch.Tensor) or value.is_complex() or value.dtype not in TYPES or value.numel() > 64:
                return None
            if not agree(value, shadow):
                return None
            name = f"t{k}"
            steps.append((name, expression))
            values[name], shadows[name] = value, exact(shadow)
        return steps


def substitute(template, given):
    out, word = "", ""
    for c in template + " ":
        if c.isalnum() or c in "_.":
            word += c
            continue
        head, dot, rest = word.partition(".")
        out += (given.get(head, head) + dot + rest) + c
        word = ""
    return out.strip()


def exact(value):
    return value.double() if value.dtype.is_floating_point else value


def evaluate(expression, values):
    return eval(expression, {"torch": torch}, dict(values))


def evaluate_exactly(expression, values):
    """With f64 for what torch makes of integers, too."""
    torch.set_default_dtype(torch.float64)
    try:
        return evaluate(expression, values)
    finally:
        torch.set_default_dtype(torch.float32)


def agree(value, shadow):
    """Whether the value is that of f64, up to rounding."""
    if value.dtype.is_floating_point:
        a, b = value.double(), shadow.double()
        if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
            return False
        return torch.allclose(a, b, rtol=8 * torch.finfo(value.dtype).eps, atol=1e-7, equal_nan=True)
    return value.dtype == shadow.dtype and torch.equal(value, shadow)


class Programs(torch.nn.Module):
    def __init__(self, inputs, programs):
        super().__init__()
        self.names, self.programs = list(inputs), programs

    def forward(self, *given):
        outputs = []
        for steps in self.programs:
            values = dict(zip(self.names, given))
            for name, expression in steps:
                values[name] = evaluate(expression, values)
            outputs.append(values[steps[-1][0]])
        return tuple(outputs)


def pack(path):
    """Packs the entries again with deflate, JSON without blanks."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in entries:
            if name.endswith(".json"):
                content = json.dumps(json.loads(content), separators=(",", ":")).encode()
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


def write(folder, seed, count, decomposed):
    draw, programs = Draw(seed), []
    while len(programs) < count:
        if steps := draw.program():
            programs.append(steps)
    # Inputs that no program uses are left out.
    text = " ".join(expression for steps in programs for _, expression in steps)
    used = {name: value for name, value in draw.inputs.items() if "\0" in substitute(text, {name: "\0"})}
    model, given = Programs(used, programs), tuple(used.values())
    exported = torch.export.export(model, given, strict=False)
    if decomposed:
        exported = exported.run_decompositions()
    for node in exported.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in ("val", "tensor_meta")}
    path = folder / f"{seed}.pt2"
    torch.export.save(exported, path)
    pack(path)
    case = {f"in.{i}": value for i, value in enumerate(given)}
    case |= {f"out.{i}": value.contiguous().clone() for i, value in enumerate(model(*given))}
    save_file(case, folder / f"{seed}.case.safetensors")
    lines = ("; ".join(f"{name} = {expression}" for name, expression in steps) for steps in programs)
    (folder / f"{seed}.txt").write_text("".join(f"{i}: {line}\n" for i, line in enumerate(lines)))
    return path


def same(got, wanted):
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return False
    if not wanted.dtype.is_floating_point:
        return torch.equal(got, wanted)
    eps = torch.finfo(wanted.dtype).eps
    return torch.allclose(got.double(), wanted.double(), rtol=16 * eps, atol=max(1e-6, eps), equal_nan=True)


def run_artifact(program, path):
    """How many outputs of the compiled file differ, which it prints."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"AOTFARM_DATA_DIR": home}

        def aotfarm(*arguments):
            command = [program, *map(str, arguments)]
            return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout

        name, out = f"programs-{path.stem}", pathlib.Path(home) / "out.safetensors"
        case = path.with_name(f"{path.stem}.case.safetensors")
        aotfarm("submit", path, "--name", name, "--tune", "none", "--quiet")
        aotfarm("pull", name, "--output", home)
        said = aotfarm("--json", "run", pathlib.Path(home) / f"{name}.so", "--input", case, "--output", out)
        names = [output["name"] for output in json.loads(said)["outputs"]]
        got, wanted = load_file(out), load_file(case)
    wrong = 0
    for i, line in enumerate(path.with_suffix(".txt").read_text().splitlines()):
        ours, theirs = got[names[i]], wanted[f"out.{i}"]
        if not same(ours, theirs):
            print(f"{path.name}: {line}\n  torch   {theirs}\n  aotfarm {ours}")
            wrong += 1
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--programs", type=int, default=100, help="in each file")
    parser.add_argument("--in-place", action="store_true", help="with operators that write into copies")
    parser.add_argument("--decomposed", action="store_true", help="export after run_decompositions")
    parser.add_argument("--aotfarm", help="the program that compiles and runs each file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.in_place:
        KINDS.append(IN_PLACE)
    options.folder.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for seed in range(options.seed, options.seed + options.files):
        path = write(options.folder, seed, options.programs, options.decomposed)
        if options.aotfarm:
            wrong += run_artifact(options.aotfarm, path)
    if options.aotfarm:
        print(f"{wrong} of {options.files * options.programs} programs are wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
