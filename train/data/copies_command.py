"""``tiler augment``: augmented copies as files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from tiler.cli.options import config_option
from tiler.errors import MissingError, UsageError
from train.data.options import AugmentOptions, DataOptions
from train.flags import flags
from train.recipes import with_recipe

LEFT_OUT = ("pair", "bands", "rgb", "nodata", "resolution", "mpp", "resize")
"""Of the data's options: copies are of whole images as they are in their files."""
OFFERED = [f.name for f in (*fields(DataOptions), *fields(AugmentOptions)) if f.name not in LEFT_OUT]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("outdir", type=click.Path(path_type=Path))
@click.option(
    "--copies", type=click.IntRange(1), default=1, show_default=True, help="Of each image.", metavar="N"
)
@flags([*OFFERED, "preset"])
@config_option
def augment(outdir: Path, copies: int, **told: Any) -> None:  # noqa: ANN401
    """Write augmented copies of the images that are trained on, with their labels.

    They are changed as `tiler train` with the same options changes its samples; --preset gives its own.
    OUTDIR receives images/, labels/ (class numbers, 255 is not known) and parts.csv, a --manifest of the
    originals with their parts and of the copies, none of which is validated or tested with.

    `tiler train` needs no copies: it augments every sample anew.
    """
    if told["independent"]:
        raise UsageError(
            "copies have one class per pixel, got --independent; train on the originals, whose samples are "
            "augmented there"
        )
    options = with_recipe({name: value for name, value in told.items() if value not in (None, ())})
    try:
        from train.data.augment import Augment
        from train.data.copies import PARTS, Copier, check_free, write_copies
    except ModuleNotFoundError as error:
        raise MissingError(f"copies need {error.name}; pip install 'gigatiler[train]'") from None
    from train.data.labelled import Library
    from train.data.split import divided, split_data, whole_images
    from train.data.survey import survey

    check_free(outdir)
    wanted = options.data_options()
    library = Library(wanted.legend())
    items, split = divided(whole_images(wanted), wanted), split_data(wanted, library)
    found = survey(split, library, options.classes)
    changes = Augment(options.augment_options())
    changes.check(library.info(split.train[0].source))
    copier = Copier.of(library, found, changes, options.seed)
    count = write_copies(outdir, items, split.train, copier, copies)
    click.echo(f"wrote {count} copies of {len(split.train)} images, and {outdir / PARTS}")
