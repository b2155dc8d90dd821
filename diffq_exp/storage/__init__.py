"""Stored networks: one safetensors file, bit-packed, without pickles; see file.py for the layout."""

from .file import load, read, save, serialize

__all__ = ["load", "read", "save", "serialize"]
