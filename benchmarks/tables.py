"""Write the tables and the plot of README.md and docs from benchmarks/results.

    python benchmarks/tables.py            rewrite what lies between the markers, and the plot
    python benchmarks/tables.py --check    exit with status 1 if a document disagrees

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; NAME is a key of TABLES.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vaecodec.arguments import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PLOT = ROOT / "docs" / "images" / "kodak-psnr.svg"
MARKED = re.compile(r"<!-- table: (.+?) -->\n(.*?)<!-- end of table -->", re.S)

METRICS = {"psnr": "PSNR", "ms-ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA2"}
LABELS = {
    "vaecodec": "vaecodec, tune=eye",
    "vaecodec@psnr": "vaecodec, tune=psnr",
    "vaecodec@2-psnr": "vaecodec, tune=psnr, effort 2",
    "vaecodec@9-psnr": "vaecodec, tune=psnr, effort 9",
    "jpeg": "JPEG",
    "webp": "WebP, method 6",
    "vaecodec-model": "vaecodec, the model alone",
    "avif": "AVIF 4:4:4, speed 6, tune=iq",
    "avif-psnr": "AVIF, tune=psnr",
    "avif-iq": "AVIF, tune=iq, by Pillow",
    "avif-ssimulacra2": "AVIF, tune=ssimulacra2",
    "jxl-e3": "JPEG XL, effort 3",
    "jxl": "JPEG XL, effort 7",
    "jxl-e9": "JPEG XL, effort 9",
    "jpegli": "jpegli",
    "cjpegli": "jpegli 4:2:0",
    "jpeg2000": "JPEG 2000",
    "hevc": "HEVC intra (x265 slow)",
    "png": "PNG",
    "webp-lossless": "WebP lossless",
    "jxl-lossless": "JPEG XL lossless",
}
OURS = [name for name in LABELS if name == "vaecodec" or name.startswith("vaecodec@")]


def read(path: str) -> Any:
    """Return a JSON file below benchmarks/results."""
    return json.loads((RESULTS / path).read_text())


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are aligned right."""
    head = f"| {' | '.join(columns)} |\n|---|{'--:|' * (len(columns) - 1)}\n"
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def number(value: Any) -> str:
    """Return a table cell; floats get three significant digits."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return digits if "." in digits or abs(value) >= 100 else f"{digits}.0"


def percent(value: float | None) -> str:
    """Return a signed percentage with one decimal."""
    return "" if value is None else f"{value:+.1f} %"


def measured(path: str, names: dict[str, str] | None = None) -> str:
    """Return the table of a file {about, columns, rows} as it is; `names` renames columns and leaves others out."""
    data = read(path)
    names = names or {column: column for column in data["columns"]}
    where = [data["columns"].index(column) for column in names]
    rows = [[number(row[index]) for index in where] for row in data["rows"]]
    return table([*names.values()], rows)


def rates(path: str, metric: str, peer: str) -> list[str]:
    """Return what each of OURS needs of a peer's bits at equal quality; "" where it was not measured."""
    deltas = read(path)["bd"][metric].get(peer, {})
    return [percent(deltas[codec]["rate"]) if codec in deltas else "" for codec in OURS]


def peers(path: str) -> list[tuple[str, str]]:
    """Return (name, label) of the codecs in a summary that are not ours, published ones last."""
    curves = [curve for curve in read(path)["curves"] if not curve["name"].startswith("vaecodec")]
    curves.sort(key=lambda curve: bool(curve["published"]))
    labels = {curve["name"]: f"{curve['name']}, published" for curve in curves if curve["published"]}
    return [(curve["name"], labels.get(curve["name"]) or LABELS[curve["name"]]) for curve in curves]


def bd_rates(path: str, metric: str) -> str:
    """Return BD-rates of the tunes and efforts that were measured against every peer by one metric."""
    columns = ["bits at equal " + METRICS[metric], *(LABELS[name].removeprefix("vaecodec, ") for name in OURS)]
    rows = [[label, *rates(path, metric, peer)] for peer, label in peers(path)]
    rows = [row for row in rows if any(row[1:])]
    measured = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    return table([columns[n] for n in measured], [[row[n] for n in measured] for row in rows])


def overview() -> str:
    """Return the table of README.md: Kodak, and three metrics."""
    path = "kodak/summary.json"
    columns = ["bits of vaecodec against", "SSIMULACRA2", "MS-SSIM", "PSNR, tune=psnr", "and effort 9"]
    rows = []
    for peer, label in peers(path):
        if peer not in ("jpeg", "webp", "jxl", "avif", "hevc", "ELIC 2022"):
            continue
        psnr = dict(zip(OURS, rates(path, "psnr", peer), strict=True))
        eye = [rates(path, metric, peer)[OURS.index("vaecodec")] for metric in ("ssimulacra2", "ms-ssim")]
        rows.append([label, *eye, psnr["vaecodec@psnr"], psnr["vaecodec@9-psnr"]])
    return table(columns, rows)


def matched(path: str) -> str:
    """Return the rates of the codecs at three PSNRs."""
    quality = read(path)["matched"]
    columns = ["bits per pixel", *[f"at {psnr} dB" for psnr in quality]]
    names = [name for name in LABELS if all(name in codecs for codecs in quality.values())]
    rows = [[LABELS[name], *[number(float(codecs[name]["bpp"])) for codecs in quality.values()]] for name in names]
    return table(columns, rows)


def lossless() -> str:
    """Return rates and speeds of lossless codecs on Kodak."""
    keys = ("bpp", "encode_speed", "decode_speed")
    codecs = read("kodak/summary.json")["lossless"]
    rows = [[LABELS[codec["name"]], *[number(float(codec[key])) for key in keys]] for codec in codecs]
    return table(["", "bpp", "encode, MP/s", "decode, MP/s"], rows)


def exact_rates() -> str:
    """Return bits per sample of lossless codecs by set of images."""
    rates = read("lossless/rates.json")["rates"]
    names = {"kodak": "Kodak", "held-out": "held-out", "deep": "16 bits", "screenshots": "drawn"}
    codecs = [name for name in next(iter(rates.values())) if name != "images"]
    rows = [["images", *[number(rates[key]["images"]) for key in rates]]]
    for codec in codecs:
        rows.append([codec, *[f"{rate:.3f}" if (rate := by_codec.get(codec)) else "" for by_codec in rates.values()]])
    return table(["bits per sample", *[names[key] for key in rates]], rows)


def near_rates() -> str:
    """Return bits per sample of near-lossless codecs on Kodak by bound."""
    near = read("lossless/rates.json")["near"]
    codecs = list(next(iter(near.values())))
    rows = [[codec, *[f"{rates[codec]:.3f}" for rates in near.values()]] for codec in codecs]
    return table(["bits per sample", *[f"within {bound}" for bound in near]], rows)


def exact_speeds() -> str:
    """Return megapixels per second of lossless coding by threads."""
    speeds = read("lossless/rates.json")["speed"]
    rows = [
        [threads, number(float(speed["encode"])), number(float(speed["decode"]))] for threads, speed in speeds.items()
    ]
    return table(["threads", "encode, MP/s", "decode, MP/s"], rows)


def parts() -> str:
    """Return where the time goes in a 768 x 512 photograph on one thread."""
    data = read("kodak/throughput.json")
    columns = [column.removesuffix(", %") for column in data["columns"] if column.endswith("%")]
    rows = [row for row in data["rows"] if row[1:4] == ["768 x 512", 1, 1]]
    return table(["percent", *columns], [[row[0], *[f"{share:.0f}" for share in row[5:]]] for row in rows])


def digits() -> str:
    """Return bits a pixel of MNIST's test images by bits-back coding and by general coders."""
    data = read("digits/lossless.json")
    rows = [
        ["**vaecodec, bits back**, bytes of the file", f"**{data['bpd']:.4f}**", f"{data['alone_bpd']:.2f}"],
        ["the same without the initial bits", f"{data['bpd_without_initial']:.4f}", ""],
        ["negative ELBO of the model", f"{data['negative_elbo_bpd']:.4f}", ""],
        ["BB-ANS (Townsend, Bird and Barber 2019), published", "1.41", ""],
    ]
    order = sorted(data["peers"].items(), key=lambda peer: peer[1]["one_file_bpd"])
    rows += [[name, f"{peer['one_file_bpd']:.3f}", f"{peer['each_bpd']:.2f}"] for name, peer in order]
    return table(["bits a pixel", "all images in one file", "a file for each"], rows)


def areas(part: str) -> str:
    """Return AUROCs of the scores of one part of digits/auroc.json."""
    rows = read("digits/auroc.json")[part].items()
    keys = ("bpd", "corrected", "complexity")
    cells = [[name, *[f"{values[key]:.3f}" for key in keys]] for name, values in rows]
    return table(["", "bpd", "corrected", "PNG alone"], cells)


def arrays() -> dict[tuple[str, str], dict[str, list[Any]]]:
    """Return the rows of arrays.json by (array, bound) and codec."""
    rows: dict[tuple[str, str], dict[str, list[Any]]] = defaultdict(dict)
    for row in read("arrays/arrays.json")["rows"]:
        rows[row[0], row[1]][row[3]] = row
    return rows


ARRAY_PEERS = ("blosc-zstd", "zfp", "SZ3", "SPERR", "JPEG-LS", "JPEG XL")


def array_ratios() -> str:
    """Return our bytes over a peer's: geometric means over arrays that both take, and how often ours is smaller."""
    rows = []
    for bound in ("0 %", "0.39 %", "2 %", "5 %"):
        cells = []
        for peer in ARRAY_PEERS:
            pairs = [codecs for key, codecs in arrays().items() if key[1] == bound and peer in codecs]
            ratios = [codecs["vaecodec"][4] / codecs[peer][4] for codecs in pairs]
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else 0
            smaller = sum(ratio < 1 for ratio in ratios)
            cells.append(f"{mean:.2f} ({smaller} of {len(ratios)})" if ratios else "")
        rows.append([bound, *cells])
    return table(["bound, of the range", *ARRAY_PEERS], rows)


def array_bytes() -> str:
    """Return the bytes of every array at every bound, the smallest in bold."""
    rows = []
    for (array, bound), codecs in arrays().items():
        least = min(row[4] for row in codecs.values())
        cells = []
        for codec in ("vaecodec", *ARRAY_PEERS):
            size = codecs[codec][4] if codec in codecs else None
            cells.append("" if size is None else f"**{size:,}**" if size == least else f"{size:,}")
        rows.append([array, bound, *cells, codecs["vaecodec"][9]])
    return table(["array", "bound", "vaecodec", *ARRAY_PEERS, "mode"], rows)


def speed_in_words() -> str:
    """Return the least and the largest ratio of the default model's speed at effort 1 to that of its peers."""
    data = read("speed/peers.json")
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"] if row[0] == DEFAULT_MODEL]
    encode = [row["effort 1"] / row["AVIF"] for row in rows if row["direction"] == "encode"]
    decode = [row["JPEG XL"] / row["effort 1"] for row in rows if row["direction"] == "decode"]
    return (
        f"On two threads, encoding is {min(encode):.1f} to {max(encode):.1f} times as fast as AVIF at speed 6 at equal "
        f"PSNR,\nand decoding {min(decode):.0f} to {max(decode):.0f} times slower than JPEG XL.\n"
    )


QUALITY_COLUMNS = {"quality": "quality", "bpp": "bpp", "PSNR": "PSNR, dB", "SSIMULACRA2": "SSIMULACRA2"}
KODAK, HELDOUT = "kodak/summary.json", "heldout/summary.json"


def faults() -> str:
    """Return the table of docs/explanation/reliability.md: what commands did under faults."""
    rows = [row for section in read("faults.json")["sections"].values() for row in section]
    cells = "".join(f"| {fault} | {count:,} | {result} |\n" for fault, count, result in rows)
    return f"| fault | runs | result |\n|---|--:|---|\n{cells}"


TABLES: dict[str, Callable[[], str]] = {
    "faults": faults,
    "overview": overview,
    "kodak psnr": lambda: bd_rates(KODAK, "psnr"),
    "kodak ms-ssim": lambda: bd_rates(KODAK, "ms-ssim"),
    "kodak ssimulacra2": lambda: bd_rates(KODAK, "ssimulacra2"),
    "kodak matched": lambda: matched(KODAK),
    "kodak lossless": lossless,
    "exact rates": exact_rates,
    "near rates": near_rates,
    "exact speeds": exact_speeds,
    "heldout psnr": lambda: bd_rates(HELDOUT, "psnr"),
    "heldout ms-ssim": lambda: bd_rates(HELDOUT, "ms-ssim"),
    "heldout ssimulacra2": lambda: bd_rates(HELDOUT, "ssimulacra2"),
    "speed in words": speed_in_words,
    "speed": lambda: measured("speed/peers.json"),
    "instruction sets": lambda: measured("speed/instruction_sets.json"),
    "instruction sets with avx-512": lambda: measured("speed/instruction_sets_avx512.json"),
    "large images": lambda: measured("speed/large_images.json"),
    "startup": lambda: measured("kodak/startup.json"),
    "complexity": lambda: measured("kodak/complexity.json"),
    "parts": parts,
    "effort": lambda: measured("heldout/effort.json"),
    "effort for the eye": lambda: measured("heldout/effort_eye.json"),
    "quality": lambda: measured("heldout/quality.json", QUALITY_COLUMNS),
    "digits": digits,
    "digits scores": lambda: areas("digits"),
    "held-out digit": lambda: areas("digit 4 left out"),
    "photograph scores": lambda: areas("photographs"),
    "array ratios": array_ratios,
    "array bytes": array_bytes,
    "bulk": lambda: measured("bulk.json"),
    "pipelines": lambda: measured("pipelines.json"),
}

STYLES = {  # name -> colour, dashes
    "vaecodec@psnr": ("#c2185b", ""),
    "vaecodec@9-psnr": ("#c2185b", "6 4"),
    "avif": ("#1565c0", ""),
    "hevc": ("#2e7d32", ""),
    "jxl": ("#ef6c00", ""),
    "webp": ("#6d4c41", ""),
    "jpeg": ("#757575", ""),
}


def plot() -> str:
    """Return rate-distortion curves on Kodak as SVG."""
    left, right, top, bottom, widest, low, high = 56, 624, 14, 350, 1.2, 24, 40
    across = lambda bpp: left + (right - left) * bpp / widest  # noqa: E731
    up = lambda psnr: bottom - (bottom - top) * (psnr - low) / (high - low)  # noqa: E731
    head = (
        'xmlns="http://www.w3.org/2000/svg" width="640" viewBox="0 0 640 410" font-family="sans-serif" font-size="15"'
    )
    out = [f'<svg {head} fill="#222222">', '<rect width="640" height="410" fill="#ffffff"/>']
    for psnr in range(low, high + 1, 2):
        out.append(f'<path d="M{left} {up(psnr):.1f}H{right}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 8}" y="{up(psnr) + 5:.1f}" text-anchor="end">{psnr}</text>')
    for tenth in range(0, 13, 2):
        bpp = tenth / 10
        out.append(f'<text x="{across(bpp):.1f}" y="{bottom + 20}" text-anchor="middle">{bpp}</text>')
    out.append(f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#333333"/>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 44}" text-anchor="middle">bits per pixel</text>')
    out.append('<text transform="translate(18 182) rotate(-90)" text-anchor="middle">PSNR, dB</text>')
    curves = {curve["name"]: curve["points"] for curve in read(KODAK)["curves"]}
    for index, (name, (colour, dashes)) in enumerate(STYLES.items()):
        inside = [point for point in curves[name] if point["bpp"] <= widest and low <= point["psnr"] <= high]
        line = " ".join(f"{across(point['bpp']):.1f},{up(point['psnr']):.1f}" for point in inside)
        look = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        out.append(f'<polyline points="{line}" {look}/>')
        y = bottom - 136 + 20 * index
        out.append(f'<path d="M{right - 190} {y - 5}h28" {look}/>')
        label = LABELS[name].replace(" tune=psnr,", "") if name in OURS else LABELS[name].split(",")[0].split(" (")[0]
        out.append(f'<text x="{right - 156}" y="{y}">{label}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def documents() -> Iterator[Path]:
    """Yield README.md and the pages of docs."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def updated(text: str) -> str:
    """Return a document with its tables as the results have them."""

    def write(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- table: {name} -->\n{TABLES[name]()}<!-- end of table -->"

    return MARKED.sub(write, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a document disagrees")
    check = parser.parse_args().check
    texts = {path: updated(path.read_text()) for path in documents()} | {PLOT: plot()}
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'disagrees with benchmarks/results' if check else 'updated'}")
        if not check:
            path.write_text(texts[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
