"""Every wrapping that frameworks use; that no code runs, see tests/engine/test_checkpoint.py."""

import pickle

import numpy as np
import pytest
import torch

from retina_plugin.checkpoint.reading import read_file, tensors_in

STATE = {"conv1.weight": torch.ones(2, 3), "bn1.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"lr": 1}},
        {"state_dict": STATE, "meta": {"epoch": 3, "cfg": "model = dict()"}},
        {"state_dict": STATE, "ema_state_dict": {"steps": torch.zeros(1)}},
        {"model": {"state_dict": {f"module.{k}": v for k, v in STATE.items()}}},
        {"epoch": 3, **STATE},
    ],
)
def test_unwrapped(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    tensors = tensors_in(read_file(str(path)), str(path))
    assert tensors.keys() == STATE.keys()
    assert torch.equal(tensors["conv1.weight"], STATE["conv1.weight"])


def test_arrays_become_tensors(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": np.ones((2, 2), "f4")}, "__author__": "x"}))
    assert tensors_in(read_file(str(path)), str(path))["w"].sum() == 4


def test_a_file_without_tensors(tmp_path):
    torch.save({"meta": {"epoch": 3}}, tmp_path / "no.pth")
    with pytest.raises(ValueError, match=r"no\.pth.*no named tensors"):
        tensors_in(read_file(str(tmp_path / "no.pth")), "no.pth")
    with pytest.raises(ValueError, match="no named tensors"):
        tensors_in([torch.ones(1)], "list.pth")


def test_safetensors(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors.torch")
    path = str(tmp_path / "weights.safetensors")
    safetensors.save_file(STATE, path)
    assert read_file(path).keys() == STATE.keys()
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="cannot be read"):
        read_file(path)


def test_safetensors_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        read_file(str(tmp_path / "weights.safetensors"))
