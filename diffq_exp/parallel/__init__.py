"""One run on several processes, its ranks: who they are, and how they agree. A run of one process pays nothing.

`place.py` reads from the environment which rank a process is; `ranks.py` is what a run asks; `group.py` answers by
torch.distributed, and `sent.py` is how an error gets to the others; `batch_norm.py` takes the statistics of batch
norms over all ranks.
"""
