"""Build the wheel twice and compare its bytes; write its bill of materials and the licences of what it installs.

    python tests/long/supply_chain.py REPORTS

REPORTS gets sbom.cdx.json (CycloneDX, of the wheel and all that it installs, by cyclonedx-bom) and licenses.md (by
pip-licenses).  A licence that is not in PERMISSIVE fails.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ("cyclonedx-bom>=5", "pip-licenses>=5")
PERMISSIVE = ("Apache", "MIT", "BSD", "HPND", "PSF", "Python Software Foundation", "0BSD", "Zlib", "CC0")
COPYLEFT = ("GPL", "MPL", "EPL", "CDDL")


def run(*command: object, cwd: pathlib.Path = ROOT) -> str:
    print("$", *command, flush=True)
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def build(folder: pathlib.Path) -> pathlib.Path:
    """The wheel of a fresh clone, for this machine."""
    run("git", "clone", "-q", ROOT, folder / "clone")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "clone")
    [wheel] = folder.glob("vaecodec-*.whl")
    return wheel


def unsuitable(licenses: list[dict[str, str]]) -> list[str]:
    """The packages whose licence is unknown or not permissive."""
    return [
        f"{entry['Name']}: {entry['License']}"
        for entry in licenses
        if not any(name in entry["License"] for name in PERMISSIVE) or any(n in entry["License"] for n in COPYLEFT)
    ]


def main(reports: pathlib.Path) -> None:
    reports.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        wheels = [build(pathlib.Path(folder)) for folder in (first, second)]
        digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]
        if digests[0] != digests[1]:
            sys.exit("two builds of one commit gave different wheels")
        print(f"{wheels[0].name}: sha256 {digests[0]}, twice")
        environment, tools = pathlib.Path(first, "environment"), pathlib.Path(first, "tools")
        for folder in (environment, tools):
            venv.create(folder, with_pip=True)
        run(environment / "bin/pip", "install", "-q", wheels[0])
        run(environment / "bin/pip", "uninstall", "-q", "-y", "pip")
        run(tools / "bin/pip", "install", "-q", *TOOLS)
        python = environment / "bin/python"
        bill = reports.resolve() / "sbom.cdx.json"
        run(tools / "bin/cyclonedx-py", "environment", "--output-reproducible", "-o", bill, python)
        names = {component["name"] for component in json.loads(bill.read_text())["components"]}
        if not {"vaecodec", "numpy", "constriction", "pillow", "safetensors"} <= names:
            sys.exit(f"the bill of materials lacks a component: {sorted(names)}")
        listing = (tools / "bin/pip-licenses", "--python", python)
        (reports / "licenses.md").write_text(run(*listing, "--format", "markdown", "--with-urls"))
        if bad := unsuitable(json.loads(run(*listing, "--format", "json"))):
            sys.exit("not permissive: " + "; ".join(bad))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
