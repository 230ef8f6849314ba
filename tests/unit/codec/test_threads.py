"""Test that threads change the speed of coding and not its results."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest

from support.images import synthetic_image
from support.models import pixel_crcs_of_golden
from support.paths import GOLDEN
from vaecodec.codec import Codec
from vaecodec.codec.tiles import OWN_TILE_PIXELS, Schedule
from vaecodec.container.image_file import parse
from vaecodec.errors import CodecError, FormatError
from vaecodec.threads import ONE_THREAD, Threads, available_cores, single_threaded_blas
from vaecodec.transforms import Grid

PIXELS = synthetic_image(260, 300)


@pytest.fixture(params=["own", "shared"])
def tile_sharing(request, monkeypatch):
    """Give each thread its own tiles, or let all threads share each tile."""
    monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", {"own": 1 << 10, "shared": 1 << 40}[request.param])
    return request.param


@pytest.fixture(scope="module")
def single_threaded(tiny):
    return Codec(tiny.model, threads=1)


@pytest.fixture(scope="module")
def multithreaded(tiny):
    return Codec(tiny.model, threads=3)


def test_bytes_and_pixels_do_not_depend_on_threads(single_threaded, multithreaded, tile_sharing):
    data = single_threaded.encode(PIXELS, 60, tile=64)
    assert multithreaded.encode(PIXELS, 60, tile=64) == data
    assert multithreaded.symbol_crcs(data) == single_threaded.symbol_crcs(data)
    assert multithreaded.information(PIXELS, 60, tile=64) == single_threaded.information(PIXELS, 60, tile=64)
    for window, reduce in ((None, 1), ((70, 3, 130, 250), 1), (None, 4), ((70, 3, 130, 250), 8)):
        expected = single_threaded.decode(data, window, reduce)
        np.testing.assert_array_equal(multithreaded.decode(data, window, reduce), expected)


def test_threads_code_whole_tiles_if_there_are_enough():
    cases = ((16, OWN_TILE_PIXELS, 2, True), (3, OWN_TILE_PIXELS, 2, False), (16, OWN_TILE_PIXELS - 1, 2, False))
    for tiles, pixels, threads, one_tile_per_thread in cases:
        with Schedule(tiles, tiles * pixels, threads) as schedule:
            assert (schedule.inner is ONE_THREAD) == one_tile_per_thread
            assert schedule.inner.count == (1 if one_tile_per_thread else threads)
    with Schedule(16, 16 * OWN_TILE_PIXELS, 1) as schedule:
        assert schedule.inner is ONE_THREAD


def test_tiles_of_256_pixels_are_enough_for_a_thread_each():
    """Fewer tiles than two for each thread, or smaller ones, are shared."""
    for side, tile, count, apart in ((1024, 256, 4, True), (1024, 256, 3, False), (1020, 255, 4, False)):
        with Schedule.of_grids([(Grid(side, side, tile), count)], threads=2) as schedule:
            assert (schedule.inner is ONE_THREAD) == apart


@pytest.mark.parametrize("tiles", [1, 2])
def test_a_single_tile_of_planes_is_taken_by_the_caller(tiles):
    with Schedule.for_planes(tiles, threads=2) as schedule:
        threads = set(schedule.map(threading.get_ident, [()] * tiles))
        assert (threading.get_ident() in threads) == (tiles == 1)


def test_tiles_are_coded_concurrently():
    meeting = threading.Barrier(2)
    with Schedule(16, 16 * OWN_TILE_PIXELS, 2) as schedule:
        list(schedule.map(meeting.wait, [(30,)] * 4))  # a wait returns once two threads wait


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_jobs_are_taken_lazily(threads):
    taken = []

    def jobs():
        for n in range(100):
            taken.append(n)
            yield (n,)

    with Schedule(64, 64 * OWN_TILE_PIXELS, threads) as schedule:
        results = schedule.map(lambda n: n * n, jobs())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert len(taken) <= 5 + threads + 1
        assert list(results) == [n * n for n in range(5, 100)]


def test_damage_raises_the_same_error_on_every_number_of_threads(single_threaded, multithreaded, tile_sharing):
    data = bytearray(single_threaded.encode(PIXELS, 60, tile=64))
    data[parse(bytes(data)).tiles[7].offset] ^= 1
    messages = []
    for codec in (single_threaded, multithreaded):
        with pytest.raises(FormatError, match="tile 7 is damaged") as caught:
            codec.decode(bytes(data), (0, 0, 260, 300))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_threads_end_after_an_error(multithreaded, tile_sharing):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        multithreaded.encode(PIXELS, 60, tile=64, progress=stop)
    assert threading.active_count() == before


def test_threads_end_when_strips_are_closed_early(multithreaded, tile_sharing):
    data, before = multithreaded.encode(PIXELS, 60, tile=64), threading.active_count()
    _, strips = multithreaded.decode_strips(data)
    next(strips)
    strips.close()
    assert threading.active_count() == before


def test_progress_counts_tiles(single_threaded, multithreaded, tile_sharing):
    for codec in (single_threaded, multithreaded):
        reports = []
        data = codec.encode(PIXELS, 60, tile=64, progress=lambda *numbers, reports=reports: reports.append(numbers))
        assert reports == [(n, 25) for n in range(26)]
        reports.clear()
        codec.decode(data, (0, 0, 64, 128), progress=lambda *numbers, reports=reports: reports.append(numbers))
        assert reports == [(0, 2), (1, 2), (2, 2)]


def test_the_number_of_threads_is_configurable(tiny, monkeypatch):
    monkeypatch.setenv("VAECODEC_THREADS", "3")
    assert Codec(tiny.model).threads == available_cores() == 3
    assert Codec(tiny.model, threads=7).threads == 7
    monkeypatch.setenv("VAECODEC_THREADS", "")
    assert available_cores() >= 1
    for nonsense in ("0", "many", "-2"):
        monkeypatch.setenv("VAECODEC_THREADS", nonsense)
        with pytest.raises(CodecError, match=f"VAECODEC_THREADS is '{nonsense}', expected a whole number of 1 or more"):
            available_cores()


# ---- strips of one tile


@pytest.mark.parametrize("count", [1, 2, 7])
def test_strips_cover_each_row_once(count):
    with ThreadPoolExecutor(count) as pool:
        threads = Threads(count, pool if count > 1 else None)
        for height in (1, 2, 3, 9, 64, 1000):
            strips = threads.strips(height)
            assert strips[0][0] == 0 and strips[-1][1] == height
            assert all(a[1] == b[0] for a, b in pairwise(strips))
            visits = np.zeros(height, int)

            def work(strip, visits=visits):
                visits[slice(*strip)] += 1

            threads.over_rows(height, work)
            assert (visits == 1).all()


def test_the_calling_thread_works_beside_the_pool():
    thread_ids, meeting = set(), threading.Barrier(2)

    def work(item):
        thread_ids.add(threading.get_ident())
        meeting.wait(30)  # returns once two threads wait

    with ThreadPoolExecutor(1) as pool:
        Threads(2, pool).run(work, range(4))
    assert len(thread_ids) == 2 and threading.get_ident() in thread_ids


def test_work_does_not_wait_for_busy_threads():
    with ThreadPoolExecutor(1) as pool:
        busy, results = threading.Event(), []
        pool.submit(busy.wait, 30)
        try:
            Threads(2, pool).run(results.append, range(3))
            assert results == [0, 1, 2]
        finally:
            busy.set()


@pytest.mark.parametrize("failing", [0, 3])
def test_an_error_is_raised_after_all_threads_end(failing):
    results, running = [], []

    def work(n):
        running.append(n)
        if n == failing:
            raise ValueError("bad")
        results.append(n)
        running.remove(n)

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="bad"):
        Threads(3, pool).run(work, range(1000))
    assert running == [failing] and len(results) < 1000


def test_one_thread_runs_everything_in_the_calling_thread():
    calls = []
    ONE_THREAD.run(lambda n: calls.append((n, threading.get_ident())), range(3))
    assert calls == [(n, threading.get_ident()) for n in range(3)]
    assert ONE_THREAD.strips(1000) == [(0, 1000)] and Threads(9).count == 1


# ---- processes


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver") if m in multiprocessing.get_all_start_methods()])
def test_child_processes_decode(method):
    paths = sorted(GOLDEN.glob("*.vae"))[:4]
    with multiprocessing.get_context(method).Pool(2) as pool:
        checksums = pool.map(pixel_crcs_of_golden, paths)
    assert checksums == [[tile.pixels for tile in parse(path.read_bytes()).tiles] for path in paths]


FIRST_CALLS = """
import sys, threading
import vaecodec
folder = sys.argv[1]
codec = vaecodec.load(folder + "/tiny.vcm", threads=4)
data = open(folder + "/photo.vae", "rb").read()
files, meeting = [], threading.Barrier(4)
def decode():
    meeting.wait()
    codec.verify(data)
    files.append(codec.encode(codec.decode(data)))
threads = [threading.Thread(target=decode) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(files), len(set(files)))
"""


def test_the_first_calls_of_a_process_may_be_concurrent():
    """Nothing is cached or packed yet in a new process."""
    for _ in range(5):
        command = [sys.executable, "-c", FIRST_CALLS, str(GOLDEN)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert process.stdout == "4 1\n", process.stderr


FORK_WHILE_CODING = """
import os, sys, threading, time
import vaecodec
folder = sys.argv[1]
codec = vaecodec.load(folder + "/tiny.vcm", threads=2)
data = open(folder + "/photo.vae", "rb").read()
expected = codec.decode(data)
stop = threading.Event()
def busy():
    while not stop.is_set():
        codec.decode(data)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(int((codec.decode(data) == expected).all()))
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_during_coding_decodes():
    command = [sys.executable, "-W", "ignore", "-c", FORK_WHILE_CODING, str(GOLDEN)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.stdout == f"{[1] * 10}\n", process.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_until_the_threads_of_blas_are_limited(monkeypatch):
    """Limiting the threads of BLAS takes a lock, which no thread of a child would release."""
    inside, finished = threading.Event(), threading.Event()

    class Slow:
        def limit(self, **_):
            inside.set()
            time.sleep(0.3)
            finished.set()
            return nullcontext()

    def use():
        with single_threaded_blas:
            pass

    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr("vaecodec.threads._controller", Slow)
    thread = threading.Thread(target=use)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(17 if finished.is_set() else 18)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    thread.join()


def test_threads_of_a_caller_share_a_codec(multithreaded, single_threaded, tile_sharing):
    data = single_threaded.encode(PIXELS, 60, tile=64)
    expected, images = single_threaded.decode(data), []
    threads = [threading.Thread(target=lambda: images.append(multithreaded.decode(data))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 3 and all(np.array_equal(image, expected) for image in images)


def test_information_does_not_depend_on_the_order_of_tiles(single_threaded, monkeypatch):
    """The sum of these bits in this order, without compensation, is 0."""
    bits = iter([1e17, 1.0, -1e17, *[0.0] * 100])
    monkeypatch.setattr("vaecodec.codec.encoder.information", lambda *arguments: next(bits))
    assert single_threaded.information(PIXELS, 60, tile=64) == 1.0
