"""Denormal numbers are 0 in every thread that computes."""

import subprocess
import sys

import torch

from retina_plugin.inference import denormals

PROGRAM = """
import torch
from retina_plugin.inference.denormals import flush_denormals

if {flush}:
    flush_denormals()
torch.set_num_threads(3)
x = torch.full((3_000_000,), 1e-20, requires_grad=True)
y = x * 1e-20  # 1e-40: denormal; the threads share the work
y.backward(torch.full_like(y, 1e-20))
print(*(int((z.detach().view(torch.int32) != 0).sum()) for z in (y, x.grad)))  # by their bits
"""


def survivors(flush):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM.format(flush=flush)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(x) for x in output.split()]


def test_all_threads_flush():
    assert survivors(flush=False) == [3_000_000, 3_000_000]
    assert survivors(flush=True) == [0, 0]


def test_a_cpu_that_cannot(monkeypatch, caplog):
    monkeypatch.setattr(torch, "set_flush_denormal", lambda mode: False)
    denormals.flush_denormals()
    assert "FLUSH_DENORMAL has no effect" in caplog.text
