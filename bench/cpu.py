#!/usr/bin/env python3
"""Ours against ONNX Runtime and OpenVINO on this CPU: one process, interleaved blocks, outputs checked against float64 first.

    cpu.py WORK [MODEL ...] [--batches 1,8] [--threads 2] [--blocks 15] [--json FILE]

Needs torch, torchvision, onnx, onnxscript (to export), onnxruntime, openvino; a peer that is not installed is left out, and said so. WORK
keeps exports and the farm's data, so a second run only measures. For each number of threads an artifact is tuned with that many. Every
peer has its best documented setting: ONNX Runtime all optimisations; OpenVINO the latency hint in f32. A block is a third of a second of
calls of one side; it begins with a rest, because ONNX Runtime's threads go on spinning for a while after a call and would take a core from
whoever comes next, and its first call is dropped. The ratio of a block's medians, peer / ours, is what noise on the machine disturbs
least; the table gives its median with the 10th and 90th percentile.
"""

import argparse
import importlib.util
import itertools
import os
import pathlib
import statistics
import subprocess
import time

import numpy as np

import models
import record
from artifact import Artifact

BLOCK_SECONDS = 0.33
REST_SECONDS = 0.15


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, file, threads):
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def bind(self, x):
        name = self._session.get_inputs()[0].name
        return lambda: self._session.run(None, {name: x})[0]


class OpenVino:
    name = "openvino"

    def __init__(self, file, threads):
        import openvino

        self.version = openvino.__version__.split("-")[0]
        core = openvino.Core()
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._core, self._model, self._settings = core, core.read_model(str(file)), settings

    def bind(self, x):
        # A fixed shape is OpenVINO's best case.
        self._model.reshape({self._model.inputs[0]: list(x.shape)})
        request = self._core.compile_model(self._model, "CPU", self._settings).create_infer_request()
        return lambda: request.infer([x], share_inputs=True)[0]


def available():
    """The peers that are installed; names those that are not."""
    peers = []
    for peer in (OnnxRuntime, OpenVino):
        if importlib.util.find_spec(peer.name):
            peers.append(peer)
        else:
            print(f"{peer.name} is not installed: left out")
    return peers


def submit(binary, folder, name, threads, home, extra):
    """Submits the model to a farm in `home` and pulls it; returns the artifact's path and the seconds of the submission."""
    environment = {**os.environ, "AOTFARM_DATA_DIR": str(home)}
    start = time.perf_counter()
    own = f"{name}-{threads}t"
    command = [binary, "submit", folder / f"{name}.pt2", "--name", own, "--dim", "batch=1..32", "--threads", str(threads), "--quiet", *extra]
    subprocess.run(command, check=True, env=environment)
    seconds = time.perf_counter() - start
    subprocess.run([binary, "pull", own, "-o", folder], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / f"{own}.so", seconds


def block(run):
    """Median and least seconds of one block."""
    time.sleep(REST_SECONDS)
    samples, end = [], time.perf_counter() + BLOCK_SECONDS
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples[1:]), min(samples)


def relative_error(y, exact):
    return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))


def compare(sides, blocks):
    """Interleaves blocks of all sides; returns for each `(min, median, block medians)` in seconds."""
    medians, least = {name: [] for name in sides}, dict.fromkeys(sides, float("inf"))
    for _ in range(blocks):
        for name, run in sides.items():
            median, low = block(run)
            medians[name].append(median)
            least[name] = min(least[name], low)
    return {name: (least[name], statistics.median(medians[name]), medians[name]) for name in sides}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("models", nargs="*", default=["resnet18"])
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--threads", default="2", help="numbers of threads, as in 1,2,8")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--binary", default="target/release/aotfarm")
    parser.add_argument("--submit", default="", help="further arguments of `aotfarm submit`")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    batches = [int(b) for b in arguments.batches.split(",")]
    rows, installed = [], available()
    print(f"{'MODEL':20} {'THREADS':>7} {'BATCH':>5} {'OURS min/med ms':>18}  {'PEER':12} {'min/med ms':>18} {'PEER/OURS [p10 p90]':>22}  ERROR ours peer")
    for name, threads in itertools.product(arguments.models, map(int, arguments.threads.split(","))):
        folder = models.export(name, arguments.work, batches)
        artifact, seconds = submit(arguments.binary, folder, name, threads, arguments.work / "farm", arguments.submit.split())
        ours = Artifact(artifact, threads)
        cases = np.load(folder / "cases.npz")
        peers = [peer(folder / f"{name}.onnx", threads) for peer in installed]
        for batch in batches:
            x, exact = cases[f"x{batch}"], cases[f"y{batch}"]
            run, outputs = ours.bind([x])
            run()
            sides = {"ours": run, **{p.name: p.bind(x) for p in peers}}
            errors = {"ours": relative_error(outputs[0], exact), **{p.name: relative_error(sides[p.name](), exact) for p in peers}}
            if errors["ours"] > 1e-5:
                raise SystemExit(f"{name}, batch {batch}: the relative error is {errors['ours']:.2e}")
            figures = compare(sides, arguments.blocks)
            for peer in peers:
                ratios = np.array(figures[peer.name][2]) / np.array(figures["ours"][2])
                p10, median, p90 = np.percentile(ratios, [10, 50, 90])
                mine, theirs = ([1e3 * s for s in figures[side][:2]] for side in ("ours", peer.name))
                rows.append({
                    "model": name, "batch": batch, "threads": threads, "peer": peer.name, "peer_version": peer.version,
                    "ours_ms": mine, "peer_ms": theirs, "ratio": median, "p10": p10, "p90": p90, "ours_error": errors["ours"],
                    "peer_error": errors[peer.name], "submit_s": seconds,
                })
                print(f"{name:20} {threads:7} {batch:5} {mine[0]:8.2f} /{mine[1]:8.2f}  {peer.name:12} {theirs[0]:8.2f} /{theirs[1]:8.2f} "
                      f"{median:8.2f} [{p10:.2f} {p90:.2f}]    {errors['ours']:.1e} {errors[peer.name]:.1e}", flush=True)
        ours.close()
    if len(arguments.models) > 1:
        best = {}
        for row in rows:
            key = row["model"], row["threads"], row["batch"]
            best[key] = min(best.get(key, float("inf")), row["ratio"])
        print(f"against the better peer on each: at least {min(best.values()):.2f}, geometric mean {np.exp(np.mean(np.log(list(best.values())))):.2f}")
    if arguments.json:
        record.write(arguments.json, rows, {row["peer"]: row["peer_version"] for row in rows})


if __name__ == "__main__":
    main()
