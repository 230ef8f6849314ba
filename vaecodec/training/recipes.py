"""How a run trains, in one TOML file: an architecture, and what Options there are to set.

[model]
preset = "small"      # sizes to begin with; any of them may follow: prior = 96
[training]
minutes = 90.0        # fields of training.Options
"""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from typing import Any

from vaecodec.config import PRESETS, Config
from vaecodec.errors import CodecError
from vaecodec.model.generative import GENERATIVE, Generative, read_config
from vaecodec.training.loop import Options

Architecture = Config | Generative


def preset(name: str) -> Architecture:
    """The architecture called `name`; raises CodecError where there is none."""
    presets: dict[str, Architecture] = {**PRESETS, **GENERATIVE}
    if name not in presets:
        raise CodecError(f"no preset is called {name!r} (there are: {', '.join(presets)})")
    return presets[name]


def with_channels(config: Architecture, channels: int) -> Config:
    """The same for so many samples a pixel; raises CodecError."""
    if isinstance(config, Generative):
        raise CodecError("a model of digits has one channel")
    try:
        return Config.from_dict({**config.to_dict(), "channels": channels})
    except ValueError as exc:
        raise CodecError(str(exc)) from exc


def read(path: str) -> tuple[Architecture | None, dict[str, Any]]:
    """(architecture, None where it says nothing of one; values of Options) of a TOML file.

    Raises CodecError on what is no TOML, and on names, types and sizes that do not exist.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
        unknown = set(tables) - {"model", "training"}
        if unknown or not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("expected the tables [model] and [training]")
        sizes = dict(tables.get("model", {}))
        config = preset(sizes.pop("preset", "small")) if "model" in tables else None
        if sizes:
            config = read_config({**config.to_dict(), **sizes})  # type: ignore[union-attr]
        return config, _options(tables.get("training", {}))
    except (CodecError, OSError, ValueError, TypeError) as exc:  # TOMLDecodeError is a ValueError
        raise CodecError(f"{path}: {getattr(exc, 'strerror', None) or exc}") from exc


def write(config: Architecture, options: Options) -> str:
    """The TOML text that `read` takes."""
    values = asdict(options)
    values.pop("towers")  # the machine's, not the recipe's
    tables = {"model": {"preset": _nearest(config), **_others(config)}, "training": values}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _options(given: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {field.name: field for field in fields(Options) if field.name != "towers"}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"[training] has no {name} (there are: {', '.join(known)})")
        wanted = type(known[name].default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f"[training] {name} is {value!r}, expected {wanted.__name__}")
        if wanted is not bool and value < 0:
            raise ValueError(f"[training] {name} is {value!r}, expected 0 or more")
    return {name: float(value) if known[name].type == "float" else value for name, value in given.items()}


def _nearest(config: Architecture) -> str:
    """The preset of the same kind that has most sizes in common."""
    presets = GENERATIVE if isinstance(config, Generative) else PRESETS
    return min(presets, key=lambda name: len(_others(config, name)))


def _others(config: Architecture, name: str | None = None) -> dict[str, int]:
    """The sizes in which an architecture differs from a preset."""
    base = asdict(preset(name or _nearest(config)))
    return {key: value for key, value in asdict(config).items() if base[key] != value}


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)
