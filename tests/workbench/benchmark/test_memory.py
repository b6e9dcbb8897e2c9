import torch

from retina_plugin.workbench.benchmark.memory import peak_memory, tensor_bytes

CPU = torch.device("cpu")


def test_what_is_alive_at_once():
    held = torch.ones(10_000)

    def run():
        a = torch.empty(1000)
        b = torch.empty(2000) + held[:2000]  # both operands of the sum and its result
        del a
        return b.add_(1).sum()

    expected = 4 * (1000 + 2000 + 2000)
    assert [peak_memory(run, CPU) for _ in range(3)] == [expected] * 3


def test_what_was_alive_before_does_not_count():
    held = [torch.empty(10_000)]

    def run():
        held.clear()
        held.append(torch.empty(100))

    assert peak_memory(run, CPU) == 400


def test_what_an_earlier_measurement_saw_does_not_count():
    """The profiler remembers the sizes of blocks whose end it missed; addresses come again."""
    held = []
    peak_memory(lambda: held.extend(torch.empty(10_000) for _ in range(9)), CPU)
    held.clear()
    held.extend(torch.empty(10_000) for _ in range(9))

    def run():
        held.clear()
        held.append(torch.empty(100))

    assert peak_memory(run, CPU) == 400


def test_backward_counts():
    x = torch.ones(1000, requires_grad=True)
    assert peak_memory(lambda: x.exp().exp().sum().backward(), CPU) >= 3 * 4000


def test_nothing():
    assert peak_memory(lambda: None, CPU) == 0


def test_shared_storage_counts_once():
    x = torch.empty(10, 10)
    assert tensor_bytes([x, x.t(), x[0], torch.empty(5, dtype=torch.int64)]) == 400 + 40
