"""Test that training on several devices gives the results of one device, up to the order of sums."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from support.images import synthetic_image
from support.paths import ROOT

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.long

# Logical devices must be created before TensorFlow starts, so this runs in a separate process. Tracing takes most of
# the time, so the graph of the second run is inspected, not traced again.
SCRIPT = """
import json, sys
import tensorflow as tf
from support.models import TINY_CONFIG as CONFIG
from vaecodec.training import initial_state, loop, train_step
from vaecodec.training.train_step import Options

folder, runs = sys.argv[1], sys.argv[2]
options = Options(batch=4, crop=64, steps=4, minutes=1e9)
train_step.spread(options, devices=2)
assert len(tf.config.list_logical_devices("CPU")) == 2
options.towers = 2
loop.train([folder], runs + "/one", CONFIG, options)
functions, trace = [], tf.function
tf.function = lambda step, **options: functions.append(trace(step, **options)) or functions[-1]
loop.train([folder], runs + "/two", CONFIG, options, devices=2)

step = functions[0]
assert step.experimental_get_tracing_count() == 1
state = [tf.constant(value) for value in initial_state(CONFIG)]
images, rate, seed = tf.zeros([4, 64, 64, 3], tf.uint8), tf.constant(0.0), tf.constant([0, 1])
operations = step.get_concrete_function(state, images, rate, seed).graph.get_operations()
assert step.experimental_get_tracing_count() == 1
print(json.dumps([operation.device for operation in operations if operation.type == "MatMul"]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two training runs, and the devices of the matrix products of the mirrored step."""
    folder = tmp_path_factory.mktemp("mirrored")
    (folder / "photos").mkdir()
    for seed in range(3):
        Image.fromarray(synthetic_image(90, 100, seed)).save(folder / "photos" / f"{seed}.png")
    env = dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    line = [sys.executable, "-c", SCRIPT, str(folder / "photos"), str(folder)]
    process = subprocess.run(line, env=env, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr[-3000:]
    return folder, json.loads(process.stdout.splitlines()[-1])


def test_two_devices_give_the_result_of_one(runs):
    from support.models import TINY_CONFIG as CONFIG
    from vaecodec.training import initial_state, load_checkpoint

    single_device, two_devices = (load_checkpoint(str(runs[0] / name)) for name in ("one", "two"))
    assert (
        single_device[:2] == two_devices[:2]
        and single_device[3]["steps"] == two_devices[3]["steps"] == single_device[2][-1] == 4
    )
    for expected, actual in zip(single_device[2], two_devices[2], strict=True):
        np.testing.assert_allclose(expected, actual, rtol=2e-3, atol=2e-6)
    assert np.abs(single_device[2][0] - initial_state(CONFIG)[0]).max() > 1e-3  # training has changed the weights


def test_each_device_computes_half_of_the_products(runs):
    devices = [device.rpartition(":")[2] for device in runs[1]]
    assert set(devices) == {"0", "1"} and devices.count("0") == devices.count("1")
