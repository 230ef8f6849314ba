"""Run commands under faults, and write what they did to benchmarks/results/faults.json.

    python tests/long/faults.py --count 500              # everything: hours
    python tests/long/faults.py kills --count 100        # one section; the rows of others are kept
    python benchmarks/tables.py                       # then: the table of docs/explanation/reliability.md

A check that fails ends the run.  It needs Linux; some faults need root.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[2])]
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from support.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
ABOUT = "python tests/long/faults.py: faults, how many of them, and what came of them"
COLUMNS = ["fault", "runs", "result"]


def kill_rows(options: argparse.Namespace, folder: pathlib.Path) -> list[list[object]]:
    from support.faults import kills

    rows: list[list[object]] = []
    for number in kills.SIGNALS:
        for kind in options.commands or kills.KINDS:
            tally = kills.kills(kind, number, options.count, options.seed, folder / f"{kind} {number.name}")
            runs = tally.pop("signals")
            text = ", ".join(f"{name} {count}" for name, count in sorted(tally.items()))
            rows.append([f"{number.name}: {kind}", runs, f"nothing lost; {text}"])
            report(rows[-1])
    return rows


def bomb_rows(options: argparse.Namespace, folder: pathlib.Path) -> list[list[object]]:
    from support.faults import bombs

    return [report(row) for row in bombs.rows(folder)]


def folder_rows(options: argparse.Namespace, folder: pathlib.Path) -> list[list[object]]:
    from support.faults import disks

    return [report(row) for row in disks.rows(folder, options.files)]


def report(row: list[object]) -> list[object]:
    print(" | ".join(map(str, row)), flush=True)
    return row


SECTIONS = {"kills": kill_rows, "bombs": bomb_rows, "disks": folder_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="without, all")
    parser.add_argument("--count", type=int, default=500, help="signals of each kind to each command")
    parser.add_argument("--commands", nargs="*", help="of kills: the commands; without, all")
    parser.add_argument("--files", type=int, default=100_000, help="small files in one folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kept = json.loads(RESULTS.read_text())["sections"] if RESULTS.exists() else {}
    for section in options.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            rows = SECTIONS[section](options, pathlib.Path(folder))
        names = {row[0] for row in rows}
        kept[section] = [row for row in kept.get(section, []) if row[0] not in names] + rows
        RESULTS.write_text(json.dumps({"about": ABOUT, "columns": COLUMNS, "sections": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
