"""Compile the native core with a C compiler of the system, or with the one in the ziglang package.

    python -m vaecodec.native.build            # beside this file, for an editable install or a clone

Standard library only: the build backend loads this file by itself.  `library` imports it, so what only compiling
needs is imported there.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
NAMES = {"win32": "core.dll", "darwin": "core.dylib"}
WARNINGS = ("-Wall", "-Wextra", "-Werror=implicit-function-declaration")
FLAGS = ("-O3", "-std=gnu11", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", *WARNINGS)
AVX2 = ("-mavx2", "-mfma")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")
# GCC 12 leaves out a vzeroupper where it knows which registers a callee uses; then all SSE code of the thread, NumPy's
# as well, runs at a quarter of its speed.
OPTIONAL_FLAGS = ("-fno-ipa-ra",)
KINDS: dict[str, dict[str, tuple[str, ...]]] = {  # by architecture: the kinds beside "plain", and their flags
    "x86_64": {
        "sse2": (),
        "avx2": ("-DVC_256", *AVX2),
        "avx512": ("-DVC_512", *AVX512),
        "avx512vnni": ("-DVC_512", "-DVC_VNNI", *AVX512, "-mavx512vnni"),
    },
    "aarch64": {"neon": ()},
    "wasm32": {"wasm": ("-msimd128",)},
}
ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
SYSTEMS = {"linux": "linux-gnu.2.17", "darwin": "macos", "win32": "windows-gnu"}


def library_name(system: str = sys.platform) -> str:
    """The file name of the library on a system, a value of sys.platform."""
    return NAMES.get(system, "core.so")


def architecture() -> str:
    """The architecture of this machine by its name in KINDS, else by the one of the platform module."""
    import platform

    return ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower())


def checksum_of_sources() -> int:
    """CRC-32 of the C sources, which the library holds, so that one of other sources is not used."""
    checksum = 0
    for path in sorted(SOURCES.iterdir()):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return checksum


def find_compiler() -> list[str] | None:
    """Find the command of a C compiler: $VAECODEC_CC, cc, gcc or clang, else ziglang's; None where there is none."""
    import shlex
    import shutil
    import sysconfig

    if os.environ.get("VAECODEC_CC"):
        return shlex.split(os.environ["VAECODEC_CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    try:
        import ziglang  # noqa: F401
    except ImportError:
        return None
    system = SYSTEMS.get(sys.platform, "linux-gnu.2.17")
    if sys.platform == "linux" and "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        system = "linux-musl"
    return zig(f"{architecture()}-{system}")


def zig(target: str) -> list[str]:
    """The command that compiles for a target of Zig's, such as "aarch64-linux-gnu.2.17"."""
    return [sys.executable, "-m", "ziglang", "cc", "-target", target, "-fno-sanitize=undefined", "-s"]


def build(
    output: Path,
    compiler: Sequence[str] | None = None,
    machine: str = "",
    flags: Sequence[str] = (),
    shared: Sequence[str] = ("-shared",),
) -> None:
    """Compile the library into `output`, for the architecture `machine`, by default that of this machine.

    `flags` come last in each call of the compiler, so that they count.  Raises RuntimeError where there is no compiler
    or it fails.
    """
    import shutil
    import subprocess
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    compiler = list(compiler or find_compiler() or [])
    if not compiler:
        raise RuntimeError("no C compiler was found (cc, gcc, clang, or the ziglang package)")
    kinds = {"plain": ("-DVC_PLAIN",), **KINDS.get(machine or architecture(), {})}
    sources: list[tuple[str, tuple[str, ...]]] = [
        ("dispatch", ("dispatch.c", f"-DVC_SOURCES={checksum_of_sources()}u"))
    ]
    sources += [(kind, ("kind.c", f"-DVC_KIND={kind}", *more)) for kind, more in kinds.items()]
    position = () if output.suffix in (".dll", ".wasm") else ("-fPIC",)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        environment = {**os.environ}
        for name in ("ZIG_LOCAL_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR"):
            environment.setdefault(name, os.path.join(folder, "zig"))

        def run(*arguments: str) -> None:
            done = subprocess.run([*compiler, *arguments, *flags], env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{compiler[0]} failed:\n{done.stderr.strip()}")

        def accepts(flag: str) -> bool:
            Path(folder, "empty.c").write_text("")
            try:
                run("-Werror", flag, "-c", os.path.join(folder, "empty.c"), "-o", os.path.join(folder, "empty.o"))
            except RuntimeError:
                return False
            return True

        def compile_one(name: str, file: str, *more: str) -> str:
            target = os.path.join(folder, f"{name}.o")
            run(*FLAGS, *optional, *position, *more, "-c", str(SOURCES / file), "-o", target)
            return target

        try:
            optional = [flag for flag in OPTIONAL_FLAGS if accepts(flag)]
            objects = list(pool.map(lambda source: compile_one(source[0], *source[1]), sources))
            output.parent.mkdir(parents=True, exist_ok=True)
            linked = os.path.join(folder, output.name)
            run(*shared, "-o", linked, *objects)
            temporary = output.with_name(f"{output.name}.new")
            shutil.copyfile(linked, temporary)  # another file system, perhaps
            os.replace(temporary, output)  # a process that has the old one open keeps it
        except OSError as exc:
            raise RuntimeError(f"{compiler[0]}: {exc}") from exc


if __name__ == "__main__":
    build(Path(__file__).parent / library_name())
