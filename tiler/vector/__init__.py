"""A label raster -> polygons: streamed row by row, exact to the pixel edge, written to vector files."""
