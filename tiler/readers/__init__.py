"""Rasters: arrays, files, and planes resampled to another resolution."""
