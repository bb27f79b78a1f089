"""Encoders: what joins the maps of a backbone before a decoder of queries."""

from eyas.models.encoders.deformable import DeformableEncoder
from eyas.models.encoders.elan import ELANEncoder
from eyas.models.encoders.hybrid import HybridEncoder
from eyas.models.encoders.sums import LiteEncoder, SmallSumEncoder, SumEncoder

__all__ = ["DeformableEncoder", "ELANEncoder", "HybridEncoder", "LiteEncoder", "SmallSumEncoder", "SumEncoder"]
