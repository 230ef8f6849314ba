"""Test that the scripts of docs/results/digits.md run on small data."""

import gzip
import json
import pathlib
import runpy
import struct
import sys

import numpy as np
import pytest

import vaecodec
from support.paths import ROOT

SCRIPTS = ROOT / "benchmarks"


@pytest.fixture
def data(tmp_path) -> pathlib.Path:
    """A folder with the layout of MNIST's test set, with 100 sampled images."""
    mnist = tmp_path / "mnist"
    mnist.mkdir()
    images = vaecodec.sample(100, noisy=True)
    idx = struct.pack(">4BIII", 0, 0, 8, 3, *images.shape) + images.tobytes()
    (mnist / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    return tmp_path


def run(monkeypatch, name: str, *arguments: str) -> dict:
    """Run a script and return its results."""
    output = arguments[-1]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    return json.loads(pathlib.Path(output).read_text())


def test_the_script_of_lossless_coding_runs(data, monkeypatch):
    out = str(data / "out.json")
    results = run(monkeypatch, "digits.py", str(data / "mnist"), "--most", "100", "-o", out)
    assert results["images"] == 100 and 0.3 < results["bpd_without_initial"] < results["bpd"] < 3
    assert abs(results["over_negative_elbo"]) < 0.03  # the initial bits count much for 100 images
    assert 0 < results["kl_bpd"] < results["negative_elbo_bpd"]
    assert all(results["bpd"] < peer["one_file_bpd"] for peer in results["peers"].values())


def test_auroc_and_shuffled_blocks():
    script = runpy.run_path(str(SCRIPTS / "strangeness.py"))
    auroc, low, high = script["auroc"], np.arange(10.0), np.arange(10.0) + 20
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)
    blocks = script["shuffled_blocks"](np.arange(48 * 32 * 3).reshape(48, 32, 3), 16, np.random.default_rng(0))
    assert blocks.shape == (48, 32, 3) and np.array_equal(np.sort(blocks.ravel()), np.arange(48 * 32 * 3))
