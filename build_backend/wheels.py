"""Build wheels for all platforms on one machine, with the C compiler of the ziglang package.

    pip install ziglang
    python build_backend/wheels.py dist [PLATFORM ...]

A pure wheel is built once; each platform's wheel is that with a core in it, under another tag.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from vaecodec.native import build as native_build  # noqa: E402

PLATFORMS = {  # wheel platform: Zig's target, and sys.platform there
    "manylinux_2_17_x86_64.manylinux2014_x86_64": ("x86_64-linux-gnu.2.17", "linux"),
    "manylinux_2_17_aarch64.manylinux2014_aarch64": ("aarch64-linux-gnu.2.17", "linux"),
    "musllinux_1_1_x86_64": ("x86_64-linux-musl", "linux"),
    "musllinux_1_1_aarch64": ("aarch64-linux-musl", "linux"),
    "macosx_11_0_arm64": ("aarch64-macos.11.0", "darwin"),
    "macosx_10_15_x86_64": ("x86_64-macos.10.15", "darwin"),
    "win_amd64": ("x86_64-windows-gnu", "win32"),
}


def build_pure(folder: Path) -> Path:
    """The wheel without a core."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)]
    subprocess.run(command, check=True, env={**os.environ, "VAECODEC_PURE": "1"})
    return next(folder.glob("*-py3-none-any.whl"))


def add_core(pure: Path, platform: str, folder: Path) -> Path:
    """A wheel for a platform, made of the pure one and a core that is compiled for it."""
    target, system = PLATFORMS[platform]
    out = folder / pure.name.replace("none-any", f"none-{platform}")
    with tempfile.TemporaryDirectory() as scratch:
        core = Path(scratch, native_build.library_name(system))
        native_build.build(core, native_build.zig(target), target.split("-")[0])
        with zipfile.ZipFile(pure) as given, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as wheel:
            files = {name: given.read(name) for name in given.namelist()}
            times = {info.filename: info.date_time for info in given.infolist()}
            record = next(name for name in files if name.endswith(".dist-info/RECORD"))
            about = record.replace("RECORD", "WHEEL")
            files[f"vaecodec/native/{core.name}"] = core.read_bytes()
            files[about] = _retagged(files[about].decode(), platform).encode()
            files[record] = _recorded(files, record).encode()
            for name, content in files.items():
                info = zipfile.ZipInfo(name, times.get(name, times[record]))
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
                wheel.writestr(info, content)
    return out


def _retagged(about: str, platform: str) -> str:
    tags = "\n".join(f"Tag: py3-none-{tag}" for tag in platform.split("."))
    return about.replace("Tag: py3-none-any", tags).replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")


def _recorded(files: dict[str, bytes], record: str) -> str:
    """RECORD: name, hash and size of each file but itself."""
    lines = []
    for name, content in files.items():
        if name != record:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{record},,\n"])


if __name__ == "__main__":
    target_folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    target_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch_folder:
        pure_wheel = build_pure(Path(scratch_folder))
        for wheel_platform in sys.argv[2:] or PLATFORMS:
            print(add_core(pure_wheel, wheel_platform, target_folder), flush=True)
