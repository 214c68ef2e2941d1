"""Guidance window and rescale, on a network small enough to reckon with."""

import torch
from torch import nn

from instantid_demo.guidance import guided


class Net(nn.Module):
    """Answers with three times its input and remembers how many rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, sample, timestep, encoder_hidden_states=None, return_dict=False):
        self.rows.append(len(sample))
        assert encoder_hidden_states["image_embeds"][0].shape[0] == len(sample)
        return (3 * sample,)


def call(net: Net, sample: torch.Tensor) -> torch.Tensor:
    return net(sample, torch.tensor(1), encoder_hidden_states={"image_embeds": [torch.zeros(len(sample), 2)]})[0]


def combine(prediction: torch.Tensor, scale: float) -> torch.Tensor:
    without, with_words = prediction.chunk(2)
    return without + scale * (with_words - without)


def test_outside_the_window_only_the_conditional_half_runs() -> None:
    unet, net, done = Net(), Net(), [0.0]
    sample = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with guided(unet, [net], lambda: done[0], scale=5, window=(0.25, 0.75)):
        for share in (0.0, 0.5, 0.75):
            done[0] = share
            call(net, sample)
            guided_now = combine(call(unet, sample), 5)
            expected = combine(3 * sample, 5) if share == 0.5 else 3 * sample[2:]
            torch.testing.assert_close(guided_now, expected)
    assert unet.rows == net.rows == [2, 4, 2]


def test_full_rescale_gives_the_conditional_spread() -> None:
    unet = Net()
    sample = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    spreads = []
    for rescale in (0.0, 0.5, 1.0):
        with guided(unet, [], lambda: 0.0, scale=7, rescale=rescale):
            spreads.append(combine(call(unet, sample), 7).flatten(1).std(1))
    torch.testing.assert_close(spreads[2], (3 * sample[2:]).flatten(1).std(1))
    torch.testing.assert_close(spreads[1], (spreads[0] + spreads[2]) / 2)


def test_afterwards_no_hook_is_left() -> None:
    unet = Net()
    try:
        with guided(unet, [], lambda: 0.0, scale=7, rescale=0.5):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert not unet._forward_hooks
    assert not unet._forward_pre_hooks
