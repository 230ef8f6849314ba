"""Parse the values of options, check that options fit together, and hold the texts that --help shows below them.

Standard library only, as every command waits for this module.  Each error says what is expected; where inputs, outputs
and options do not fit, the program ends with a usage error.  The texts give units, files and examples; tests parse
every example.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from vaecodec.arguments import EFFORTS, MAX_ERROR, is_url

T = TypeVar("T")


class Qualities(argparse.Action):
    """--qualities LIST or CODEC=LIST, repeated: collects lists by codec, under "" without one."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, *_: Any) -> None:
        codec, _, values = text.rpartition("=")
        try:
            settings = numbers(values)
        except (ValueError, argparse.ArgumentTypeError):
            parser.error(f"argument --qualities: {values!r} is not a list of numbers")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), codec: settings})


def _number(text: str, kind: Callable[[str], T], fits: Callable[[T], bool], expected: str) -> T:
    """Parse a number, or raise an error that argparse shows: "x is not a number above 0"."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text} is not {expected}")
    return value


def quality(text: str) -> float:
    """Parse a quality."""
    return _number(text, float, lambda value: 1 <= value <= 100, "in 1..100")


def error(text: str) -> int:
    """Parse the largest error of a sample."""
    return _number(text, int, lambda value: 1 <= value <= MAX_ERROR, f"a whole number in 1..{MAX_ERROR}")


def effort(text: str) -> int:
    """Parse an effort."""
    return _number(text, int, lambda value: value in EFFORTS, f"a whole number in 1..{EFFORTS[-1]}")


def positive(text: str) -> int:
    """Parse an integer above 0."""
    return _number(text, int, lambda value: value >= 1, "a whole number of 1 or more")


def above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def share(text: str) -> float:
    """Parse a number in 0..1."""
    return _number(text, float, lambda value: 0 <= value <= 1, "in 0..1")


def window(text: str) -> tuple[int, ...]:
    """Parse a window."""

    def fits(values: tuple[int, ...]) -> bool:
        return len(values) == 4 and min(values) >= 0 and min(values[2:]) >= 1

    return _number(text, partial(_integers, separator=","), fits, "TOP,LEFT,HEIGHT,WIDTH in pixels")


def size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT as (height, width)."""

    def fits(values: tuple[int, ...]) -> bool:
        return len(values) == 2 and min(values) >= 1

    width, height = _number(text.lower(), partial(_integers, separator="x"), fits, "WIDTHxHEIGHT in pixels")
    return height, width


def _integers(text: str, separator: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(separator))


def byte_count(text: str) -> int:
    """Parse a size in bytes, perhaps with a unit: k, M and G are powers of 1000, Ki, Mi and Gi of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kKMG])(i?))?B?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 20000, 20k or 64Ki")
    number, unit, binary = match.groups()
    size = float(number) * (1024 if binary else 1000) ** ("kMG".index(unit.replace("K", "k")) + 1 if unit else 0)
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 byte or more")
    return int(size)


def names(text: str) -> tuple[str, ...]:
    """Parse a list of names."""
    values = tuple(part.strip() for part in text.split(",") if part.strip())
    if not values:
        raise argparse.ArgumentTypeError("the list is empty")
    return values


def numbers(text: str) -> tuple[float, ...]:
    """Parse a list of numbers."""
    return tuple(float(part) for part in names(text))


EXIT_STATUS = """\
exit status: 0 success; 1 at least one file failed, the others were processed; 2 usage error; 130 interrupted
(Control-C); 143 terminated.  Messages go to standard error, one line per file.  With --json, standard output has one
JSON object per file, whatever became of it, and nothing else."""

HELP_OF_PROGRAM = f"""\
examples:
  vaecodec compress photo.jpg                     write photo.vae beside it
  vaecodec decompress photo.vae                   write photo.png beside it
  vaecodec info photo.vae                         show size, quality and model without decoding
  vaecodec compress -r album --output-dir out     compress a folder; repeat the command to resume

units: sizes in bytes; rates in bits per pixel (bpp: 8 * bytes of the whole file / pixels); dimensions of images in
pixels; megapixels of 10^6 pixels; times in seconds; quality 1..100, where higher is better and larger.

environment: VAECODEC_THREADS is the number of cores to use without --threads.

{EXIT_STATUS}
`vaecodec COMMAND --help` describes a command.  The name - is standard input or output."""

HELP_OF_COMMANDS = {
    "compress": """\
Images are compressed with loss, even at quality 100.  They are kept without loss with --lossless, where that needs
fewer bits (screenshots, drawings), and where samples have more than 8 bits.  Any other file is stored without loss.
Inputs are kept, and nothing is overwritten without -f.

examples:
  vaecodec compress photo.jpg                     write photo.vae beside it, at quality 75
  vaecodec compress photo.jpg small.vae -q 25     name the output
  vaecodec compress photo.jpg --target-size 20k   the best quality that fits into 20,000 bytes
  vaecodec compress -q 80 a.png b.tif -o out/     write into an existing folder
  vaecodec compress --lossless photo.png          keep every pixel
  vaecodec compress -o - photo.png                write to standard output
  vaecodec compress -r album --output-dir out     write out/album/...; repeat the command to resume
  vaecodec compress -r album --include '*.jpg' --dry-run
                                                  show what would be written
  vaecodec compress -r album --rm                 replace each file, once its output is verified
  vaecodec compress -m my.vcm photo.png           use another model""",
    "decompress": """\
An image becomes a PNG, or has the format of OUT's suffix.  A stored file gets its name, permissions and time back.

examples:
  vaecodec decompress photo.vae                   write photo.png beside it
  vaecodec decompress photo.vae photo.webp        write any format that Pillow writes
  vaecodec decompress --reduce 8 photo.vae -o small.png
  vaecodec decompress --window 0,0,512,768 photo.vae -o part.png
  vaecodec decompress -r out --output-dir back    decompress a folder""",
    "info": """\
Reads the headers and checks that the file is complete.  Needs no model and decodes nothing.

examples:
  vaecodec info photo.vae
  vaecodec info --json *.vae                      print one JSON object per file""",
    "verify": """\
Decodes every symbol and byte and writes nothing.  With -r, it also compares the files with the manifest of the run
that wrote the folder, and reports missing and exchanged files.

examples:
  vaecodec verify *.vae
  vaecodec verify -r out""",
    "models": """\
Shipped models keep their names.  Added models are files in $VAECODEC_MODELS or, by default, in the system's data
folder (~/.local/share/vaecodec/models on Linux).  A .vae file names its model, which is looked up in both places.

examples:
  vaecodec models
  vaecodec models show small
  vaecodec models add my.vcm --name mine
  vaecodec models remove mine""",
    "train": """\
Rates are in bits per pixel, PSNR is in dB, times are in minutes without compilation.  A run goes on with its own
options.  Every few minutes its weights code the validation images; the BD-rate is against the model that it started
from (`small`, if from none).  `tensorboard --logdir RUN/logs` shows curves and decoded images.

examples:
  vaecodec train images/ more.tar --out my.run --minutes 90
  vaecodec train images/ --out my.run             resume the run
  vaecodec train images/ --out my.run --minutes 180 --override     for longer than it was begun with
  vaecodec train images/ --out my.run --from small --validate other/
  vaecodec train arrays/ --out five.run --channels 5     train on .npy files, u8[H, W, 5]""",
    "freeze": """\
examples:
  vaecodec freeze my.run -o my.vcm
  vaecodec freeze my.run -o my.safetensors --half        weights alone, to train on from""",
    "pack": """\
examples:
  vaecodec pack t10k-images-idx3-ubyte.gz -o digits.vae
  vaecodec pack scans/ -o scans.vae -m my.vcm""",
    "unpack": """\
examples:
  vaecodec unpack digits.vae -o digits.npy
  vaecodec unpack digits.vae -o folder            write one PNG per image""",
    "sample": """\
examples:
  vaecodec sample -n 64 -o sheet.png
  vaecodec sample -m small --size 256x256 -n 4 -o textures.png""",
    "vary": """\
examples:
  vaecodec vary seven.png --strength 0.3 -o sheet.png""",
    "interpolate": """\
examples:
  vaecodec interpolate one.png seven.png -n 10 -o sheet.png""",
    "score": """\
Scores are in bits per dimension (pixels times channels).  Percentiles are those of the training images.

examples:
  vaecodec score scans/ -o scores.csv --sheet unusual.png
  vaecodec score -m small --by corrected photos/""",
    "calibrate": """\
examples:
  vaecodec calibrate my.vcm images/ -o calibrated.vcm""",
    "bench": """\
Writes results.csv, tables.md, summary.json and report.html to OUT.  Rates are in bpp of whole files, PSNR is in dB,
speeds are in megapixels per second.  The report has the codecs of this command; an earlier run in OUT is resumed.

examples:
  vaecodec bench images/ --quick                  take a first look in a minute
  vaecodec bench images/ -o out --codecs vaecodec,vaecodec-model:my.vcm,avif --metrics psnr
  vaecodec bench images/ -o later --codec mine.py --compare out""",
    "completion": """\
examples:
  vaecodec completion bash > ~/.local/share/bash-completion/completions/vaecodec
  vaecodec completion zsh > ~/.zfunc/_vaecodec    for zsh, into a folder on the fpath
  vaecodec completion fish > ~/.config/fish/completions/vaecodec.fish""",
    "filetype": """\
`magic` is a rule for file(1), `xml` is one for desktops (the shared MIME database of freedesktop.org).  `thumbnailer`
makes file managers show images (GNOME, Xfce, MATE, Cinnamon).

examples:
  vaecodec filetype magic >> ~/.magic             then try: file photo.vae
  vaecodec filetype xml > ~/.local/share/mime/packages/vaecodec.xml
  update-mime-database ~/.local/share/mime
  vaecodec filetype thumbnailer > ~/.local/share/thumbnailers/vaecodec.thumbnailer""",
}


# Suffixes of image formats: no program would open a .vae file under them.
OTHER_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .jxl .gif .tif .tiff .bmp .dib .heic .heif .jp2 .j2k .jpx "
    ".ppm .pgm .pbm .pnm .pam .tga .ico .svg .qoi .exr .hdr .psd .npy".split()
)


def split_output(args: argparse.Namespace) -> None:
    """Take the second of two names as the output: compress photo.jpg photo.vae, decompress photo.vae photo.png."""
    from vaecodec.container import SUFFIX

    if len(args.inputs) != 2 or args.output is not None or args.stdout or "-" in args.inputs:
        return
    first, second = args.inputs
    if args.command == "compress":
        is_output = second.lower().endswith(SUFFIX) and not first.lower().endswith(SUFFIX)
        if not is_output:
            _check_second(args, first, second)
    else:
        is_output = first.lower().endswith(SUFFIX) and not second.lower().endswith(SUFFIX) and not _is_vae(second)
    if is_output and not os.path.isdir(second):
        args.inputs, args.output = [first], second


def _check_second(args: argparse.Namespace, first: str, second: str) -> None:
    """Refuse a second name that can only be meant as an output: compress photo.jpg photo.jxl."""
    from vaecodec.container import SUFFIX

    stem, suffix = os.path.splitext(second)
    is_other = suffix.lower() in OTHER_SUFFIXES and suffix.lower() != os.path.splitext(first)[1].lower()
    if is_other and os.path.exists(first) and not os.path.lexists(second) and not is_url(second):
        args.usage(f"{second} does not exist, and compress writes .vae files; name an output {stem}{SUFFIX}")


def _is_vae(path: str) -> bool:
    from vaecodec.container import MAGIC

    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_folder(path: str) -> bool:
    """Whether outputs go below a path: an existing folder, or a URL that ends with a slash."""
    return os.path.isdir(path) or (is_url(path) and path.endswith("/"))


def check_files(args: argparse.Namespace) -> bool:
    """Check a command without -r; return whether to write to standard output."""
    stdin, several = "-" in args.inputs, len(args.inputs) > 1
    to_stdout = args.stdout or args.output == "-" or (args.output is None and args.inputs == ["-"])
    to_folder = args.output is not None and is_folder(args.output)
    if args.output_dir is not None:
        args.usage("--output-dir needs -r; -o takes an existing folder")
    if args.include or args.exclude:
        args.usage("--include and --exclude need -r")
    if args.stdout and args.output not in (None, "-"):
        args.usage("-c and -o name different outputs")
    if several and stdin:
        args.usage("- must be the only input")
    if several and (to_stdout or (args.output is not None and not to_folder)):
        args.usage("several inputs need an existing folder as -o, or no -o")
    if to_folder and stdin:
        args.usage("standard input has no name for a file in a folder; -o must be a file")
    if args.output is not None and args.output.endswith(os.sep) and not to_folder:
        args.usage(f"{args.output} is not a folder")
    if args.command == "compress" and args.output is not None and not to_folder:
        _check_suffix(args)
    if getattr(args, "all_frames", False) and (stdin or to_stdout or (args.output is not None and not to_folder)):
        args.usage("--all-frames writes several files; -o must be an existing folder")
    if args.dry_run and (stdin or to_stdout):
        args.usage("--dry-run needs files as input and output")
    _check_rm(args)
    if args.rm and (to_stdout or stdin):
        args.usage("--rm needs files as input and output")
    if args.json and to_stdout:
        args.usage("--json and the output cannot share standard output")
    if stdin:
        check_stdin(args)
    if to_stdout and (sys.stdout is None or (sys.stdout.isatty() and not args.force)):
        args.usage("standard output is a terminal; name a file with -o, or force with -f")
    return to_stdout


def check_folders(args: argparse.Namespace) -> None:
    """Check a command with -r."""
    if args.stdout or args.output is not None:
        args.usage("-r takes --output-dir instead of -o or -c")
    check_no_stdin(args)
    for option in ("window", "frame", "all_frames", "roi"):
        if getattr(args, option, None):
            args.usage(f"--{option.replace('_', '-')} does not go with -r")
    _check_rm(args)


def check_no_stdin(args: argparse.Namespace) -> None:
    """Check that -r has files and folders."""
    if "-" in args.inputs:
        args.usage("-r takes files and folders, not standard input")


def check_stdin(args: argparse.Namespace) -> None:
    """Check that standard input is neither closed nor a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        args.usage("standard input is a terminal; pipe a file into it or name a file")


def _check_suffix(args: argparse.Namespace) -> None:
    """Refuse the suffix of another format: nothing would open such a file."""
    from vaecodec.container import SUFFIX

    stem, suffix = os.path.splitext(args.output)
    if suffix.lower() in OTHER_SUFFIXES:
        args.usage(f"compress writes .vae files; name the output {stem}{SUFFIX} instead of {args.output}")


def _check_rm(args: argparse.Namespace) -> None:
    if args.rm and getattr(args, "window", None) is not None:
        args.usage("--rm would lose the image outside --window")
    if args.rm and (getattr(args, "frame", None) or getattr(args, "all_frames", False)):
        args.usage("--rm would lose what the files hold beside the frames")
    if args.rm and getattr(args, "reduce", 1) > 1:
        args.usage("--rm would leave only a preview")
