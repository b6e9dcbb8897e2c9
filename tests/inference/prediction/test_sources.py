"""Which files the inputs stand for, and what each is called."""

import os
from pathlib import Path

import pytest

from retina_plugin.inference.prediction.sources import find_sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "sub/c.tif", "sub/clip.mp4", "notes.txt", ".hidden/d.jpg"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def names(found):
    return [(source.relative, source.name) for source in found.files]


def test_a_folder_with_all_that_is_in_it(folder):
    found = find_sources([str(folder)])
    expected = [
        ("a.PNG", "a"),
        ("b.jpg", "b"),
        ("sub/c.tif", "sub/c"),
        ("sub/clip.mp4", "sub/clip"),
    ]
    assert names(found) == expected
    assert [source.is_video for source in found.files] == [False, False, False, True]
    assert found.passed_over == [folder / "notes.txt"]


def test_patterns_files_and_lines(folder):
    assert names(find_sources(["data/*.jpg"])) == [("b.jpg", "b")]
    assert names(find_sources(["data/**/*.tif"])) == [("c.tif", "c")]
    found = find_sources(["-", "data/b.jpg"], ["data/a.PNG\n", "\n", "  data/sub/c.tif\n"])
    assert names(found) == [("a.PNG", "a"), ("sub/c.tif", "sub/c"), ("b.jpg", "b")]


def test_a_file_meant_twice_is_taken_once(folder):
    found = find_sources(["data/b.jpg", "data", "./data/../data/b.jpg", str(folder / "a.PNG")])
    assert sorted(x for x, _ in names(found)) == ["a.PNG", "b.jpg", "sub/c.tif", "sub/clip.mp4"]
    assert found.files[0].path == Path("data/b.jpg")


def test_names_that_would_be_the_same_keep_their_endings(folder):
    (folder / "a.jpg").touch()
    (folder / "B.png").touch()
    found = dict(names(find_sources(["data"])))
    assert (found["a.jpg"], found["a.PNG"]) == ("a.jpg", "a.PNG")
    assert (found["b.jpg"], found["B.png"]) == ("b.jpg", "B.png")  # one file on some systems
    assert len(set(found.values())) == len(found)


def test_what_is_named_is_taken_even_if_it_is_not_there(folder):
    found = find_sources(["data/notes.txt", "nowhere.jpg"])
    assert names(found) == [("data/notes.txt", "data/notes"), ("nowhere.jpg", "nowhere")]


def test_a_name_with_brackets_is_a_file_where_there_is_one(folder):
    (folder / "x[1].jpg").touch()
    assert names(find_sources(["data/x[1].jpg"])) == [("x[1].jpg", "x[1]")]


def test_links_keep_their_names(folder):
    (folder / "store").mkdir()
    os.link(folder / "b.jpg", folder / "store/3f9a.jpg")
    (folder / "linked").mkdir()
    (folder / "linked/tree.jpg").symlink_to(folder / "store/3f9a.jpg")
    assert names(find_sources(["data/linked"])) == [("tree.jpg", "tree")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("*.webp", r"\*.webp: no file matches this pattern"),
        ("empty", r"empty: there is no image or video in this folder \(.*\.jpg"),
        ("-", r"- \(the standard input\) has no paths"),
    ],
)
def test_what_stands_for_nothing(folder, given, message):
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    with pytest.raises(ValueError, match=message):
        find_sources([given])
