"""Test bulk compression with Ray: bytes, names and manifest equal those of the folder mode, also after kills."""

import glob
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.commands import ENVIRONMENT, digests, read, run, write
from support.images import synthetic_image
from vaecodec import cli
from vaecodec.files import folders
from vaecodec.files.compression import compress_file, verify_file
from vaecodec.files.folders import Job

IMAGES = 200

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bulk():
    """The module of bulk compression, with Ray started on this machine with few resources."""
    pytest.importorskip("ray")
    import ray

    import vaecodec.integrations.ray as bulk

    try:
        bulk.start(num_cpus=2, include_dashboard=False, object_store_memory=256 << 20)
    except vaecodec.CodecError as exc:  # Ray has a limit of half a minute to start, which a loaded machine exceeds
        pytest.skip(str(exc))
    yield bulk
    ray.shutdown()


def settings_of(quality=50, **options):
    operators = pytest.importorskip("vaecodec.integrations.ray_tasks", exc_type=ImportError)
    options = {"quality": quality, "model": "base", "strip": False, "remove": False, "only_images": False} | options
    options = {"effort": 1, "limits": vaecodec.Limits(), "threads": 1} | options
    return operators.Settings(quality, options, vaecodec.load("base").model.id, "compress")


def run_jobs(settings, jobs, device="cpu"):
    """Run jobs through the operators in this process, one after the other, and return their outcomes."""
    from vaecodec.integrations import ray_tasks as operators

    outcomes = {}
    analyse, finish = operators.Analyse(settings, device), operators.Finish(settings)
    for table in operators.read(operators.table_of([(0, list(enumerate(jobs)))]), settings):
        for analysed in analyse(table):
            for finished in finish(analysed):
                outcomes.update(operators.rows_of(finished))
    return [outcomes[number] for number in range(len(jobs))]


def make_kinds():
    """Write a file of each kind that is coded differently to the new folder `in`."""
    os.mkdir("in")
    rgb, grey = synthetic_image(90, 80), synthetic_image(40, 50)[..., 0]
    Image.fromarray(rgb).save("in/photo.png", dpi=(72, 72))
    Image.fromarray(grey).save("in/grey.png")
    Image.fromarray(np.dstack([rgb, np.tile(np.arange(80, dtype=np.uint8), (90, 1))])).save("in/alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 257 + 3).save("in/deep.png")
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save("in/drawing.png")
    Image.fromarray(rgb).save("in/film.jpg")
    write("in/film.jpg", read("in/film.jpg") + b"\0\0\0\x18ftypmp42" + bytes(99))
    write("in/cut.png", read("in/photo.png")[:999])
    write("in/notes.txt", b"notes" * 99)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save("in/moving.gif", save_all=True, append_images=frames[1:])
    return sorted(glob.glob("in/*"))


@pytest.mark.parametrize("options", [{}, {"quality": 80, "strip": True}, {"quality": 30, "only_images": True}])
def test_operators_give_the_results_of_single_files(tmp_path, monkeypatch, options):
    settings = settings_of(**options)
    monkeypatch.chdir(tmp_path)
    paths, expected_kinds, expected_warnings = make_kinds(), {}, {}
    for folder in ("one", "all"):
        os.mkdir(folder)
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                expected_kinds[path] = compress_file(path, "one", **options)["kind"]
            except vaecodec.CodecError:
                expected_kinds[path] = ""
        messages = (warning.message for warning in caught if warning.category is UserWarning)
        expected_warnings[path] = [str(message).removeprefix(f"{path}: ") for message in messages]
    outcomes = dict(zip(paths, run_jobs(settings, [Job(path, "all") for path in paths]), strict=True))
    assert {path: outcome.report.get("kind", "") for path, outcome in outcomes.items()} == expected_kinds
    if not options.get("only_images"):
        assert {
            path: list(outcome.warnings) for path, outcome in outcomes.items()
        } == expected_warnings and expected_warnings["in/film.jpg"]
    assert digests("one") == digests("all") and len(digests("all")) == (6 if "only_images" in options else 9)


def test_files_that_change_after_reading_are_read_again(tmp_path, monkeypatch):
    settings = settings_of()
    from vaecodec.integrations import ray_tasks as operators

    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(40, 50)).save("photo.png")
    (task,) = operators.read(operators.table_of([(0, [(0, Job("photo.png"))])]), settings)
    Image.fromarray(synthetic_image(60, 70, 1)).save("photo.png")
    compress_file("photo.png", "expected.vae")
    (analysed,) = operators.Analyse(settings, "cpu")(task)
    ((_, outcome),) = operators.rows_of(next(operators.Finish(settings)(analysed)))
    assert outcome.report["width"] == 70 and read("photo.vae") == read("expected.vae")


def test_tensorflow_batches_images(tmp_path, monkeypatch):
    settings = settings_of()
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        Image.fromarray(synthetic_image(64, 64, number)).save(f"{number}.png")
    outcomes = run_jobs(settings, [Job(f"{number}.png") for number in range(3)], "tensorflow")
    for number, outcome in enumerate(outcomes):
        assert verify_file(outcome.report["output"])["kind"] == "picture"
        compress_file(f"{number}.png", "cpu.vae", overwrite=True)
        assert abs(outcome.report["bytes"] - os.path.getsize("cpu.vae")) < 20


def test_missing_ray_is_named_in_one_line():
    code = "import sys; sys.modules['ray'] = None; import vaecodec.integrations.ray"
    process = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(
        "ImportError: vaecodec.integrations.ray needs Ray: pip install 'vaecodec[ray]'"
    )


def lines_of(folder):
    path = os.path.join(folder, folders.MANIFEST_NAME)
    return read(path).count(b"\n") if os.path.exists(path) else 0


def kill_one_actor(killed, finished):
    """Kill a coding process after some files and long before all files are complete."""
    while not finished.is_set() and lines_of("out") < 20:
        time.sleep(0.01)
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if read(path).startswith(b"ray::") and b"Finish" in read(path) and not killed:
                killed.append(int(path.split("/")[2]))
                os.kill(killed[0], signal.SIGKILL)
                killed.append(lines_of("out"))
        except OSError:  # the process has ended
            continue


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds the process in /proc")
def test_200_images_survive_a_damaged_file_and_a_killed_actor(bulk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.makedirs("in/sub")
    for number in range(IMAGES):
        Image.fromarray(synthetic_image(48, 64, number)).save(f"in/{'sub/' * (number % 2)}{number}.png")
    write("in/sub/7.png", b"")
    write("in/sub/9.png", read("in/sub/9.png")[:2000])  # stored, with a warning
    write("in/" + "n" * 253, b"no room for .vae")
    killed, finished = [], threading.Event()
    killer = threading.Thread(target=kill_one_actor, args=(killed, finished))
    killer.start()
    summary = bulk.compress("in", "out")
    finished.set()
    killer.join()
    assert len(killed) == 2 and 20 <= killed[1] < IMAGES - 20, killed
    assert (summary.done, summary.unchanged, summary.skipped) == (IMAGES, 0, 0)
    assert len(summary.failed) == 1 and summary.failed[0].endswith("n.vae: File name too long")
    assert capsys.readouterr().err.splitlines()[-1] == f"vaecodec: {summary.failed[0]}"
    assert run("compress -r in --output-dir whole", capsys)[0] == 1
    assert digests("out") == digests("whole") and len(digests("out")) == IMAGES
    code, lines = run("compress -r in --output-dir out", capsys)
    assert code == 1 and f"0 done, {IMAGES} unchanged, 1 failed:" in lines
    assert lines_of("out") == IMAGES and cli.main(["verify", "-r", "out", "-j", "2", "--quiet"]) == 0


def test_runs_of_the_command_line_are_resumed(bulk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_kinds()
    os.mkdir("in/sub")
    write("in/sub/nothing", b"")
    assert run("compress -r in --output-dir whole -q 70", capsys)[0] == 0
    assert run("compress -r in --output-dir out -q 70", capsys)[0] == 0
    os.remove("out/in/photo.vae")
    os.remove("out/in/sub/nothing.vae")
    summary = bulk.compress(["in"], "out", quality=70)
    assert (summary.done, summary.unchanged, summary.failed) == (2, 8, [])
    assert digests("out") == digests("whole")
    assert bulk.compress("in", "out", quality=70).unchanged == 10
    # Other settings require other outputs, and no file is overwritten.
    summary = bulk.compress(["in/photo.png", "in/notes.txt"], "out/in", quality=20)
    assert (summary.done, len(summary.failed)) == (1, 1) and "photo.vae exists already" in summary.failed[0]
    assert digests("out") == digests("whole")
    summary = bulk.compress("in", quality=70, remove=True)  # beside the sources
    assert summary.done == 8 and len(summary.failed) == 2
    assert {line.split(": ")[0] for line in summary.failed} == {"in/film.jpg", "in/moving.gif"}
    outputs = {path: digest for path, digest in digests("in").items() if path.endswith(".vae")}
    assert outputs == digests("whole/in") and len(digests("in")) == len(outputs) + 2


class Deadly:
    """A value that ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_file_that_kills_its_worker_is_reported_and_others_are_processed(bulk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        Image.fromarray(synthetic_image(20, 20, number)).save(f"{number}.png")
    jobs = [Job(f"{number}.png", stat=os.stat(f"{number}.png")) for number in range(20)]
    jobs[13] = jobs[13]._replace(whole_name=Deadly())
    outcomes = {job.path: outcome for job, outcome in bulk._map_jobs(jobs, settings_of(), "cpu", None, None)}
    assert [path for path, outcome in outcomes.items() if outcome is None] == ["13.png"] and len(outcomes) == 20
    assert all(outcome.report["kind"] == "picture" for outcome in outcomes.values() if outcome)


def test_invalid_options_are_refused_before_any_work(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from vaecodec.integrations.ray import compress

    monkeypatch.chdir(tmp_path)
    for options in ({"quality": 0}, {"effort": 10}, {"target_size": 1, "target_bpp": 1}):
        with pytest.raises(ValueError):
            compress(".", "out", **options)
    with pytest.raises(vaecodec.CodecError, match="no model is called"):
        compress(".", "out", model="none")
    assert not os.path.exists("out")
