"""The command bench: run a benchmark, from images to a folder of results.

images --measure--> results.csv --curves--> curves --report--> summary.json, tables.md, PNG, HTML
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vaecodec.errors import CodecError
from vaecodec.progress import Console, hushed

if TYPE_CHECKING:
    from vaecodec.bench.curves import Curve
    from vaecodec.bench.measure import Image, Table
    from vaecodec.bench.peer import Peer


QUICK_IMAGES, QUICK_SETTINGS = 3, 4
QUICK_CODECS = ("vaecodec", "jpeg", "webp")
QUICK_METRICS = ("psnr", "ms-ssim")  # SSIMULACRA2 takes a second per image
KODAK, KODAK_PIXELS = {f"kodim{n:02}" for n in range(1, 25)}, 768 * 512


def run_benchmark(args: argparse.Namespace, console: Console) -> None:
    """Run or finish the benchmark that `args` describe; what fails is reported and left out."""
    from vaecodec.bench import measure

    metrics = _metrics(args, console)
    for name in ("scipy", "bjontegaard", "tqdm", *(["ssimulacra2"] if "ssimulacra2" in metrics else [])):
        importlib.import_module(name)  # fails before an hour of measuring, not after
    files = measure.find_images(args.paths, console.fail, args.output)
    files = files[:QUICK_IMAGES] if args.quick else files
    peers = _open_peers(args, console) if files else []
    if not files or not peers or not metrics:
        lacking = "no images" if not files else "no metric is left" if not metrics else "no codec is left"
        console.fail("bench", CodecError(f"nothing to do: {lacking}"))
        return
    sweeps = {peer.name: _settings(args, peer, console) for peer in peers}
    os.makedirs(args.output, exist_ok=True)
    table = measure.Table(os.path.join(args.output, "results.csv"), metrics)
    try:
        with progress(console, "measuring", len(files) * sum(map(len, sweeps.values()))) as step:
            images = measure.measure_all(peers, sweeps, files, metrics, table, console.fail, step)
    finally:
        table.close()
    _report(args, console, peers, images, dict(files), metrics, table)


def _report(
    args: argparse.Namespace,
    console: Console,
    peers: list[Peer],
    images: list[Image],
    paths: dict[str, str],
    metrics: list[str],
    table: Table,
) -> None:
    """Write the report of the codecs that were asked for, on the images that could be read."""
    from vaecodec.bench import report
    from vaecodec.bench.curves import KIND, curves_of, samples_of
    from vaecodec.bench.measure import known

    rows = list(table.rows.values())
    kinds = [(peer.name, peer.version, peer.options, str(peer.threads), peer.device) for peer in peers]
    curves, notes = curves_of(rows, {(image.name, image.crc) for image in images}, kinds)
    names = _asked(args)
    curves = [curve for curve in curves if curve.name in names]
    for note in notes:
        if note.partition(" is left out")[0] in names:
            console.note(note)
    if not curves:
        console.fail("bench", CodecError("no codec was measured on every image, so there is nothing to compare"))
        return
    latest = {row["codec"]: tuple(str(row[key]) for key in KIND) for row in rows if row["codec"] in names}
    latest |= {kind[0]: kind for kind in kinds}
    keys, columns = [(image.name, image.crc) for image in images], [known()[name].column for name in metrics]
    samples = samples_of(rows, keys, latest, columns)
    pixels = {row["image"]: int(row["width"]) * int(row["height"]) for row in rows}
    if args.published:
        curves = curves + _published(args.published, {name: pixels[name] for name, _ in keys}, console)
    summary = report.summarise(curves, len(images), metrics)
    summary |= report.summarise_images(summary, samples, [name for name, _ in keys], metrics)
    megapixels = sum(pixels[name] for name, _ in keys) / 1e6
    summary |= {"megapixels": megapixels, "threads": args.threads, "device": args.device}
    summary["compare"] = _compare(args, console, rows, [curve.name for curve in curves], metrics, kinds)
    for name in ("startup", "throughput", "transforms", "batches", "complexity"):
        summary[name] = _read_table(os.path.join(args.output, f"{name}.json"), console)
    report.save_tables(args.output, summary, curves)
    for line in report.headline(summary):
        console.note(line)
    files = [(image.name, paths[image.name]) for image in images]
    _write_html(args, console, peers, files, summary, table)


def _write_html(
    args: argparse.Namespace,
    console: Console,
    peers: list[Peer],
    files: list[tuple[str, str]],
    summary: dict[str, Any],
    table: Table,
) -> None:
    from vaecodec.bench import gallery, report

    count = (1 if args.quick else 2) if args.show is None else max(args.show, 0)
    shown = files[:: max(1, len(files) // count)][:count] if count else []
    # A search encodes about eight files: slow at effort 9.
    at_default = [peer for peer in peers if "@" not in peer.name]
    with progress(console, "equal bytes", len(shown) * len(args.show_bpp) * len(at_default)) as step:
        folder = os.path.join(args.output, "gallery")
        views = []
        if shown:
            metrics = list(summary["metrics"])
            views = gallery.make_gallery(folder, at_default, shown, args.show_bpp, console.fail, step, metrics)
    try:
        from vaecodec.bench import report

        report.save_plots(args.output, summary)
    except ImportError as exc:
        console.note(f"PNG plots are left out: pip install 'vaecodec[bench]' ({exc})")
    path = os.path.join(args.output, "report.html")
    thumbnails = gallery.thumbnails(files, report.worst_images(summary), console.fail)
    report.save_html(path, summary, views, thumbnails)
    names = [curve["name"] for curve in summary["curves"]] + [row["name"] for row in summary["lossless"]]
    record = {"output": args.output, "count": len(files), "codecs": names, "report": path}
    console.say(record, f"{path}: {len(files)} image{'s' * (len(files) != 1)}, {len(table.rows)} rows in {table.path}")


def _metrics(args: argparse.Namespace, console: Console) -> list[str]:
    """The metrics that can be measured; one that cannot is a failure."""
    from vaecodec.bench.measure import check_metric, known
    from vaecodec.images.metrics import METRICS

    usable = []
    for name in args.metrics or (QUICK_METRICS if args.quick else METRICS):
        if name not in known():
            args.usage(f"--metrics: no metric is called {name!r} (there are {', '.join(known())})")
        try:
            check_metric(name)
        except CodecError as exc:
            console.fail(name, exc)
        else:
            usable.append(name)
    return usable


def _specs(args: argparse.Namespace) -> list[str]:
    """The codecs that are asked for, without those of files."""
    from vaecodec.bench import DEFAULT

    if args.codecs:
        return list(args.codecs)
    return list(QUICK_CODECS if args.quick else DEFAULT)


def _asked(args: argparse.Namespace) -> set[str]:
    """The names in results of all codecs that are asked for."""
    from vaecodec.bench import name_of, peer

    return {name_of(spec) for spec in _specs(args)} | set(peer.names_of_files())


def _compare(
    args: argparse.Namespace,
    console: Console,
    rows: list[dict[str, Any]],
    names: list[str],
    metrics: list[str],
    kinds: Sequence[tuple[str, ...]],
) -> dict[str, Any] | None:
    """What changed since the run of --compare, None without one."""
    from vaecodec.bench.curves import compare

    if args.compare is None:
        return None
    try:
        return compare(args.compare, rows, names, metrics, kinds)
    except (CodecError, OSError) as exc:
        console.fail(args.compare, exc)
        return None


def _open_peers(args: argparse.Namespace, console: Console) -> list[Peer]:
    """The codecs that can take part; a missing one is a failure if it was named, else a note."""
    from vaecodec.bench import open_peer, peer
    from vaecodec.bench.peer import Options

    opened, files = [], []
    for path in args.codec:
        try:
            files.append(peer.add_file(path))
        except CodecError as exc:
            console.fail(path, exc)
    for name in dict.fromkeys([*_specs(args), *files]):
        try:
            opened.append(open_peer(name, Options(args.threads, args.device)))
        except CodecError as exc:
            if args.codecs or name in files:
                console.fail(name, exc)
            else:
                console.error(f"vaecodec: {name} is left out: {exc}")
    return opened


def _settings(args: argparse.Namespace, peer: Peer, console: Console) -> tuple[float, ...]:
    """The given settings that lie on a codec's scale, else its own; the others are reported."""
    own = peer.settings
    if args.quick and len(own) > QUICK_SETTINGS:
        own = tuple(own[round(i * (len(own) - 1) / (QUICK_SETTINGS - 1))] for i in range(QUICK_SETTINGS))
    general = args.qualities.get("") if peer.scale.unit == "quality" else None
    settings = args.qualities.get(peer.name) or args.qualities.get(peer.name.partition(":")[0]) or general or own
    low, high, unit = peer.scale.low, peer.scale.high, peer.scale.unit
    for value in sorted({value for value in settings if not low <= value <= high}):
        console.fail(peer.name, CodecError(f"{unit} {value:g} is not in {low:g}..{high:g}, and is left out"))
    return tuple(value for value in settings if low <= value <= high)


def _published(path: str, pixels: dict[str, int], console: Console) -> list[Curve]:
    """Published curves, if the images are Kodak's by name and size."""
    from vaecodec.bench.curves import read_published

    if {os.path.splitext(os.path.basename(name))[0] for name in pixels} != KODAK or set(pixels.values()) != {
        KODAK_PIXELS
    }:
        console.note(f"{path} is left out: it is of Kodak's 24 images, and these are others")
        return []
    try:
        return read_published(path)
    except (CodecError, OSError) as exc:
        console.fail(path, exc)
        return []


def _read_table(path: str, console: Console) -> Any:
    """A table that a script of benchmarks/ has written for the report, or None."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        console.fail(path, exc if isinstance(exc, OSError) else CodecError(f"not JSON ({exc})"))
        return None


@contextmanager
def progress(console: Console, title: str, jobs: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left on a terminal; elsewhere, with -v, a line for each twentieth of the jobs."""
    from tqdm import tqdm

    with tqdm(total=jobs, desc=title, unit="job", disable=not console.progress, leave=False) as bar:
        done = 0

        def step(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            bar.update(count)
            if not console.progress and 20 * before // max(jobs, 1) != 20 * done // max(jobs, 1):
                console.detail(f"{title}: {done} of {jobs}")

        yield step


def bench(args: argparse.Namespace, console: Console) -> int:
    """Measure rate, distortion and time of codecs on images, and write a report."""
    try:
        with hushed(args.verbose), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module="vaecodec")  # not those of the libraries
            warnings.showwarning = lambda message, *_: console.note(f"warning: {message}")
            run_benchmark(args, console)
    except (CodecError, OSError) as exc:
        console.fail(args.output, exc)
    return int(console.failures > 0)
