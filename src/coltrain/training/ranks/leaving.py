"""How a rank leaves the others: without waiting for its own threads for ever."""

import time

import torch.distributed as dist

_SECONDS = 0.2


def leave_group() -> None:
    """End this process's part in torch's process group, after its last exchange.

    gloo's threads let go of an exchange's tensors a moment after it is over, for which they need Python's
    lock. torch 2.7.1 holds that lock while it destroys the group, and joins the threads: a rank that
    came too soon waited for ever (seen with py-spy: `~AsyncAllgatherWork` in `gil_scoped_acquire`,
    `~ProcessGroupGloo` in `join`). While this sleeps the lock is free.
    """
    time.sleep(_SECONDS)
    dist.destroy_process_group()
