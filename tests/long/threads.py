"""Code with the native core under ThreadSanitizer, from 16 threads at once.

    python tests/long/threads.py --minutes 10

A core is compiled with ThreadSanitizer, and this program runs itself again with that library.  The threads share one
codec: each encodes and decodes images of its own, and of some all threads of a call share the strips.  First a race is
made on purpose, to see that one is reported.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

THREADS = 16
CORE, MODE = "VAECODEC_CORE_LIBRARY", "VAECODEC_THREADS_MODE"
REPORT = "WARNING: ThreadSanitizer: data race"
SIZES = ((16, 16), (40, 56), (64, 200), (130, 90), (300, 260))


def run_again(mode: str, core: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """This program with a core that has a race detector, whose runtime must be loaded before Python's libraries."""
    runtime = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    environment = os.environ | {
        MODE: mode,
        CORE: str(core),
        "LD_PRELOAD": runtime.stdout.strip(),
        "TSAN_OPTIONS": "exitcode=66:report_signal_unsafe=0:history_size=4",
        "OPENBLAS_NUM_THREADS": "1",
    }
    # The detector needs addresses that Linux gives without randomisation.
    line = ["setarch", "-R", sys.executable, *sys.argv]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def in_threads(work: object, count: int = THREADS) -> None:
    """Call work(n) in threads, all at once; raises the first exception."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def work_once(number: int) -> None:
        barrier.wait()
        try:
            work(number)  # type: ignore[operator]
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work_once, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def race() -> None:
    """Sort in two threads into the same arrays."""
    import numpy as np

    from vaecodec.native import library

    indices = np.arange(1 << 16).astype(np.uint8)
    places, order, counts = np.empty(1 << 16, np.uint32), np.empty(1 << 16, np.uint32), np.empty(256, np.int32)

    def work(number: int) -> None:
        for _ in range(20):
            library.call("sort_by_table", "qpppp", indices.size, indices, places, order, counts)

    in_threads(work, 2)


def code(minutes: float) -> None:
    """Encode and decode until the time is over."""
    import numpy as np

    from support.images import synthetic_image
    from support.mutants import tiny_model
    from vaecodec.codec import Codec, exact, modes

    codecs = [Codec(tiny_model(), threads=1), Codec(tiny_model(), threads=THREADS)]
    until, done, lock = time.monotonic() + 60 * minutes, 0, threading.Lock()
    expected: dict[tuple[object, ...], bytes] = {}

    def work(number: int) -> None:
        nonlocal done
        rng = random.Random(number)
        while time.monotonic() < until:
            size, quality, effort = rng.choice(SIZES), rng.choice((20, 90)), rng.choice((1, 1, 2))
            pixels, codec = synthetic_image(*size), rng.choice(codecs)
            if rng.randrange(3):
                data = codec.encode(pixels, quality, tile=64, effort=effort)
                key: tuple[object, ...] = (size, quality, effort)
                decoded = codec.decode(data)
                assert decoded.shape == pixels.shape
            else:
                data = exact.pack(pixels, rng.choice((0, 2)), threads=THREADS, tile=64)
                key = (size, data[24:28], len(data))
                modes.decode(data, threads=THREADS)
            with lock:
                assert expected.setdefault(key, data) == data, "bytes depend on threads"
                done += 1

    in_threads(work)
    assert np.isfinite(done)
    print(f"{done} images encoded and decoded in {THREADS} threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    mode = os.environ.get(MODE)
    if mode:
        return race() if mode == "race" else code(options.minutes)
    from support.plain_core import compile_plain

    with tempfile.TemporaryDirectory() as folder:
        core = pathlib.Path(folder, "core.so")
        sources = TESTS.parent / "vaecodec" / "native" / "src"
        compile_plain(core, sources, "gcc", ("-fsanitize=thread", "-g1"))
        control = run_again("race", core)
        if REPORT not in control.stderr:
            sys.exit(f"the race on purpose was not reported: {control.stderr[-2000:]}")
        done = run_again("code", core)
    print(done.stdout.strip())
    if done.returncode or REPORT in done.stderr:
        sys.exit(f"status {done.returncode}: {done.stderr[:8000]}")
    print("no race was reported; the one on purpose was")


if __name__ == "__main__":
    main()
