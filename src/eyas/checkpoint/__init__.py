"""What a checkpoint file holds, how it is written, and the safe reader of files from elsewhere."""

from eyas.checkpoint.errors import CheckpointError, CodeInFileError, SaveError, refusals_of
from eyas.checkpoint.fields import FORMAT
from eyas.checkpoint.file import class_name, load_checkpoint, read_tensors, save_checkpoint, serialise
from eyas.checkpoint.finite import broken_parts, unbounded_buffers
from eyas.checkpoint.plain import check_plain
from eyas.checkpoint.snapshot import snapshot

__all__ = [
    "FORMAT",
    "CheckpointError",
    "CodeInFileError",
    "SaveError",
    "broken_parts",
    "check_plain",
    "class_name",
    "load_checkpoint",
    "read_tensors",
    "refusals_of",
    "save_checkpoint",
    "serialise",
    "snapshot",
    "unbounded_buffers",
]
