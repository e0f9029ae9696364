"""How the systems that presets are of were trained: a preset is a network and its recipe.

A recipe gives values to options of `TrainOptions`; what a person gives goes before it. Numbers are those of
the sources of `train.models.presets`. Left out everywhere is what they do to pixels: bands are standardised
here. A preset without a recipe is trained with the defaults.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from train.models.presets import PRESETS, preset_of
from train.options import TrainOptions
from train.schedules import ScheduleOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AS_IS: Final[dict[str, Any]] = {
    "flip_horizontal": 0.0,
    "quarter_turns": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
    "band_brightness": 0.0,
}
"""No augmentation."""
_PLAIN: Final[dict[str, Any]] = {
    **_AS_IS,
    "crops_per_epoch": 0,
    "average": 0.0,
    "clip": 0.0,
    "test": 0.0,
    "schedule": "constant",
    "weight_decay": 0.0,
    "optimizer": "adam",
    "loss": "ce",
}
"""What none of them has, or most of them have."""
_PAPER: Final = {
    # The paper gives no learning rate. It shifts, turns and changes grey values, as the defaults do.
    **{name: value for name, value in _PLAIN.items() if name not in _AS_IS},
    "elastic": 10.0,
    "border_weight": 10.0,
    "border_sigma": 5.0,
    "init": "kaiming",
    "crop": 572,
    "batch": 1,
    "optimizer": "sgd",
    "momentum": 0.99,
    "lr": 0.001,
}
_WZM: Final = {
    **_PLAIN,
    "zoom": (0.5, 1.2),
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "crop": 480,
    "batch": 4,
    "epochs": 200,
    "loss": "ce+dice-image",
    "class_weights": (1.0, 2.0),
    "dice_smooth": 1e-6,
    "dice_absent": True,
    "optimizer": "sgd",
    "lr": 0.01,
    "weight_decay": 1e-4,
    "schedule": "poly",
    "warmup_epochs": 1.0,
    "best_by": "mean-dice",
}
_MILESIAL: Final = {
    # It feeds whole pictures, and evaluates five times an epoch, so that its plateau is met sooner.
    **_PLAIN,
    "val": 0.1,
    "batch": 1,
    "epochs": 5,
    "loss": "ce+dice-micro",
    "dice_smooth": 1e-6,
    "dice_absent": True,
    "optimizer": "rmsprop",
    "lr": 1e-5,
    "weight_decay": 1e-8,
    "momentum": 0.999,
    "beta2": 0.99,
    "clip": 1.0,
    "schedule": "plateau",
    "gamma": 0.1,
    # There a plateau bears 5 evaluations, of which an epoch has 5.
    "patience": 1,
    "best_by": "mean-dice",
}
_BUBBLIIIING: Final = {
    **_PLAIN,
    "aspect": 0.3,
    "zoom": (0.25, 2.0),
    "flip_horizontal": 0.5,
    "hue": 0.1,
    "saturation": 0.7,
    "value": 0.3,
    "val": 0.1,
    "seed": 11,
    "crop": 512,
    "batch": 2,
    "epochs": 100,
    "freeze_epochs": 50,
    "init": "normal",
    "lr": 1e-4,
    "lr_batch": 16,
    "lr_least": 1e-4,
    "lr_most": 1e-4,
    "schedule": "cosine",
    "schedule_per": "epoch",
    "warmup_epochs": 3.0,
    "warmup_start": 0.1,
    "warmup_power": 2.0,
    "floor": 0.01,
    "floor_epochs": 5.0,
    "eval_every": 5,
    "keep_every": 5,
}
_MILU: Final = {**_PLAIN, "crop": 256, "batch": 1, "epochs": 199, "lr": 1e-3, "keep_every": 20}
_NESTED: Final = {
    **_PLAIN,
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "quarter_turns": 1.0,
    "contrast": 0.2,
    "brightness": 0.2,
    "val": 0.2,
    "seed": 41,
    "crop": 96,
    "batch": 16,
    "epochs": 100,
    "activation": "sigmoid",
    "loss": "0.5*bce+dice-image",
    "dice_smooth": 1e-5,
    "dice_absent": True,
    "optimizer": "sgd",
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "schedule_per": "epoch",
    "floor": 0.01,
}
_LEE: Final = {
    **_PLAIN,
    "rotate": 10.0,
    "zoom": (1.0, 1.2),
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "quarter_turns": 0.4,
    "hue": 0.02,
    "value": 0.2,
    "contrast": 0.2,
    "val": 0.1,
    "test": 0.2,
    "crop": 256,
    "batch": 1,
    "epochs": 100,
    "activation": "sigmoid",
    "loss": "bce",
    "lr": 2e-4,
    "momentum": 0.5,
    "schedule": "linear-tail",
    "schedule_per": "epoch",
    "tail_epochs": 70.0,
}
_CROPLAND: Final = {
    # Flips were written to disk: of 31239 images 15239 were flipped, half of them each way.
    **_PLAIN,
    "flip_horizontal": 0.24,
    "flip_vertical": 0.24,
    "val": 0.1,
    "test": 0.1,
    "crop": 256,
    "batch": 5,
    "epochs": 100,
    "lr": 1e-4,
    "weight_decay": 1e-8,
    "schedule": "step",
    "schedule_per": "epoch",
    "step_epochs": 20.0,
    "gamma": 0.5,
    "keep_every": 10,
}
_KERAS: Final = {
    **_PLAIN,
    "val": 0.2,
    "crop": 96,
    "batch": 32,
    "epochs": 20,
    "activation": "sigmoid",
    "loss": "dice-micro",
    "dice_smooth": 1.0,
    "dice_absent": True,
    "lr": 1e-5,
    "best_by": "mean-dice",
}

RECIPES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "paper": _PAPER,
        "milesial": _MILESIAL,
        "milesial-bilinear": _MILESIAL,
        "wzm": _WZM,
        "wzm-64": _WZM,
        "wzm-transposed": _WZM,
        "wzm-vgg16-bn": _WZM,
        "bubbliiiing-vgg": _BUBBLIIIING,
        "bubbliiiing-resnet50": _BUBBLIIIING,
        "milu": _MILU,
        # Its three channels were trained against the colours of the mask, one by one.
        "milu-listing": {**_MILU, "batch": 2, "activation": "sigmoid", "loss": "bce"},
        "nested-unet": _NESTED,
        "nested": _NESTED,
        "nested-supervised": _NESTED,
        "leejunhyun": _LEE,
        "leejunhyun-attention": _LEE,
        "cropland": _CROPLAND,
        "keras": _KERAS,
    }
)
"""By preset; those that are not here have none."""


TOGETHER: Final = {
    "lr": ("lr_batch", "lr_least", "lr_most"),
    "loss": ("class_weights",),
    "optimizer": ("momentum", "beta2", "nesterov"),
    "schedule": tuple(f.name for f in fields(ScheduleOptions) if f.name != "schedule"),
}
"""What a recipe says of an option, and leaves unsaid when a person gives the option another value."""


LENGTHS: Final = ("freeze_epochs", "warmup_epochs", "floor_epochs", "tail_epochs", "step_epochs")
"""Values of a recipe that are lengths in epochs: of a shorter run they are as much shorter."""


def recipe_of(preset: str) -> Mapping[str, Any]:
    """Values for options; empty for a preset that is trained with the defaults.

    Raises
    ------
    UsageError
        if there is no such preset.
    """
    return RECIPES.get(preset_of(preset).name, {})


def with_recipe(given: Mapping[str, Any], say: Callable[[str], None] = lambda _: None) -> TrainOptions:
    """Options as a person gave them, then as the recipe of the ``preset`` among them has them.

    In a run that is shorter than the recipe's, its lengths in epochs are as much shorter, which is said.

    Raises
    ------
    UsageError
        if they break a rule.
    """
    recipe = dict(recipe_of(given.get("preset", "unet")))
    if len(recipe.get("class_weights", ())) != len(given.get("classes", ())):
        recipe.pop("class_weights", None)  # its source, too, weighs two classes only
    other = [told for told in TOGETHER.keys() & given.keys() if given[told] != recipe.get(told)]
    for name in {name for told in other for name in TOGETHER[told]}:
        recipe.pop(name, None)
    shorter = _lengths(recipe, given)
    if shorter:
        told = ", ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in shorter.items())
        say(f"the {recipe['epochs']} epochs of {given['preset']}'s recipe become {given['epochs']}: {told}")
    return TrainOptions(**{**recipe, **shorter, **given})


def _lengths(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    """Those of the recipe that are not given, for a run of fewer epochs; none if it is as long."""
    share = given.get("epochs", math.inf) / recipe.get("epochs", 1)
    if share >= 1:
        return {}
    names = [name for name in LENGTHS if name in recipe and name not in given]
    scaled = {name: float(f"{recipe[name] * share:.4g}") for name in names}
    return {name: round(value) if name == "freeze_epochs" else value for name, value in scaled.items()}


def listing() -> str:
    """Each preset with what is particular of it and where it is from; a star: it has a recipe of its own."""
    lines = []
    for name, preset in PRESETS.items():
        head = f"{'*' if name in RECIPES else ' '} {name:21} "
        text = f"{preset.description}. {preset.source}"
        indent = " " * len(head)
        lines += textwrap.wrap(
            text, 80, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False
        )
    return "\n".join([*lines, "* trained as there, unless told otherwise; the others with the defaults"])
