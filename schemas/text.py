"""Text from outside, made fit for terminals, logs and headers."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with what could drive a terminal written out (``\\x1b``, ``\\u202e``)."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
