"""Splits of data sets of the Hugging Face hub, or of a folder, and their columns, by the datasets library.

The library downloads a set once and keeps it as Arrow files, whose rows are read at random. A split may be cut by
its own notation: 'train[:90%]'.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..common.files import user_path
from ..common.packages import install_command

SAVED = ("dataset_dict.json", "state.json")  # in a folder of save_to_disk: of several splits, of one


def load(name: str, subset: str | None, revision: str | None, splits: dict[str, str]) -> dict[str, Any]:
    """{part: rows} of a set of the hub, of a folder of data files, or of a folder that `save_to_disk` made.

    Raises: ValueError where the library is not installed, or could not load it, with its reason in one line.
    """
    datasets, folder = library(), user_path(name)
    try:
        if any((folder / name).is_file() for name in SAVED):
            saved = datasets.load_from_disk(str(folder))
            if isinstance(saved, datasets.Dataset):
                saved = {str(saved.split or "train").partition("[")[0]: saved}
            return {part: _cut(saved, split) for part, split in splits.items()}
        source = str(folder) if folder.is_dir() else name
        rows = {
            part: datasets.load_dataset(source, subset, revision=revision, split=split)
            for part, split in splits.items()
        }
        if folder.is_dir() and rows["train"].info.builder_name == "parquet":
            files = datasets.load_dataset_builder(source, subset).config.data_files or {}
            _check_numbered_alike([path for part in files.values() for path in part], rows["train"])
        return rows
    except Exception as error:  # of the library, the hub, the network, the disk
        reason = " ".join(str(error).split())
        raise ValueError(f"dataset.name={name}: {type(error).__name__}: {reason}") from error


def _cut(saved: Any, split: str) -> Any:
    """The rows of a split, or of parts of splits, 'train[:90%]+extra', cut as the library cuts those of the hub."""
    if split in saved:
        return saved[split]
    datasets = library()
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(saved[name]) for name in saved})
    return datasets.concatenate_datasets(
        [saved[part.splitname].select(range(part.from_, part.to)) for part in parts]
    )


def _check_numbered_alike(files: Iterable[str], rows: Any) -> None:
    """Parquet files say how they number their classes; the library takes the numbers of all by the names of one."""
    from pyarrow.parquet import read_schema  # the library brings it

    for path in files:
        columns = library().Features.from_arrow_schema(read_schema(path))
        for name, feature in rows.features.items():
            own, names = getattr(columns.get(name), "names", None), getattr(feature, "names", None)
            if own and names and own != names:
                raise ValueError(f"{path}: column {name!r} numbers its classes {own[:9]}, another file {names[:9]}")


def library() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"dataset=huggingface needs its package: {install_command('datasets')}") from error
    package: ModuleType = datasets
    return package


def only(rows: Any, kind: str, key: str) -> str:
    """The name of the only column of a kind."""
    found = [name for name, feature in rows.features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        columns = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in rows.features.items())
        raise ValueError(f"dataset.{key}: which column? There are: {columns}")
    return str(found[0])


def column_of(rows: Any, where: str, name: str) -> Any:
    if name not in rows.features:
        raise ValueError(f"{where}: no column {name!r}; there are {', '.join(rows.features)}")
    return rows.select_columns([name]).with_format("arrow")[:][name]
