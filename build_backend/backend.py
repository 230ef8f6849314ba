"""Build backend: setuptools, and the native core compiled into the wheel.

Where the machine has no C compiler, the ziglang package is added to the build requirements.  Where nothing compiles
the core, or VAECODEC_PURE=1 is set, the wheel is pure Python, and NumPy does the work.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from setuptools import Command
from setuptools import build_meta as setuptools_backend
from setuptools.build_meta import *  # noqa: F403
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

# The time of all files in a wheel, so that the same sources give the same bytes: 2026-01-01.
os.environ.setdefault("SOURCE_DATE_EPOCH", "1767225600")
NATIVE = Path(__file__).resolve().parent.parent / "vaecodec" / "native"


def _load_build() -> ModuleType:
    """vaecodec.native.build, without the package, whose dependencies are not there."""
    spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native_build = _load_build()


def _is_pure() -> bool:
    return os.environ.get("VAECODEC_PURE", "0") not in ("", "0")


def _compile(path: Path) -> bool:
    """Whether the core could be compiled; says on the build log what became of it."""
    if _is_pure():
        print("vaecodec: VAECODEC_PURE is set: no native core, NumPy will do the work")
        return False
    try:
        native_build.build(path)
    except RuntimeError as exc:
        print(f"vaecodec: the native core was not built, NumPy will do the work: {exc}", file=sys.stderr)
        return False
    print(f"vaecodec: built the native core, {path.stat().st_size} bytes")
    return True


def _compiler_requirements() -> list[str]:
    """A compiler from PyPI where the machine has none, and PyPI has one for it."""
    known = sys.platform in native_build.SYSTEMS and native_build.architecture() in native_build.KINDS
    return ["ziglang"] if known and not _is_pure() and native_build.find_compiler() is None else []


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*setuptools_backend.get_requires_for_build_wheel(config_settings), *_compiler_requirements()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*setuptools_backend.get_requires_for_build_editable(config_settings), *_compiler_requirements()]


class BuildCore(Command):
    """Put the core that Wheel compiled beside the modules; for an editable install, compile it in place."""

    user_options: ClassVar[list[Any]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        name = native_build.library_name()
        if self.editable_mode:
            _compile(NATIVE / name)
            return
        assert self.build_lib is not None
        target = Path(self.build_lib) / "vaecodec" / "native" / name
        target.unlink(missing_ok=True)  # of an earlier build
        compiled = getattr(self.distribution, "native_core", None)
        if compiled is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(compiled, target)

    def get_source_files(self) -> list[str]:
        return sorted(str(path) for path in Path("vaecodec/native/src").iterdir())

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    sub_commands: ClassVar[list[Any]] = [*build.sub_commands, ("build_core", None)]


class Wheel(bdist_wheel):
    """A wheel for any Python 3 of one platform, as the core is loaded by ctypes; for all platforms without a core."""

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, native_build.library_name())
            if _compile(path):
                # Before the build begins: this decides between the pure and the platform's library folder.
                self.root_is_pure = False
                self.distribution.has_ext_modules = lambda: True
                self.distribution.native_core = path
            super().run()

    def get_tag(self) -> tuple[str, str, str]:
        tag = super().get_tag()
        if self.root_is_pure:
            return tag
        system = tag[2]
        if system.endswith("universal2"):  # the Python is, the core is not
            system = system.removesuffix("universal2") + platform.machine()
        return "py3", "none", system
