"""Train a U-Net on rasters and their label masks; read `train.run` first, it is the whole story."""
