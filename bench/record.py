"""A run's figures as a file of bench/results: what was measured, where, when and against what."""

import datetime
import json
import os
import pathlib
import re
import sys


def machine():
    """The CPU's name and the cores that this process may use."""
    name = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{name[1] if name else os.uname().machine}, {len(os.sched_getaffinity(0))} cores"


def write(path, rows, versions, device=None):
    """Writes `rows`, one a line, below the facts of this run; `device` is the machine if it is not the CPU."""
    facts = {
        "machine": f"{device}, {machine()}" if device else machine(),
        "date": datetime.date.today().isoformat(),
        "command": " ".join(sys.argv),
        "versions": versions,
    }
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    path.write_text(f'{json.dumps(facts, indent=1)[:-2]},\n "rows": [\n  {lines}\n ]\n}}\n')
