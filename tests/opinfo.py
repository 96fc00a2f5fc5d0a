#!/usr/bin/env python3
"""Compare what we make of torch's operators with torch itself, on torch's own samples of them (OpInfo).

    python3 -m venv venv && venv/bin/pip install torch==2.14.1 safetensors numpy expecttest
    venv/bin/python tests/opinfo.py [--op NAME ...] [--dtype f32 i64 bf16] [--limit N] [--folder FOLDER] [--jobs N]

Every sample of `torch.testing._internal.common_methods_invocations.op_db` becomes a module whose inputs are the sample's tensors, with
all other arguments baked in; where the operator has an in-place form, a second one applies that to a clone. Modules are exported
(torch.export, not decomposed, static shapes) beside what torch computes of them, and once more in float64, which tells how exact torch
is itself. `cargo run -p aotfarm-compiler --example judge` then judges them all: read, run by the interpreter, and run as artifacts.

An operator is judged when the first of its samples that torch exports holds no other nodes than those that the importer has a row
for. All its samples count then: also those that it refuses. Without `--op`, `--dtype` and `--limit`, the table becomes
docs/operators.md.

Exporting takes minutes, so pairs stay in the folder (by default `aotfarm-opinfo` in the user's cache) and are not exported again;
remove it after a change of torch or of this file. The environment variable JUDGE names the tool where it was built already.
"""

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPS = ROOT / "compiler/frontend/src/aten/ops"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "aotfarm-opinfo"
DTYPES = {"f32": "float32", "i64": "int64", "bf16": "bfloat16"}


def known_operators():
    """The names of the importer's rows."""
    tables = [text.split("static ROWS")[1].split("\n];")[0] for text in map(pathlib.Path.read_text, OPS.glob("*.rs")) if "static ROWS" in text]
    rows = "".join(tables)
    return set(re.findall(r'"((?:aten|_operator)\.\w+(?:\.\w+)?)"', rows))


def is_known(target, known):
    """As `find` in the importer: the row itself, or that of which this is the in-place form."""
    if target in known or target.startswith("_operator.getitem"):
        return True
    operator, _, overload = target.rpartition(".")
    if operator.startswith("aten.__i"):
        return f"aten.__{operator.removeprefix('aten.__i')}.{overload}" in known
    return operator.endswith("_") and f"{operator.removesuffix('_')}.{overload}" in known


def targets(program):
    """The operators of an exported program, as the file names them."""
    for node in program.graph.nodes:
        if node.op == "call_function":
            name = str(node.target)
            yield name if name.startswith("aten.") else f"_operator.{getattr(node.target, '__name__', name)}"


def tree(sample):
    return sample.input, sample.args, sample.kwargs


def module(function, leaves, spec, in_place):
    """A module that applies the function to its inputs, which take the places of the tensors among the leaves."""
    import torch
    from torch.utils import _pytree as pytree

    class Sample(torch.nn.Module):
        def forward(self, *tensors):
            given = iter(tensors)
            filled = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            value, args, kwargs = pytree.tree_unflatten(filled, spec)
            if in_place:
                value = value.clone()
            result = function(value, *args, **kwargs)
            if in_place:
                result = value
            return tuple(leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor))

    return Sample().eval()


def exact(function, leaves, spec, in_place):
    """What the function gives in float64, `None` where it cannot."""
    import torch

    def wide(leaf):
        if isinstance(leaf, torch.Tensor):
            return leaf.double() if leaf.is_floating_point() else leaf
        return torch.float64 if isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        leaves = [wide(leaf) for leaf in leaves]
        return module(function, leaves, spec, in_place)(*(leaf for leaf in leaves if isinstance(leaf, torch.Tensor)))
    except Exception:  # noqa: BLE001  an operator may refuse a type in any way
        return None
    finally:
        torch.set_default_dtype(default)


def plain(tensors):
    return [tensor.detach().resolve_conj().resolve_neg().contiguous().clone() for tensor in tensors]


def write_pair(folder, program, given, wanted, wide):
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.export.save(program, folder / "model.pt2")
    case = {f"in.{i}": x for i, x in enumerate(plain(given))} | {f"out.{i}": y for i, y in enumerate(plain(wanted))}
    save_file(case, folder / "case.safetensors")
    if wide is not None and len(wide) == len(wanted) and all(a.shape == b.shape for a, b in zip(wide, wanted)):
        save_file({f"out.{i}": y for i, y in enumerate(plain(wide))}, folder / "exact.safetensors")


def export_operator(work):
    """Exports the samples of an operator in a type and a form; gives what is known of each, and writes the pairs."""
    index, dtype, in_place, limit, folder, known = work
    warnings.simplefilter("ignore")
    import logging

    import torch
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.utils import _pytree as pytree

    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    op = op_db[index]
    name = op.name + (f".{op.variant_test_name}" if op.variant_test_name else "") + ("_ (in place)" if in_place else "")
    function = op.inplace_variant if in_place else op.op
    home = folder / "pairs" / re.sub(r"\W+", "_", name) / dtype
    index_file = home / "samples.json"
    if index_file.exists():
        done = json.loads(index_file.read_text())
        # What the importer had no row for may have one by now.
        stale = not done["judged"] and done["unknown"] and all(is_known(target, known) for target in done["unknown"])
        if not stale and (done["complete"] or limit and len(done["samples"]) >= limit):
            return done | {"samples": done["samples"][: limit or None]}
    torch_dtype = getattr(torch, DTYPES[dtype])
    samples, judged, missing = [], None, []
    if torch_dtype in op.supported_dtypes("cpu"):
        torch.manual_seed(0)
        try:
            given_samples = list(itertools.islice(op.sample_inputs("cpu", torch_dtype, requires_grad=False), limit))
        except Exception as error:  # noqa: BLE001
            given_samples = []
            print(f"{name} {dtype}: no samples: {error}", file=sys.stderr)
        for number, sample in enumerate(given_samples):
            leaves, spec = pytree.tree_flatten(tree(sample))
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            pair = home / f"{number:04}"
            record = {"pair": str(pair.relative_to(folder))}
            samples.append(record)
            if pair.exists():
                subprocess.run(["rm", "-r", str(pair)], check=True)
            try:
                torch.manual_seed(0)
                wanted = module(function, leaves, spec, in_place)(*(tensor.clone() for tensor in tensors))
                with torch.no_grad():
                    program = torch.export.export(module(function, leaves, spec, in_place), tuple(tensors), strict=False)
            except Exception as error:  # noqa: BLE001
                record["torch"] = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
                continue
            if not wanted:
                record["torch"] = "no tensor comes out"
                continue
            unknown = sorted({target for target in targets(program) if not is_known(target, known)})
            judged = judged if judged is not None else not unknown
            if not judged:
                missing = unknown
                break
            try:
                write_pair(pair, program, tensors, wanted, exact(function, leaves, spec, in_place))
            except Exception as error:  # noqa: BLE001
                subprocess.run(["rm", "-rf", str(pair)], check=True)
                record["torch"] = f"the program cannot be saved: {error}".splitlines()[0][:120]
    done = {"name": name, "dtype": dtype, "complete": not limit, "judged": bool(judged), "unknown": missing}
    done["samples"] = samples if judged else []
    index_file.parent.mkdir(parents=True, exist_ok=True)
    index_file.write_text(json.dumps(done))
    return done


def judge(folder, pairs, jobs):
    """The verdict of each pair."""
    listing, verdicts = folder / "pairs.txt", folder / "verdicts.json"
    listing.write_text("\n".join(str(folder / pair) for pair in pairs))
    command = ["cargo", "run", "--quiet", "-p", "aotfarm-compiler", "--example", "judge", "--"]
    if "JUDGE" in os.environ:
        command = os.environ["JUDGE"].split()
    subprocess.run([*command, "--jobs", str(jobs), "--json", str(verdicts), f"@{listing}"], cwd=ROOT, check=True)
    return {str(pathlib.Path(verdict["pair"]).relative_to(folder)): verdict for verdict in json.loads(verdicts.read_text())}


def tally(operators, verdicts):
    """Counts by operator, and by operator the texts of refusals and errors with their numbers."""
    rows = {}
    for operator in operators:
        row = rows.setdefault(operator["name"], collections.defaultdict(collections.Counter))
        for record in operator["samples"]:
            dtype = operator["dtype"]
            if "torch" in record:
                row[dtype]["not exported"] += 1
                continue
            verdict = verdicts[record["pair"]]
            row[dtype]["samples"] += 1
            row[dtype][verdict["verdict"]] += 1
            if verdict["verdict"] != "right":
                row["reasons"][verdict["verdict"], reason(verdict["what"])] += 1
    return rows


def reason(what):
    """A message without what is particular to a sample."""
    what = re.sub(r"^node `[^`]*?: ([^`]*)`: ", "", what)
    what = re.sub(r"^node `[^`]*`: ", "", what)
    what = what.removeprefix("cannot import this model: ")
    return re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", what).replace("|", "\\|")[:160]


def report(rows, torch_version):
    total = collections.Counter()
    for row in rows.values():
        for dtype in DTYPES:
            total.update(row[dtype])
    share = total["right"] / max(total["samples"], 1)
    lines = [
        "# Operators of torch",
        "",
        "Written by `tests/opinfo.py`: torch's own samples (OpInfo) of every operator that imports, forward, in f32, i64 and bf16, exported",
        f"by torch {torch_version}, imported, compiled into artifacts and run, against what torch computes. A result is right when it has the",
        "type and shape of torch's, integers are equal, and floats are as near to the float64 result as twice torch's own error, plus rounding.",
        "",
        f"Of {total['samples']} samples {total['right']} are right ({share:.1%}), {total['refused']} are refused with a reason, {total['wrong']} are wrong.",
        f"{total['not exported']} more cannot be exported by torch.",
        "",
        "| operator | f32 | i64 | bf16 | refused | wrong | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items()):
        cells = [f"{row[d]['right']}/{row[d]['samples']}" if row[d]["samples"] else "" for d in DTYPES]
        if not any(cells):
            continue
        refused, wrong = (sum(row[d][kind] for d in DTYPES) for kind in ("refused", "wrong"))
        why = "; ".join(f"{what} ({n})" for (_, what), n in row["reasons"].most_common(2))
        lines.append(f"| {name} | {' | '.join(cells)} | {refused or ''} | {wrong or ''} | {why} |")
    return total, "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", nargs="+", help="only OpInfos of these names")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="only these types")
    parser.add_argument("--limit", type=int, help="at most so many samples of an operator")
    parser.add_argument("--folder", type=pathlib.Path, default=CACHE, help="where the exported pairs are kept")
    parser.add_argument("--jobs", type=int, default=max(1, os.cpu_count() // 2), help="processes that export, threads that judge")
    parser.add_argument("--export-only", action="store_true", help="do not judge")
    options = parser.parse_args()

    os.nice(10)
    warnings.simplefilter("ignore")
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    chosen = [i for i, op in enumerate(op_db) if not options.op or op.name in options.op]
    known = known_operators()
    folder = options.folder.resolve()
    work = [
        (i, dtype, in_place, options.limit, folder, known)
        for i in chosen
        for in_place in ([False, True] if op_db[i].inplace_variant else [False])
        for dtype in options.dtype
    ]
    operators = []
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=200) as pool:
        for done in pool.imap(export_operator, work):
            operators.append(done)
            if done["judged"]:
                print(f"{len(operators)}/{len(work)} {done['name']} {done['dtype']}: {len(done['samples'])} samples", file=sys.stderr)
    operators = [operator for operator in operators if operator["judged"]]
    pairs = [record["pair"] for operator in operators for record in operator["samples"] if "torch" not in record]
    print(f"{len(pairs)} samples of {len({o['name'] for o in operators})} operators", file=sys.stderr)
    if options.export_only:
        return
    rows = tally(operators, judge(folder, pairs, options.jobs))
    total, text = report(rows, torch.__version__.split("+")[0])
    print(text)
    if not options.op and not options.limit and options.dtype == list(DTYPES):
        (ROOT / "docs/operators.md").write_text(text)
    sys.exit(1 if total["wrong"] else 0)


if __name__ == "__main__":
    main()
