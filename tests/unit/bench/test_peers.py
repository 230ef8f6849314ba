"""Test the codecs of the benchmark: the same bytes as direct calls, and errors that name the missing package."""

import os
import pathlib
import stat
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from support.images import synthetic_image
from support.models import DISTINCT_CONFIG, random_model
from support.paths import GOLDEN, PARROTS
from vaecodec import arguments
from vaecodec.arguments import DEFAULT_TUNE
from vaecodec.bench import DEFAULT, OURS, PEERS, name_of, open_peer
from vaecodec.bench.codecs import FORMATS, PROGRAMS, TUNES
from vaecodec.bench.peer import LOSSLESS, Options, PeerError, Scale, check_decoded
from vaecodec.errors import CodecError
from vaecodec.images.metrics import psnr
from vaecodec.images.reading import read_image

pytest.importorskip("imagecodecs")
OPTIONS = Options(threads=2)
OTHER_TUNE = next(tune for tune in arguments.TUNES if tune != DEFAULT_TUNE)
IN_PROCESS = [name for name in PEERS if name not in (*OURS, *PROGRAMS, "jpegli", "hevc", "vvc")]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Part of a photograph, a synthetic image, and one of odd sides."""
    return [read_image(str(PARROTS))[0][150:310, 200:400], synthetic_image(96, 128), synthetic_image(63, 81, 3)]


@pytest.mark.parametrize(
    "scale", [Scale("quality", 1, 100), Scale("QP", 0, 51, rising=False), Scale("d", 0.5, 3, 0.25)]
)
def test_bisection_finds_neighbours_on_a_scale(scale):
    count = round((scale.high - scale.low) / scale.step) + 1
    settings = [scale.low + scale.step * place for place in range(count)][:: 1 if scale.rising else -1]
    for below in range(count + 1):
        calls = []

        def is_below(setting, below=below, calls=calls):
            calls.append(setting)
            return setting in settings[:below]

        ends = settings[below - 1] if below else None, settings[below] if below < count else None
        assert scale.bisect(is_below) == ends and len(calls) <= count.bit_length()
    calls = []
    scale.bisect(lambda setting: not calls.append(setting), tries=3)
    assert len(calls) == 3


def direct(name: str, x: np.ndarray, setting: float) -> tuple[bytes, np.ndarray]:
    """Encode and decode with direct calls of the library; return bytes and pixels."""
    import imagecodecs as lib

    if name == "jpeg":
        data = lib.jpeg8_encode(x, int(setting), subsampling="420", optimize=True)
        return data, lib.jpeg8_decode(data)
    if name == "webp":
        data = lib.webp_encode(x, setting, method=6, lossless=False)
        return data, lib.webp_decode(data)
    if name == "avif":
        data = lib.avif_encode(x, int(setting), speed=6, pixelformat=lib.AVIF.PIXEL_FORMAT.YUV444, numthreads=2)
        return data, lib.avif_decode(data)
    if name == "jxl":
        data = lib.jpegxl_encode(x, distance=setting, effort=7, numthreads=2)
        return data, lib.jpegxl_decode(data)
    data = lib.jpeg2k_encode(x, setting, codecformat="JP2", reversible=False)
    return data, lib.jpeg2k_decode(data)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "jxl", "jpeg2000"])
def test_bytes_and_pixels_equal_direct_calls(name, images):
    peer = open_peer(name, OPTIONS)
    for x in images:
        for setting in peer.settings[2::5]:
            data, pixels = direct(name, x, setting)
            assert peer.encode(x, setting) == data
            assert np.array_equal(peer.decode(data), pixels)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_other_libraries_decode_the_files(name, images):
    peer = open_peer(name, OPTIONS)
    x = images[0]
    data = peer.encode(x, 60)
    # Pillow has other libraries, which may filter chroma differently.
    assert psnr(read_image(data)[0], peer.decode(data)) > 38


@pytest.mark.parametrize("name", IN_PROCESS)
def test_size_and_fidelity_grow_with_quality(name, images):
    peer = open_peer(name, OPTIONS)
    for x in images:
        if peer.scale == LOSSLESS:
            assert np.array_equal(peer.decode(peer.encode(x, 0)), x)
            continue
        settings = sorted(peer.settings, reverse=not peer.scale.rising)[::4]
        files = [peer.encode(x, setting) for setting in settings]
        sizes = [len(data) for data in files]
        assert sizes == sorted(sizes)
        quality = [psnr(x, check_decoded(peer.decode(data), x)) for data in files]
        assert quality == sorted(quality)


def test_hevc_round_trips(images):
    pytest.importorskip("av", reason="PyAV, which is optional, is not installed")
    peer = open_peer("hevc", OPTIONS)
    for x in images:
        coarse, fine = (peer.encode(x, qp) for qp in (40, 10))
        assert len(coarse) < len(fine)
        assert psnr(x, check_decoded(peer.decode(fine), x)) > 42


def test_vvc_round_trips(images):
    pytest.importorskip("imageio_ffmpeg")
    peer = open_peer("vvc", OPTIONS)
    for x in images[1:]:
        data = [peer.encode(x, qp) for qp in (46, 26)]
        decoded = [check_decoded(peer.decode(file), x) for file in data]
        assert len(data[0]) < len(data[1]) and psnr(x, decoded[0]) < psnr(x, decoded[1]) and psnr(x, decoded[1]) > 25


def test_a_missing_encoder_of_vvc_is_named(tmp_path, monkeypatch):
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text("#!/bin/sh\necho V libx265\n")
    ffmpeg.chmod(0o755)
    package = types.ModuleType("imageio_ffmpeg")
    package.get_ffmpeg_exe = lambda: str(ffmpeg)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    with pytest.raises(PeerError, match=r"built without VVenC: pip install 'imageio-ffmpeg>=0\.8'"):
        open_peer("vvc", OPTIONS)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(PeerError, match="needs FFmpeg with VVenC: pip install imageio-ffmpeg"):
        open_peer("vvc", OPTIONS)


def test_vaecodec_accepts_a_model(tiny):
    peer = open_peer(f"vaecodec-model:{GOLDEN / 'tiny.vcm'}", OPTIONS)
    x = synthetic_image(48, 40)
    assert peer.name == "vaecodec-model:tiny.vcm" and tiny.model.id in peer.version and peer.threads == 2
    assert peer.encode(x, 50) == tiny.encode(x, 50)
    assert np.array_equal(peer.decode(peer.encode(x, 50)), tiny.decode(tiny.encode(x, 50)))


@pytest.mark.parametrize("name", OURS)
def test_grey_models_take_grey_images(name, tmp_path):
    path = tmp_path / "grey.vcm"
    path.write_bytes(random_model(replace(DISTINCT_CONFIG, channels=1)))
    peer, x = open_peer(f"{name}:{path}", OPTIONS), synthetic_image(48, 40)
    grey = np.ascontiguousarray(np.repeat(x[..., :1], 3, 2))
    decoded = check_decoded(peer.decode(peer.encode(grey, 60)), grey)
    assert (decoded == decoded[..., :1]).all() and psnr(grey, decoded) > 10
    with pytest.raises(CodecError, match="in colour"):
        peer.encode(x, 60)


def test_vaecodec_is_what_compress_writes(tiny):
    """A drawing is kept losslessly in fewer bytes than the model needs, which `vaecodec-model` does not see."""
    import vaecodec

    drawing = np.zeros((96, 128, 3), np.uint8)
    drawing[20:60, 30:90] = (255, 40, 0)
    product, bare = open_peer("vaecodec", OPTIONS), open_peer("vaecodec-model", OPTIONS)
    data = product.encode(drawing, 50)
    assert data == vaecodec.encode(drawing, 50) and len(data) < len(bare.encode(drawing, 50))
    assert np.array_equal(product.decode(data), drawing)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("jpeg", "jpeg"),
        ("vaecodec@1", "vaecodec"),
        ("vaecodec-model@2", "vaecodec-model@2"),
        ("vaecodec@3:a/b.vcm", "vaecodec@3:b.vcm"),
        (f"vaecodec@{DEFAULT_TUNE}", "vaecodec"),
        (f"vaecodec@{OTHER_TUNE}", f"vaecodec@{OTHER_TUNE}"),
        (f"vaecodec@9-{OTHER_TUNE}", f"vaecodec@9-{OTHER_TUNE}"),
    ],
)
def test_names_in_results(spec, name):
    assert name_of(spec) == name


def test_avif_is_tuned_as_its_name_says(images):
    files = {tune: open_peer(f"avif-{tune}", OPTIONS).encode(images[0], 50) for tune in TUNES}
    assert len(set(files.values())) == len(TUNES)
    error = {tune: psnr(images[0], open_peer("avif", OPTIONS).decode(data)) for tune, data in files.items()}
    assert error["psnr"] > error["iq"]


def test_vaecodec_accepts_an_effort(tiny):
    peer, default_effort = (open_peer(f"vaecodec-model@{n}:{GOLDEN / 'tiny.vcm'}", OPTIONS) for n in (3, 1))
    x = synthetic_image(48, 40)
    assert (peer.name, peer.options) == (
        "vaecodec-model@3:tiny.vcm",
        "effort 3, tune eye",
    ) and default_effort.name == "vaecodec-model:tiny.vcm"
    assert peer.encode(x, 50) == tiny.encode(x, 50, effort=3) and default_effort.encode(x, 50) == tiny.encode(x, 50)
    assert set(peer.settings) < set(default_effort.settings)
    assert open_peer("vaecodec@2", OPTIONS).name == "vaecodec@2"


def test_vaecodec_accepts_a_tune(tiny):
    x, model = synthetic_image(48, 40), GOLDEN / "tiny.vcm"
    for tune, options in (("eye", "effort 3, tune eye"), ("psnr", "effort 3")):
        peer = open_peer(f"vaecodec-model@3-{tune}:{model}", OPTIONS)
        assert peer.options == options and peer.encode(x, 50) == tiny.encode(x, 50, effort=3, tune=tune)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("jpg", "no codec is called 'jpg'"),
        ("jpeg:75", "only vaecodec:MODEL"),
        ("jpeg@2", "vaecodec@EFFORT"),
        ("vaecodec@10", "1..9"),
        ("vaecodec@high", "1..9"),
        ("vaecodec@2-high", "eye or psnr"),
        ("vaecodec:none.vcm", "no such file"),
        ("bpg", "not found on the PATH"),
    ],
)
def test_errors_of_peers_give_the_reason(spec, reason, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PeerError, match=reason):
        open_peer(spec, OPTIONS)


@pytest.mark.parametrize("name", [name for name in DEFAULT if name in FORMATS])
def test_missing_libraries_are_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(PeerError, match=r"pip install 'vaecodec\[bench\]'"):
        open_peer(name, OPTIONS)


def test_decoded_pixels_of_another_shape_are_refused():
    x = synthetic_image(8, 8)
    assert check_decoded(x, x) is x
    for invalid in (x[:4], x.astype(np.float32), None):
        with pytest.raises(CodecError, match=r"expected uint8\[8, 8, 3\]"):
            check_decoded(invalid, x)


STAND_IN = """#!{python}
import sys, shutil
arguments = sys.argv[1:]
if arguments[0] in ("-h", "--help", "--version"): sys.exit(print("stand-in version 1.2"))
if {broken}: sys.exit("cannot do it")
shutil.copy({source}, {target})
"""


def stand_in(path: pathlib.Path, source: str, target: str, broken: bool = False) -> None:
    """Write a program that copies the file of an argument to another, a codec without compression."""
    path.write_text(STAND_IN.format(python=sys.executable, broken=broken, source=source, target=target))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def argument_after(option: str) -> str:
    return f"arguments[arguments.index('{option}') + 1]"


@pytest.mark.skipif(os.name == "nt", reason="scripts are no programs on Windows")
@pytest.mark.parametrize(
    ("name", "programs"),
    [
        ("bpg", {"bpgenc": ("arguments[-1]", argument_after("-o")), "bpgdec": ("arguments[-1]", argument_after("-o"))}),
        ("cjpegli", {"cjpegli": ("arguments[0]", "arguments[1]"), "djpegli": ("arguments[0]", "arguments[1]")}),
        (
            "vtm",
            {
                "EncoderAppStatic": (argument_after("-i"), argument_after("-b")),
                "DecoderAppStatic": (argument_after("-b"), argument_after("-o")),
            },
        ),
    ],
)
def test_programs_on_the_path_are_peers(name, programs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for program, (source, target) in programs.items():
        stand_in(tmp_path / program, source, target)
    if name == "vtm":
        with pytest.raises(PeerError, match="VTM_INTRA_CFG must name"):
            open_peer(name, OPTIONS)
        monkeypatch.setenv("VTM_INTRA_CFG", __file__)
    peer = open_peer(name, OPTIONS)
    x = synthetic_image(9, 14)
    assert peer.version == "stand-in version 1.2" and peer.is_program
    decoded = check_decoded(peer.decode(peer.encode(x, 30)), x)
    # The stand-in of VTM stores 8-bit YCbCr; the conversion to RGB may double its rounding errors.
    assert np.abs(decoded.astype(int) - x).max() <= (2 if name == "vtm" else 0)
    encoder = next(iter(programs))
    stand_in(tmp_path / encoder, "0", "0", broken=True)
    with pytest.raises(CodecError, match=f"{encoder} failed with code 1: cannot do it"):
        peer.encode(x, 30)
