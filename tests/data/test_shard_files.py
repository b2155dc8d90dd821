"""The tar files of shards: how they end, and how they come to the cache while others use it too."""

import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from helpers.tar_shards import write

from diffq_exp.data import shard_files
from diffq_exp.data.shard_files import Cache, _name_in_cache, members_of, open_here
from diffq_exp.data.shards import Shard, Shards

library = pytest.importorskip("webdataset", reason="no webdataset: pip install webdataset")


@pytest.fixture
def root(tmp_path):
    for shard in range(4):
        write(tmp_path / f"{shard}.tar", range(4 * shard, 4 * shard + 4))
    return tmp_path


def members(path):
    with open_here(str(path)) as file:
        return members_of(file, path.name)


def test_a_shard_that_does_not_end_as_it_should_is_named(root):
    """Cut between two files, inside of one, inside of a header or of the zeros at the end; damaged; two in one."""
    whole = (root / "0.tar").read_bytes()
    with tarfile.open(root / "0.tar") as tar:
        starts = [member.offset for member in tar]
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    damaged = bytearray(whole)
    damaged[starts[3] + 5] ^= 1  # in the name of a file, which its header's checksum counts
    for content, told in (
        (whole[: starts[4]], "it is cut short"),
        (whole[: starts[4] + 600], "it is cut short"),
        (whole[: starts[4] + 100], "it is cut short"),
        (whole[: end + 511], "it is cut short"),
        (bytes(damaged), f"it is damaged: what follows byte {starts[3]} is no file"),
        (whole + whole, "it is damaged: what follows byte"),
    ):
        (root / "bad.tar").write_bytes(content)
        with pytest.raises(ValueError, match=rf"^bad.tar: cannot be read \({told}"):
            members(root / "bad.tar")
    (root / "bad.tar").write_bytes(whole[: end + 512])
    assert members(root / "bad.tar") == members(root / "0.tar")


# ---- the cache ----------------------------------------------------------------------------------------------


class Elsewhere:
    """Opens https://host/N.tar as the file of that name, and counts."""

    def __init__(self, root):
        self.root, self.opened, self.cut = root, [], None

    def __call__(self, url, mode="rb", bufsize=8192):
        self.opened.append(url)
        path = self.root / url.rpartition("/")[2]
        if self.cut is not None:
            path.write_bytes(path.read_bytes()[: self.cut])
        return open(path, "rb")


@pytest.fixture
def elsewhere(root, monkeypatch):
    opener = Elsewhere(root)
    monkeypatch.setitem(library.gopen.__globals__["gopen_schemes"], "https", opener)
    return opener


def address(shard):
    return f"https://host/{shard}.tar"


def kept(root):
    return sorted(path.name.rpartition("_")[2] for path in (root / "cache").iterdir() if path.name[0] != ".")


def test_many_that_want_a_shard_bring_it_once(root, elsewhere):
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Cache(str(root / "cache")).opened(address(0)), range(8)))
        for file, members in opened:
            assert len(members) == 4 and members_of(stack.enter_context(file), "") == members
    assert elsewhere.opened == [address(0)] and kept(root) == ["0.tar"]


def test_a_limited_cache_drops_the_oldest_shards_and_nothing_else(root, elsewhere):
    """What is dropped stays readable where it is open; locks, and what another process writes, stay."""
    size = (root / "0.tar").stat().st_size
    cache = Cache(str(root / "cache"), 2 * size)
    (root / "cache").mkdir()
    for other in ("mine.tar", f".{_name_in_cache(address(9))}.1.partial"):
        (root / "cache" / other).write_bytes(bytes(3 * size))
    with ExitStack() as stack:
        opened = []
        for shard in range(3):
            opened += [stack.enter_context(cache.opened(address(shard))[0])]
            os.utime(root / "cache" / _name_in_cache(address(shard)), (shard, shard))
        assert kept(root) == ["1.tar", "2.tar", "mine.tar"]
        assert [len(members_of(file, "")) for file in opened] == [4, 4, 4]
    cache.opened(address(0))[0].close()
    assert kept(root) == ["0.tar", "2.tar", "mine.tar"]
    Cache(str(root / "cache"), 0).opened(address(3))[0].close()
    assert kept(root) == ["3.tar", "mine.tar"]
    assert len(list((root / "cache").glob(".*.lock"))) == 4
    assert len(list((root / "cache").glob(".*.partial"))) == 1


@pytest.mark.parametrize("cut", [600, 1024, 0])
def test_a_shard_that_comes_cut_short_is_not_kept(root, elsewhere, cut):
    elsewhere.cut = cut
    with pytest.raises(ValueError, match=r"^https://host/0.tar: cannot be brought \(cannot be read") as raised:
        Cache(str(root / "cache")).opened(address(0))
    assert "\n" not in str(raised.value) and kept(root) == []
    assert [path.suffix for path in (root / "cache").iterdir()] == [".lock"]


def test_a_shard_that_is_brought_is_read_through_once(root, elsewhere, monkeypatch):
    read = []
    monkeypatch.setattr(shard_files, "members_of", lambda file, name: read.append(name) or members_of(file, name))
    cache = Cache(str(root / "cache"))
    for expected in ([address(0)], [address(0), f"{address(0)}, as {root / 'cache' / _name_in_cache(address(0))}"]):
        cache.opened(address(0))[0].close()
        assert read == expected


def test_without_a_cache_shards_are_read_where_they_lie(root, elsewhere):
    file, members = Cache(None).opened(str(root / "0.tar"))
    file.close()
    assert len(members) == 4
    with pytest.raises(ValueError, match=r"^https://host/0.tar: dataset.cache_dir=null leaves no place for it"):
        Cache(None).opened(address(0))


def test_what_a_killed_process_left_of_a_shard_goes(root, elsewhere):
    (root / "cache").mkdir()
    (root / "cache" / f".{_name_in_cache(address(0))}.1.partial").write_bytes(b"half")
    Cache(str(root / "cache")).opened(address(0))[0].close()
    assert not list((root / "cache").glob(".*.partial")) and kept(root) == ["0.tar"]


def test_a_shard_that_was_kept_and_is_damaged_is_named_with_its_file(root, elsewhere):
    (root / "cache").mkdir()
    (root / "cache" / _name_in_cache(address(0))).write_bytes((root / "0.tar").read_bytes()[:2048])
    with pytest.raises(ValueError, match=rf"^{address(0)}, as {root}/cache/.*-https___host_0.tar: cannot be read"):
        Shards([Shard(address(0), 4)], Cache(str(root / "cache")), 2, 3)[0]
