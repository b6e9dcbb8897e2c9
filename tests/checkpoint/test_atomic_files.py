import pytest
from detectron2.utils.file_io import PathManager

from retina_plugin.checkpoint.atomic_files import AtomicFiles

FILES = AtomicFiles(PathManager)


def test_whole_or_as_before(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("before")
    with pytest.raises(OSError, match="disk"), FILES.open(str(path), "w") as file:
        file.write("half of")
        file.flush()
        assert path.read_text() == "before"
        raise OSError("disk full")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with FILES.open(str(path), "wb") as file:
        file.write(b"after")
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]
    with FILES.open(str(path)) as file:
        assert file.read() == "after"


def test_all_else_is_the_managers(tmp_path):
    assert FILES.isfile(str(tmp_path)) is False and FILES.exists(str(tmp_path))
