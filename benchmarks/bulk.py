"""Measure a folder of images by folder mode and by Ray on this machine: seconds and CPU seconds of all processes.

Linux only: CPU seconds are read from /proc.

python benchmarks/bulk.py PICTURES [--copies 4] [--jobs 2] [-o benchmarks/results/bulk.json]
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import publish


def cpu_seconds() -> float:
    """CPU seconds of this process and its descendants, ended ones included."""
    times: dict[int, tuple[int, float]] = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        times[int(path.split("/")[2])] = int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        parent = waiting.pop()
        total += times[parent][1]
        waiting += [pid for pid, (above, _) in times.items() if above == parent]
    return total


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, CPU seconds) of a call."""
    started, before = time.perf_counter(), cpu_seconds()
    work()
    return round(time.perf_counter() - started, 2), round(cpu_seconds() - before, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder")
    parser.add_argument("--copies", type=int, default=4, help="of each image")
    parser.add_argument("--jobs", type=int, default=2, help="cores to use")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("-o", "--output", help="the table as JSON")
    args = parser.parse_args()
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as here:
        source = os.path.join(here, "in")
        for copy in range(args.copies):
            shutil.copytree(args.images, os.path.join(source, str(copy)))
        count = sum(len(names) for _, _, names in os.walk(source))

        def imported() -> None:
            import vaecodec.integrations.ray  # noqa: F401

        rows.append(["import vaecodec.integrations.ray", 0, *measured(imported)])
        import ray

        from vaecodec.integrations.ray import compress, start

        rows.append(["start Ray", 0, *measured(lambda: start(num_cpus=args.jobs, include_dashboard=False))])
        command = [sys.executable, "-m", "vaecodec", "compress", "-r", source, "--jobs", str(args.jobs), "--quiet"]
        for number in range(args.repeat):
            out = [os.path.join(here, f"{name}{number}") for name in ("folders", "ray", "one")]
            work = [*command, "--output-dir", out[0]]
            rows.append(["folder mode", count, *measured(lambda work=work: subprocess.run(work, check=True))])
            rows.append(["Ray", count, *measured(lambda to=out[1]: compress(source, to))])
            first = os.path.join(source, "0", sorted(os.listdir(args.images))[0])
            rows.append(["Ray, one file", 1, *measured(lambda to=out[2], path=first: compress(path, to))])
        ray.shutdown()
    about = f"{count} images at quality 50, {args.jobs} cores; processor time is that of all processes."
    publish(about, ["what", "files", "seconds", "processor seconds"], rows, args.output)


if __name__ == "__main__":
    main()
