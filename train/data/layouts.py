"""Folders as other systems lay them out, read as they are.

- ``voc``: ImageSets/Segmentation/{train,val[,test]}.txt, JPEGImages/NAME.*, SegmentationClass/NAME.png;
- ``drive``: {training,test}/{images/NN_*.tif, 1st_manual/NN_manual1.gif, mask/NN_*_mask.gif}, joined by what
  stands before the first ``_``; outside the mask the class is not known; 1 is vessel;
- ``objects``: NAME/images/NAME.* and NAME/masks/*, a file per object, as in DSB2018;
- ``classes``: images/NAME.*, masks/CLASS/NAME.*, where CLASS is a name or a number; a class that does not
  occur needs no file;
- ``pairs``: images/NAME.* and labels (or masks, annotations)/NAME.*, NAME_mask.* or NAME_segmentation.*; or
  both in one folder.

Names are sorted, so that every machine agrees. Whatever has no counterpart is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tiler.errors import InputError, UsageError, one_line
from tiler.readers.kind import SUFFIXES as SLIDES
from tiler.readers.polygons import VECTOR
from train.data.array import SUFFIXES as ARRAYS
from train.data.binary import CLASS, NUMBER
from train.data.item import Item

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", *ARRAYS, *sorted(SLIDES))
MASKS: Final = (*IMAGES, ".gif", ".bmp", *VECTOR)
LISTS: Final = Path("ImageSets/Segmentation")
MASK_FOLDERS: Final = ("labels", "masks", "annotations")
ENDINGS: Final = ("_mask", "_segmentation")
"""That a mask may have after the name of its image; the second is ISIC's."""
UNSEEN: Final = "__MACOSX"
"""What a Mac leaves beside the data in an archive."""


def find_items(folder: Path, layout: str, classes: tuple[str, ...]) -> list[Item]:
    """The images of a folder with their labels.

    Parameters
    ----------
    folder
        In one of the layouts above.
    layout
        Its name, or ``auto``: told by what is in the folder.
    classes
        Names, by which the folders of ``classes`` may be called.

    Raises
    ------
    InputError
        if something is not where it belongs.
    """
    if not folder.is_dir():
        raise InputError(f"a data set is a folder, or a manifest called .csv, got {folder}")
    layout = detected(folder) if layout == "auto" else layout
    items = class_items(folder, classes) if layout == "classes" else READERS[layout](folder)
    if not items:
        raise InputError(f"a folder laid out as {layout} holds images, got none in {folder}; see --layout")
    return items


def detected(folder: Path) -> str:
    """The layout of a folder."""
    if (folder / LISTS).is_dir():
        return "voc"
    if (folder / "training" / "1st_manual").is_dir():
        return "drive"
    if any((path / "masks").is_dir() for path in folders(folder) if path.name != "images"):
        return "objects"
    if (folder / "masks").is_dir() and folders(folder / "masks") and not files(folder / "masks", MASKS):
        return "classes"
    return "pairs"


def voc_items(folder: Path) -> list[Item]:
    """As PASCAL VOC lays images out."""
    image_of = by_stem(folder / "JPEGImages", IMAGES)
    items = []
    for part in ("train", "val", "test"):
        path = folder / LISTS / f"{part}.txt"
        if not path.exists() and part == "test":
            continue
        if not path.exists():
            raise InputError(f"a VOC data set has lists train.txt and val.txt, got no {path}")
        for name in listed(path):
            if name not in image_of:
                raise InputError(f"every name of a list has an image, {name} of {path} has none")
            items.append(Item(image_of[name], str(folder / "SegmentationClass" / f"{name}.png"), part))
    return items


def listed(path: Path) -> list[str]:
    """The names in a list, one a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"a VOC data set has lists of names, got {path}: {one_line(error)}") from None
    return [name for name in map(str.strip, lines) if name]


def drive_items(folder: Path) -> list[Item]:
    """As DRIVE lays images out; the official test half is the test, and never chooses the weights."""
    halves = [("training", "")] + [("test", "test")] * (folder / "test" / "1st_manual").is_dir()
    items = []
    for half, part in halves:
        manual, region = (by_number(folder / half / name) for name in ("1st_manual", "mask"))
        for number, image in by_number(folder / half / "images").items():
            for name, found in (("1st_manual", manual), ("mask", region)):
                if number not in found:
                    raise InputError(f"every image has a file of its number in {name}, {image} has none")
            items.append(Item(image, str(manual[number]), part, region[number], ">0"))
    return items


def by_number(folder: Path) -> dict[str, Path]:
    """Files by what stands before the first ``_`` of their names."""
    return _once({path: path.name.split("_")[0] for path in files(folder, MASKS)}, folder)


def object_items(folder: Path) -> list[Item]:
    """As DSB2018 lays images out."""
    items = []
    for path in folders(folder):
        images = files(path / "images", IMAGES)
        if len(images) != 1 or not (path / "masks").is_dir():
            raise InputError(f"a folder of objects has one image, and masks, got {len(images)} in {path}")
        items.append(Item(images[0], str(path / "masks")))
    return items


def class_items(folder: Path, classes: tuple[str, ...]) -> list[Item]:
    """With a folder of masks per class."""
    masks = folder / "masks"
    names = {path.name for path in folders(masks)}
    numbered = names <= {str(i) for i in range(len(classes))}
    if not numbered and not names <= set(classes):
        raise InputError(
            f"folders of masks are called as classes, or 0 to {len(classes) - 1}, got "
            f"{', '.join(sorted(names - set(classes)))} in {masks}; see --classes"
        )
    suffixes = {path.suffix for name in names for path in files(masks / name, MASKS)}
    if len(suffixes) != 1:
        raise InputError(f"masks of classes have one suffix, got {', '.join(sorted(suffixes)) or 'none'}")
    image_of = by_stem(folder / "images", IMAGES)
    strange = {p for name in names for p in files(masks / name, MASKS) if p.stem not in image_of}
    if strange:
        raise InputError(f"every mask has an image, {min(strange)} has none in {folder / 'images'}")
    kind = NUMBER if numbered else CLASS
    return [Item(path, str(masks / kind / f"{stem}{min(suffixes)}")) for stem, path in image_of.items()]


def pair_items(folder: Path) -> list[Item]:
    """With a folder of images and one of labels, or both in one."""
    if not (folder / "images").is_dir():
        return joined(folder, folder)
    for name in MASK_FOLDERS:
        if (folder / name).is_dir():
            return joined(folder / "images", folder / name)
    raise InputError(f"labels lie in {', '.join(MASK_FOLDERS)} beside images, got none in {folder}")


def joined(images: Path, masks: Path) -> list[Item]:
    """Each image with its labels, by name.

    Raises
    ------
    UsageError
        if a folder is none.
    InputError
        if an image has no labels, or labels have no image.
    """
    for name, folder in (("--images", images), ("--masks", masks)):
        if not folder.is_dir():
            raise UsageError(f"{name} is a folder, got {folder}")
    of_image = {
        path: path.stem
        for path in files(images, IMAGES)
        if images != masks or not path.stem.endswith(ENDINGS)
    }
    found = [path for path in files(masks, MASKS) if path not in of_image]
    found += folders(masks) if images != masks else []
    of_mask = {path: _image_stem(path) for path in found}
    image_of, mask_of = _once(of_image, images), _once(of_mask, masks)
    lonely = sorted(image_of.keys() - mask_of.keys())
    if lonely or not image_of:
        raise InputError(
            f"every image has a mask NAME.* or NAME_mask.* in {masks}, "
            f"got none for {image_of[lonely[0]] if lonely else images}"
        )
    if strange := sorted(mask_of.keys() - image_of.keys()):
        raise InputError(f"every mask has an image, {mask_of[strange[0]]} has none in {images}; remove it")
    return [Item(path, str(mask_of[stem])) for stem, path in image_of.items()]


def _image_stem(mask: Path) -> str:
    """Of the image that a mask, or a folder of objects, belongs to."""
    name = mask.name if mask.is_dir() else mask.stem
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by their names without the last suffix."""
    if not folder.is_dir():
        raise InputError(f"images lie in {folder}, which is no folder")
    return _once({path: path.stem for path in files(folder, suffixes)}, folder)


def _once(name_of: dict[Path, str], folder: Path) -> dict[str, Path]:
    path_of: dict[str, Path] = {}
    for path, name in name_of.items():
        if name in path_of:
            raise InputError(
                f"a name stands for one file, got {path_of[name].name} and {path.name} in {folder}; "
                "remove or rename one"
            )
        path_of[name] = path
    return path_of


def files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of those suffixes, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    found = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes and p.is_file())
    return [p for p in found if not p.name.startswith(".")]


def folders(folder: Path) -> list[Path]:
    """Folders in it, sorted; hidden ones, and a Mac's, left out."""
    found = (p for p in sorted(folder.iterdir()) if p.is_dir() and p.name != UNSEEN)
    return [p for p in found if not p.name.startswith(".")]


READERS: Final[dict[str, Callable[[Path], list[Item]]]] = {
    "voc": voc_items,
    "drive": drive_items,
    "objects": object_items,
    "pairs": pair_items,
}
"""By layout; ``classes`` needs their names, too."""
