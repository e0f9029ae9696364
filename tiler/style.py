"""A QGIS style (``.qml``): names and colours of classes, for a label raster and for the polygons beside it.

QGIS takes the style of a file from the ``.qml`` of the same name. Both parts are in one file, because the
raster and its polygons share that name: a raster reads the pipe, a layer of polygons the renderer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from tiler.spec import ClassSpec

HEADER: Final = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
POLYGON: Final = "2"
"""QGIS's number of this kind of geometry."""


def to_qml(classes: tuple[ClassSpec, ...]) -> str:
    """The style of labels 0, 1, 2..; class 0 is drawn in the raster, and in polygons where there are any."""
    qgis = ET.Element("qgis", version="3.28", styleCategories="Symbology")
    _raster(ET.SubElement(qgis, "pipe"), classes)
    _polygons(qgis, classes)
    ET.SubElement(qgis, "layerGeometryType").text = POLYGON
    ET.indent(qgis, " ")
    return HEADER + ET.tostring(qgis, encoding="unicode") + "\n"


def _raster(pipe: ET.Element, classes: tuple[ClassSpec, ...]) -> None:
    renderer = ET.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, each in enumerate(classes):
        color = "#{:02x}{:02x}{:02x}".format(*each.color)
        ET.SubElement(palette, "paletteEntry", value=str(value), color=color, label=each.name, alpha="255")


def _polygons(qgis: ET.Element, classes: tuple[ClassSpec, ...]) -> None:
    renderer = ET.SubElement(
        qgis, "renderer-v2", type="categorizedSymbol", attr="value", symbollevels="0", enableorderby="0"
    )
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for value, each in enumerate(classes):
        ET.SubElement(
            categories, "category", value=str(value), symbol=str(value), label=each.name, render="true"
        )
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(value), alpha="0.6")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        # Since 3.26 options are a map; older versions read them as properties.
        values = {"color": ",".join(map(str, (*each.color, 255))), "style": "solid", "outline_width": "0.26"}
        options = ET.SubElement(layer, "Option", type="Map")
        for name, text in values.items():
            ET.SubElement(options, "Option", name=name, value=text, type="QString")
        for name, text in values.items():
            ET.SubElement(layer, "prop", k=name, v=text)
