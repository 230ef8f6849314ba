"""Test the PyTorch dataset: tensors equal decoded images, with and without workers."""

import numpy as np
import pytest

from support.images import synthetic_image

torch = pytest.importorskip("torch")

import vaecodec
from vaecodec import arrays
from vaecodec.errors import CodecError
from vaecodec.integrations.torch import VaeFiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with three images in colour, of which one is in a subfolder, and a grey one."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "deeper").mkdir()
    for n, path in enumerate(("a.vae", "b.vae", "deeper/c.vae")):
        (folder / path).write_bytes(vaecodec.encode(synthetic_image(70, 90, n), model="small"))
    (folder / "grey.bin").write_bytes(vaecodec.encode(synthetic_image(40, 50)[..., 0]))
    return folder


def test_items_are_the_decoded_images(folder):
    files = VaeFiles(folder)
    assert len(files) == 3
    for tensor, path in zip(files, files.paths, strict=False):
        with open(path, "rb") as file:
            expected = vaecodec.decode(file.read())
        assert tensor.dtype == torch.uint8 and np.array_equal(tensor.permute(1, 2, 0).numpy(), expected)
    assert VaeFiles([folder / "grey.bin"])[0].shape == (1, 40, 50)
    assert VaeFiles(folder, reduce=2)[0].shape == (3, 35, 45)
    assert VaeFiles(folder, transform=lambda tensor: tensor.float() / 255)[0].max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_loaded_in_workers(folder, workers):
    loader = torch.utils.data.DataLoader(VaeFiles(folder, crop=(32, 48)), batch_size=3, num_workers=workers)
    (batch,) = loader
    assert batch.shape == (3, 3, 32, 48) and batch.dtype == torch.uint8
    for tensor, path in zip(batch, VaeFiles(folder).paths, strict=True):
        with open(path, "rb") as file:
            image = vaecodec.decode(file.read())
        places = np.lib.stride_tricks.sliding_window_view(image, (32, 48, 3))[:, :, 0]
        assert (places == tensor.permute(1, 2, 0).numpy()).all((2, 3, 4)).any()


def test_what_cannot_be_loaded_is_refused(folder, tmp_path):
    with pytest.raises(CodecError, match=r"no \.vae files"):
        VaeFiles(tmp_path)
    with pytest.raises(ValueError, match="reduce"):
        VaeFiles(folder, crop=9, reduce=2)
    with pytest.raises(CodecError, match="90 x 70 pixels, expected at least 71 x 71"):
        VaeFiles(folder, crop=71)[0]


def test_tensors_are_encoded_as_arrays():
    values = torch.arange(600, dtype=torch.float32).reshape(20, 30).requires_grad_()
    assert np.array_equal(arrays.decode(arrays.encode(values)), values.detach().numpy())
