"""What --help says below the options: units, files, examples.  Text only; every example is parsed by the tests."""

from __future__ import annotations

EXIT_CODES = """\
exit codes: 0 all files done, 1 some file failed (the others are done), 2 wrong usage, 130 interrupted (Control-C),
143 terminated.  Messages go to standard error, one line a file; with --json standard output has one JSON object a
file and nothing else."""

PROGRAM = f"""\
examples:
  vaecodec compress photo.jpg                     photo.vae beside it
  vaecodec decompress photo.vae                   photo.png beside it
  vaecodec info photo.vae                         size, quality and model, without decoding
  vaecodec compress -r album --output-dir out     a folder; the same line again resumes

units: sizes in bytes, rates in bits per pixel (bpp: 8 * bytes of the whole file / pixels), pictures in pixels,
megapixels of 10^6, times in seconds; quality 1..100, larger is better and takes more bits.

environment: VAECODEC_THREADS, cores to use where --threads is not given.

{EXIT_CODES}
`vaecodec COMMAND --help` says more about a command.  - stands for standard input or output."""

EXAMPLES = {
    "compress": """\
A picture is coded lossily, or without loss where that costs less (screenshots, drawings; 16 bits always); any other
file is stored without loss.  Sources are kept, and nothing is overwritten without -f.

examples:
  vaecodec compress photo.jpg                     photo.vae beside it, at quality 50
  vaecodec compress -q 80 a.png b.tif -o out/     into a folder that is there
  vaecodec compress -o - photo.png                to standard output
  vaecodec compress -r album --output-dir out     out/album/...; the same line again resumes
  vaecodec compress -r album --rm                 in place; each source goes once its output is verified
  vaecodec compress -m my.vcm photo.png           with a model of one's own""",
    "decompress": """\
A picture becomes a PNG, or what OUT's suffix says; a stored file gets its name, permissions and time back.

examples:
  vaecodec decompress photo.vae                   photo.png beside it
  vaecodec decompress photo.vae -o photo.webp     any format that Pillow writes
  vaecodec decompress --reduce 8 photo.vae -o small.png
  vaecodec decompress --window 0,0,512,768 photo.vae -o part.png
  vaecodec decompress -r out --output-dir back    all below a folder""",
    "info": """\
Reads headers and checks that the file is whole: no model is needed and nothing is decoded.

examples:
  vaecodec info photo.vae
  vaecodec info --json *.vae                      one JSON object a file""",
    "verify": """\
Decodes every symbol and byte, writes nothing.  With -r the manifest of the run that wrote the folder is held against
it: what is missing or exchanged is a failure.

examples:
  vaecodec verify *.vae
  vaecodec verify -r out""",
    "models": """\
Shipped models keep their names; added ones are files in $VAECODEC_MODELS, or else in the system's folder for data
(~/.local/share/vaecodec/models on Linux).  A .vae file names its model, and finds it in either place.

examples:
  vaecodec models
  vaecodec models show small
  vaecodec models add my.vcm --name mine
  vaecodec models remove mine""",
    "train": """\
Rates are in bits per pixel, distortions 255^2 * MSE; times in minutes.

examples:
  vaecodec train pictures/ more.tar --out my.run --minutes 90
  vaecodec train pictures/ --out my.run           goes on with it
  vaecodec train pictures/ --out my.run --from small --config my.toml
  vaecodec train bands/ --out bands.run --channels 5     .npy files, u8[H, W, 5]""",
    "freeze": """\
examples:
  vaecodec freeze my.run -o my.vcm""",
    "pack": """\
examples:
  vaecodec pack t10k-images-idx3-ubyte.gz -o digits.vae
  vaecodec pack scans/ -o scans.vae -m my.vcm""",
    "unpack": """\
examples:
  vaecodec unpack digits.vae -o digits.npy
  vaecodec unpack digits.vae -o folder            one PNG a picture""",
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
Scores are in bits per dimension (pixels times channels); percentiles are those of the training pictures.

examples:
  vaecodec score scans/ -o scores.csv --sheet strangest.png
  vaecodec score -m small --by corrected photos/""",
    "calibrate": """\
examples:
  vaecodec calibrate my.vcm pictures/ -o calibrated.vcm""",
    "bench": """\
OUT gets results.csv, tables.md, summary.json and report.html: rates in bpp of whole files, PSNR in dB, speeds in
megapixels a second.

examples:
  vaecodec bench pictures/ --quick                a look in a minute
  vaecodec bench pictures/ -o out --codecs vaecodec,vaecodec:my.vcm,avif --metrics psnr""",
    "completion": """\
examples:
  vaecodec completion bash > ~/.local/share/bash-completion/completions/vaecodec
  vaecodec completion zsh > ~/.zfunc/_vaecodec    a folder on the fpath
  vaecodec completion fish > ~/.config/fish/completions/vaecodec.fish""",
    "filetype": """\
`magic` is a rule for file(1), `xml` one for desktops (freedesktop.org's shared MIME database).

examples:
  vaecodec filetype magic >> ~/.magic             file photo.vae
  vaecodec filetype xml > ~/.local/share/mime/packages/vaecodec.xml
  update-mime-database ~/.local/share/mime""",
}


def below(command: str) -> str:
    """What stands below the options of a command."""
    return "\n\n".join(part for part in (EXAMPLES.get(command, ""), EXIT_CODES) if part)
