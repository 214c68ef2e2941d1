"""Deep blocks of the UNet that rest in some steps: DeepCache (arXiv 2312.00858, §3.2), around the stock forward.

From one step to the next the deep features hardly change. In between only the first block of the way down and the last
of the way up run; the others repeat what they last said. Approximate: what it costs is measured by `evaluate --set`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.nn import Module

from instantid_demo.method.savings import replaced


@contextmanager
def deep_blocks_reused(unet: Module, every: int) -> Iterator[None]:
    """Runs the deep blocks in every `every`-th step only (1: in all); afterwards the UNet is as before.

    To be entered after `guided`: a batch of another size runs them as well.
    """
    if every <= 1:
        yield
        return
    clock = _Clock(every)
    with ExitStack() as stack:
        hook = unet.register_forward_pre_hook(clock.tick, with_kwargs=True)
        stack.callback(hook.remove)
        for block in (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]):  # type: ignore[index, misc]
            stack.enter_context(replaced(block, clock.kept(block.forward)))
        yield


class _Clock:
    """Counts steps, and knows in which of them the deep blocks run."""

    def __init__(self, every: int) -> None:
        self.every, self.step, self.runs = every, 0, True
        self._shape: Any = None

    def tick(self, unet: Module, args: tuple, kwargs: dict) -> None:
        """Forward pre-hook of the UNet."""
        shape = (args[0] if args else kwargs["sample"]).shape
        if shape != self._shape:
            self.step = 0
        self.runs, self._shape = self.step % self.every == 0, shape
        self.step += 1

    def kept(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward`, which repeats its last answer in steps of rest."""
        last: Any = None

        def either(*args: Any, **kwargs: Any) -> Any:
            nonlocal last
            if self.runs:
                last = forward(*args, **kwargs)
            return last

        return either
