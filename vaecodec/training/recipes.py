"""Architectures and options of training by name and in TOML files."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from typing import Any

from vaecodec.config import PRESETS, Config
from vaecodec.errors import CodecError
from vaecodec.model.file import read_config
from vaecodec.model.generative import GENERATIVE, Generative
from vaecodec.training.kinds import Architecture
from vaecodec.training.train_step import Options


def preset(name: str) -> Architecture:
    """The architecture of a name; raises CodecError if there is none."""
    presets: dict[str, Architecture] = {**PRESETS, **GENERATIVE}
    if name not in presets:
        raise CodecError(f"unknown preset {name!r} (known: {', '.join(presets)})")
    return presets[name]


def with_channels(config: Architecture, channels: int) -> Config:
    """The architecture for another number of samples a pixel; raises CodecError."""
    if isinstance(config, Generative):
        raise CodecError("a model of digits has one channel")
    try:
        return Config.from_dict({**config.to_dict(), "channels": channels})
    except ValueError as exc:
        raise CodecError(str(exc)) from exc


def read_recipe(path: str) -> tuple[Architecture | None, dict[str, Any]]:
    """Read the architecture (None if not given) and the values of Options in a TOML file.

        [model]
        preset = "small"      # then any sizes that differ: prior = 96
        [training]
        minutes = 90.0        # fields of Options

    Raises CodecError for malformed TOML, and for unknown names, wrong types and impossible sizes.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
        if set(tables) - {"model", "training"} or not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("expected the tables [model] and [training]")
        config = None
        if "model" in tables:
            sizes = dict(tables["model"])
            config = preset(sizes.pop("preset", "small"))
            config = read_config({**config.to_dict(), **sizes}) if sizes else config
        values = tables.get("training", {})
        options = {field.name: field for field in fields(Options) if field.name != "towers"}
        for name, value in values.items():
            if name not in options:
                raise ValueError(f"[training] has no {name} (known: {', '.join(options)})")
            expected: Any = type(options[name].default)
            if type(value) is not expected and not (expected is float and type(value) is int):
                raise ValueError(f"[training] {name} is {value!r}, expected {expected.__name__}")
            if expected not in (bool, str) and value < 0:
                raise ValueError(f"[training] {name} is {value!r}, expected 0 or more")
        return config, {n: float(v) if options[n].type == "float" else v for n, v in values.items()}
    except (CodecError, OSError, ValueError, TypeError) as exc:  # TOMLDecodeError is a ValueError
        raise CodecError(f"{path}: {getattr(exc, 'strerror', None) or exc}") from exc


def nearest_preset(config: Architecture) -> tuple[str, dict[str, int]]:
    """The preset of the same kind that differs in fewest sizes, and the sizes that differ."""

    def differences(name: str) -> dict[str, int]:
        base = asdict(preset(name))
        return {key: value for key, value in asdict(config).items() if base[key] != value}

    nearest = min(GENERATIVE if isinstance(config, Generative) else PRESETS, key=lambda name: len(differences(name)))
    return nearest, differences(nearest)


def describe(config: Architecture) -> str:
    """An architecture in words: "small", or "small with prior 96"."""
    nearest, differences = nearest_preset(config)
    sizes = ", ".join(f"{key} {value}" for key, value in differences.items())
    return f"{nearest} with {sizes}" if sizes else nearest


def changed_options(stored: Options, given: dict[str, Any]) -> list[str]:
    """The names of given options that differ from those of a run."""
    values = asdict(stored)
    return [name for name, value in given.items() if values[name] != value]


def format_recipe(config: Architecture, options: Options) -> str:
    """The TOML text that `read_recipe` reads, with the preset of the same kind that differs in fewest sizes."""

    nearest, differences = nearest_preset(config)
    training = asdict(options)
    del training["towers"]  # depends on the machine
    tables = {"model": {"preset": nearest, **differences}, "training": training}
    # JSON writes strings, integers, floats and booleans as TOML does.
    lines = {name: "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()) for name, table in tables.items()}
    return "\n".join(f"[{name}]\n{text}" for name, text in lines.items())
