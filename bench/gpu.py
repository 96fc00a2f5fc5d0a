#!/usr/bin/env python3
"""Ours against torch.compile on this GPU: one process, interleaved blocks, tensors on the device, outputs checked against float64 first.

    gpu.py WORK [MODEL ...] [--dtype tf32,bf16] [--batches 1,2,8,32,128] [--blocks 15] [--no-peer] [--steps] [--json FILE]

Needs torch and torchvision for CUDA, onnx and onnxscript for the export. The peer is torch's fastest documented way: mode "reduce-overhead" (CUDA
graphs), weights frozen, channels-last; it takes the images in its own dtype. A call is timed from the host, synchronised. A block is a fifth of a second of calls
of one side, its first call dropped; the ratio of neighbouring blocks' medians is quoted by its median with the 10th and 90th percentile.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import time

import numpy as np
import torch

import models
import record
from artifact import Artifact

BLOCK_SECONDS = 0.2
#: Largest relative error against float64, by dtype.
LIMITS = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2, "fp16": 5e-3}
TORCH = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def submit(binary, folder, name, dtype, home, batches, extra):
    """Submits the model to a farm in `home` and pulls it; returns the artifact's path and the seconds of the submission."""
    environment = {**os.environ, "AOTFARM_DATA_DIR": str(home)}
    start = time.perf_counter()
    command = [binary, "submit", folder / f"{name}.pt2", "--name", f"{name}-{dtype}", "--device", "cuda", "--dtype", dtype]
    command += ["--dim", f"batch=1..{max(batches)}", "--tune-at", ",".join(map(str, batches)), *extra]
    with open(folder / f"submit-{dtype}.txt", "w") as log:
        if subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode != 0:
            raise SystemExit((folder / f"submit-{dtype}.txt").read_text()[-6000:])
    seconds = time.perf_counter() - start
    subprocess.run([binary, "pull", f"{name}-{dtype}", "-o", folder], check=True, env=environment, stdout=subprocess.DEVNULL)
    return folder / f"{name}-{dtype}.so", seconds


def peer(model, dtype, x):
    """The model as torch runs it fastest, on images like `x`; with what it calls itself."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch._dynamo.reset()
    compiled = torch.compile(model.to(TORCH[dtype]).cuda().to(memory_format=torch.channels_last), mode="reduce-overhead")
    image = x.to(TORCH[dtype]).to(memory_format=torch.channels_last)
    for _ in range(4):
        compiled(image)
    return lambda: compiled(image)


def block(run):
    """Median and least seconds of one block."""
    samples, end = [], time.perf_counter() + BLOCK_SECONDS
    while len(samples) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples[1:]), min(samples)


def relative_error(y, exact):
    return float(np.linalg.norm(y.astype(np.float64) - exact) / np.linalg.norm(exact))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("models", nargs="*", default=["resnet18"])
    parser.add_argument("--dtype", default="tf32,bf16")
    parser.add_argument("--batches", default="1,2,8,32,128")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--binary", default="target/release/aotfarm")
    parser.add_argument("--submit", default="", help="further arguments of `aotfarm submit`")
    parser.add_argument("--no-peer", action="store_true", help="only check and time ours")
    parser.add_argument("--steps", action="store_true", help="print what each step takes")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    batches = [int(b) for b in arguments.batches.split(",")]
    rows = []
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{'MODEL':14} {'DTYPE':5} {'BATCH':>5} {'OURS min/med ms':>18} {'PEER min/med ms':>18} {'OURS/PEER [p10 p90]':>22}  ERROR ours peer")
    for name in arguments.models:
        folder = models.export(name, arguments.work, batches, onnx=False)
        cases = np.load(folder / "cases.npz")
        for dtype in arguments.dtype.split(","):
            artifact, seconds = submit(
                arguments.binary, folder, name, dtype, arguments.work / "farm", batches, arguments.submit.split()
            )
            ours = Artifact(artifact, 0)
            print(f"{name} {dtype}: submitted in {seconds:.1f} s, {artifact.stat().st_size / 1e6:.1f} MB, loaded in {1e3 * ours.load_seconds:.1f} ms")
            for batch in batches:
                x, exact = torch.from_numpy(cases[f"x{batch}"]).cuda(), cases[f"y{batch}"]
                run, outputs = ours.bind([x])
                run()
                torch.cuda.synchronize()
                sides = {"ours": run}
                errors = {"ours": relative_error(outputs[0].cpu().numpy(), exact)}
                if not errors["ours"] <= LIMITS[dtype]:
                    print(f"{name} {dtype} batch {batch}: WRONG, the relative error is {errors['ours']:.2e}", flush=True)
                if not arguments.no_peer:
                    sides["peer"] = peer(models.build(name)[0], dtype, x)
                    with torch.no_grad():
                        errors["peer"] = relative_error(sides["peer"]().float().cpu().numpy(), exact)
                medians, least = {side: [] for side in sides}, dict.fromkeys(sides, float("inf"))
                with torch.no_grad():
                    for _ in range(arguments.blocks):
                        for side, call in sides.items():
                            median, low = block(call)
                            medians[side].append(median)
                            least[side] = min(least[side], low)
                row = {"model": name, "dtype": dtype, "batch": batch, "submit_s": seconds, "errors": errors}
                text = [f"{name:14} {dtype:5} {batch:5}"]
                for side in ("ours", "peer"):
                    if side in sides:
                        row[side + "_ms"] = [1e3 * least[side], 1e3 * statistics.median(medians[side])]
                        text.append(f"{row[side + '_ms'][0]:8.3f} /{row[side + '_ms'][1]:8.3f}")
                if "peer" in sides:
                    ratios = np.array(medians["ours"]) / np.array(medians["peer"])
                    row["p10"], row["ratio"], row["p90"] = np.percentile(ratios, [10, 50, 90])
                    text.append(f"{row['ratio']:8.3f} [{row['p10']:.3f} {row['p90']:.3f}]  ")
                text.append(" ".join(f"{e:.1e}" for e in errors.values()))
                rows.append(row)
                print(" ".join(text), flush=True)
                if arguments.steps:
                    times = np.median([run.timed() for _ in range(20)], axis=0)
                    for label, step in zip(ours.steps, times):
                        print(f"    {1e6 * step:9.1f} us  {label}")
            ours.close()
    if arguments.json:
        record.write(arguments.json, rows, {"torch": torch.__version__}, torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
