"""The RT-DETR family: decoder, denoising, tables. The models are in ``rtdetr.model`` and ``rtdetr.official``."""

from eyas.models.rtdetr.decoder import NUMBERED, OFFICIAL, KeyNames, RTDETRDecoder
from eyas.models.rtdetr.denoising import DenoisingQueries, denoising_queries

__all__ = ["NUMBERED", "OFFICIAL", "DenoisingQueries", "KeyNames", "RTDETRDecoder", "denoising_queries"]
