"""Test models of users: adding, finding, further training, and recipes in TOML."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.paths import GOLDEN, ROOT
from support.training import eager
from vaecodec import cli, model
from vaecodec.errors import CodecError, ModelError

TINY = str(GOLDEN / "tiny.vcm")


@pytest.fixture
def models_folder(tmp_path, monkeypatch):
    """An empty folder of models; the working folder is beside it."""
    monkeypatch.setenv(model.VARIABLE, str(tmp_path / "models"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "models"


def test_files_find_an_added_model(models_folder, capsys):
    image = synthetic_image(40, 60)
    data = vaecodec.load(TINY).encode(image)
    with pytest.raises(ModelError, match="needs model [0-9a-f]{32}, which is not among those here"):
        vaecodec.decode(data)
    assert cli.main(["models", "add", TINY, "--name", "my.own-1"]) == 0
    assert (models_folder / "my.own-1.vcm").read_bytes() == (GOLDEN / "tiny.vcm").read_bytes()
    assert np.array_equal(vaecodec.decode(data), vaecodec.decode(data, model=TINY))
    assert vaecodec.load("my.own-1").encode(image) == data
    (models_folder / "broken.vcm").write_bytes(b"no model")  # does not affect other models
    (models_folder / "another.vcm").write_bytes((GOLDEN / "tiny.vcm").read_bytes()[:5000])
    os.remove(models_folder / "another.vcm")
    assert vaecodec.decode(data).shape == image.shape
    assert cli.main(["models", "remove", "my.own-1"]) == 0 and not (models_folder / "my.own-1.vcm").exists()
    with pytest.raises(ModelError, match="not among those here"):
        vaecodec.decode(data)


def test_models_are_listed_and_shown(models_folder, capsys):
    model.add_model("own", (GOLDEN / "tiny.vcm").read_bytes())
    assert cli.main(["models", "--json"]) == 0
    models = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [own] = [model for model in models if model["name"] == "own"]
    assert (own["model"], own["from"]) == (vaecodec.load(TINY).model.id, "added")
    assert [model["from"] for model in models if model["name"] == "small"] == ["shipped"]
    assert cli.main(["models", "list"]) == 0
    assert "  added\n" in capsys.readouterr().out
    assert cli.main(["models", "show", "own", "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["bytes"] == os.path.getsize(TINY) and description["path"] == str(models_folder / "own.vcm")
    assert description["config"] == vaecodec.load(TINY).model.config.to_dict() and description["parameters"] > 1000
    assert cli.main(["models", "show", TINY]) == 0
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["small", "", "../own", "a/b", ".own", "own.vcm", "x" * 65, "a b"])
def test_invalid_names_are_refused(models_folder, name, capsys):
    assert cli.main(["models", "add", TINY, "--name", name]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1 and not list(models_folder.parent.glob("*.vcm"))


def test_mistakes_neither_add_nor_remove_models(models_folder, capsys):
    with open("torn.vcm", "wb") as file:
        file.write((GOLDEN / "tiny.vcm").read_bytes()[:-1])
    for line in (["add", "torn.vcm"], ["add", "gone.vcm"], ["add", "."]):
        assert cli.main(["models", *line]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not models_folder.exists()
    assert cli.main(["models", "add", TINY]) == 0
    assert cli.main(["models", "add", TINY]) == 1
    assert "exists already (-f overwrites it)" in capsys.readouterr().err
    assert cli.main(["models", "add", "-f", TINY]) == 0
    assert cli.main(["models", "remove", "small", "gone", TINY, "tiny"]) == 1
    errors = capsys.readouterr().err
    assert "small" in errors and "'gone'" in errors and "removed by name" in errors
    assert os.path.exists(TINY) and vaecodec.load("small") and not list(models_folder.iterdir())
    assert cli.main(["models", "add", "a.vcm", "b.vcm", "--name", "c"]) == 2


def test_the_folder_follows_the_conventions_of_the_system(monkeypatch):
    monkeypatch.delenv(model.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    for system, path in (("linux", "/data"), ("darwin", "~/Library/Application Support"), ("win32", "/local")):
        monkeypatch.setattr(model.sys, "platform", system)
        monkeypatch.setenv("LOCALAPPDATA", "/local")
        assert model.models_folder() == os.path.join(os.path.expanduser(path), "vaecodec", "models")


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """A folder with a compact checkpoint of a tiny model, its frozen model, and an image to train on."""
    pytest.importorskip("tensorflow")
    from support.models import TINY_CONFIG as CONFIG
    from vaecodec.training import save_compact
    from vaecodec.training.freezing import freeze
    from vaecodec.training.vae import initial_weights

    folder = tmp_path_factory.mktemp("trained")
    save_compact(str(folder / "run.safetensors"), CONFIG, initial_weights(CONFIG, 3), {})
    freeze(str(folder / "run.safetensors"), str(folder / "first.vcm"))
    Image.fromarray(synthetic_image(80, 100, 1)).save(folder / "a.png")
    return folder


def test_training_continues_from_a_model_file(trained_folder, models_folder, capfd):
    from vaecodec.model.file import load_model, pack_model
    from vaecodec.model.weights import transform_weights
    from vaecodec.training import save_compact
    from vaecodec.training.freezing import freeze, unfreeze

    first = load_model(str(trained_folder / "first.vcm"))
    config, weights = unfreeze(first)
    save_compact("again.safetensors", config, weights, {})
    assert freeze("again.safetensors", "again.vcm") == first.id
    shutil.copy(trained_folder / "first.vcm", "here.vcm")
    assert cli.main(["models", "add", "here.vcm"]) == 0
    line = ["train", str(trained_folder / "a.png"), "--steps", "2", "--batch", "1", "--crop", "64", "--rate", "1e-9"]
    with eager():
        assert cli.main([*line, "--out", "run", "--from", "here"]) == 0
    assert cli.main(["freeze", "run", "-o", "run.vcm"]) == 0
    assert load_model("run.vcm").config == first.config
    assert cli.main(["freeze", "run", "-o", "run.safetensors"]) == 0
    assert freeze("run.safetensors", "same.vcm") == load_model("run.vcm").id
    assert cli.main(["freeze", "run", "-o", "half.safetensors", "--half"]) == 0
    assert os.path.getsize("half.safetensors") < 0.6 * os.path.getsize("run.safetensors")
    assert freeze("half.safetensors", "half.vcm") and load_model("half.vcm").config == first.config
    models = [load_model(path) for path in ("run.vcm", "here.vcm")]
    trained_kernel, first_kernel = (
        transform_weights(config, model.arrays)["analysis/coarse/kernel"] for model in models
    )
    assert np.allclose(trained_kernel, first_kernel, atol=1e-3) and trained_kernel.std() > 0
    arrays = {name: array for name, array in first.arrays.items() if not name.startswith("start/")}
    with open("bare.vcm", "wb") as file:
        file.write(pack_model("bare", config, arrays, {}))
    with pytest.raises(ModelError, match="has no start/"):
        unfreeze(load_model("bare.vcm"))
    assert cli.main([*line, "--out", "other", "--from", "bare.vcm"]) == 1
    assert "start/" in capfd.readouterr().err


def test_recipes_are_written_and_read(trained_folder, models_folder, capfd):
    from support.models import TINY_CONFIG as CONFIG
    from vaecodec import training
    from vaecodec.config import PRESETS
    from vaecodec.training import load_checkpoint
    from vaecodec.training.train_step import Options

    options = Options(minutes=3.5, seed=4, bfloat16=True)
    for config in (CONFIG, PRESETS["base"], training.preset("digits")):
        with open("a.toml", "w") as file:
            file.write(training.format_recipe(config, options))
        read_config, values = training.read_recipe("a.toml")
        assert read_config == config and Options(**values) == options
    sizes = "".join(f"{name} = {value}\n" for name, value in CONFIG.to_dict().items())
    with open("b.toml", "w") as file:
        file.write(f"[model]\n{sizes}")
        file.write("[training]\nsteps = 1\nbatch = 1\ncrop = 64\nrate = 1\n")
    with eager():
        assert (
            cli.main(["train", str(trained_folder / "a.png"), "--config", "b.toml", "--rate", "1e-3", "--out", "run"])
            == 0
        )
    config, options, _, progress = load_checkpoint("run")
    assert (config, options.rate, options.batch, progress["steps"]) == (CONFIG, 1e-3, 1, 1)
    assert training.read_recipe("run/config.toml")[0] == CONFIG


@pytest.mark.parametrize(
    "text, message",
    [
        ("[model", "Expected"),
        ("[modell]\n", "expected the tables"),
        ("model = 3", "expected the tables"),
        ('[model]\npreset = "huge"', "unknown preset 'huge'"),
        ("[model]\nfine = 3.5", "fine is 3.5"),
        ("[model]\nwidth = 4", "width"),
        ("[training]\nspeed = 1", "has no speed"),
        ("[training]\nbatch = true", "batch is True, expected int"),
        ("[training]\nbatch = -1", "expected 0 or more"),
        ("[training]\ntowers = 2", "has no towers"),
    ],
)
def test_errors_of_recipes_take_one_line(text, message, models_folder, capsys):
    pytest.importorskip("tensorflow")
    from vaecodec import training

    with open("a.toml", "w") as file:
        file.write(text)
    with pytest.raises(CodecError, match="a.toml: "):
        training.read_recipe("a.toml")
    assert cli.main(["train", "a.png", "--config", "a.toml", "--out", "run"]) == 1
    error = capsys.readouterr().err
    first, second = error.splitlines()
    assert first == "run: starting TensorFlow" and message in second and not os.path.exists("run")


@pytest.mark.parametrize("quality", [1, 43, 81])
def test_files_cost_what_training_predicts(quality, small):
    tf = pytest.importorskip("tensorflow")
    from vaecodec.config import INDICES_PER_ANCHOR, LAST_ANCHOR
    from vaecodec.container.image_file import quality_index_of
    from vaecodec.training.freezing import unfreeze
    from vaecodec.training.vae import VAE

    photo = np.asarray(Image.open(ROOT / "docs" / "examples" / "parrots.png"))
    photo = np.ascontiguousarray(photo[:256, :256])
    config, weights = unfreeze(small.model)
    position = tf.constant([min(quality_index_of(quality), LAST_ANCHOR) / INDICES_PER_ANCHOR], tf.float32)
    loss = VAE(config, weights).loss(tf.constant(photo[None]), position, tf.constant([1, 2]), hard=True)
    # The codec quantises with a trellis, which costs less than rounding each coefficient by itself.
    assert 0.94 * float(loss.bpp) < small.information(photo, quality) / 256**2 < 1.02 * float(loss.bpp)
