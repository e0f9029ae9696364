"""A run that is opened and checked but not begun: raster, network and options go together."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from affine import Affine

from tiler import __version__
from tiler.backends.onnx import load_model
from tiler.damage import DamageLog
from tiler.errors import UsageError
from tiler.fingerprint import stamps
from tiler.finish import Finisher
from tiler.geometry import spread
from tiler.model import Model
from tiler.open import open_for_model, open_mask, open_native
from tiler.options import RunOptions
from tiler.planning import Cut, Plan, fitted, halo_on_stride, make_cut, make_plan
from tiler.readers.mask import BothMasks
from tiler.sinks.cog import PREFIX, Product
from tiler.tiles import TileReader
from tiler.tissue import TissueMask, open_tissue
from tiler.tolerance import measure_halo
from tiler.tta import VIEWS, augmented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.geometry import Window
    from tiler.outputs import Outputs
    from tiler.ports import Raster, RasterInfo
    from tiler.spec import ModelSpec
    from tiler.vector.place import Place

CENTIMETRE: Final = 0.01
"""Metres."""
MOST_ASKED: Final = 1024
"""Tiles that are asked whether they hold anything, to say beforehand how many do."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is to be done, but for the plan."""

    native: Raster
    """The source at its own resolution."""
    reader: TileReader
    model: Model
    finisher: Finisher
    options: RunOptions
    cut: Cut
    damage: DamageLog
    """What was found to be damaged so far."""
    stamps: dict[str, tuple[int, ...]]
    """Of the source's files when they were opened; see `tiler.fingerprint.check_unchanged`."""
    tissue: TissueMask | None = None
    """Where a slide's tissue is, a part of the reader's mask."""

    @property
    def source(self) -> str:
        """Path or address of the source."""
        return self.native.info.name

    @property
    def raster(self) -> Raster:
        """What the network is fed from."""
        return self.reader.raster

    @property
    def output_info(self) -> RasterInfo:
        """The grid of the output."""
        return self.raster.info if self.grid == "model" else self.native.info

    @property
    def grid(self) -> str:
        """Whose pixels those of the output are: model or source."""
        if self.options.grid != "auto":
            return self.options.grid
        return "model" if self.raster.info.picture is None else "source"

    @property
    def styled(self) -> bool:
        """Whether the labels are class numbers of a scene, for which a QGIS style is written."""
        return self.finisher.label_planes == 1 and self.output_info.to_level0 is None

    @property
    def place(self) -> Place:
        """Where the output lies, for its polygons."""
        from tiler.vector.place import place_of

        native, output = self.native.info, self.output_info
        return place_of(output, Affine.scale(native.width / output.width, native.height / output.height))

    @property
    def settings(self) -> dict[str, Any]:
        """Every option that changes the pixels of the result."""
        native = self.native.info
        cut = (
            {"halo": halo_on_stride(self.model)}
            if self.cut.grid is None
            else {
                "tile": self.cut.grid.tile,
                "overlap": (self.cut.grid.rows.overlap, self.cut.grid.columns.overlap),
            }
        )
        return {
            "mode": self.cut.mode,
            **cut,
            "size": (self.raster.info.height, self.raster.info.width),
            # Of the file, where that is another: polygons in its pixels can be made of the labels alone.
            **({"source_size": (native.height, native.width)} if self.raster.info.note else {}),
            "grid": self.grid,
            "bands": self.options.bands,
            "nodata": self.options.nodata,
            # Where cores do not equal the whole image, another tile is another result.
            **({} if self.cut.mode == "exact" or self.cut.grid else {"tile": self.options.tile}),
            "tolerance": self.options.tolerance,
            # Only where it is asked for, so that what was made without it stays finished.
            **({} if self.options.tta == "none" else {"tta": self.options.tta}),
            "mask": None if self.options.mask is None else Path(self.options.mask).name,
            **self._slide_settings,
        }

    @property
    def _slide_settings(self) -> dict[str, Any]:
        """Those that only slides have."""
        info = self.raster.info
        if info.to_level0 is None:
            return {}
        tissue = None if self.tissue is None else asdict(self.tissue.settings)
        return {"to_level0": list(info.to_level0[:6]), "metres": info.ground, "tissue": tissue}

    @property
    def tags(self) -> dict[str, str]:
        """What the result depends on besides the source's pixels, and nothing else."""
        return {
            PREFIX + "VERSION": __version__,
            PREFIX + "MODEL_SHA256": self.model.sha256,
            PREFIX + "MODEL": self.model.spec.to_json(),
            PREFIX + "OPTIONS": json.dumps(self.settings),
        }

    def plan(self) -> Plan:
        """How it would be done with the memory that is free now."""
        tolerance, measured = self.options.tolerance, None
        if tolerance is not None:
            measured = measure_halo(self.raster, self.model, self.finisher, tolerance, self.reader.mask)
            self.model.backend.release()
        return make_plan(self.raster.info, self.model, self.finisher, self.options, measured)

    def skipped(self, plan: Plan) -> int:
        """Tiles of a plan that are known to hold nothing before they are read.

        Of more than `MOST_ASKED` tiles only so many are asked, spread evenly, and the rest is like them: a
        mask is read for each.
        """
        if plan.tiles <= MOST_ASKED:
            return sum(map(self.reader.skips, _shares(plan)))
        grid = plan.grid
        places = ((int(u * grid.rows.count), int(v * grid.columns.count)) for u, v in spread(MOST_ASKED))
        return sum(self.reader.skips(grid.share(*place)) for place in places) * plan.tiles // MOST_ASKED

    def leaves_nothing(self, plan: Plan) -> bool:
        """Whether that is so of all tiles; known as soon as one holds something."""
        return all(map(self.reader.skips, _shares(plan)))

    def fitted(self, plan: Plan) -> Plan:
        """The plan that another process made for this job, within this one's budget."""
        return fitted(plan, self.raster.info, self.model, self.finisher, self.options)

    def products(self, outputs: Outputs) -> list[Product]:
        """The files that pixels are written to; the one at the output's own name comes last."""
        finisher, classes = self.finisher, self.model.spec.classes
        names = tuple(c.name for c in classes) if finisher.multilabel else ("class",)
        cut, info, tags = finisher.label_planes, self.output_info, self.tags
        density = (
            None
            if info.to_level0 is None or info.ground is None
            else (CENTIMETRE / info.ground[0], CENTIMETRE / info.ground[1])
        )
        labels = Product(outputs.main, "labels", slice(0, cut), names, classes, tags, density)
        shares = Product(
            outputs.probabilities,
            "probabilities",
            slice(cut, finisher.planes),
            finisher.probability_names,
            classes,
            tags,
            density,
        )
        return [product for product in (shares, labels) if product.planes.start < product.planes.stop]


def _shares(plan: Plan) -> Iterator[Window]:
    """The pixels that each tile of a plan contributes to."""
    return (s.share(row, column) for s in plan.strips() for row in s.rows for column in s.columns)


def prepare(source: str | Path, model: Model | str | Path, options: RunOptions | None = None) -> Job:
    """Open everything; nothing is written.

    Raises
    ------
    TilerError
        if the raster, the model and the options do not go together.
    """
    options = options or RunOptions()
    if not isinstance(model, Model):
        model = load_model(model, options)
    model = augmented(model, options.tta)
    damage = DamageLog()
    native = open_native(source, options, damage)
    raster = open_for_model(source, model.spec, options, damage, native)
    _check_grid(raster.info, options)
    tissue = open_tissue(native, raster.info, options)
    mask = None if options.mask is None else open_mask(Path(options.mask), raster.info)
    if tissue is not None:
        mask = tissue if mask is None else BothMasks(mask, tissue)
    return Job(
        native=native,
        reader=TileReader(raster, _fed(model.spec, raster.info), model.dtype, mask),
        model=model,
        finisher=Finisher(model.spec, model.channels, options.output),
        options=options,
        cut=make_cut(raster.info, model, options),
        damage=damage,
        stamps=stamps((*native.info.files, *([] if options.mask is None else [options.mask]))),
        tissue=tissue,
    )


def _check_grid(info: RasterInfo, options: RunOptions) -> None:
    """A letterbox would be mapped with its bars, beside what it is a map of."""
    if options.grid == "model" and info.picture is not None and info.picture.bars:
        raise UsageError(
            f"a letterboxed picture is mapped on its own pixels, got --grid model for {info.name}; "
            "leave it out"
        )


def _fed(spec: ModelSpec, info: RasterInfo) -> ModelSpec:
    """What a scanner of slides left out is glass to the network, unless the model says otherwise."""
    if info.to_level0 is None or spec.fill or info.dtype != np.uint8:
        return spec
    return replace(spec, fill=(255.0,) * len(spec.bands))


def plan(source: str | Path, model: Model | str | Path, options: RunOptions | None = None) -> Plan:
    """What `tiler.segment` would do with the same arguments."""
    return prepare(source, model, options).plan()


def pixels_made(info: RasterInfo) -> str:
    """How pixels came about, in words."""
    made = ["the colours of its table"] * info.colours + [info.note] * bool(info.note)
    return ", ".join(made) or "as in the file"


def plan_facts(job: Job, plan: Plan) -> dict[str, Any]:
    """A plan as plain values, for logs and reports."""
    return {
        "mode": plan.mode,
        "reason": plan.reason,
        "halo": plan.halo,
        "raster": f"{job.raster.info.width} x {job.raster.info.height} px",
        "pixels_made": pixels_made(job.raster.info),
        "tile": list(plan.grid.tile),
        "overlap": [plan.grid.rows.overlap, plan.grid.columns.overlap],
        "tiles": plan.tiles,
        "waste": round(plan.grid.waste, 3),
        "batch": plan.batch,
        "workers": plan.workers,
        "views": len(VIEWS[job.options.tta]),
        "strip_width": plan.strip_width,
        "budget": plan.budget,
        "memory": dict(plan.terms),
        "peak": plan.peak,
    }
