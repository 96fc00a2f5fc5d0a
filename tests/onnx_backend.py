#!/usr/bin/env python3
"""Judge the importer by the ONNX standard's own tests (`onnx.backend.test`: node, simple, pytorch-converted, pytorch-operator, light).

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2 numpy ml_dtypes safetensors
    venv/bin/python tests/onnx_backend.py [--match TEXT] [--sample N] [--folder FOLDER] [--jobs N] [--write]

Each test becomes a folder with its model and a case for each of its data sets; `cargo run -p aotfarm-compiler --example judge --
--interpret` reads and runs them all, with the standard's tolerance. Tests hand over as inputs what exported models hold as
constants (shapes, axes, slices, pads …). A test that is refused for such an input is judged again with it bound to its value, as
`--const` binds one, and counted apart. `--write` makes docs/onnx.md. The environment variable JUDGE names the tool where it was
built already.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = ["node", "simple", "pytorch-converted", "pytorch-operator", "light"]


def tests():
    """Kind, name, model and data sets of every test."""
    for kind in KINDS:
        if kind == "light":
            # Their models and data come in files beside each other, which the loader does not find.
            folder = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
            for path in sorted(folder.glob("*.onnx")):
                values = path.with_name(path.stem + "_output_0.pb")
                yield kind, path.stem, onnx.load(path), [([], [values])] if values.exists() else []
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cases = load_model_tests(kind=kind)
        for case in cases:
            if case.model is not None:
                yield kind, case.name, case.model, case.data_sets
                continue
            folder = pathlib.Path(case.model_dir)
            sets = [([sorted(d.glob("input_*.pb"), key=number)], [sorted(d.glob("output_*.pb"), key=number)]) for d in sorted(folder.glob("test_data_set_*"))]
            yield kind, case.name, onnx.load(folder / "model.onnx"), [(i[0], o[0]) for i, o in sets]


def number(path):
    return int(re.search(r"(\d+)\.pb", path.name)[1])


def array(value):
    """A tensor of a data set, or nothing where it is none."""
    if isinstance(value, pathlib.Path):
        proto = onnx.TensorProto()
        proto.ParseFromString(value.read_bytes())
        value = proto
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, (list, dict)) or value is None:
        return None
    value = np.ascontiguousarray(value).reshape(np.shape(value))
    return value if value.dtype.kind in "biufV" or "float" in value.dtype.name else None


def save(folder, model, sets, bound=()):
    """Writes a folder; whether the cases can be written. Inputs of the names `bound` become constants."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = onnx.ModelProto.FromString(model.SerializeToString())
    own = {t.name for t in model.graph.initializer}
    inputs = [i.name for i in model.graph.input if i.name not in own or len(model.graph.input) == len(sets[0][0] if sets else [])]
    writable = True
    for at, (given, wanted) in enumerate(sets):
        given = dict(zip(inputs, map(array, given)))
        if at == 0:
            for name in bound:
                model.graph.initializer.append(numpy_helper.from_array(given[name], name))
        arrays = {f"in.{i}": given.get(name) for i, name in enumerate(n for n in inputs if n not in bound)}
        arrays |= {f"out.{i}": array(value) for i, value in enumerate(wanted)}
        if any(value is None for value in arrays.values()):
            writable = False
            continue
        try:
            save_file(arrays, folder / f"case_{at}.safetensors")
        except Exception:  # an element type that the format lacks
            writable = False
    onnx.save(model, folder / "model.onnx")
    return writable


def judge(folders, jobs):
    tool = os.environ.get("JUDGE")
    command = [tool] if tool else ["cargo", "run", "-q", "-p", "aotfarm-compiler", "--example", "judge", "--"]
    with tempfile.TemporaryDirectory() as scratch:
        listing, verdicts = pathlib.Path(scratch, "listing"), pathlib.Path(scratch, "verdicts.json")
        listing.write_text("".join(f"{folder}\n" for folder in folders))
        arguments = ["--interpret", "--rtol", "1e-3", "--jobs", str(jobs), "--json", str(verdicts), f"@{listing}"]
        subprocess.run(command + arguments, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return {v["pair"]: (v["verdict"], v["what"]) for v in json.loads(verdicts.read_text())}


def reason(what):
    """A refusal without what is particular to its model."""
    what = re.sub(r"^.*?model\.onnx`?:? ?", "", what.strip().splitlines()[-1] if "\n" in what else what)
    return re.sub(r"\s+", " ", what)[:160]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--match", default="")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "aotfarm-onnx-backend")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    found = [t for t in tests() if args.match in t[1]]
    if args.sample:
        found = random.Random(0).sample(found, min(args.sample, len(found)))
    places, unwritten = {}, set()
    for kind, name, model, sets in found:
        folder = args.folder / kind / name
        places[str(folder)] = (kind, name, model, sets)
        if not save(folder, model, sets):
            unwritten.add(str(folder))
    verdicts = judge(places, args.jobs)
    # Once more, with what must be a constant bound.
    again = {}
    for folder, (kind, name, model, sets) in places.items():
        word, what = verdicts[folder]
        if word == "refused" and sets and re.search(r"constant|known when compiling|axes are missing|depends on", what):
            own = {t.name for t in model.graph.initializer}
            values = dict(zip([i.name for i in model.graph.input if i.name not in own], map(array, sets[0][0])))
            first = model.graph.node[0].input[0] if model.graph.node and model.graph.node[0].input else ""
            bound = [n for n, v in values.items() if v is not None and v.size <= 64 and v.ndim <= 1 and (n != first or len(values) == 1 or model.graph.node[0].op_type == "Range")]
            if bound and len(sets) == 1:
                other = args.folder / "bound" / name
                if save(other, model, sets, bound):
                    again[str(other)] = folder
    bound = set()
    for other, verdict in (judge(again, args.jobs) if again else {}).items():
        if verdict[0] != "refused":
            verdicts[again[other]] = verdict
            bound.add(again[other])
    table, reasons, wrong = collections.defaultdict(collections.Counter), collections.Counter(), []
    for folder, (kind, name, model, sets) in places.items():
        word, what = verdicts[folder]
        if word == "right" and folder in unwritten:
            word, what = "refused", "the test's data has a type that the tests here cannot hand over"
        if word == "wrong":
            word = "crashed" if "ends the process" in what else "failed"
            wrong.append((word, name, what))
        if word == "refused":
            operators = re.findall(r": (?:unsupported operators?:? )?`?([A-Za-z.]+)`?", what)
            reasons[reason(what)] += 1
        table[kind][word] += 1
        table[kind]["bound"] += word == "right" and folder in bound
    lines = ["| group | tests | passed | of these with inputs bound | refused | failed | crashed |", "|---|---|---|---|---|---|---|"]
    for kind in KINDS:
        counts = table[kind]
        total = sum(counts[w] for w in ("right", "refused", "failed", "crashed"))
        lines.append(f"| {kind} | {total} | {counts['right']} | {counts['bound']} | {counts['refused']} | {counts['failed']} | {counts['crashed']} |")
    print("\n".join(lines))
    for entry in wrong:
        print(*entry)
    for what, count in reasons.most_common(150):
        print(count, what)
    if args.write:
        text = ["# What of ONNX is read", "", f"The standard's own tests (`onnx` {onnx.__version__}), by `tests/onnx_backend.py --write`, run by the interpreter.",
            "Inputs that exported models hold as constants are bound to their values where the operator needs to know them.", "", *lines,
            "", "## Why tests are refused", "", "| tests | reason |", "|---|---|"]
        text += [f"| {count} | {what.replace('|', '/')} |" for what, count in reasons.most_common()]
        text += ["", "## Tests that fail", "", *[f"* {word}: {name}: {what}" for word, name, what in wrong]] if wrong else []
        (ROOT / "docs/onnx.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
