"""What a checkpoint file holds, how it is written, and the safe reader of files from elsewhere."""

from eyas.checkpoint.file import (
    FORMAT,
    CheckpointError,
    SaveError,
    check_plain,
    class_name,
    load_checkpoint,
    save_checkpoint,
    serialise,
)
from eyas.checkpoint.finite import broken_parts, unbounded_buffers

__all__ = [
    "FORMAT",
    "CheckpointError",
    "SaveError",
    "broken_parts",
    "check_plain",
    "class_name",
    "load_checkpoint",
    "save_checkpoint",
    "serialise",
    "unbounded_buffers",
]
