#!/usr/bin/env python3
"""The tables of docs/performance.md from bench/results/*.json.

    tables.py            writes them, each between `<!-- NAME -->` and `<!-- / -->`, where NAME.json is its source
    tables.py --check    only says whether that would change anything

A file of results has a machine, a date, a command, the peers' versions, perhaps a note, and rows. Those of `cpu-*` and
`gpu-*` are what bench/cpu.py and bench/gpu.py write by --json; say of the machine what the file's maker cannot know. The
beginning of a file's name says which table it becomes.
"""

import argparse
import json
import math
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/performance.md"
RESULTS = ROOT / "bench/results"
MARKED = re.compile(r"(<!-- ([a-z0-9-]+) -->\n).*?(<!-- / -->)", re.DOTALL)
PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch"}


def milliseconds(value):
    """Four digits at most, and no more than two after the point from 0.5 on."""
    return f"{value:.{3 if value < 0.5 else 2 if value < 100 else 1}f}"


def pair(values, show=milliseconds):
    return " / ".join(map(show, values))


def microseconds(value):
    """Milliseconds as three digits after the point, which is what a GPU's timer is good for; two from 10 on."""
    return f"{value:.{3 if value < 10 else 2}f}"


def spread(row, digits=2):
    return f"{row['ratio']:.{digits}f} [{row['p10']:.{digits}f} {row['p90']:.{digits}f}]"


def exponent(value):
    mantissa, power = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(power)}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def cpu(results):
    """A row for each model, number of threads and batch; the peers side by side."""
    rows, cases = results["rows"], {}
    for row in rows:
        cases.setdefault((row["model"], row["threads"], row["batch"]), {})[row["peer"]] = row
    peers = [peer for peer in PEERS if any(row["peer"] == peer for row in rows)]
    by_threads = len({row["threads"] for row in rows}) > 1
    head = ["model", *(["threads"] if by_threads else []), "batch", "ours min / median ms"]
    for peer in peers:
        head += [PEERS[peer], "peer / ours [p10 p90]"]
    lines = []
    for (model, threads, batch), found in cases.items():
        ours = next(iter(found.values()))
        line = [model, *([threads] if by_threads else []), batch, pair(ours["ours_ms"])]
        for peer in peers:
            line += [pair(found[peer]["peer_ms"]), spread(found[peer])] if peer in found else ["", ""]
        lines.append([*line, exponent(ours["ours_error"])])
    text = table([*head, "error"], lines)
    better = [min(row["ratio"] for row in found.values()) for found in cases.values()]
    mean = math.exp(sum(map(math.log, better)) / len(better))
    return f"{text}\nAgainst the better peer of each row: at least {min(better):.2f}, geometric mean {mean:.2f}.\n"


def gpu(results):
    lines = [
        [row["dtype"], row["batch"], pair(row["ours_ms"], microseconds), pair(row["peer_ms"], microseconds), spread(row, 3),
         f"{exponent(row['errors']['ours'])} / {exponent(row['errors']['peer'])}"]
        for row in results["rows"]
    ]
    for row in results.get("untuned", []):
        batches, medians = ", ".join(map(str, row["batches"])), ", ".join(map(microseconds, row["median_ms"]))
        lines.append([f"{row['dtype']}, `--tune none`", batches, f"{medians} (medians)", "", "", exponent(max(row["errors"]))])
    return table(["dtype", "batch", "ours min / median ms", "torch.compile", "ours / peer [p10 p90]", "error ours / peer"], lines)


def layers(results):
    lines = [[r["layer"], r["winner"], f"{r['ms']:.3f}", r["share"], r["next"], f"{r['next_ms']:#.3g}"] for r in results["rows"]]
    return table(["layer", "winner", "ms", "share of peak", "next best family", "ms"], lines)


def scaling(results):
    rows = results["rows"]
    one = rows[0]["slots"] * rows[0]["seconds"]
    lines = [[r["slots"], f"{r['seconds']:.1f}", f"{100 * one / (r['slots'] * r['seconds']):.0f} %"] for r in rows]
    return table(["slots", "seconds", "efficiency"], lines)


def segments(results):
    return table(["model", "segments", "saved"], [[r["model"], r["segments"], r["saved"]] for r in results["rows"]])


def submissions(results):
    def several(row, key):
        return " and ".join(f"{value:,}" for value in row.get(key, []))

    lines = [
        [r["model"], r["machine"], several(r, "seconds"), several(r, "considered"), several(r, "measuring_s")]
        for r in results["rows"]
    ]
    return table(["model", "machine", "seconds", "candidates considered", "of it measuring, s"], lines)


TABLES = {"cpu": cpu, "gpu": gpu, "layers": layers, "scaling": scaling, "segments": segments, "submissions": submissions}


def render(name):
    """What stands between the marks of `name`."""
    results = json.loads((RESULTS / f"{name}.json").read_text())
    versions = ", ".join(f"{PEERS[peer]} {version}" for peer, version in results["versions"].items())
    facts = [results.get("machine"), versions, results["date"], f"`{results['command']}`", results.get("note")]
    return f"{'; '.join(fact for fact in facts if fact)}.\n\n{TABLES[name.split('-')[0]](results)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    check = parser.parse_args().check
    page = PAGE.read_text()
    used = [match[2] for match in MARKED.finditer(page)]
    unused = sorted({file.stem for file in RESULTS.glob("*.json")} - set(used))
    if unused or len(used) != len(set(used)):
        sys.exit(f"docs/performance.md must show each file of bench/results once; without a place: {unused}")
    new = MARKED.sub(lambda match: f"{match[1]}{render(match[2])}{match[3]}", page)
    if check and new != page:
        sys.exit("docs/performance.md does not show what bench/results holds: run bench/tables.py")
    if not check:
        PAGE.write_text(new)


if __name__ == "__main__":
    main()
