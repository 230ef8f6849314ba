"""The benchmark, from pictures to a folder of results: what `vaecodec bench` does.

pictures --evaluate--> results.csv --curves--> summary.json, tables.md, compressai/ --plots, report--> PNG, HTML
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vaecodec.console import Console
from vaecodec.errors import CodecError

QUICK_PICTURES, QUICK_SETTINGS = 3, 4
QUICK_CODECS = ("vaecodec", "jpeg", "webp")
QUICK_METRICS = ("psnr", "ms-ssim")  # SSIMULACRA2 takes a second a picture
KODAK, KODAK_PIXELS = {f"kodim{n:02}" for n in range(1, 25)}, 768 * 512


def bench(args: argparse.Namespace, console: Console) -> None:
    """Runs, or finishes, the benchmark that `args` describe; what fails is told to the console and left out."""
    from vaecodec.bench import evaluate
    from vaecodec.bench.curves import curves_of
    from vaecodec.images.metrics import METRICS

    metrics = list(args.metrics or (QUICK_METRICS if args.quick else METRICS))
    for name in ("scipy", "bjontegaard", "tqdm", *(["ssimulacra2"] if "ssimulacra2" in metrics else [])):
        importlib.import_module(name)  # now, not after an hour
    files = evaluate.find_pictures(args.paths, console.fail, args.output)
    files = files[:QUICK_PICTURES] if args.quick else files
    peers = _open_peers(args, console) if files else []
    if not files or not peers:
        console.fail("bench", CodecError("nothing to do: " + ("no codec is left" if files else "no pictures")))
        return
    sweeps = _sweeps(args, peers, console)
    os.makedirs(args.output, exist_ok=True)
    table = evaluate.Table(os.path.join(args.output, "results.csv"))
    try:
        with progress(console, "measuring", len(files) * sum(map(len, sweeps.values()))) as step:
            seen = evaluate.run(peers, sweeps, files, metrics, table, console.fail, step)
        kinds = [(peer.name, peer.version, peer.options, str(peer.threads), peer.device) for peer in peers]
        curves, notes = curves_of(table.done.values(), {(picture.name, picture.crc) for picture in seen}, kinds)
    finally:
        table.close()
    for note in notes:
        console.note(note)
    if not curves:
        console.fail("bench", CodecError("no codec was measured on every picture, so there is nothing to compare"))
        return
    readable = {picture.name for picture in seen}
    _present(args, console, peers, curves, [file for file in files if file[0] in readable], metrics, table)


def _present(
    args: argparse.Namespace,
    console: Console,
    peers: list[Any],
    curves: list[Any],
    files: list[tuple[str, str]],
    metrics: list[str],
    table: Any,
) -> None:
    """Writes everything that is made from the table."""
    from vaecodec.bench import gallery, plots, report, summary

    sizes = {row["image"]: int(row["width"]) * int(row["height"]) for row in table.done.values()}
    sizes = {name: sizes[name] for name, _ in files}
    if args.published:
        stems = {os.path.splitext(os.path.basename(name))[0] for name in sizes}
        if stems == KODAK and set(sizes.values()) == {KODAK_PIXELS}:
            curves = curves + _published(args.published, console)
        else:
            console.note(f"{args.published} is left out: it is of Kodak's 24 pictures, and these are others")
    result = summary.summarise(curves, len(files), metrics)
    result["megapixels"] = sum(sizes.values()) / 1e6
    result["threads"], result["device"] = args.threads, args.device
    for name in ("startup", "throughput", "transforms", "complexity"):
        result[name] = _table_beside(args.output, name, console)
    summary.save(args.output, result, curves)
    count = (1 if args.quick else 2) if args.show is None else max(args.show, 0)
    shown = files[:: max(1, len(files) // count)][:count] if count else []
    plain = [peer for peer in peers if "@" not in peer.name]  # a search takes some eight files: too many at effort 9
    with progress(console, "equal bytes", len(shown) * len(args.show_bpp) * len(plain)) as step:
        folder = os.path.join(args.output, "gallery")
        views = gallery.make_gallery(folder, plain, shown, args.show_bpp, console.fail, step) if shown else []
    try:
        plots.save(args.output, result)
    except ImportError as exc:
        console.note(f"PNG plots are left out: pip install 'vaecodec[bench]' ({exc})")
    path = os.path.join(args.output, "report.html")
    report.save(path, result, views)
    record = {"output": args.output, "pictures": len(files), "codecs": [c.name for c in curves], "report": path}
    if console.as_json:
        console.product(json.dumps(record))
    else:
        console.note(f"{path}: {len(files)} pictures, {len(table.done)} rows in {table.path}")


def _open_peers(args: argparse.Namespace, console: Console) -> list[Any]:
    """The codecs that can take part; one that was asked for and cannot is a failure, else a note."""
    from vaecodec.bench import peers

    names = args.codecs or (QUICK_CODECS if args.quick else peers.DEFAULT)
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(peers.open_peer(name, peers.Options(args.threads, args.device)))
        except CodecError as exc:
            if args.codecs:
                console.fail(name, exc)
            else:
                console.error(f"vaecodec: {name} is left out: {exc}")
    return found


def _sweeps(args: argparse.Namespace, peers: list[Any], console: Console) -> dict[str, tuple[float, ...]]:
    """Settings by codec: those asked for that lie on its scale, else its own."""
    sweeps = {}
    for peer in peers:
        name = peer.name.partition(":")[0]
        own = peer.settings
        if args.quick and len(own) > QUICK_SETTINGS:
            own = tuple(own[round(i * (len(own) - 1) / (QUICK_SETTINGS - 1))] for i in range(QUICK_SETTINGS))
        general = args.qualities.get("") if peer.scale.unit == "quality" else None
        asked = args.qualities.get(peer.name) or args.qualities.get(name) or general or own
        sweeps[peer.name] = tuple(value for value in asked if peer.scale.low <= value <= peer.scale.high)
        for value in sorted(set(asked) - set(sweeps[peer.name])):
            low, high, unit = peer.scale.low, peer.scale.high, peer.scale.unit
            console.fail(peer.name, CodecError(f"{unit} {value:g} is not in {low:g}..{high:g}, and is left out"))
    return sweeps


def _published(path: str, console: Console) -> list[Any]:
    from vaecodec.bench.curves import read_published

    try:
        return read_published(path)
    except (CodecError, OSError) as exc:
        console.fail(path, exc)
        return []


def _table_beside(folder: str, name: str, console: Console) -> Any:
    """What a script of benchmarks/ left in the folder, for the report."""
    path = os.path.join(folder, f"{name}.json")
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
    """A bar with the time left, on a terminal; elsewhere, with -v, a line for each twentieth."""
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
