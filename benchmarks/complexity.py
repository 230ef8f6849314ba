"""Count multiply-accumulates per pixel and parameters of the networks, from the architecture alone.

    python benchmarks/complexity.py [--model my.vcm | --preset base] [-o benchmarks/results/kodak/complexity.json]

Needs vaecodec[train]: the functions that build the networks count them.
"""

from __future__ import annotations

import argparse
import math

from common import publish

from vaecodec.config import PRESETS
from vaecodec.model.file import load_model
from vaecodec.training.vae import specification

SIZE = 512  # pixels per side: a multiple of every stride, so no padding is counted
ENCODER, DECODER = ("analysis", "prior"), ("prior", "synthesis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="count an architecture instead of a model")
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    config = PRESETS[options.preset] if options.preset else load_model(options.model).config
    networks = specification(config, SIZE)
    macs = {name: sum(part.macs.values()) / SIZE**2 for name, part in networks.items()}
    weights = {name: sum(math.prod(w.shape) for w in part.weights.values()) for name, part in networks.items()}
    rows = [[name, macs[name] / 1000, weights[name]] for name in networks]
    for title, names in (("encoder", ENCODER), ("decoder", DECODER)):
        rows.append([f"all of the {title}", sum(macs[n] for n in names) / 1000, sum(weights[n] for n in names)])
    about = f"Networks of {options.preset or options.model}, {SIZE} x {SIZE} pixels; the prior is computed in integers."
    publish(about, ["network", "kMAC a pixel", "parameters"], rows, options.output)


if __name__ == "__main__":
    main()
