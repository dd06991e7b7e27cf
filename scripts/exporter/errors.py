"""The one error a user of the exporter meets."""

from __future__ import annotations


class ExportError(Exception):
    """Something about the input keeps it from becoming a bundle. The message names the file and key, and says what to do."""
