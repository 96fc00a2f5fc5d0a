#!/usr/bin/env python3
"""Seconds of loading an artifact and of its first and second inference, in this fresh process. first.py ARTIFACT CASES.npz"""

import sys
import time

import numpy as np

from artifact import Artifact

x = np.load(sys.argv[2])["x1"]
start = time.perf_counter()
artifact = Artifact(sys.argv[1], 0)
run, _ = artifact.bind([x])
marks = [time.perf_counter()]
for _ in range(3):
    run()
    marks.append(time.perf_counter())
print(f"load {1e3 * (marks[0] - start):.1f} ms, then inferences of " + ", ".join(f"{1e3 * (b - a):.2f}" for a, b in zip(marks, marks[1:])) + " ms")
