"""Cores change how long it takes, and nothing else."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import GOLDEN, picture

from vaecodec import integer, parallel, tiles
from vaecodec.codec import Codec
from vaecodec.errors import CodecError, FormatError
from vaecodec.integer import one_thread
from vaecodec.parallel import Crew, Worker
from vaecodec.sharing import sharing

PIXELS = picture(260, 300)


@pytest.fixture(autouse=True)
def workers_pay_soon(monkeypatch):
    monkeypatch.setattr(parallel, "PIXELS_EACH", 1 << 12)
    monkeypatch.setattr(parallel, "FEW", 0)
    monkeypatch.setattr(parallel, "PIXELS_OWN", 1 << 10)


@pytest.fixture(params=["workers", "threads"])
def either(request, monkeypatch):
    """Tiles go to workers, or to threads."""
    monkeypatch.setattr(parallel, "FEW", {"workers": 0, "threads": 3}[request.param])
    return request.param


@pytest.fixture(scope="module")
def alone(tiny):
    return Codec(tiny.model, threads=1)


@pytest.fixture(scope="module")
def many(tiny):
    return Codec(tiny.model, threads=3)


def test_bytes_and_pixels_do_not_depend_on_workers(alone, many, either):
    data = alone.encode(PIXELS, 60, tile=64)
    assert many.encode(PIXELS, 60, tile=64) == data
    assert many.symbol_crcs(data) == alone.symbol_crcs(data)
    assert many.information(PIXELS, 60, tile=64) == pytest.approx(alone.information(PIXELS, 60, tile=64))
    for window, reduce in ((None, 1), ((70, 3, 130, 250), 1), (None, 4), ((70, 3, 130, 250), 8)):
        wanted = alone.decode(data, window, reduce)
        np.testing.assert_array_equal(many.decode(data, window, reduce), wanted)


def started(monkeypatch):
    count = []
    monkeypatch.setattr(Worker, "__init__", lambda *_: count.append(1))
    monkeypatch.setattr(Worker, "__call__", lambda *_: None)
    monkeypatch.setattr(Worker, "end", lambda *_: None)
    return count


def test_small_pictures_start_no_workers(tiny, monkeypatch):
    count = started(monkeypatch)
    monkeypatch.setattr(parallel, "PIXELS_EACH", 1 << 22)
    for total, megapixels, threads, wanted in (
        (1, 64, 8, 0),
        (7, 7, 8, 0),
        (64, 64, 1, 0),
        (900, 2, 8, 0),
        (9, 9, 8, 2),
        (64, 64, 3, 3),
    ):
        count.clear()
        with Crew(tiny.model, total, megapixels << 20, threads) as crew:
            list(crew.map(lambda crew=crew, wanted=wanted: crew.call(len) if wanted else None, [()] * 40))
        assert bool(count) == bool(wanted) and len(count) <= wanted


def test_few_threads_start_no_workers(tiny, monkeypatch):
    count = started(monkeypatch)
    monkeypatch.setattr(parallel, "FEW", 3)
    for threads, wanted in ((2, 0), (3, 0), (4, 4)):
        count.clear()
        with Crew(tiny.model, 64, 64 << 20, threads) as crew:
            assert crew.hands.alone == (wanted == 0)
            list(crew.map(lambda crew=crew: crew.call(lambda prior: None), [()] * 40))
        assert bool(count) == bool(wanted) and len(count) <= wanted


def test_each_thread_has_a_tile_of_its_own(tiny, monkeypatch):
    monkeypatch.setattr(parallel, "FEW", 3)
    meeting = threading.Barrier(2)
    with Crew(tiny.model, 4, 1 << 20, 2) as crew:
        list(crew.map(meeting.wait, [(30,), (30,)]))  # goes on once two are here
    for count, pixels in ((1, 1 << 20), (3, 1 << 20), (16, 1 << 13)):  # one tile, too few, too small ones
        with Crew(tiny.model, count, pixels, 2) as crew:
            assert not crew.hands.alone and crew.hands.each is not map


def test_jobs_are_taken_as_there_is_room(tiny, either):
    taken = []

    def jobs():
        for n in range(100):
            taken.append(n)
            yield (n,)

    with Crew(tiny.model, 64, 1 << 26, 2) as crew:
        results = crew.map(lambda n: n * n, jobs())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert len(taken) <= 5 + 3
        assert list(results) == [n * n for n in range(5, 100)]


def test_damage_found_by_a_worker_is_told_as_ever(alone, many, either):
    data = bytearray(alone.encode(PIXELS, 60, tile=64))
    from vaecodec.container import parse

    data[parse(bytes(data)).tiles[7].offset] ^= 1
    messages = []
    for codec in (alone, many):
        with pytest.raises(FormatError, match="tile 7 is damaged") as caught:
            codec.decode(bytes(data), (0, 0, 260, 300))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_worker_that_dies_is_an_error_and_not_a_wait(tiny):
    worker = Worker(tiny.model)
    with pytest.raises(FormatError):
        worker(tiles.check, (1, 1), 0, b"", 0x1234)
    worker._process.kill()
    with pytest.raises(CodecError, match="worker process has died"):
        for _ in range(2):
            worker(tiles.check, (1, 1), 0, b"", 0)
    worker.end()


def test_workers_do_not_outlive_an_error(many, monkeypatch):
    ended = []
    end = Worker.end
    monkeypatch.setattr(Worker, "end", lambda self: (end(self), ended.append(self._process.poll())))

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        many.encode(PIXELS, 60, tile=64, progress=stop)
    assert ended and all(code is not None for code in ended)


def test_progress_counts_tiles(alone, many, either):
    for codec in (alone, many):
        said = []
        data = codec.encode(PIXELS, 60, tile=64, progress=lambda *numbers, said=said: said.append(numbers))
        assert said == [(n, 25) for n in range(26)]
        said.clear()
        codec.decode(data, (0, 0, 64, 128), progress=lambda *numbers, said=said: said.append(numbers))
        assert said == [(0, 2), (1, 2), (2, 2)]


UNGUARDED = """
import sys
import numpy as np
from vaecodec import parallel
from vaecodec.codec import Codec
from vaecodec.model.file import load_model
parallel.PIXELS_EACH, parallel.FEW = 1 << 12, 0
print("started")
codec = Codec(load_model(sys.argv[1] + "/tiny.vcm"), threads=2)
pixels = np.arange(260 * 300 * 3, dtype=np.uint32).reshape(260, 300, 3).astype(np.uint8)
print(codec.decode(codec.encode(pixels, tile=64)).shape)
"""


def test_a_script_without_a_guard_for_its_main_part_is_not_run_again(tmp_path):
    script, elsewhere = tmp_path / "script.py", tmp_path / "elsewhere"
    script.write_text(UNGUARDED)
    elsewhere.mkdir()
    (elsewhere / "pickle.py").write_text("raise SystemExit('a file of the working directory was imported')")
    run = [sys.executable, str(script), str(GOLDEN)]
    env = dict(os.environ, PYTHONPATH=str(GOLDEN.parent.parent))
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, cwd=elsewhere, env=env)
    assert done.stdout == "started\n(260, 300, 3)\n", done.stderr


def decode_golden(path):
    import vaecodec

    codec = vaecodec.load(str(GOLDEN / "tiny.vcm"))
    return codec.symbol_crcs(path.read_bytes())


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver") if m in multiprocessing.get_all_start_methods()])
def test_other_processes_decode_too(tiny, method):
    paths = sorted(GOLDEN.glob("*.vae"))[:4]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(decode_golden, paths) == [tiny.symbol_crcs(path.read_bytes()) for path in paths]


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
        with one_thread:
            pass

    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr(integer, "_blas", Slow)
    thread = threading.Thread(target=use)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(17 if done.is_set() else 18)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    thread.join()


def test_threads_with_workers_of_their_own(many, alone, either):
    data = alone.encode(PIXELS, 60, tile=64)
    wanted, found = alone.decode(data), []
    threads = [threading.Thread(target=lambda: found.append(many.decode(data))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and all(np.array_equal(one, wanted) for one in found)


def test_a_shared_map_works_here_and_elsewhere():
    with ThreadPoolExecutor(1) as pool:
        each, seen = sharing(pool, 1), threading.Barrier(2)

        def both(n):
            seen.wait(10)  # goes on once two are here
            return n, threading.get_ident()

        found = each(both, range(4))
        assert [n for n, _ in found] == [0, 1, 2, 3] and len({thread for _, thread in found}) == 2
        assert each(lambda a, b: a - b, (5, 6), (1, 2)) == [4, 4] and each(both, ()) == []


def test_a_shared_map_gives_its_caller_the_first_call():
    """Which may be the longest, and share out work of its own: however soon others are awake."""

    class Eager(ThreadPoolExecutor):
        def submit(self, work):
            found = super().submit(work)
            found.exception()
            return found

    with Eager(1) as pool:
        first, *others = sharing(pool, 1)(lambda n: threading.get_ident(), range(3))
    assert first == threading.get_ident() and first not in others


def test_a_shared_map_does_not_wait_for_who_has_not_begun():
    with ThreadPoolExecutor(1) as pool:
        busy = threading.Event()
        pool.submit(busy.wait, 30)
        try:
            assert sharing(pool, 1)(abs, (-1, -2, -3)) == [1, 2, 3]
        finally:
            busy.set()


@pytest.mark.parametrize("bad", [0, 3])
def test_a_shared_map_raises_once_all_have_ended(bad):
    made, running = [], []

    def work(n):
        running.append(n)
        if n == bad:
            raise ValueError("bad")
        made.append(n)
        running.remove(n)

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="bad"):
        sharing(pool, 2)(work, range(1000))
    assert running == [bad] and len(made) < 1000
