"""Where blocks go: an array, or cloud-optimised GeoTIFFs."""
