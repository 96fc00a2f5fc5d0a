#!/usr/bin/env python3
"""How cold tuning scales with build slots: the same submission to a farm of its own, again and again, with one worker of N slots.

    scaling.py WORK MODEL.pt2 [--slots 1,2,4,8,16] [--device cuda:0] [--submit "--dtype bf16 …"]

Each time the coordinator and the worker are processes of their own with empty folders. Efficiency is the first row's slots x seconds over
the row's. What every row has in common and slots cannot shorten (planning, linking, measuring on the one device, the profile) is in the
seconds, as a user meets it.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import time


@contextlib.contextmanager
def farm(binary, home, slots, device):
    """A coordinator and a worker with empty folders, which end with the context; gives the address once the worker is known."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "worker").mkdir(parents=True)
    environment = {**os.environ, "AOTFARM_DATA_DIR": str(home)}

    processes = []

    def start(role, *command):
        with open(home / f"{role}.log", "w") as log:
            processes.append(subprocess.Popen([binary, *command], env=environment, stdout=log, stderr=log))

    def answer(role, poll):
        while not (found := poll()):
            if processes[-1].poll() is not None:
                raise SystemExit((home / f"{role}.log").read_text())
            time.sleep(0.1)
        return found

    try:
        start("coordinator", "coordinator", "--listen", "127.0.0.1:0")
        log = home / "coordinator.log"
        url = answer("coordinator", lambda: re.search(r"http://[^,]+(?=,)", log.read_text()))[0]
        start("worker", "--coordinator", url, "worker", "--slots", str(slots), "--device", device, "--work-dir", home / "worker")
        listing = [binary, "--coordinator", url, "workers"]
        answer("worker", lambda: "alive" in subprocess.run(listing, capture_output=True, text=True).stdout)
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--slots", default="1,2,4,8,16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--binary", default="target/release/aotfarm")
    parser.add_argument("--submit", default="", help="further arguments of `aotfarm submit`")
    arguments = parser.parse_args()
    base = None
    print(f"{'SLOTS':>5} {'SECONDS':>8} {'EFFICIENCY':>10}  TUNING")
    for slots in map(int, arguments.slots.split(",")):
        with farm(arguments.binary, arguments.work / f"scaling-{slots}", slots, arguments.device) as url:
            start = time.perf_counter()
            command = [arguments.binary, "--coordinator", url, "submit", arguments.model, "--quiet", "--device", arguments.device.split(":")[0]]
            log = subprocess.run([*command, *arguments.submit.split()], capture_output=True, text=True)
            seconds = time.perf_counter() - start
            if log.returncode != 0:
                raise SystemExit(log.stdout + log.stderr)
        base = base or slots * seconds
        tuned = re.search(r"tuned .*", log.stdout + log.stderr)
        print(f"{slots:5} {seconds:8.1f} {100 * base / (slots * seconds):9.0f} %  {tuned[0] if tuned else ''}", flush=True)


if __name__ == "__main__":
    main()
