"""Measure cold starts: seconds and peak memory of whole commands and imports.

python benchmarks/startup.py [--model my.vcm] [--repeat 5] [-o benchmarks/results/kodak/startup.json]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

PICTURE = pathlib.Path(__file__).parent.parent / "docs" / "examples" / "parrots.png"


def measure(arguments: list[str], repeat: int) -> tuple[float, float]:
    """(least seconds, peak MiB) of a command, over `repeat` processes; exits if one fails."""
    seconds, memory = [], []
    # An installation has its bytecode, which the first process writes here if this environment forbids that.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(repeat):
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        if status:
            raise SystemExit(f"{' '.join(arguments)}: {process.stderr.read().decode()}")
        memory.append(usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10))
        process.stderr.close()
        process.returncode = 0
    return min(seconds), max(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packed, restored = os.path.join(folder, "a.vae"), os.path.join(folder, "a.png")
        command, model = ["-m", "vaecodec"], ["-m", options.model]
        other = model if options.model.endswith(".vcm") else []
        cases = {
            "python that does nothing": ["-c", ""],
            "import vaecodec": ["-c", "import vaecodec"],
            "import numpy": ["-c", "import numpy"],
            "vaecodec --help": [*command, "--help"],
            "vaecodec compress, 768 x 512": [*command, "compress", str(PICTURE), "-f", "-o", packed, *model],
            "vaecodec info": [*command, "info", packed],
            "vaecodec verify": [*command, "verify", packed, *other],
            "vaecodec decompress, 768 x 512": [*command, "decompress", packed, "-f", "-o", restored, *other],
        }
        rows = [[name, *measure(case, options.repeat)] for name, case in cases.items()]
    from common import publish  # late: a child starts with its parent's peak memory, so the parent stays small

    about = f"Whole processes, the fastest of {options.repeat} each; memory is the largest resident set."
    publish(about, ["what", "seconds", "memory, MiB"], rows, options.output)


if __name__ == "__main__":
    main()
