"""Stored networks: one safetensors file, bit-packed, without pickles; see layout.py."""

from .read import load, read
from .write import check_storable, save, serialize, stored_model_of

__all__ = ["check_storable", "load", "read", "save", "serialize", "stored_model_of"]
