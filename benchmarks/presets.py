"""Dice and IoU of the presets on real labelled sets, each trained alike with a fixed budget.

    python benchmarks/presets.py DATA RUNS [--sets buildings,nuclei] [--presets unet,milu] [--markdown FILE]
    python benchmarks/presets.py DATA RUNS --finished --markdown FILE

``DATA`` is a folder with ``labelled/`` and ``rasters/``. Every network gets the same crops in the same order,
the same loss, optimiser and schedule: our own recipe, whatever the preset's. One run per set and preset lies
in ``RUNS/SET/PRESET``; a finished one is not made again, a broken one is carried on. ``--finished`` makes
none, and tells of those that are there. The scores are those of the test part, at which nothing was chosen.
Sets under a non-commercial licence are measured on and not shipped, nor is a network made with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import describe

WIDTH = 16
CROP = 128
BATCH = 8
PRESETS = (
    "unet",
    "paper",
    "milesial-bilinear",
    "milu",
    "leejunhyun",
    "cropland",
    "keras",
    "nested-supervised",
    "unet++",
    "attention",
    "resunet",
    "denseunet",
    "vgg16-bn",
    "resnet18",
)
"""One of each kind of network; those left out differ in width or in the recipe."""
RESULT = "metrics.json"
"""Of a run that is done."""
CROPS = {"paper": 316}
"""A network without padding scores 132 px of them."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled set."""

    name: str
    what: str
    classes: tuple[str, ...]
    wanted: str
    """The class whose scores are shown."""
    options: tuple[str, ...]
    """Of `tiler train`; ``{data}`` is the folder of the data."""
    published: str = ""
    """What others found, in words."""

    def told(self, data: Path) -> list[str]:
        """The options, the classes among them."""
        return ["--classes", ",".join(self.classes), *(o.format(data=data) for o in self.options)]


def pairs(*names: tuple[str, str]) -> tuple[str, ...]:
    """``--pair`` for each image with its labels."""
    return tuple(
        option
        for image, mask in names
        for option in ("--pair", f"{{data}}/labelled/{image}", f"{{data}}/labelled/{mask}")
    )


SLIDES = (
    "TCGA-18-5592-01Z-00-DX1",
    "TCGA-A7-A13E-01Z-00-DX1",
    "TCGA-B0-5711-01Z-00-DX1",
    "TCGA-G9-6336-01Z-00-DX1",
)
SECTIONS = ("00", "04", "08", "12", "16")
SETS = (
    Labelled(
        "buildings",
        "79 aerial chips of Kampala and Zanzibar, 512 px (OpenAerialMap CC BY, OpenStreetMap ODbL)",
        ("background", "building"),
        "building",
        # Not as VOC lists, which have no test part.
        (
            *("--images", "{data}/labelled/voc_buildings/JPEGImages"),
            *("--masks", "{data}/labelled/voc_buildings/SegmentationClass"),
        ),
    ),
    Labelled(
        "clouds",
        "a Sentinel-2 and a Landsat-5 scene, six bands of uint16, 512 px (ukis-csmask, Apache-2.0)",
        ("shadow", "water", "snow", "land", "cloud"),
        "cloud",
        pairs(
            ("clouds/sentinel2_toa6_x10000.tif", "clouds/sentinel2_mask.png"),
            ("clouds/landsat5_toa6_x10000.tif", "clouds/landsat5_mask.png"),
        ),
    ),
    Labelled(
        "nuclei",
        "fluorescent nuclei, one image of 512 px (DSB 2018, CC0)",
        ("background", "nucleus"),
        "nucleus",
        (
            *pairs(("dsb2018_sample/img2d.tif", "dsb2018_sample/mask2d.tif")),
            "--coding",
            "instances",
        ),
    ),
    Labelled(
        "tissue",
        "nuclei in H&E at 40x, four images of 1000 px (MoNuSeg, CC BY-NC-SA)",
        ("background", "nucleus"),
        "nucleus",
        pairs(*((f"monuseg/images/{name}.tif", f"monuseg/masks/{name}.png") for name in SLIDES)),
        "Published Dice of U-Nets, trained on 30 such images and tested on 14 others: 0.803 and 0.818 (the "
        "corrected table of CDNet, He et al., ICCV 2021, https://github.com/honglianghe/CDNet).",
    ),
    Labelled(
        "membranes",
        "membranes in sections of a fly's nerve cord, five of 1024 px (em_vnc, CC BY-NC-SA)",
        ("inside", "membrane"),
        "membrane",
        pairs(*((f"em_vnc/raw/{n}.tif", f"em_vnc/membranes/{n}.png") for n in SECTIONS)),
    ),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What every network is given."""

    epochs: int
    crops: int
    """Per epoch."""

    def told(self, preset: str) -> list[str]:
        """Options of `tiler train`: all in which recipes differ."""
        return [
            *("--preset", preset, "--width", str(WIDTH), "--crop", str(CROPS.get(preset, CROP))),
            *("--epochs", str(self.epochs), "--crops-per-epoch", str(self.crops), "--batch", str(BATCH)),
            *("--eval-every", str(max(1, self.epochs // 4)), "--val", "0.2", "--test", "0.25"),
            "--report",
        ]


def own_recipe(folder: Path) -> Path:
    """A configuration of all defaults, which go before a preset's own recipe."""
    from train.options import TrainOptions

    lines = TrainOptions(classes=("a", "b"), images="i", masks="m").to_toml().splitlines()
    data = ("classes", "images", "masks", "preset")
    path = folder / "recipe.toml"
    path.write_text("".join(f"{line}\n" for line in lines if line.partition(" = ")[0] not in data))
    return path


def place(labelled: Labelled, preset: str, runs: Path) -> Path:
    """Of a run."""
    return runs / labelled.name / preset


def run(labelled: Labelled, preset: str, budget: Budget, data: Path, runs: Path) -> dict[str, Any]:
    """Train, unless it is done; what ``metrics.json`` holds."""
    outdir = place(labelled, preset, runs)
    outdir.parent.mkdir(parents=True, exist_ok=True)
    line = ["train", outdir, "--config", own_recipe(runs), *labelled.told(data), *budget.told(preset)]
    if not (outdir / RESULT).exists():
        subprocess.run([sys.executable, "-m", "tiler", *map(str, line), "--quiet"], check=True)
    found: dict[str, Any] = json.loads((outdir / RESULT).read_text())
    scores = found["test"]["classes"][labelled.wanted]
    print(f"{labelled.name:10} {preset:20} Dice {scores['dice']:.3f}", flush=True)
    return found


def table(labelled: Labelled, found: dict[str, dict[str, Any]]) -> list[str]:
    """A row per preset, the best Dice in bold."""
    rows = {preset: result["test"]["classes"][labelled.wanted] for preset, result in found.items()}
    best = max(rows, key=lambda preset: rows[preset]["dice"])
    lines = [
        f"## {labelled.name.capitalize()}: {labelled.wanted}",
        "",
        f"{labelled.what[0].upper()}{labelled.what[1:]}.",
        "",
        "| preset | parameters | Dice | IoU | precision | recall | mean IoU |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for preset, scores in sorted(rows.items(), key=lambda row: -row[1]["dice"]):
        dice = f"**{scores['dice']:.3f}**" if preset == best else f"{scores['dice']:.3f}"
        rest = " | ".join(in_thousandths(scores[name]) for name in ("iou", "precision", "recall"))
        result = found[preset]
        lines.append(
            f"| {preset} | {result['parameters']:,} | {dice} | {rest} | {result['test']['mean_iou']:.3f} |"
        )
    gain = rows[best]["dice"] - rows["unet"]["dice"] if "unet" in rows else 0.0
    lines += ["", f"Best: {best}, {100 * gain:+.1f} points of Dice over the plain U-Net (`unet`)."]
    if labelled.published:
        lines[-1] += f" {labelled.published}"
    return lines


def in_thousandths(score: float | None) -> str:
    """A score; none where the class was never predicted."""
    return "-" if score is None else f"{score:.3f}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with labelled/")
    parser.add_argument("runs", type=Path, help="folder of the runs, kept")
    parser.add_argument("--sets", default=",".join(s.name for s in SETS))
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--crops", type=int, default=320, help="per epoch")
    parser.add_argument("--finished", action="store_true", help="tell of runs that are done, train nothing")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    return parser.parse_args()


def main() -> None:
    """Train what is not trained, write and print."""
    options = parse()
    budget = Budget(options.epochs, options.crops)
    options.runs.mkdir(parents=True, exist_ok=True)
    steps = budget.epochs * budget.crops // BATCH
    told = f"DATA RUNS --epochs {budget.epochs} --crops {budget.crops}" + " --finished" * options.finished
    what = (
        f"Every network has {WIDTH} channels in its first block (encoders their own share of it), sees "
        f"{steps} batches of {BATCH} crops of {CROP} px (`paper`, which scores no margin, of "
        f"{CROPS['paper']}), and is trained by our own recipe; scores are of the test part, pooled over its "
        "pixels, one run each. Whatever is not listed has not been trained."
    )
    lines = [
        "# Presets",
        "",
        f"`python benchmarks/presets.py {told}`, {datetime.now(UTC).date()}. {describe()}.",
        "",
        what,
    ]
    names, presets = options.sets.split(","), options.presets.split(",")
    data, runs = options.data.resolve(), options.runs.resolve()
    for labelled in (s for s in SETS if s.name in names):
        wanted = [p for p in presets if not options.finished or (place(labelled, p, runs) / RESULT).exists()]
        if not wanted:
            continue
        found = {p: run(labelled, p, budget, data, runs) for p in wanted}
        lines += ["", *table(labelled, found)]
    text = "\n".join(lines) + "\n"
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
