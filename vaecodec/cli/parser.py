"""The grammar of the command line.  Standard library only; what a command needs loads with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any, NoReturn

from vaecodec.cli import help_texts


class Version(argparse.Action):
    """--version, which looks the number up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from vaecodec.version import __version__

        print(f"vaecodec {__version__}")
        parser.exit()


def quality(text: str) -> float:
    """An argument of -q."""
    value = float(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not in 1..100")
    return value


def window(text: str) -> tuple[int, ...]:
    """An argument of --window."""
    values = tuple(int(part) for part in text.split(","))
    if len(values) != 4 or min(values) < 0 or min(values[2:]) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not TOP,LEFT,HEIGHT,WIDTH in pixels")
    return values


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def above_zero(text: str) -> float:
    """An argument that measures something."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def size(text: str) -> tuple[int, int]:
    """An argument of --size."""
    values = tuple(int(part) for part in text.lower().split("x"))
    if len(values) != 2 or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT in pixels")
    return values[1], values[0]


def listed(text: str) -> tuple[str, ...]:
    """An argument that lists names."""
    values = tuple(part.strip() for part in text.split(",") if part.strip())
    if not values:
        raise argparse.ArgumentTypeError("names nothing")
    return values


def numbers(text: str) -> tuple[float, ...]:
    """An argument that lists numbers."""
    return tuple(float(part) for part in listed(text))


class Qualities(argparse.Action):
    """--qualities LIST or CODEC=LIST, which may be repeated: a dictionary, with "" for the general one."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, *_: Any) -> None:
        name, _, values = text.rpartition("=")
        try:
            found = numbers(values)
        except (ValueError, argparse.ArgumentTypeError):
            parser.error(f"argument --qualities: {values!r} is not a list of numbers")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), name: found})


def make_parser() -> argparse.ArgumentParser:
    """The grammar; each command's parser stores its own `error` as `usage`, for what only the command can see."""
    parser = argparse.ArgumentParser(
        prog="vaecodec",
        allow_abbrev=False,
        description="Learned image compression.",
        epilog=help_texts.PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            description=help,
            epilog=help_texts.below(name),
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_common(added)
        added.set_defaults(usage=added.error)
        return added

    compress = command("compress", "Pictures, and any other files, to .vae files.")
    _add_conversion(compress, "IN.vae")
    aims = compress.add_mutually_exclusive_group()
    aims.add_argument("-q", "--quality", type=quality, default=50.0, metavar="1..100", help="default: 50")
    aims.add_argument("--target-size", type=positive, metavar="BYTES", help="a picture's file has at most so many")
    aims.add_argument("--target-bpp", type=above_zero, metavar="BPP", help="likewise, in bits a pixel")
    aims.add_argument("--target-psnr", type=above_zero, metavar="DB", help="a picture comes back with at least this")
    compress.add_argument(
        "--effort",
        type=int,
        choices=range(1, 10),
        default=1,
        metavar="1..9",
        help="more: smaller and slower (default: 1)",
    )
    compress.add_argument("-m", "--model", default="small", help="name or .vcm file (default: small)")
    compress.add_argument("--strip", action="store_true", help="leave ICC, EXIF and XMP out")
    compress.add_argument("--only-images", action="store_true", help="leave alone what is no picture (default: stored)")

    decompress = command(
        "decompress", ".vae files to pictures, in the format of OUT's suffix, or to the files in them."
    )
    _add_conversion(decompress, "IN.png")
    decompress.add_argument("--window", type=window, metavar="TOP,LEFT,HEIGHT,WIDTH", help="only these pixels")

    decompress.add_argument(
        "--reduce", type=int, choices=(1, 2, 4, 8, 16), default=1, help="a preview at this fraction of the sides"
    )

    info = command("info", "What .vae files say of themselves.")
    verify = command("verify", "Check .vae files down to the last symbol.")
    _add_folders(verify)
    for added in (info, verify):
        added.add_argument("inputs", nargs="+", metavar="FILE", help=".vae file, - for standard input")
    for added in (decompress, verify):
        added.add_argument("-m", "--model", help="name or .vcm file (default: the shipped one that made the file)")

    for added in (compress, decompress, verify):
        added.add_argument("--threads", type=positive, metavar="N", help="cores to use (default: all)")
        added.add_argument("--no-limits", action="store_true", help="take pictures of more than 179 megapixels")

    _add_models(command("models", "The models that there are: shipped ones, and those added by name."))
    _add_training(command("train", "Train a model; the same RUN again resumes it.  Needs vaecodec[train]."))

    freeze = command("freeze", "A training run to a model file.  Needs vaecodec[train].")
    freeze.add_argument("run", metavar="RUN", help="run folder or compact checkpoint")
    freeze.add_argument("-o", "--output", required=True, metavar="OUT.vcm")
    freeze.add_argument("-f", "--force", action="store_true", help="overwrite OUT.vcm")
    freeze.add_argument("--name", help="the model's name (default: OUT)")

    _add_sets(command)
    _add_generation(command)
    _add_benchmark(command("bench", "Rate and distortion of codecs on pictures of yours.  Needs vaecodec[bench]."))

    completion = command("completion", "Print a script that completes this command line in a shell.")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    filetype = command("filetype", "Print a rule by which other programs know .vae files.")
    filetype.add_argument("kind", choices=("magic", "xml"), help="of file(1), or of desktops")
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """What all commands have."""
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--json", action="store_true", help="one JSON object a file on standard output")


def _add_conversion(parser: argparse.ArgumentParser, default: str) -> None:
    """What compress and decompress have in common."""
    parser.add_argument("inputs", nargs="+", metavar="IN", help="file, - for standard input")
    parser.add_argument("-o", "--output", metavar="OUT", help=f"file, folder or - (default: {default} beside IN)")
    parser.add_argument("-c", "--stdout", action="store_true", help="to standard output, the same as -o -")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite; write to a terminal")
    parser.add_argument("-k", "--keep", action="store_false", dest="rm", help="keep IN (the default)")
    parser.add_argument("--rm", action="store_true", help="remove IN once OUT is on the disk and verified")
    parser.set_defaults(rm=False)
    parser.add_argument(
        "--output-dir", metavar="DIR", help="with -r: write the outputs there, in folders of the same names"
    )
    _add_folders(parser)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    """What commands that take folders have in common."""
    parser.add_argument("-r", "--recursive", action="store_true", help="take folders, with all that is in them")
    parser.add_argument(
        "-j", "--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes for -r (default: all)"
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    """Actions of models: list, where none is named."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")

    def action(name: str, help: str, kind: str = "") -> argparse.ArgumentParser:
        added = actions.add_parser(
            name, help=help, description=help, allow_abbrev=False, argument_default=argparse.SUPPRESS
        )
        _add_common(added)
        if kind:
            added.add_argument("names", nargs="+", metavar="MODEL", help=kind)
        return added

    action("list", "names and ids (the default)")
    action("show", "sizes, notes, and where the file is", "name or .vcm file")
    add = action("add", "keep a .vcm file under a name: files that need it then decode by themselves", ".vcm file")
    add.add_argument("--name", default=None, help="instead of the file's")
    add.add_argument("-f", "--force", action="store_true", default=False, help="replace one of that name")
    action("remove", "delete added ones", "name")


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Options of train; those of vaecodec.training.loop.Options are None here where not given."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="folder or .tar of pictures or .npy arrays, or one of these; for digits idx file or .npy",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="folder of the run: checkpoint and logs")
    parser.add_argument("--preset", help="small, base or digits (default: small, or that of CHECKPOINT)")
    parser.add_argument(
        "--channels", type=positive, help="samples of a pixel: 1 trains on grey, 4 on arrays [H, W, 4] (default: 3)"
    )
    parser.add_argument("--config", metavar="TOML", help="architecture and options; what is given here beside it wins")
    parser.add_argument("--minutes", type=float, help="training time of the whole run (default: 60; digits 20)")
    parser.add_argument("--steps", type=positive, help="or steps of the whole run, whichever comes first")
    parser.add_argument("--batch", type=positive, help="crops a step (default: 8; digits 64)")
    parser.add_argument("--crop", type=positive, help="side of a crop in pixels (default: 128)")
    parser.add_argument("--rate", type=float, help="peak learning rate (default: 0.0012; digits 0.001)")
    parser.add_argument("--seed", type=int, help="default: 0")
    parser.add_argument(
        "--devices", type=positive, default=1, help="divide each batch between so many GPUs, or parts of the CPU"
    )
    parser.add_argument("--bfloat16", action="store_true", default=None, help="transforms in bfloat16, for GPUs")
    parser.add_argument(
        "--ms-ssim",
        type=float,
        metavar="PART",
        help="part of the distortion that is 1 - MS-SSIM (default: 0; crops > 160)",
    )
    parser.add_argument(
        "--enlarged", type=float, metavar="PART", help="part of the crops that are enlarged, to be smooth (default: 0)"
    )
    parser.add_argument(
        "--from", dest="start", metavar="CHECKPOINT", help="begin with the weights of this run, file or model"
    )
    elsewhere = parser.add_mutually_exclusive_group()
    elsewhere.add_argument("--export-step", metavar="DIR", help="only write the training step, for use elsewhere")
    parser.add_argument("--hard", action="store_true", help="export the step of the last phase: rounded latents")
    elsewhere.add_argument("--import-state", metavar="DIR", help="only take a state trained elsewhere into RUN")


def _add_sets(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """pack and unpack."""
    pack = command("pack", "A set of small grey pictures to one .vae file, without loss, by bits-back coding.")
    pack.add_argument(
        "inputs", nargs="+", metavar="IN", help="idx file (.gz too), .npy u8[N, H, W], folder of pictures, or picture"
    )
    pack.add_argument("-o", "--output", required=True, metavar="OUT.vae")
    pack.add_argument("-m", "--model", default="digits", help="generative, name or .vcm file (default: digits, 28x28)")
    unpack = command("unpack", "A .vae file of a set to the pictures in it.")
    unpack.add_argument("input", metavar="IN.vae")
    unpack.add_argument("-o", "--output", required=True, metavar="OUT", help=".npy file, else a folder for PNG files")
    unpack.add_argument("-m", "--model", help="name or .vcm file (default: the shipped one that made the file)")
    for added in (pack, unpack):
        added.add_argument("-f", "--force", action="store_true", help="overwrite")


def _add_generation(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """sample, vary, interpolate, score and calibrate."""
    sample = command("sample", "A contact sheet of pictures drawn from a model.")
    sample.add_argument("--size", type=size, default=(256, 256), metavar="WxH", help="of photographs (256x256)")
    sample.add_argument("--noisy", action="store_true", help="draw pixels too (default: each at its median)")
    vary = command("vary", "A contact sheet of pictures near one.")
    vary.add_argument("input", metavar="IN", help="picture")
    vary.add_argument("--strength", type=float, default=0.5, metavar="0..1", help="0 the same, 1 any (default: 0.5)")
    interpolate = command("interpolate", "A contact sheet of pictures from one to another.")
    interpolate.add_argument("first", metavar="A", help="picture")
    interpolate.add_argument("last", metavar="B", help="picture of the same size")
    for added, number in ((sample, 64), (vary, 16), (interpolate, 10)):
        added.add_argument("-n", "--number", type=positive, default=number, help=f"of pictures (default: {number})")
        added.add_argument("-q", "--quality", type=quality, default=50.0, metavar="1..100", help="of photographs (50)")
        added.add_argument("--columns", type=positive, default=0, metavar="N", help="of the sheet (default: a square)")
        added.add_argument("-o", "--output", required=True, metavar="OUT", help="image file, PNG or other")
    for added in (sample, vary):
        added.add_argument("--seed", type=int, default=0, help="default: 0")
    score = command("score", "How unusual pictures are to a model: a CSV, the strangest first.")
    score.add_argument("-o", "--output", metavar="OUT.csv", help="(default: standard output)")
    score.add_argument("--sheet", metavar="OUT.png", help="contact sheet of the strangest")
    score.add_argument("--most", type=positive, default=64, metavar="N", help="pictures on it (default: 64)")
    by = ("bpd", "corrected")  # of vaecodec.generative.scoring.Score, which needs NumPy
    score.add_argument("--by", choices=by, default=by[0], help="what to sort by (default: bpd, negative ELBO)")
    calibrate = command("calibrate", "A model file with quantiles of its scores on these pictures, for percentiles.")
    calibrate.add_argument("model", metavar="MODEL", help="name or .vcm file")
    calibrate.add_argument("-o", "--output", required=True, metavar="OUT.vcm")
    for added in (score, calibrate):
        added.add_argument(
            "paths", nargs="+", metavar="PATH", help="folder of pictures, picture; of digits idx or .npy"
        )
    for added in (sample, vary, interpolate, score):
        added.add_argument("-m", "--model", default="digits", help="name or .vcm file (default: digits)")
    for added in (sample, vary, interpolate, score, calibrate):
        added.add_argument("-f", "--force", action="store_true", help="overwrite")


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Options of bench."""
    metrics = ("psnr", "ms-ssim", "ssimulacra2")  # of vaecodec.images.metrics.METRICS, which needs NumPy

    def measures(text: str) -> tuple[str, ...]:
        for name in listed(text):
            if name not in metrics:
                raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(metrics)}")
        return listed(text)

    parser.add_argument("paths", nargs="+", metavar="PATH", help="folder of pictures, or picture")
    parser.add_argument("-o", "--output", default="bench", metavar="OUT", help="folder (default: bench); again resumes")
    parser.add_argument(
        "--codecs",
        type=listed,
        metavar="A,B",
        help="of vaecodec, jpeg, webp, avif, jxl, jpeg2000, hevc (these by default), vaecodec:MODEL.vcm, "
        "vaecodec@EFFORT, png, webp-lossless, jxl-lossless, bpg, vtm, cjpegli",
    )
    parser.add_argument(
        "--qualities",
        action=Qualities,
        default={},
        metavar="[CODEC=]A,B",
        help="settings in the codec's own unit: quality; distance of jxl; dB of jpeg2000; QP of hevc, bpg, vtm.  "
        "Without CODEC, of those that count in quality.  May be repeated",
    )
    parser.add_argument("--metrics", type=measures, metavar="A,B", help=f"of {', '.join(metrics)} (default: all)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1, metavar="N", help="default: all")
    parser.add_argument("--device", choices=("cpu", "gpu", "tensorflow"), default="cpu", help="of vaecodec's networks")
    parser.add_argument("--published", metavar="CSV", help="published points to draw where the pictures are Kodak's")
    parser.add_argument("--show", type=int, metavar="N", help="pictures side by side in the report (default: 2)")
    parser.add_argument("--show-bpp", type=numbers, default=(0.25, 0.75), metavar="A,B", help="at these rates")
    parser.add_argument(
        "--quick", action="store_true", help="three pictures, two peers, four settings: a check in a minute"
    )
