"""Parse the command line.  Standard library only, as every command waits for this module."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn, Protocol

from vaecodec.arguments import DEFAULT_MODEL, DEFAULT_QUALITY, TUNES
from vaecodec.cli.options import (
    EXIT_STATUS,
    HELP_OF_COMMANDS,
    HELP_OF_PROGRAM,
    Qualities,
    above_zero,
    byte_count,
    effort,
    error,
    names,
    numbers,
    positive,
    quality,
    share,
    size,
    window,
)


class AddCommand(Protocol):
    """Add the parser of a command."""

    def __call__(self, name: str, help: str) -> argparse.ArgumentParser: ...


def make_parser() -> argparse.ArgumentParser:
    """Make the parser; `usage` of the parsed arguments is the `error` method of their command's parser."""
    parser = argparse.ArgumentParser(
        prog="vaecodec",
        allow_abbrev=False,
        description="Compress images with a learned codec, and any other files without loss.",
        epilog=HELP_OF_PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_command(name: str, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"{HELP_OF_COMMANDS[name]}\n\n{EXIT_STATUS}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_output_options(command)
        command.set_defaults(usage=command.error)
        return command

    _add_compression(add_command)
    _add_models(add_command)
    _add_training(add_command)
    _add_sets(add_command)
    _add_generation(add_command)
    _add_benchmark(add_command)
    text = "Print a script that completes this command line in a shell.  Needs vaecodec[completion]."
    completion = add_command("completion", text)
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"))
    filetype = add_command("filetype", "Print a rule by which other programs recognise .vae files.")
    text = "for file(1), or for desktops: the type, and its thumbnails"
    filetype.add_argument("kind", choices=("magic", "xml", "thumbnailer"), help=text)
    return parser


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="print more messages")
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    parser.add_argument("--json", action="store_true", help="print a JSON object per file on standard output")


def _add_compression(add_command: AddCommand) -> None:
    compress = add_command("compress", "Compress images, and any other files, to .vae files.")
    compress.usage = "vaecodec compress [options] IN [OUT.vae]\n       vaecodec compress [options] IN IN ..."
    _add_conversion(compress, "IN.vae")
    images = compress.add_argument_group("images")
    goal = images.add_mutually_exclusive_group()
    text = f"1 is smallest, 90 looks like the original (default: {DEFAULT_QUALITY:g})"
    goal.add_argument("-q", "--quality", type=quality, metavar="1..100", help=text)
    text = "largest size of an image's .vae file, in bytes or with a unit: 20k, 1.5M, 64Ki"
    goal.add_argument("--target-size", type=byte_count, metavar="SIZE", help=text)
    goal.add_argument("--target-bpp", type=above_zero, metavar="BPP", help="largest rate, in bits per pixel")
    goal.add_argument("--target-psnr", type=above_zero, metavar="DB", help="lowest PSNR of the decoded image, in dB")
    goal.add_argument("--lossless", action="store_true", help="keep every sample of images")
    goal.add_argument("--max-error", type=error, metavar="1..16", help="largest error of any sample, out of 0..255")
    text = "time for encoding; more gives fewer bits at equal error (default: 1)"
    images.add_argument("--effort", type=effort, default=1, metavar="1..9", help=text)
    text = "the error to reduce: eye, as people see it, or psnr, of samples (default: eye; psnr with --target-psnr)"
    images.add_argument("--tune", choices=TUNES, help=text)
    text = "weights of the pixels: a grey image of the same size, white where the quality holds, darker for less"
    images.add_argument("--roi", metavar="MASK", help=text)
    images.add_argument("-m", "--model", default=DEFAULT_MODEL, help=f"name or .vcm file (default: {DEFAULT_MODEL})")
    images.add_argument("--strip", action="store_true", help="leave out ICC, EXIF and XMP metadata")
    images.add_argument("--only-images", action="store_true", help="skip files that are not images")
    pages = images.add_mutually_exclusive_group()
    pages.add_argument(
        "--frame", type=positive, metavar="N", help="of a file with several pages or frames, compress the Nth"
    )
    text = "compress every page or frame, as IN-0001.vae and so on (default: store the file)"
    pages.add_argument("--all-frames", action="store_true", help=text)

    decompress = add_command("decompress", "Decompress .vae files to images or to the files stored in them.")
    decompress.usage = (
        "vaecodec decompress [options] IN.vae [OUT]\n       vaecodec decompress [options] IN.vae IN.vae ..."
    )
    _add_conversion(decompress, "IN.png")
    images = decompress.add_argument_group("images")
    images.add_argument("--window", type=window, metavar="TOP,LEFT,HEIGHT,WIDTH", help="decode only these pixels")
    factors: dict[str, Any] = {"type": int, "choices": (1, 2, 4, 8, 16)}
    images.add_argument("--reduce", default=1, help="decode a preview, smaller by this factor", **factors)

    info = add_command("info", "Describe .vae files by their headers.")
    verify = add_command("verify", "Decode .vae files completely and check them.")
    _add_folders(verify)
    for parser in (info, verify):
        parser.add_argument("inputs", nargs="+", metavar="FILE", help=".vae file, or - for standard input")
    for parser in (decompress, verify):
        parser.add_argument("-m", "--model", help="name or .vcm file (default: the one that made the file)")
    for parser in (compress, decompress, verify):
        parser.add_argument("--threads", type=positive, metavar="N", help="cores to use (default: all)")
        parser.add_argument("--no-limits", action="store_true", help="accept images of more than 179 megapixels")


def _add_conversion(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help="file, or - for standard input")
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", metavar="OUT", help=f"file, folder or - (default: {default} beside IN)")
    output.add_argument("-c", "--stdout", action="store_true", help="write to standard output, as -o -")
    output.add_argument("-f", "--force", action="store_true", help="overwrite files; write to a terminal")
    output.add_argument("-k", "--keep", action="store_false", dest="rm", help="keep IN (the default)")
    output.add_argument("--rm", action="store_true", help="remove IN once OUT is on the disk and verified")
    output.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    parser.set_defaults(rm=False)
    folders = _add_folders(parser)
    folders.add_argument("--output-dir", metavar="DIR", help="mirror the folders, with the outputs, in DIR")
    globs: dict[str, Any] = {"action": "append", "default": [], "metavar": "GLOB"}
    folders.add_argument("--include", help="take only files of this name or path: '*.jpg'; repeatable", **globs)
    folders.add_argument("--exclude", help="leave out files and folders of this name or path; repeatable", **globs)


def _add_folders(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    folders = parser.add_argument_group("folders")
    folders.add_argument("-r", "--recursive", action="store_true", help="process folders and everything in them")
    jobs: dict[str, Any] = {"type": positive, "default": os.cpu_count() or 1, "metavar": "N"}
    folders.add_argument("-j", "--jobs", help="worker processes (default: one per core)", **jobs)
    return folders


def _add_models(add_command: AddCommand) -> None:
    models = add_command("models", "List, show, add and remove models.")
    actions = models.add_subparsers(dest="action", metavar="ACTION")

    def add_action(name: str, help: str, operand: str = "") -> argparse.ArgumentParser:
        action = actions.add_parser(
            name, help=help, description=help, allow_abbrev=False, argument_default=argparse.SUPPRESS
        )
        _add_output_options(action)
        if operand:
            action.add_argument("names", nargs="+", metavar="MODEL", help=operand)
        return action

    add_action("list", "List names, ids and what models are for (the default).")
    add_action("names", "List names alone.")
    add_action("show", "Show the card, the size and the path of a model.", "name or .vcm file")
    add = add_action("add", "Copy a .vcm file into the library, where files that need it find it.", ".vcm file")
    add.add_argument("--name", default=None, help="name of the model (default: the file's)")
    add.add_argument("-f", "--force", action="store_true", default=False, help="replace a model of that name")
    add_action("remove", "Delete added models.", "name")


def _add_training(add_command: AddCommand) -> None:
    train = add_command("train", "Train a model; repeat the command to resume.  Needs vaecodec[train].")
    add = train.add_argument  # options of vaecodec.training.loop.Options default to None, which means its default
    add("paths", nargs="*", metavar="PATH", help="image, .npy array, folder or .tar of these; for digits idx or .npy")
    add("--out", required=True, metavar="RUN", help="folder for checkpoint and logs")
    add("--preset", help="small, base or digits (default: small, or that of CHECKPOINT)")
    add("--channels", type=positive, help="samples per pixel: 1 for grey, 4 for arrays [H, W, 4] (default: 3)")
    add("--config", metavar="TOML", help="architecture and options; options on the command line take precedence")
    add("--minutes", type=float, help="training time of the whole run (default: 60; digits 20)")
    add("--steps", type=positive, help="training steps of the whole run, if they take less time")
    add("--batch", type=positive, help="crops per step (default: 8; digits 64)")
    add("--crop", type=positive, help="side of a crop in pixels (default: 128)")
    add("--rate", type=float, help="peak learning rate (default: 0.0012; digits 0.001)")
    add("--seed", type=int, help="random seed (default: 0)")
    add("--devices", type=positive, default=1, help="number of GPUs, or parts of the CPU, that share a batch")
    add("--bfloat16", action="store_true", default=None, help="compute transforms in bfloat16, for GPUs")
    add(
        "--ms-ssim",
        type=float,
        metavar="PART",
        help="weight of 1 - MS-SSIM in the distortion (default: 0; crops > 160)",
    )
    text = "eye: train the analysis of --from MODEL alone, by SSIMULACRA2, for freeze --eye-of (default: psnr)"
    add("--tune", choices=TUNES, help=text)
    text = "of the analysis, where it is to have more than the synthesis; new ones change nothing at first"
    add("--analysis-blocks", type=positive, metavar="N", help=f"blocks at 1/8 and at 1/16 {text}")
    add("--enlarged", type=float, metavar="PART", help="part of the crops that are enlarged first (default: 0)")
    add("--vivid", type=float, metavar="PART", help="part of the crops whose colours are made extreme (default: 0)")
    add(
        "--from",
        dest="start",
        metavar="CHECKPOINT",
        help="start from the weights of this run, checkpoint or model, in grey with --channels 1",
    )
    add("--override", action="store_true", help="change options of a run that was begun with others")
    validate = "image, folder or .tar to validate on; may be repeated (default: hold a tenth of the images out)"
    add("--validate", action="append", default=[], metavar="PATH", help=validate)
    add("--no-validation", action="store_true", help="train on all images, and validate on none")
    exchange = train.add_mutually_exclusive_group()
    exchange.add_argument("--export-step", metavar="DIR", help="only write the training step, to train elsewhere")
    add("--hard", action="store_true", help="export the step of the last phase, with rounded latents")
    exchange.add_argument("--import-state", metavar="DIR", help="only take a state trained elsewhere into RUN")

    freeze = add_command("freeze", "Make a model or compact checkpoint from a training run.  Needs vaecodec[train].")
    freeze.add_argument("run", metavar="RUN", help="run folder or compact checkpoint")
    freeze.add_argument("-o", "--output", required=True, metavar="OUT", help="model file, or OUT.safetensors: weights")
    freeze.add_argument("-f", "--force", action="store_true", help="overwrite OUT")
    freeze.add_argument("--half", action="store_true", help="weights of 16 bits in OUT.safetensors")
    freeze.add_argument("--name", help="name of the model (default: OUT)")
    text = 'write MODEL, with the analysis of RUN, which was trained with tune = "eye", as that for the eye'
    freeze.add_argument("--eye-of", metavar="MODEL", help=text)


def _add_sets(add_command: AddCommand) -> None:
    pack = add_command("pack", "Pack a set of small grey images into one .vae file, without loss (bits-back coding).")
    pack.add_argument("inputs", nargs="+", metavar="IN", help="idx or idx.gz file, .npy u8[N, H, W], image, or folder")
    pack.add_argument("-o", "--output", required=True, metavar="OUT.vae")
    pack.add_argument("-m", "--model", default="digits", help="generative; name or .vcm file (default: digits, 28x28)")
    unpack = add_command("unpack", "Unpack the images in the .vae file of a set.")
    unpack.add_argument("input", metavar="IN.vae")
    unpack.add_argument("-o", "--output", required=True, metavar="OUT", help=".npy file, or a folder for PNG files")
    unpack.add_argument("-m", "--model", help="name or .vcm file (default: the one that made the file)")
    for parser in (pack, unpack):
        parser.add_argument("-f", "--force", action="store_true", help="overwrite files")


def _add_generation(add_command: AddCommand) -> None:
    sample = add_command("sample", "Draw images from a model as a contact sheet.")
    sample.add_argument(
        "--size", type=size, default=(256, 256), metavar="WxH", help="of photographs (default: 256x256)"
    )
    sample.add_argument("--noisy", action="store_true", help="draw each pixel too (default: take its median)")
    vary = add_command("vary", "Draw images that resemble an image as a contact sheet.")
    vary.add_argument("input", metavar="IN", help="image")
    vary.add_argument("--strength", type=share, default=0.5, metavar="0..1", help="0: the same, 1: any (default: 0.5)")
    interpolate = add_command("interpolate", "Draw images between two images as a contact sheet.")
    interpolate.add_argument("first", metavar="A", help="image")
    interpolate.add_argument("last", metavar="B", help="image of the same size")
    for parser, number in ((sample, 64), (vary, 16), (interpolate, 10)):
        add = parser.add_argument
        add("-n", "--number", type=positive, default=number, help=f"number of images (default: {number})")
        text = f"of photographs (default: {DEFAULT_QUALITY:g})"
        add("-q", "--quality", type=quality, default=DEFAULT_QUALITY, metavar="1..100", help=text)
        add("--columns", type=positive, default=0, metavar="N", help="columns of the sheet (default: a square)")
        add("-o", "--output", required=True, metavar="OUT", help="image file")
    for parser in (sample, vary):
        parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")

    score = add_command("score", "Score how unusual images are for a model; write a CSV, most unusual first.")
    score.add_argument("-o", "--output", metavar="OUT.csv", help="(default: standard output)")
    score.add_argument("--sheet", metavar="OUT.png", help="contact sheet of the most unusual images")
    score.add_argument("--most", type=positive, default=64, metavar="N", help="images on the sheet (default: 64)")
    by = ("bpd", "corrected")  # of vaecodec.generative.Score, which needs NumPy
    score.add_argument("--by", choices=by, default=by[0], help="score to sort by (default: bpd, the negative ELBO)")
    calibrate = add_command("calibrate", "Fit a model file to images: quantiles of scores, and tables.")
    calibrate.add_argument("model", metavar="MODEL", help="name or .vcm file")
    calibrate.add_argument("-o", "--output", required=True, metavar="OUT.vcm")
    calibrate.add_argument("--tables", action="store_true", help="fit the frequency tables, too: its id changes")
    for parser in (score, calibrate):
        parser.add_argument("paths", nargs="+", metavar="PATH", help="image or folder; for digits also idx or .npy")
    sample.add_argument("-m", "--model", default="digits", help="name or .vcm file (default: digits)")
    for parser in (vary, interpolate, score):
        text = "name or .vcm file (default: digits for grey images of 28x28 pixels, small for others)"
        parser.add_argument("-m", "--model", help=text)
    for parser in (sample, vary, interpolate, score, calibrate):
        parser.add_argument("-f", "--force", action="store_true", help="overwrite files")


def _add_benchmark(add_command: AddCommand) -> None:
    bench = add_command("bench", "Compare codecs by rate and distortion on your images.  Needs vaecodec[bench].")
    add = bench.add_argument
    add("paths", nargs="+", metavar="PATH", help="image or folder of images")
    add("-o", "--output", default="bench", metavar="OUT", help="folder; an earlier run in it resumes (default: bench)")
    codecs = (
        "vaecodec, jpeg, webp, avif, avif-psnr, avif-ssimulacra2, jxl, jpeg2000, hevc (the default); vaecodec@EFFORT, "
        "vaecodec@psnr, "
    )
    codecs += (
        "vaecodec:MODEL.vcm, vaecodec-model (without the decision between codings), avif-iq, jxl-e3, jxl-e9, jpegli, "
    )
    codecs += "png, webp-lossless, jxl-lossless, bpg, vtm, cjpegli, and those of installed packages"
    add("--codecs", type=names, metavar="A,B", help=f"any of {codecs}")
    settings = "settings in each codec's unit: quality; distance for jxl; dB for jpeg2000; QP for hevc, bpg and vtm.  "
    settings += "Without CODEC, for all codecs with a quality.  May be repeated"
    add("--qualities", action=Qualities, default={}, metavar="[CODEC=]A,B", help=settings)
    add("--codec", action="append", default=[], metavar="FILE.py", help="a codec in Python; may be repeated")
    metrics = "psnr, ms-ssim, ssimulacra2 (the default); butteraugli, butteraugli-max, lpips, dists, and those of"
    metrics += " installed packages"
    add("--metrics", type=names, metavar="A,B", help=f"any of {metrics}")
    add("--compare", metavar="OLD", help="folder of an earlier run: show what changed since")
    add("--threads", type=positive, default=os.cpu_count() or 1, metavar="N", help="cores to use (default: all)")
    add("--device", choices=("cpu", "gpu", "tensorflow"), default="cpu", help="for the networks of vaecodec")
    add("--published", metavar="CSV", help="published points to plot if the images are Kodak's")
    add("--show", type=int, metavar="N", help="images to show side by side in the report (default: 2)")
    add("--show-bpp", type=numbers, default=(0.25, 0.75), metavar="A,B", help="rates of the images shown")
    add("--quick", action="store_true", help="three images, two peers, four settings: a check in a minute")


class Version(argparse.Action):
    """--version, which imports the version when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from vaecodec.errors import __version__

        print(f"vaecodec {__version__}")
        parser.exit()
