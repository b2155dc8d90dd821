"""Stored networks: one safetensors file, bit-packed, without pickles; see layout.py."""

from .read import load, read
from .write import save, serialize, stored_model_of

__all__ = ["load", "read", "save", "serialize", "stored_model_of"]
