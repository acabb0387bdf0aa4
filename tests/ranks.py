"""Runs a function in several processes that share no folder, as those of several machines."""

import multiprocessing
import os
import pickle

import torch
import torch.distributed as dist


def run_ranks(function, count, folder):
    """Calls `function(rank)` in `count` processes, each in an empty folder of its own.

    Returns:
        For each rank what the function returned, and the files it left in its folder.
    """

    def run(rank):
        own = folder / f"rank_{rank}"
        own.mkdir(parents=True)
        os.chdir(own)
        torch.set_num_threads(1)  # threads of a parent are not there in its fork
        dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count)
        result = function(rank)
        dist.barrier()  # the first one has the store
        (folder / f"{rank}.pkl").write_bytes(pickle.dumps((result, os.listdir(own))))

    folder.mkdir()
    ranks = range(count)
    processes = [multiprocessing.get_context("fork").Process(target=run, args=(r,)) for r in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * count
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in ranks]
