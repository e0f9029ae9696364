"""``tiler labels``: what labels hold and how they will be read, without training."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiler.cli.options import config_option
from tiler.errors import UsageError
from train.data.options import DataOptions
from train.flags import flags

if TYPE_CHECKING:
    from train.data.item import Item
    from train.data.split import Split
    from train.data.survey import Survey

NUMBERS = tuple(map(str, range(255)))
"""Classes of masks of which nothing is known yet: they are called by their values."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset", nargs=-1)
@flags([f.name for f in fields(DataOptions)])
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Six samples with their labels.", metavar="PNG"
)
@click.option(
    "--write-manifest",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="The division into parts, for --manifest; nothing is moved.",
)
@config_option
def labels(
    dataset: tuple[str, ...],
    data: tuple[str, ...],
    picture: Path | None,
    write_manifest: Path | None,
    **told: Any,  # noqa: ANN401
) -> None:
    """What labels hold: values, classes by part, mean and deviation of pixels, and what looks mistaken.

    DATASET is a folder laid out as VOC, DRIVE, DSB2018, as images and labels, or a manifest (.csv); or name
    the data as to `tiler train`, by --data, --pair, or --images and --masks.

    --coding says what the labels mean: `index` (values are class numbers), `instances` (0 is background,
    other values are objects), `>127` or `<=127`, or pairs like `0=background,255=road`,
    `#ff0000=road,#000000=ignore` or, for polygons, `Tumor=tumour,Artefact=ignore`.
    """
    given = {name: value for name, value in told.items() if value not in (None, ())}
    options = DataOptions(**{"classes": NUMBERS, "data": (*dataset, *data), **given})
    if write_manifest is not None and options.pair:
        raise UsageError("a manifest is of whole images, a --pair is cut by columns; leave it out")

    from train.data.item import Item
    from train.data.labelled import Library
    from train.data.manifest import write_manifest as write
    from train.data.split import divided, split_data, whole_images
    from train.data.survey import count

    items = divided(whole_images(options), options)
    looked_at = [*(Item(Path(image), mask) for image, mask in options.pair), *items]
    _check_free([path for path in (picture, write_manifest) if path is not None], looked_at)
    _show_values(looked_at, options)
    library = Library(options.legend())
    split = split_data(options, library)
    found = count(split, library)
    _show_classes(split, found, options)
    if write_manifest is not None:
        write(write_manifest, items)
        click.echo(f"wrote {write_manifest}")
    if picture is not None:
        from train.data.picture import draw_samples

        draw_samples(picture, split, found, library, options.seed)
        click.echo(f"wrote {picture}")


def _check_free(outputs: list[Path], items: list[Item]) -> None:
    """Refuse to write over what is looked at."""
    inputs = {Path(path).resolve() for item in items for path in (item.image, item.mask)}
    for path in outputs:
        if path.resolve() in inputs:
            raise UsageError(f"what is written is a file of its own, got {path} of the data; name another")


def _show_values(items: list[Item], options: DataOptions) -> None:
    """What masks hold as stored, and what looks mistaken."""
    from train.data.mistakes import count_names, look, warnings

    sources = [item.source(options.view(), options.field) for item in items]
    if names := count_names(sources):
        told = (f"{name} {count}" for name, count in names.most_common())
        click.echo(f"polygons: {', '.join(told)}")
    for found in look(source.labels for source in sources):
        click.echo(found.line())
        for line in warnings(found, options.legend()):
            click.echo(f"warning: {line}")


def _show_classes(split: Split, found: Survey, options: DataOptions) -> None:
    """Pixels of each class by part; mean and deviation of each band."""
    from tiler.cli.tables import print_table

    parts = [name for name in found.pixels if getattr(split, name)]
    shown = [i for i, name in enumerate(options.classes) if any(found.pixels[p][i] for p in parts)]
    if options.classes is not NUMBERS:
        shown = list(range(len(options.classes)))
    areas = {part: sum(p.window.area for p in getattr(split, part)) for part in parts}
    known = {part: int(found.pixels[part].sum()) for part in parts}
    # Classes that may overlap are shares of all pixels, others of those whose class is known.
    totals = areas if options.independent else {part: max(known[part], 1) for part in parts}
    click.echo()
    header = ["class", *(text for part in parts for text in (f"{part} px", "share"))]
    rows = []
    for i in shown:
        counts = ((int(found.pixels[part][i]), totals[part]) for part in parts)
        cells = (text for n, total in counts for text in (f"{n:,}", f"{n / total:.2%}"))
        rows.append([options.classes[i], *cells])
    print_table(header, rows)
    if not options.independent:
        told = (f"{part} {known[part] / areas[part]:.1%}" for part in parts)
        click.echo(f"\nknown: {', '.join(told)}")
    click.echo("\nof the training part, all valid pixels, labelled or not:")
    numbers = zip(found.moments.mean_C, found.moments.deviation, strict=True)
    print_table(
        ["band", "mean", "deviation"],
        [[str(i), f"{mean:.4g}", f"{std:.4g}"] for i, (mean, std) in enumerate(numbers, 1)],
    )
