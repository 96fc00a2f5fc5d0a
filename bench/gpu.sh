#!/usr/bin/env bash
# Everything that needs a GPU, in one go, from a built binary: correctness of ResNet-18 in every precision, figures against torch, a fresh process's first
# inference, what the artifact needs. gpu.sh BINARY WORK [OUT]; python3 must have torch for CUDA (the artifacts and the binary need none of it).
set -uo pipefail
binary=$(realpath "$1") work=$2 out=${3:-$2}
cd "$(dirname "$0")"
mkdir -p "$work" "$out"
export AOTFARM_DATA_DIR=$work/farm HOME=$work
"$binary" doctor

for dtype in bf16 tf32; do
    python3 gpu.py "$work" resnet18 --dtype $dtype --blocks 9 --steps --binary "$binary" --json "$out/gpu-$dtype.json" > "$out/gpu-$dtype.txt" 2>&1
    grep '^resnet18' "$out/gpu-$dtype.txt" || tail -n 5 "$out/gpu-$dtype.txt"
    cp "$work/resnet18/submit-$dtype.txt" "$out/"
done
for dtype in fp16 fp32; do
    python3 gpu.py "$work" resnet18 --dtype $dtype --blocks 1 --no-peer --binary "$binary" --submit "--tune none" > "$out/gpu-$dtype.txt" 2>&1
    grep '^resnet18' "$out/gpu-$dtype.txt" || tail -n 5 "$out/gpu-$dtype.txt"
done

echo "-- what the artifact needs, and a first inference in an environment with nothing but the driver"
artifact=$work/resnet18/resnet18-bf16.so
readelf -d "$artifact" | grep NEEDED
ldd "$artifact"
ls -l "$artifact"
python=$(command -v python3)
for run in 1 2 3; do
    env -i PATH=/usr/bin:/bin "$python" first.py "$artifact" "$work/resnet18/cases.npz"
done
