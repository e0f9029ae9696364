"""An archive: many rasters, one network. Everything is attempted, and no failure stops the rest."""
