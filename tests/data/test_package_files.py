import hashlib
import sys

import pytest

from retina_plugin.data import package_files
from retina_plugin.data.package_files import (
    PINNED,
    PackageFileError,
    PinnedPackage,
    package_file,
    register_package_paths,
)

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that must not be imported, with one pinned file and one that is not."""
    root = tmp_path / "crownpack"
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "data/pinned.bin").write_bytes(CONTENT)
    (root / "data/free.txt").write_text("free")
    monkeypatch.syspath_prepend(tmp_path)
    pinned = PinnedPackage("crown-pack==1.2.3", {"data/pinned.bin": SHA256})
    monkeypatch.setitem(PINNED, "crownpack", pinned)
    return root


@pytest.mark.parametrize("relative", ["data/pinned.bin", "data/free.txt"])
def test_finds_file_without_importing(package, relative):
    assert package_file("crownpack", relative) == package / relative
    assert "crownpack" not in sys.modules


def test_other_content_names_both_hashes_and_the_fix(package):
    (package / "data/pinned.bin").write_bytes(b"other")
    with pytest.raises(PackageFileError) as error:
        package_file("crownpack", "data/pinned.bin")
    for part in (SHA256, hashlib.sha256(b"other").hexdigest(), 'pip install --no-deps "crown-pack'):
        assert part in str(error.value)


def test_hashed_once_until_replaced(package, monkeypatch):
    package_file("crownpack", "data/pinned.bin")
    hits = package_files._sha256.cache_info().hits
    package_file("crownpack", "data//./pinned.bin")
    assert package_files._sha256.cache_info().hits == hits + 1
    (package / "data/pinned.bin").write_bytes(CONTENT + b"!")
    with pytest.raises(PackageFileError, match="sha256"):
        package_file("crownpack", "data/pinned.bin")


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(PINNED, "no_such_pack", PinnedPackage("no-such==4", {}))
    with pytest.raises(PackageFileError, match='pip install --no-deps "no-such==4"'):
        package_file("no_such_pack", "a.txt")
    with pytest.raises(PackageFileError, match="nobody_knows_it"):
        package_file("nobody_knows_it", "a.txt")


def test_missing_file_names_path_and_version(package):
    with pytest.raises(PackageFileError, match=r"data/gone\.bin.*crown-pack==1\.2\.3"):
        package_file("crownpack", "data/gone.bin")


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("crownpack", "../secret.txt"),
        ("crownpack", "data/../../secret.txt"),
        ("crownpack", "/etc/hostname"),
        ("crownpack", "..\\secret.txt"),
        ("crownpack", ""),
        ("..", "secret.txt"),
        ("", "secret.txt"),
        ("os.path", "secret.txt"),
    ],
)
def test_refuses_paths_that_leave_the_package(package, name, relative):
    (package.parent / "secret.txt").write_text("secret")
    with pytest.raises(ValueError, match=r"no '\.\.' in the path"):
        package_file(name, relative)


def test_detectron2_reads_package_paths(package):
    from detectron2.utils.file_io import PathManager

    register_package_paths()
    register_package_paths()
    path = "package://crownpack/data/pinned.bin"
    assert PathManager.get_local_path(path) == str(package / "data/pinned.bin")
    assert PathManager.isfile(path)
    assert not PathManager.exists("package://crownpack/data/gone.bin")
    with PathManager.open(path, "rb") as file:
        assert file.read() == CONTENT
    with pytest.raises(OSError, match="read only"):
        PathManager.open(path, "wb")
    with pytest.raises(ValueError, match="PACKAGE/path"):
        PathManager.get_local_path("package://crownpack/../secret.txt")
    (package / "data/pinned.bin").write_bytes(b"other")
    with pytest.raises(PackageFileError, match="sha256"):
        PathManager.get_local_path(path)


@pytest.mark.parametrize(
    ("name", "relative"), [(name, file) for name, pin in PINNED.items() for file in pin.files]
)
def test_pinned_files_are_the_installed_ones(name, relative):
    assert package_file(name, relative).is_file()
