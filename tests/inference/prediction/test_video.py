"""Videos frame by frame."""

import av
import numpy as np
import pytest
from support.videos import write_video

from retina_plugin.inference.prediction import video
from retina_plugin.inference.prediction.images import ImageError
from retina_plugin.inference.prediction.video import (
    VideoWriter,
    count_frames,
    read_frames,
    require_av,
)


def test_reads_every_frame_as_it_is(tmp_path):
    expected = write_video(tmp_path / "x.mkv")
    found = list(read_frames(tmp_path / "x.mkv"))
    assert [frame.index for frame in found] == [0, 1, 2, 3, 4]
    assert [round(frame.time, 2) for frame in found] == [0, 0.1, 0.2, 0.3, 0.4]
    assert all(frame.rate == 10 for frame in found)
    for frame, pixels in zip(found, expected, strict=True):
        assert np.array_equal(frame.pixels, pixels)


def test_one_frame_at_a_time(tmp_path):
    write_video(tmp_path / "x.mkv")
    frames = read_frames(tmp_path / "x.mkv")
    next(frames)
    frames.close()


@pytest.mark.parametrize("size", [(96, 160), (95, 159)])
def test_writes_what_can_be_read_again_at_the_same_times(tmp_path, size):
    path = tmp_path / "out.mp4"
    times = [0, 0.1, 0.35, 0.4]
    writer = VideoWriter(path, width=size[1], height=size[0], rate=10)
    for index, time in enumerate(times):
        writer.add(np.full((*size, 3), 60 * index, np.uint8), time)
    assert not path.exists()  # never half a video under its name
    writer.close()
    found = list(read_frames(path))
    assert count_frames(path) == len(found) == 4
    assert [round(frame.time, 2) for frame in found] == times
    for index, frame in enumerate(found):
        assert frame.pixels.shape == (96, 160, 3)
        assert abs(frame.pixels.mean() - 60 * index) < 4
    assert [x.name for x in tmp_path.iterdir()] == ["out.mp4"]


def test_a_telephones_video_is_upright(tmp_path, monkeypatch):
    """The frame says by how much it is turned; counter-clockwise, as PyAV has it."""

    class Turned:
        rotation = -90

        def to_ndarray(self, format):
            return np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)

    upright = video._upright(Turned())
    assert upright.shape == (3, 2, 3)
    assert upright[0, 1, 0] == 0  # the first pixel is now top right: turned clockwise


def test_what_is_no_video(tmp_path):
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"x.mp4: cannot be read as a video: .*Invalid data"):
        list(read_frames(tmp_path / "x.mp4"))
    assert count_frames(tmp_path / "x.mp4") is None
    with pytest.raises(ImageError, match=r"gone.mp4: cannot be read as a video: .*No such file"):
        list(read_frames(tmp_path / "gone.mp4"))


def test_without_pictures(tmp_path):
    with av.open(str(tmp_path / "x.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ImageError, match="there are no pictures in it"):
        list(read_frames(tmp_path / "x.wav"))


def test_says_how_to_get_pyav(tmp_path, monkeypatch):
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'x.mp4: .*pip install "retina-plugin\[video\]"'):
        require_av(tmp_path / "x.mp4")
