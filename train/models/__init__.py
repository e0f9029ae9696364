"""Networks for segmentation: one U-Net with plain options, UNet++, U-Nets on known encoders, and presets.

What a network is, is said by its options (`options`), which need no PyTorch: they know its sizes, its halo
and whether tiles of it are exact (`geometry`). `presets` names the networks of well-known repositories.
"""
