"""Test that the lock of the nightly run names every package with its hashes, within the bounds of pyproject.toml."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT

tomllib = pytest.importorskip("tomllib")

LOCK = ROOT / "tests" / "requirements-ci.lock"
ENTRY = re.compile(r"^([\w.-]+)==([^\s;\\]+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


def locked() -> dict[str, set[str]]:
    """Versions by name: some packages have several, for different systems or versions of Python."""
    versions: dict[str, set[str]] = {}
    for name, version, _ in ENTRY.findall(LOCK.read_text()):
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


def test_every_package_has_hashes():
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith(("#", " "))]
    assert len(lines) == len(ENTRY.findall(LOCK.read_text())) > 100


def test_the_lock_is_within_the_bounds_of_the_project():
    project, versions = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], locked()
    extras, names, requirements = project["optional-dependencies"], ["train", "test"], list(project["dependencies"])
    for name in names:
        for text in extras[name]:
            own = re.fullmatch(r"vaecodec\[([\w,]+)\]", text)
            names.extend(own[1].split(",")) if own else requirements.append(text)
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and "python_version < '3.11'" in str(requirement.marker).replace('"', "'"):
            continue
        locked_versions = versions[canonicalize_name(requirement.name)]
        assert all(map(requirement.specifier.contains, locked_versions)), (requirement, locked_versions)
