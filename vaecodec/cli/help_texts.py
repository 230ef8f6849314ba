"""Texts that --help shows below the options: units, files, examples.  Tests parse every example."""

from __future__ import annotations

EXIT_STATUS = """\
exit status: 0 success; 1 at least one file failed, the others were processed; 2 usage error; 130 interrupted
(Control-C); 143 terminated.  Messages go to standard error, one line per file.  With --json, standard output has one
JSON object per file, whatever became of it, and nothing else."""

PROGRAM = f"""\
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

COMMANDS = {
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
