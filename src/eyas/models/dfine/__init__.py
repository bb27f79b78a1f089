"""The D-FINE family: a decoder whose boxes have distributions for edges. The model is in ``dfine.model``."""

from eyas.models.dfine.decoder import DFineDecoder

__all__ = ["DFineDecoder"]
