"""The DINO family (Zhang et al., 2022): decoder, tables, names of files. The model is in ``dino.net``."""

from eyas.models.dino.decoder import DINODecoder

__all__ = ["DINODecoder"]
