"""Stored networks: one safetensors file, entropy-coded, without pickles; see layout.py."""

from .read import load, open_stored, read
from .write import check_storable, save, serialize, stored_model_of

__all__ = ["check_storable", "load", "open_stored", "read", "save", "serialize", "stored_model_of"]
