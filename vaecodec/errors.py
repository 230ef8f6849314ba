"""What can go wrong, in the words a caller can act on."""


class CodecError(Exception):
    """Any input that cannot be coded or decoded; the message says which part and what was expected."""


class FormatError(CodecError):
    """The bytes are not a whole, undamaged .vae file of a version that this library reads."""


class ModelError(CodecError):
    """A model file is missing, damaged, or not the one that a .vae file was made with."""


class LimitError(CodecError):
    """The input is larger than the caller's limits allow."""


class TargetError(CodecError):
    """No quality gives the size or the fidelity that was asked for."""


class SkippedError(CodecError):
    """The input is left alone because the caller asked for that, which is no failure."""


def require(condition: object, message: str) -> None:
    """Raise ModelError with `message` unless `condition` is true."""
    if not condition:
        raise ModelError(message)
