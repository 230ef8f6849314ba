"""The codecs of the benchmark: the same bytes as direct calls, one function for all, and what goes wrong."""

import os
import pathlib
import stat
import sys

import numpy as np
import pytest
from conftest import GOLDEN, picture

from vaecodec.errors import CodecError
from vaecodec.images import read_image
from vaecodec.metrics import psnr
from vaecodec.peers import DEFAULT, LOSSLESS, PEERS, Options, PeerError, check_decoded, open_peer

PARROTS = pathlib.Path(__file__).parent.parent / "docs" / "examples" / "parrots.png"
OPTIONS = Options(threads=2)
IN_PROCESS = [name for name in PEERS if name not in ("vaecodec", "bpg", "vtm", "cjpegli", "hevc")]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """A photograph's part, a made picture, and one of odd sides."""
    return [read_image(str(PARROTS))[0][150:310, 200:400], picture(96, 128), picture(63, 81, 3)]


def direct(name: str, x: np.ndarray, setting: float) -> tuple[bytes, np.ndarray]:
    """What a call of the library itself gives."""
    import imagecodecs as lib

    if name == "jpeg":
        data = lib.jpeg8_encode(x, int(setting), subsampling="420", optimize=True)
        return data, lib.jpeg8_decode(data)
    if name == "webp":
        data = lib.webp_encode(x, setting, method=6, lossless=False)
        return data, lib.webp_decode(data)
    if name == "avif":
        data = lib.avif_encode(x, int(setting), speed=6, pixelformat="444", numthreads=2)
        return data, lib.avif_decode(data)
    if name == "jxl":
        data = lib.jpegxl_encode(x, distance=setting, effort=7, numthreads=2)
        return data, lib.jpegxl_decode(data)
    data = lib.jpeg2k_encode(x, setting, codecformat="JP2", reversible=False)
    return data, lib.jpeg2k_decode(data)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "jxl", "jpeg2000"])
def test_bytes_and_pixels_are_those_of_direct_calls(name, pictures):
    peer = open_peer(name, OPTIONS)
    for x in pictures:
        for setting in peer.settings[2::5]:
            data, pixels = direct(name, x, setting)
            assert peer.encode(x, setting) == data
            assert np.array_equal(peer.decode(data), pixels)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_another_library_decodes_the_same_files(name, pictures):
    peer = open_peer(name, OPTIONS)
    x = pictures[0]
    data = peer.encode(x, 60)
    # Pillow brings libraries of its own, whose chroma may be filtered another way.
    assert psnr(read_image(data)[0], peer.decode(data)) > 38


@pytest.mark.parametrize("name", IN_PROCESS)
def test_files_grow_with_quality_and_lossless_is_lossless(name, pictures):
    peer = open_peer(name, OPTIONS)
    for x in pictures:
        if peer.scale == LOSSLESS:
            assert np.array_equal(peer.decode(peer.encode(x, 0)), x)
            continue
        settings = sorted(peer.settings, reverse=not peer.scale.rising)[::4]
        files = [peer.encode(x, setting) for setting in settings]
        sizes = [len(data) for data in files]
        assert sizes == sorted(sizes)
        quality = [psnr(x, check_decoded(peer.decode(data), x)) for data in files]
        assert quality == sorted(quality)


def test_hevc_goes_there_and_back(pictures):
    pytest.importorskip("av", reason="PyAV, which is optional, is not installed")
    peer = open_peer("hevc", OPTIONS)
    for x in pictures:
        coarse, fine = (peer.encode(x, qp) for qp in (40, 10))
        assert len(coarse) < len(fine)
        assert psnr(x, check_decoded(peer.decode(fine), x)) > 42


def test_ours_with_a_model_of_ones_own(tiny):
    peer = open_peer(f"vaecodec:{GOLDEN / 'tiny.vcm'}", OPTIONS)
    x = picture(48, 40)
    assert peer.name == "vaecodec:tiny.vcm" and tiny.model.id in peer.version
    assert peer.encode(x, 50) == tiny.encode(x, 50)
    assert np.array_equal(peer.decode(peer.encode(x, 50)), tiny.decode(tiny.encode(x, 50)))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("jpg", "no codec is called 'jpg'"),
        ("jpeg:75", "only vaecodec:MODEL"),
        ("vaecodec:none.vcm", "cannot be read"),
        ("bpg", "not found on the PATH"),
    ],
)
def test_what_cannot_be_had_says_why(spec, reason, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PeerError, match=reason):
        open_peer(spec, OPTIONS)


@pytest.mark.parametrize("name", [name for name in DEFAULT if name not in ("vaecodec", "hevc")])
def test_a_missing_library_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(PeerError, match=r"pip install 'vaecodec\[bench\]'"):
        open_peer(name, OPTIONS)


def test_decoded_pixels_of_another_shape_are_refused():
    x = picture(8, 8)
    assert check_decoded(x, x) is x
    for wrong in (x[:4], x.astype(np.float32), None):
        with pytest.raises(CodecError, match=r"expected uint8\[8, 8, 3\]"):
            check_decoded(wrong, x)


STAND_IN = """#!{python}
import sys, shutil
arguments = sys.argv[1:]
if "-h" in arguments: sys.exit(print("stand-in version 1.2"))
if {broken}: sys.exit("cannot do it")
shutil.copy(arguments[-1], arguments[arguments.index("-o") + 1])
"""


@pytest.mark.skipif(os.name == "nt", reason="scripts are no programs on Windows")
def test_programs_on_the_path_take_part(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("bpgenc", "bpgdec"):
        path = tmp_path / name
        path.write_text(STAND_IN.format(python=sys.executable, broken=False))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    peer = open_peer("bpg", OPTIONS)
    x = picture(9, 14)
    assert peer.version == "stand-in version 1.2" and peer.own_process
    assert np.array_equal(peer.decode(peer.encode(x, 30)), x)
    (tmp_path / "bpgenc").write_text(STAND_IN.format(python=sys.executable, broken=True))
    with pytest.raises(CodecError, match="bpgenc failed with code 1: cannot do it"):
        peer.encode(x, 30)
