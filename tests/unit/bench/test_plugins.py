"""Test codecs and metrics of others: Python files, models with CompressAI's interface, and entry points."""

import json
import os
import shutil
import sys
import types
import urllib.error

import numpy as np
import pytest
from PIL import Image

from support.images import synthetic_image
from vaecodec.bench import measure, open_peer, peer
from vaecodec.bench.peer import Options, Peer, PeerError, Scale, add_file, check_decoded
from vaecodec.cli import main
from vaecodec.errors import CodecError
from vaecodec.images.metrics import Metric

pytest.importorskip("scipy")

PNG = """\
import io, numpy as np; from PIL import Image
def encode(pixels, quality):
    file = io.BytesIO(); Image.fromarray(pixels).quantize(int(quality) + 1).save(file, "PNG"); return file.getvalue()
def decode(data): return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
SETTINGS = (3, 15, 63, 255)
"""

MODEL = """\
from support.learned import Quantiser
def model(quality): return Quantiser(2 ** (6 - int(quality)))
"""


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    """Forget the files of other tests."""
    monkeypatch.setattr(peer, "_opened", {})


def test_a_file_of_five_lines_is_a_codec(tmp_path):
    (tmp_path / "palette.py").write_text(PNG)
    for n in range(2):
        Image.fromarray(synthetic_image(64, 80, n)).save(tmp_path / f"{n}.png")
    line = ["bench", str(tmp_path / "0.png"), str(tmp_path / "1.png"), "-o", str(tmp_path / "out"), "--metrics", "psnr"]
    assert main([*line, "--codec", str(tmp_path / "palette.py"), "--codecs", "jpeg", "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [curve["name"] for curve in summary["curves"]] == ["jpeg", "palette"]
    assert [point["setting"] for point in summary["curves"][1]["points"]] == [3, 15, 63, 255]


@pytest.mark.parametrize("size", [(64, 128), (50, 70)])
def test_models_with_the_interface_of_compressai_are_codecs(tmp_path, size):
    (tmp_path / "learned.py").write_text(MODEL)
    peer = open_peer(add_file(str(tmp_path / "learned.py")), Options())
    assert (peer.name, peer.settings) == ("learned", (1, 2, 3, 4, 5, 6)) and peer.scale.rising
    x = synthetic_image(*size)
    errors, sizes = [], []
    for setting in peer.settings:
        data = peer.encode(x, setting)
        errors.append(np.abs(check_decoded(peer.decode(data), x).astype(int) - x).max())
        sizes.append(len(data))
    assert errors == sorted(errors, reverse=True) and errors[-1] <= 1 and sizes == sorted(sizes)
    with pytest.raises(CodecError, match="bytes follow"):
        peer.decode(peer.encode(x, 3) + b"\0")


def test_modules_of_pytorch_get_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    from support.learned import Quantiser

    class Module(torch.nn.Module):
        def compress(self, x):
            assert isinstance(x, torch.Tensor) and x.dtype == torch.float32
            return Quantiser(1).compress(x.numpy())

        def decompress(self, strings, shape):
            return {"x_hat": torch.from_numpy(Quantiser(1).decompress(strings, shape)["x_hat"])}

    encode, decode = peer.Learned(lambda _: Module()).functions
    x = synthetic_image(40, 60)
    assert np.array_equal(decode(encode(x, 1)), x)


@pytest.mark.parametrize(
    ("text", "message"),
    [("encode = 3", "defines neither"), ("1 / 0", "ZeroDivisionError"), (PNG + "SETTINGS = ()", "expected numbers")],
)
def test_files_that_are_no_codecs_are_refused(tmp_path, text, message):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(PeerError, match=message):
        open_peer(peer.add_file(str(tmp_path / "broken.py")), Options())
    with pytest.raises(PeerError, match="not a Python file"):
        peer.add_file(str(tmp_path / "codec.txt"))
    with pytest.raises(PeerError, match=r"gone\.py: No such file or directory$"):
        peer.add_file(str(tmp_path / "gone.py"))


def open_same(options: Options) -> Peer:
    """A codec that keeps pixels as they are."""
    kept: list[np.ndarray] = []

    def encode(pixels, setting):
        kept[:] = [pixels]
        return pixels.tobytes()

    return Peer("same", "1", "", Scale("level", 0, 1), (0,), encode, lambda data: kept[0], threads=options.threads)


def test_installed_packages_add_codecs(monkeypatch):
    monkeypatch.setattr(peer, "_points", lambda: [_Point("same", open_same), _Point("broken", None)])
    assert open_peer("same", Options(threads=3)).threads == 3 and "same" in peer.names()
    with pytest.raises(PeerError, match="cannot be loaded"):
        open_peer("broken", Options())
    with pytest.raises(PeerError, match=r"no codec is called 'other' \(there are .*same, broken\)"):
        open_peer("other", Options())


class _Point:
    """An entry point that loads a value, or fails without one."""

    def __init__(self, name, value):
        self.name, self.value, self._loaded = name, f"package:{name}", value

    def load(self):
        if self._loaded is None:
            raise ImportError("no module")
        return self._loaded


def test_packages_and_programs_add_metrics(tmp_path, monkeypatch):
    """A metric of an entry point is measured, and its column added to results that lack it."""
    halved = Metric("half", "half", "Half", "points", lambda a, b: 0.5, float, (0.0, 1.0))
    monkeypatch.setattr(measure, "entry_points", lambda group: [_Point("half", halved), _Point("broken", None)])
    measure.known.cache_clear()
    try:
        Image.fromarray(synthetic_image(64, 80)).save(tmp_path / "0.png")
        line = ["bench", str(tmp_path / "0.png"), "-o", str(tmp_path / "out"), "--codecs", "jpeg", "--show", "0"]
        line += ["--qualities", "20,80", "--quiet"]
        assert main([*line, "--metrics", "psnr"]) == main([*line, "--metrics", "psnr,half"]) == 0
        head, *rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
        assert head.endswith(",half") and len(rows) == 4 and rows[-1].endswith(",0.500000")
        assert "half" in json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]
    finally:
        measure.known.cache_clear()


@pytest.mark.skipif(os.name != "posix", reason="a script stands in for a program")
def test_butteraugli_is_what_its_programs_print(tmp_path, monkeypatch):
    """Of libjxl the 3-norm; of the older program the only number. Both get the pixels as PNG files."""
    compare = "import sys\nfrom PIL import Image, ImageChops, ImageStat\na, b = map(Image.open, sys.argv[1:])\n"
    compare += "x = ImageStat.Stat(ImageChops.difference(a, b)).mean[0]\n"
    for program, line in (("butteraugli_main", "print(f'{2 * x}\\n3-norm: {x}')"), ("butteraugli", "print(3 * x)")):
        (tmp_path / program).write_text(f"#!{sys.executable}\n{compare}{line}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    a = synthetic_image(64, 80) // 2
    assert measure.OPTIONAL["butteraugli"].measure(a, a + 7) == 7
    assert measure.OPTIONAL["butteraugli-max"].measure(a, a + 7) == 21
    measure.check_metric("butteraugli-max")
    (tmp_path / "butteraugli").write_text("#!/bin/sh\necho sorry\n")
    with pytest.raises(CodecError, match="butteraugli printed no distance: 'sorry'"):
        measure.check_metric("butteraugli-max")


@pytest.mark.skipif(shutil.which("butteraugli") is None, reason="butteraugli is not installed")
def test_butteraugli_tells_worse_images():
    """A real measurement by Debian's program."""
    distance, image = measure.OPTIONAL["butteraugli-max"].measure, synthetic_image(96, 96)
    rng = np.random.default_rng(0)
    noisy = [np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8) for sigma in (4, 16)]
    assert 0 == distance(image, image) < distance(image, noisy[0]) < distance(image, noisy[1])


def test_weights_that_cannot_be_downloaded_are_named(monkeypatch):
    def refuse(name):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(measure, "_network", refuse)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setattr(sys.modules["torch"], "from_numpy", lambda array: array, raising=False)
    for name in ("lpips", "dists"):
        with pytest.raises(CodecError, match=r"its weights cannot be downloaded \(<urlopen error no route to host>\)"):
            measure.check_metric(name)


def test_missing_metrics_are_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "piq", None)
    Image.fromarray(synthetic_image(64, 80)).save(tmp_path / "0.png")
    line = ["bench", str(tmp_path / "0.png"), "-o", str(tmp_path / "out"), "--codecs", "jpeg", "--show", "0"]
    assert main([*line, "--qualities", "20,80", "--metrics", "psnr,lpips,butteraugli"]) == 1
    error = capsys.readouterr().err
    assert "lpips: needs more packages: pip install 'vaecodec[perceptual]'" in error
    assert "butteraugli: butteraugli_main, a program of libjxl, is not on the PATH" in error
    assert list(json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]) == ["psnr"]
