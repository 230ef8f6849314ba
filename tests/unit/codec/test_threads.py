"""Cores change how long it takes, and nothing else."""

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
from support.paths import GOLDEN
from vaecodec.codec import Codec
from vaecodec.codec.tiles import OWN_TILE_PIXELS, Schedule
from vaecodec.container.image_file import parse
from vaecodec.errors import FormatError
from vaecodec.threads import ONE_THREAD, Threads, available_cores, single_threaded_blas

PIXELS = synthetic_image(260, 300)


@pytest.fixture(params=["own", "shared"])
def either(request, monkeypatch):
    """Threads have tiles of their own, or share each."""
    monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", {"own": 1 << 10, "shared": 1 << 40}[request.param])
    return request.param


@pytest.fixture(scope="module")
def alone(tiny):
    return Codec(tiny.model, threads=1)


@pytest.fixture(scope="module")
def many(tiny):
    return Codec(tiny.model, threads=3)


def test_bytes_and_pixels_do_not_depend_on_threads(alone, many, either):
    data = alone.encode(PIXELS, 60, tile=64)
    assert many.encode(PIXELS, 60, tile=64) == data
    assert many.symbol_crcs(data) == alone.symbol_crcs(data)
    assert many.information(PIXELS, 60, tile=64) == alone.information(PIXELS, 60, tile=64)
    for window, reduce in ((None, 1), ((70, 3, 130, 250), 1), (None, 4), ((70, 3, 130, 250), 8)):
        wanted = alone.decode(data, window, reduce)
        np.testing.assert_array_equal(many.decode(data, window, reduce), wanted)


def test_each_thread_has_tiles_of_its_own_where_there_are_enough():
    cases = ((16, OWN_TILE_PIXELS, 2, True), (3, OWN_TILE_PIXELS, 2, False), (16, OWN_TILE_PIXELS - 1, 2, False))
    for tiles, pixels, threads, apart in cases:
        with Schedule(tiles, tiles * pixels, threads) as schedule:
            assert (schedule.inner is ONE_THREAD) == apart
            assert schedule.inner.count == (1 if apart else threads)
    with Schedule(16, 16 * OWN_TILE_PIXELS, 1) as schedule:
        assert schedule.inner is ONE_THREAD


def test_tiles_are_coded_at_the_same_time():
    meeting = threading.Barrier(2)
    with Schedule(16, 16 * OWN_TILE_PIXELS, 2) as schedule:
        list(schedule.map(meeting.wait, [(30,)] * 4))  # goes on once two are here


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_jobs_are_taken_as_there_is_room(threads):
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


def test_damage_found_by_a_thread_is_told_as_ever(alone, many, either):
    data = bytearray(alone.encode(PIXELS, 60, tile=64))
    data[parse(bytes(data)).tiles[7].offset] ^= 1
    messages = []
    for codec in (alone, many):
        with pytest.raises(FormatError, match="tile 7 is damaged") as caught:
            codec.decode(bytes(data), (0, 0, 260, 300))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_threads_do_not_outlive_an_error(many, either):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        many.encode(PIXELS, 60, tile=64, progress=stop)
    assert threading.active_count() == before


def test_threads_do_not_outlive_strips_that_nobody_takes(many, either):
    data, before = many.encode(PIXELS, 60, tile=64), threading.active_count()
    _, strips = many.decode_strips(data)
    next(strips)
    strips.close()
    assert threading.active_count() == before


def test_progress_counts_tiles(alone, many, either):
    for codec in (alone, many):
        said = []
        data = codec.encode(PIXELS, 60, tile=64, progress=lambda *numbers, said=said: said.append(numbers))
        assert said == [(n, 25) for n in range(26)]
        said.clear()
        codec.decode(data, (0, 0, 64, 128), progress=lambda *numbers, said=said: said.append(numbers))
        assert said == [(0, 2), (1, 2), (2, 2)]


def test_a_codec_has_as_many_threads_as_it_is_told(tiny, monkeypatch):
    monkeypatch.setenv("VAECODEC_THREADS", "3")
    assert Codec(tiny.model).threads == available_cores() == 3
    assert Codec(tiny.model, threads=7).threads == 7
    for nonsense in ("", "0", "many", "-2"):
        monkeypatch.setenv("VAECODEC_THREADS", nonsense)
        assert available_cores() >= 1


# ---- strips of one tile


@pytest.mark.parametrize("count", [1, 2, 7])
def test_strips_make_the_whole(count):
    with ThreadPoolExecutor(count) as pool:
        threads = Threads(count, pool if count > 1 else None)
        for rows in (1, 2, 3, 9, 64, 1000):
            strips = threads.strips(rows)
            assert strips[0][0] == 0 and strips[-1][1] == rows
            assert all(a[1] == b[0] for a, b in pairwise(strips))
            done = np.zeros(rows, int)

            def work(strip, done=done):
                done[slice(*strip)] += 1

            threads.over_rows(rows, work)
            assert (done == 1).all()


def test_threads_work_at_the_same_time_and_the_caller_is_one():
    seen, meeting = set(), threading.Barrier(2)

    def work(item):
        seen.add(threading.get_ident())
        meeting.wait(30)  # goes on once two are here

    with ThreadPoolExecutor(1) as pool:
        Threads(2, pool).run(work, range(4))
    assert len(seen) == 2 and threading.get_ident() in seen


def test_work_does_not_wait_for_a_thread_that_has_not_begun():
    with ThreadPoolExecutor(1) as pool:
        busy, made = threading.Event(), []
        pool.submit(busy.wait, 30)
        try:
            Threads(2, pool).run(made.append, range(3))
            assert made == [0, 1, 2]
        finally:
            busy.set()


@pytest.mark.parametrize("bad", [0, 3])
def test_an_error_is_raised_once_all_have_ended(bad):
    made, running = [], []

    def work(n):
        running.append(n)
        if n == bad:
            raise ValueError("bad")
        made.append(n)
        running.remove(n)

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="bad"):
        Threads(3, pool).run(work, range(1000))
    assert running == [bad] and len(made) < 1000


def test_without_threads_everything_happens_here():
    seen = []
    ONE_THREAD.run(lambda n: seen.append((n, threading.get_ident())), range(3))
    assert seen == [(n, threading.get_ident()) for n in range(3)]
    assert ONE_THREAD.strips(1000) == [(0, 1000)] and Threads(9).count == 1


# ---- processes


def decode_golden(path):
    import vaecodec

    codec = vaecodec.load(str(GOLDEN / "tiny.vcm"))
    return codec.decoder.pixel_crcs(path.read_bytes())


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver") if m in multiprocessing.get_all_start_methods()])
def test_other_processes_decode_too(method):
    paths = sorted(GOLDEN.glob("*.vae"))[:4]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(decode_golden, paths)
    assert found == [[tile.pixels for tile in parse(path.read_bytes()).tiles] for path in paths]


FIRST_CALLS = """
import sys, threading
import vaecodec
folder = sys.argv[1]
codec = vaecodec.load(folder + "/tiny.vcm", threads=4)
data = open(folder + "/photo.vae", "rb").read()
found, meeting = [], threading.Barrier(4)
def decode():
    meeting.wait()
    codec.verify(data)
    found.append(codec.encode(codec.decode(data)))
threads = [threading.Thread(target=decode) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len(set(found)))
"""


def test_the_first_calls_of_a_process_may_be_many_at_once():
    """When nothing is cached or packed yet."""
    for _ in range(5):
        run = [sys.executable, "-c", FIRST_CALLS, str(GOLDEN)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120)
        assert done.stdout == "4 1\n", done.stderr


FORK_WHILE_CODING = """
import os, sys, threading, time
import vaecodec
folder = sys.argv[1]
codec = vaecodec.load(folder + "/tiny.vcm", threads=2)
data = open(folder + "/photo.vae", "rb").read()
wanted = codec.decode(data)
stop = threading.Event()
def busy():
    while not stop.is_set():
        codec.decode(data)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
said = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(int((codec.decode(data) == wanted).all()))
    said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(said)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_coding_codes_on():
    run = [sys.executable, "-W", "ignore", "-c", FORK_WHILE_CODING, str(GOLDEN)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{[1] * 10}\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_nobody_forks_while_blas_is_told_of_threads(monkeypatch):
    """It has a lock for that, which nobody in the child would let go of."""
    inside, done = threading.Event(), threading.Event()

    class Slow:
        def limit(self, **_):
            inside.set()
            time.sleep(0.3)
            done.set()
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
        os._exit(17 if done.is_set() else 18)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    thread.join()


def test_threads_of_callers_share_a_codec(many, alone, either):
    data = alone.encode(PIXELS, 60, tile=64)
    wanted, found = alone.decode(data), []
    threads = [threading.Thread(target=lambda: found.append(many.decode(data))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and all(np.array_equal(one, wanted) for one in found)


def test_information_does_not_depend_on_the_order_of_tiles(alone, monkeypatch):
    """Bits whose plain sum in this order is 0."""
    bits = iter([1e17, 1.0, -1e17, *[0.0] * 100])
    monkeypatch.setattr("vaecodec.codec.encoder.information", lambda *arguments: next(bits))
    assert alone.information(PIXELS, 60, tile=64) == 1.0
