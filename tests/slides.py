"""Small slides made at test time, as scanners and converters write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path

GLASS = (244, 242, 243)
INK = (120, 40, 110)
JPEG, JPEG_2000 = "jpeg", "aperio_jp2000_rgb"


def patterned(height: int, width: int, squares) -> np.ndarray:
    """Glass with squares of ink at (top, left, side); edges on multiples of 16 survive JPEG unharmed."""
    picture_HWC = np.empty((height, width, 3), np.uint8)
    picture_HWC[:] = GLASS
    for top, left, side in squares:
        picture_HWC[top : top + side, left : left + side] = INK
    return picture_HWC


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something of which no two places are alike."""
    rng = np.random.default_rng(seed)
    coarse_HWC = rng.integers(40, 220, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return np.kron(coarse_HWC, np.ones((8, 8, 1), np.uint8))[:height, :width]


def pyramid(picture_HWC, steps=(1, 2, 4)) -> list[np.ndarray]:
    """Means of squares; what does not fill one at the end is dropped."""
    levels = []
    for n in steps:
        height, width = picture_HWC.shape[0] // n, picture_HWC.shape[1] // n
        squares = picture_HWC[: height * n, : width * n].reshape(height, n, width, n, 3)
        levels.append(np.rint(squares.mean(axis=(1, 3))).astype(np.uint8))
    return levels


def aperio(path: Path, levels, mpp: float | None = 0.5, compression: str = JPEG, tile: int = 240) -> Path:
    """An SVS."""
    with tifffile.TiffWriter(path) as file:
        for number, level_HWC in enumerate(levels):
            height, width = level_HWC.shape[:2]
            said = f"|AppMag = 20|MPP = {mpp}" if mpp else "|AppMag = 20"
            file.write(
                level_HWC,
                tile=(tile, tile),
                compression=compression,
                compressionargs={"level": 95} if compression == JPEG else None,
                photometric="rgb",
                subfiletype=int(number > 0),
                description=f"Aperio Image Library v12\n{width}x{height} ({tile}x{tile}){said}",
                metadata=None,
                software="",
            )
    return path


def generic(path: Path, levels, mpp: float = 0.5) -> Path:
    """A pyramid as any converter writes it."""
    with tifffile.TiffWriter(path) as file:
        for number, level_HWC in enumerate(levels):
            step = levels[0].shape[1] / level_HWC.shape[1]
            file.write(
                level_HWC,
                tile=(256, 256),
                compression=JPEG,
                compressionargs={"level": 95},
                photometric="rgb",
                subfiletype=int(number > 0),
                resolution=(1e4 / (mpp * step), 1e4 / (mpp * step)),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def dicom(folder: Path, levels, mpp: float = 0.5, tile: int = 256) -> Path:
    """A series of VL Whole Slide Microscopy images, a file per level; the path of the first."""
    import imagecodecs
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

    folder.mkdir()
    series, study, frame = (generate_uid(entropy_srcs=[what]) for what in ("series", "study", "frame"))
    for number, level_HWC in enumerate(levels):
        height, width = level_HWC.shape[:2]
        rows, columns = -(-height // tile), -(-width // tile)
        padded_HWC = np.pad(
            level_HWC, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge"
        )
        frames = [
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(padded_HWC[y : y + tile, x : x + tile]), level=95, subsampling="422"
            )
            for y in range(0, rows * tile, tile)
            for x in range(0, columns * tile, tile)
        ]
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = JPEGBaseline8Bit
        meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["level", str(number)])
        data = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality = "SM"
        data.ImageType = (
            ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
            if number
            else ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        )
        data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
        data.Columns = data.Rows = tile
        data.NumberOfFrames = len(frames)
        data.DimensionOrganizationType = "TILED_FULL"
        data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
        data.PhotometricInterpretation = "YBR_FULL_422"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        measures, groups = Dataset(), Dataset()
        spacing = mpp * levels[0].shape[1] / width / 1000
        measures.PixelSpacing = [spacing, spacing]
        measures.SliceThickness = 0.001
        groups.PixelMeasuresSequence = [measures]
        data.SharedFunctionalGroupsSequence = [groups]
        data.PixelData = encapsulate(frames)
        data["PixelData"].is_undefined_length = True
        data.save_as(folder / f"level{number}.dcm", enforce_file_format=True)
    return folder / "level0.dcm"


def leica(path: Path, levels, size: tuple[int, int], corner: tuple[int, int], mpp: float = 0.5) -> Path:
    """An SCN: what was scanned lies at ``corner`` (x, y) of a slide of ``size`` (width, height) pixels."""
    nanometres = round(mpp * 1000)
    height, width = levels[0].shape[:2]
    dimensions = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{n}" ifd="{n}"/>'
        for n, level in enumerate(levels)
    )
    scanned = (
        f'<view sizeX="{width * nanometres}" sizeY="{height * nanometres}" '
        f'offsetX="{corner[0] * nanometres}" offsetY="{corner[1] * nanometres}"/>'
    )
    light = "<illuminationSource>brightfield</illuminationSource><numericalAperture>0.4</numericalAperture>"
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{size[0] * nanometres}" sizeY="{size[1] * nanometres}">'
        f'<image><device model="made" version="1"/><pixels sizeX="{width}" sizeY="{height}">{dimensions}'
        f"</pixels>{scanned}<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        f"<illuminationSettings>{light}</illuminationSettings></scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, level_HWC in enumerate(levels):
            step = width / level_HWC.shape[1]
            file.write(
                level_HWC,
                tile=(256, 256),
                compression=JPEG,
                compressionargs={"level": 95},
                photometric="rgb",
                subfiletype=int(number > 0),
                resolution=(1e4 / (mpp * step), 1e4 / (mpp * step)),
                resolutionunit="CENTIMETER",
                description=description if number == 0 else None,
                metadata=None,
            )
    return path


def tile_place(path: Path, tile: int, level: int = 0) -> tuple[int, int]:
    """Where in a TIFF the bytes of a tile are: (offset, count)."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        return page.dataoffsets[tile], page.databytecounts[tile]


def damage_tile(path: Path, tile: int, level: int = 0) -> None:
    """Overwrite the beginning of a tile's compressed pixels, which no decoder overlooks."""
    offset, count = tile_place(path, tile, level)
    content = bytearray(path.read_bytes())
    content[offset : offset + min(64, count)] = bytes(min(64, count))
    path.write_bytes(content)
