#!/usr/bin/env python3
"""Decode with a compiled decoder that keeps its cache as state, and compare with what torch said, token for token.

    aotfarm submit tests/fixtures/state/static_cache.pt2 --device cuda && aotfarm pull static_cache
    python3 tests/decode.py static_cache.so tests/fixtures/state/static_cache.calls.safetensors

The file of calls is one of `tests/fixtures/make_state.py`: tokens and positions, the first four of a prompt. From then on the artifact
is given what it says itself. Needs numpy only.
"""

import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "bench"))
from artifact import Artifact  # noqa: E402

PROMPT = 4
KINDS = {"F32": np.float32, "I64": np.int64}


def tensors_of(path):
    """The tensors of a safetensors file by name."""
    content = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    of = lambda info: content[start + info["data_offsets"][0] : start + info["data_offsets"][1]]
    return {name: np.frombuffer(of(info), KINDS[info["dtype"]]).reshape(info["shape"]) for name, info in header.items()}


def main():
    artifact, calls = Artifact(sys.argv[1], 0), tensors_of(sys.argv[2])
    count = sum(name.startswith("out.") for name in calls)
    said, worst = [], 0.0
    for call in range(count):
        token, position = (calls[f"in.{call}.{i}"].copy() for i in range(2))
        if call >= PROMPT:
            token[...] = said[-1]
        run, (logits,) = artifact.bind([token, position])
        run()
        wanted = calls[f"out.{call}.0"]
        worst = max(worst, float(np.linalg.norm(logits - wanted) / np.linalg.norm(wanted)))
        said.append(int(np.argmax(logits[0, -1])))
    wanted = [int(calls[f"in.{call}.0"].item()) for call in range(PROMPT, count)]
    said = said[PROMPT - 1 : count - 1]
    print(f"{artifact.metadata['target']}: {len(said)} tokens {said}, largest relative error of the logits {worst:.2g}")
    if said != wanted:
        sys.exit(f"torch said {wanted}")


if __name__ == "__main__":
    main()
