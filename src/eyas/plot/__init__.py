"""Pictures of a run. Every function draws on a figure of its own, writes files, and leaves its inputs as they are."""

from __future__ import annotations
