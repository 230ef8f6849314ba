"""Test curves and Bjontegaard deltas: known pairs of codecs and properties of all curves."""

import math

import pytest

from support.paths import ROOT
from vaecodec.bench.curves import Curve, Point, at_quality, curves_of, delta, read_published
from vaecodec.bench.measure import COLUMNS
from vaecodec.bench.report import summarise
from vaecodec.errors import CodecError
from vaecodec.images.metrics import METRICS

pytest.importorskip("bjontegaard")
PUBLISHED = ROOT / "benchmarks" / "published" / "kodak.csv"
PSNR = METRICS["psnr"]


def curve(name: str, factor: float = 1.0, gain: float = 0.0, speed: float = 1.0) -> Curve:
    """A curve of 5 dB per doubling of the rate, with `factor` times the bits and `gain` dB more."""
    points = [Point(q, factor * 0.05 * 2**q, {"psnr": 24.0 + 5 * q + gain}, speed, speed) for q in range(5)]
    return Curve(name, "", points)


@pytest.fixture(scope="module")
def published() -> dict[str, Curve]:
    more = [
        "AV1 (aomenc 444)",
        "JPEG (Pillow, 4:2:0 default)",
        "WebP (Pillow)",
    ]  # in the table, but not drawn by default
    return {curve.name: curve for names in (None, more) for curve in read_published(str(PUBLISHED), names)}


# BD-rate against BPG 4:4:4 over the shared part of 28 to 38 dB. VTM's is known from its integral; the others were
# computed from the same points by another program.
@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("VTM-9.1 4:4:4", -20.0),
        ("AV1 (aomenc 444)", -5.7),
        ("Hyperprior 2018", 6.5),
        ("Mean-scale 2018", -1.2),
        ("Cheng 2020", -16.1),
        ("ELIC 2022", -25.3),
        ("MLIC++", -31.8),
        ("JPEG (Pillow, 4:2:0 default)", 138.8),
        ("WebP (Pillow)", 48.6),
    ],
)
def test_known_pairs_are_reproduced(published, name, percent):
    result = delta(published["BPG 4:4:4"], published[name], PSNR)
    assert result.rate == pytest.approx(percent, abs=0.3)
    assert result.rate_akima == pytest.approx(result.rate, abs=0.3)


def test_the_delta_of_a_codec_and_itself_is_0(published):
    for curve in published.values():
        result = delta(curve, curve, PSNR)
        assert result.rate == result.rate_akima == result.quality == 0, curve.name


def test_deltas_of_shifted_curves_are_the_shift():
    result = delta(curve("a"), curve("b", factor=0.8), PSNR)
    assert result.rate == pytest.approx(-20) and result.rate_akima == pytest.approx(-20)
    assert (result.low, result.high) == (28, 38)
    assert result.quality == pytest.approx(5 * math.log2(1 / 0.8))
    assert delta(curve("a"), curve("b", gain=1.0), PSNR).quality == pytest.approx(1)


def test_curves_with_little_overlap_have_no_delta():
    high = Curve("high", "", [Point(0, 1, {"psnr": 37.5}), Point(1, 2, {"psnr": 44})])
    result = delta(curve("a"), high, PSNR)
    assert math.isnan(result.rate) and math.isnan(result.low)
    assert math.isnan(delta(curve("a"), Curve("one", "", [Point(0, 1, {"psnr": 33})]), PSNR).rate)


def test_dominated_points_are_dropped():
    points = [Point(n, bpp, {"psnr": db}) for n, (bpp, db) in enumerate([(0.1, 28), (0.2, 30), (0.3, 29), (0.4, 33)])]
    bpp, db = Curve("dented", "", points).axes(PSNR)
    assert bpp.tolist() == [0.1, 0.2, 0.4] and db.tolist() == [28, 30, 33]


def test_rate_and_speed_at_matched_quality_are_interpolated():
    result = at_quality(curve("a", speed=3.0), PSNR, 31.5)
    assert result["bpp"] == pytest.approx(0.05 * 2**1.5)
    assert result["decode_speed"] == pytest.approx(3)
    assert math.isnan(at_quality(curve("a"), PSNR, 60)["bpp"])


def test_the_rank_of_a_codec_is_a_sentence():
    curves = [curve("vaecodec"), curve("better", factor=0.8), curve("worse", factor=1.25), curve("far", gain=100)]
    result = summarise(curves, 1, ["psnr"])["place"]
    assert result == [
        "vaecodec, for equal PSNR, 8-bit RGB: 20.0 % fewer bits than worse; 25.0 % more bits than better."
    ]


def measurement(setting: float, image: str, **changes: object) -> dict[str, object]:
    values = {"codec": "x", "version": "1", "settings": "", "setting": str(setting), "threads": "1", "device": "cpu"}
    values |= {"image": image, "crc32": "0", "width": "1000", "height": "1000", "bytes": "1", "bpp": "1", "psnr": "30"}
    values |= {"ms_ssim": "", "ssimulacra2": "", "encode_s": "1", "decode_s": "0.5"}
    return {**values, **changes}


def test_rates_are_averaged_over_images_and_speeds_over_sums():
    assert set(measurement(0, "a")) == set(COLUMNS)
    measurements = [measurement(1, "a", bpp="0.5", psnr="30"), measurement(1, "b", bpp="1.5", psnr="40", encode_s="3")]
    (curve,), notes = curves_of(measurements, {("a", "0"), ("b", "0")})
    point = curve.points[0]
    assert (point.bpp, point.values["psnr"], point.encode_speed, point.decode_speed) == (1, 35, 0.5, 2)
    assert math.isnan(point.values["ms_ssim"]) and not notes


def test_settings_without_all_images_have_no_point_and_a_note():
    measurements = [
        measurement(1, "a"),
        measurement(1, "b"),
        measurement(2, "a"),
        measurement(1, "of another run"),
        measurement(1, "a", version="0"),
    ][::-1]
    (curve,), notes = curves_of(measurements, {("a", "0"), ("b", "0")})
    assert [point.setting for point in curve.points] == [1] and curve.about == "1"
    assert notes == ["x is left out at 2: not measured on all of the 2 images"]


def test_codecs_of_this_run_precede_later_rows():
    measurements = [measurement(1, "a", version="0"), measurement(1, "a", codec="y"), measurement(2, "a")]
    curves, _ = curves_of(measurements, {("a", "0")})
    assert [(curve.name, curve.about) for curve in curves] == [("x", "1"), ("y", "1")]
    kinds = [("y", "1", "", "1", "cpu"), ("x", "0", "", "1", "cpu")]
    curves, _ = curves_of(measurements, {("a", "0")}, kinds)
    assert [(curve.name, curve.about) for curve in curves] == [("y", "1"), ("x", "0")]


def test_foreign_tables_are_refused(tmp_path):
    foreign = tmp_path / "other.csv"
    foreign.write_text("a,b\n1,2\n")
    with pytest.raises(CodecError, match=r"other\.csv: not a table of published points"):
        read_published(str(foreign))
