"""Define the version of the package, and its exceptions."""

__version__ = "0.1.0"


class CodecError(Exception):
    """An input cannot be coded or decoded; the message names the part and what was expected."""


class FormatError(CodecError):
    """The bytes are not a whole, undamaged .vae file of a version that this library reads."""


class ModelError(CodecError):
    """A model file is missing, damaged, or not the one that encoded a .vae file."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no .vcm file at the path of a model."""


class LimitError(CodecError):
    """The input is larger than the caller's limits allow."""


class TargetError(CodecError):
    """No quality gives the requested size or fidelity."""


class SkippedError(CodecError):
    """The input is skipped because the caller asked for that, which is no failure."""


def require(condition: object, message: str) -> None:
    """Raise ModelError with `message` unless `condition` is true."""
    if not condition:
        raise ModelError(message)
