"""``tiler doctor``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, distributions, version

import click

NEEDED = (
    "numpy",
    "numba",
    "rasterio",
    "openslide-python",
    "openslide-bin",
    "onnx",
    "affine",
    "click",
    "tqdm",
    "psutil",
    "zarr",
    "portalocker",
)
OPTIONAL = {
    "vector": ("shapely", "pyarrow", "pyogrio"),
    "dask": ("distributed",),
    "train": ("torch", "accelerate", "kornia", "matplotlib", "safetensors", "scipy", "onnxscript"),
    "tensorboard": ("tensorboard",),
}
"""Packages by extra; a test holds both to `pyproject.toml`: what an installation knows of it may be old."""
USES = {
    "vector": "`--vector` and `tiler polygons` need",
    "dask": "`--scheduler` needs",
    "train": "`tiler train` and `tiler export` need",
    "tensorboard": "`tiler train --tensorboard` needs",
}


@click.command()
def doctor() -> None:
    """Versions, devices, what is missing and how to get it. Exit code 3 if something is wrong."""
    from tiler import __version__, memory
    from tiler.cli.tables import print_pairs

    print_pairs(
        [
            ("gigatiler", __version__),
            ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            ("memory", f"{memory.in_words(memory.available())} free"),
            *((name, _version(name)) for name in NEEDED),
            *((name, _version(name)) for names in OPTIONAL.values() for name in names),
        ]
    )
    problems = [*_runtime(), *_openvino(), *_missing()]
    click.echo()
    for problem in problems or ["all is well"]:
        click.echo(problem)
    if any(problem.startswith("wrong") for problem in problems):
        raise click.exceptions.Exit(3)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _runtime() -> list[str]:
    """Say which ONNX Runtime there is; distributions are counted, since an import only shows the last one."""
    names = {d.metadata["Name"].lower() for d in distributions() if d.metadata["Name"]}
    runtimes = sorted(
        name for name in names if name in {"onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"}
    )
    if len(runtimes) != 1:
        found = " and ".join(runtimes) or "none"
        advice = "pip uninstall them all, then pip install gigatiler"
        return [f"wrong: exactly one ONNX Runtime belongs here, got {found}; {advice}"]
    import onnxruntime as ort

    from tiler.backends.cuda import PROVIDER, card_names

    click.echo(f"\n{runtimes[0]} {ort.__version__}: {', '.join(ort.get_available_providers())}")
    for number, name in enumerate(card_names()):
        click.echo(f"--device cuda:{number}: {name}")
    if PROVIDER not in ort.get_available_providers():
        return ["no CUDA: this ONNX Runtime runs on the CPU"]
    if not card_names():
        return ["no CUDA: no NVIDIA card found, so networks run on the CPU"]
    return []


def _openvino() -> list[str]:
    """Say what OpenVINO computes in, if it is installed."""
    from tiler.backends.openvino import import_openvino, precisions
    from tiler.errors import MissingError

    try:
        openvino = import_openvino()
    except MissingError:
        return ["`--device openvino`, faster on many CPUs, needs openvino: pip install 'gigatiler[openvino]'"]
    release = openvino.__version__.partition("-")[0]
    click.echo(f"--device openvino: {release}, {', '.join(precisions(openvino.Core()))}")
    return []


def _missing() -> list[str]:
    return [
        f"{USES[extra]} {', '.join(lacking)}: pip install 'gigatiler[{extra}]'"
        for extra, names in OPTIONAL.items()
        if (lacking := [name for name in names if _version(name) == "not installed"])
    ]
