#!/usr/bin/env python3
"""Random torch programs of views, copies and writes in place, against eager torch.

    venv/bin/python tests/random_programs.py [--count 300] [--seed 0] [--folder FOLDER] [--jobs N]

A program makes values of earlier ones by views (chunk, split, slices, transpose, view, diagonal, expand …) and copies, and writes to them
in place; it returns some of them, and its input, which it may have written to. It is exported by torch.export both as it is and after
`run_decompositions({})`, with a symbolic batch where torch can, beside what eager torch computes at two sizes of it. The tool `judge`
(`compiler/examples/judge`) reads and runs all of them; both forms of a program must come out right. Sizes at which torch itself does not
run both forms to the same end are left out.

Programs compute small integers in f32 and i64, so that right is equal. The venv is that of tests/opinfo.py.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCHES = (3, 5)


def make_steps():
    """Steps by name: a function of the random source and of the sizes of a value gives arguments, or None where it does not fit. Sizes of
    the batch are None. What a step does with them comes second."""
    import torch

    def axis_of(r, sizes, least=1):
        axes = [axis for axis, size in enumerate(sizes) if size is not None and size >= least]
        return r.choice(axes) if axes else None

    def axis_and(r, sizes, draw, least=1):
        axis = axis_of(r, sizes, least)
        return None if axis is None else (axis, *draw(sizes[axis]))

    def two_axes(r, sizes):
        return tuple(r.sample(range(len(sizes)), 2)) if len(sizes) > 1 else None

    def cut(r):
        return lambda size: (r.randrange(size), r.choice([1, 2, 3, 2**31]), r.choice([1, 1, 2, 3]))

    def slice_(x, axis, start, length, step):
        return x[(slice(None),) * axis + (slice(start, start + length if length < 100 else None, step),)]

    def merged(x, axis):
        return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

    def square(r, sizes):
        axes = [axis for axis, size in enumerate(sizes) if size is not None]
        return (r.choice([0, 0, 1, -1]), *r.sample(axes, 2)) if len(axes) > 1 else None

    def first(r, sizes):
        return ()

    def number(r, sizes):
        return (r.choice([-2, -1, 0, 1, 2, 3]),)

    views = {
        "chunk": (lambda r, s: axis_and(r, s, lambda n: (r.choice([2, 3]), r.randrange(2)), 2), lambda x, a, n, i: (p := x.chunk(n, a))[i % len(p)]),
        "split": (lambda r, s: axis_and(r, s, lambda n: (r.randrange(1, n), r.randrange(2)), 2), lambda x, a, n, i: (p := x.split(n, a))[i % len(p)]),
        "unbind": (lambda r, s: axis_and(r, s, lambda n: (r.randrange(n),)), lambda x, a, i: x.unbind(a)[i]),
        "select": (lambda r, s: axis_and(r, s, lambda n: (r.randrange(-n, n),)), lambda x, a, i: x.select(a, i)),
        "slice": (lambda r, s: axis_and(r, s, cut(r)), slice_),
        "rows": (lambda r, s: (r.choice([0, 1]),) if s and s[0] is None else None, lambda x, i: x[i:]),
        "transpose": (two_axes, lambda x, a, b: x.transpose(a, b)),
        "permute": (lambda r, s: tuple(r.sample(range(len(s)), len(s))) or None, lambda x, *order: x.permute(order)),
        "merge": (lambda r, s: (r.randrange(len(s) - 1),) if len(s) > 1 else None, merged),
        "flatten": (lambda r, s: (1,) if len(s) > 2 else None, lambda x, a: x.flatten(a)),
        "view": (lambda r, s: axis_and(r, s, lambda n: (2,)) if s and s[-1] and s[-1] % 2 == 0 else None, lambda x, a, n: x.view(*x.shape[:-1], n, -1)),
        "diagonal": (square, lambda x, offset, a, b: x.diagonal(offset, a, b)),
        "unsqueeze": (lambda r, s: (r.randrange(-1, len(s) + 1),), lambda x, a: x.unsqueeze(a)),
        "squeeze": (lambda r, s: axis_and(r, s, lambda n: ()) if 1 in s else None, lambda x, a: x.squeeze(a)),
        "expand": (lambda r, s: (r.choice([2, 3]),) if len(s) < 5 else None, lambda x, n: x.expand(n, *x.shape)),
        "narrow": (lambda r, s: axis_and(r, s, lambda n: (1, n - 1), 2), lambda x, a, i, n: x.narrow(a, i, n)),
        "detach": (first, lambda x: x.detach()),
    }
    copies = {
        "clone": (first, lambda x: x.clone()),
        "contiguous": (first, lambda x: x.contiguous()),
        "reshape": (first, lambda x: x.reshape(-1)),
        "to_f32": (first, lambda x: x.to(torch.float32)),
        "to_i64": (first, lambda x: x.to(torch.int64)),
        "plus": (number, lambda x, n: x + n),
        "relu": (first, lambda x: x.relu()),
        "zeros_like": (first, lambda x: torch.zeros_like(x)),
    }
    writes = {
        "fill_": (number, lambda x, n: x.fill_(n)),
        "zero_": (first, lambda x: x.zero_()),
        "add_": (number, lambda x, n: x.add_(n)),
        "mul_": (number, lambda x, n: x.mul_(n)),
        "neg_": (first, lambda x: x.neg_()),
        "relu_": (first, lambda x: x.relu_()),
        "masked_fill_": (number, lambda x, n: x.masked_fill_(x > 0, n)),
        "set_slice": (lambda r, s: axis_and(r, s, lambda n: (*cut(r)(n), r.choice([7, -5]))), lambda x, a, i, n, step, v: slice_(x, a, i, n, step).fill_(v)),
    }
    pairs = {
        "copy_": lambda x, y: x.copy_(y),
        "add_tensor_": lambda x, y: x.add_(y),
        "sub_tensor_": lambda x, y: x.sub_(y, alpha=2),
        "mul_tensor_": lambda x, y: x.mul_(y),
        "set_where_": lambda x, y: x.masked_fill_(y > 1, 4),
    }
    return views, copies, writes, pairs


def generate(seed):
    """A program: its steps, and the values that it returns. Every step runs in eager torch at all batches."""
    import torch

    views, copies, writes, pairs = make_steps()
    r = random.Random(seed)
    shape = r.choice([(4,), (2, 4), (4, 6), (3, 4, 2), (4, 4), (6, 1, 2)])
    dtype = r.choice([torch.float32, torch.float32, torch.int64])
    inputs = [torch.ones((batch, *shape), dtype=dtype) for batch in BATCHES]
    steps, states = [], [[x] for x in inputs]

    def attempt(step):
        """Takes the step if torch runs the program with it."""
        nonlocal states
        try:
            trial = [run([*steps, step], x.clone()) for x in inputs]
        except (RuntimeError, IndexError, ValueError, TypeError):
            return
        if all(0 < values[-1].numel() < 2000 and values[-1].dim() < 7 for values in trial):
            steps.append(step)
            states = trial

    if r.random() < 0.5:
        attempt(("clone", 0, ()))
    for _ in range(40):
        if len(steps) >= r.randrange(6, 16):
            break
        kind = r.choices([views, copies, writes, pairs], [5, 1, 3, 2])[0]
        name = r.choice(list(kind))
        of = r.randrange(len(states[0]))
        if kind is pairs:
            attempt((name, of, (r.randrange(len(states[0])),)))
            continue
        shapes = [values[of].shape for values in states]
        if len(shapes[0]) != len(shapes[1]):
            continue
        sizes = [a if a == b else None for a, b in zip(*shapes)]
        arguments = kind[name][0](r, sizes)
        if arguments is not None:
            attempt((name, of, arguments))
    count = len(states[0])
    returned = sorted({0, count - 1, *r.sample(range(count), min(count, 3))})
    return steps, returned, (shape, dtype)


def run(steps, x):
    """All values of a program."""
    values = [x]
    for step in steps:
        values.append(apply(step, values))
    return values


def apply(step, values):
    views, copies, writes, pairs = make_steps()
    name, of, arguments = step
    if name in pairs:
        return pairs[name](values[of], values[arguments[0]])
    return {**views, **copies, **writes}[name][1](values[of], *arguments)


def export_program(seed, folder):
    """Writes both forms; gives the program's text, and what torch could not do."""
    import torch
    from safetensors.torch import save_file

    steps, returned, (shape, dtype) = generate(seed)

    class Program(torch.nn.Module):
        def forward(self, x):
            values = run(steps, x)
            return tuple(values[i] for i in returned)

    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randint(-4, 5, (batch, *shape), generator=generator).to(dtype) for batch in BATCHES]
    program, sizes, reason = None, BATCHES, None
    for dynamic in (True, False):
        shapes = ({0: torch.export.Dim("batch", min=2, max=16)},) if dynamic else None
        try:
            with torch.no_grad():
                program = torch.export.export(Program(), (inputs[0].clone(),), dynamic_shapes=shapes, strict=False)
            sizes = BATCHES if dynamic else BATCHES[:1]
            break
        except Exception as error:  # noqa: BLE001
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
    record = {"seed": seed, "program": [f"%{i + 1} = {n} %{of} {list(a)}" for i, (n, of, a) in enumerate(steps)], "returned": returned}
    if program is None:
        return record | {"torch": reason}
    forms = {"default": program, "decomposed": program.run_decompositions({})}
    cases = {}
    for x in inputs[: len(sizes)]:
        outputs = [y.contiguous().clone() for y in Program()(x.clone())]
        if all(agrees(form, x, outputs) for form in forms.values()):
            cases[x.shape[0]] = {"in.0": x} | {f"out.{i}": y for i, y in enumerate(outputs)}
    if not cases:
        return record | {"torch": "torch disagrees with itself"}
    for name, form in forms.items():
        home = folder / f"{seed:05}.{name}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        torch.export.save(form, home / "model.pt2")
        for size, case in cases.items():
            save_file(case, home / f"case_{size}.safetensors")
    return record | {"sizes": len(cases)}


def agrees(program, x, wanted):
    """Whether torch runs what it exported to the same end. It does not where an operand overlaps with what is written, or where a
    write goes to an expanded tensor; and its decomposition sometimes fixes the batch."""
    import torch

    try:
        return all(torch.equal(a, b) for a, b in zip(program.module()(x.clone()), wanted, strict=True))
    except (AssertionError, RuntimeError, ValueError):
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the first program")
    parser.add_argument("--folder", type=pathlib.Path, help="where the programs are kept")
    parser.add_argument("--jobs", type=int, default=max(1, os.cpu_count() // 2))
    options = parser.parse_args()
    os.nice(10)
    warnings.simplefilter("ignore")
    import logging

    import torch

    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    folder = (options.folder or pathlib.Path(tempfile.mkdtemp(prefix="aotfarm-programs-"))).resolve()
    records = [export_program(seed, folder) for seed in range(options.seed, options.seed + options.count)]
    exported = [record for record in records if "torch" not in record]
    dynamic = sum(record["sizes"] == 2 for record in exported)
    print(f"{len(records)} programs, {len(exported)} from which torch makes two forms that agree, {dynamic} of them at two sizes; in {folder}")
    for reason, count in collections.Counter(record["torch"] for record in records if "torch" in record).items():
        print(f"{count} left out: {reason}")
    names = [f"{record['seed']:05}.{form}" for record in exported for form in ("default", "decomposed")]
    (folder / "pairs.txt").write_text("\n".join(str(folder / name) for name in names))
    judge = os.environ.get("JUDGE", "cargo run --quiet -p aotfarm-compiler --example judge --").split()
    arguments = ["--jobs", str(options.jobs), "--json", str(folder / "verdicts.json"), f"@{folder / 'pairs.txt'}"]
    subprocess.run([*judge, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    verdicts = {pathlib.Path(v["pair"]).name: v for v in json.loads((folder / "verdicts.json").read_text())}
    right = wrong = 0
    for record in exported:
        both = [verdicts[f"{record['seed']:05}.{form}"] for form in ("default", "decomposed")]
        right += all(verdict["verdict"] == "right" for verdict in both)
        wrong += any(verdict["verdict"] == "wrong" for verdict in both)
        if any(verdict["verdict"] != "right" for verdict in both):
            print(f"program {record['seed']} returns {record['returned']}:", *record["program"], sep="\n    ")
            for form, verdict in zip(("default", "decomposed"), both):
                print(f"  {form}: {verdict['verdict']} {verdict['what']}")
    print(f"{right} of {len(exported)} programs are right in both forms, {wrong} are wrong in one")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
