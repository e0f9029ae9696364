"""Beyond one machine: the blocks of a run, or the files of a batch, as tasks on Dask (extra ``dask``).

The shared folder is the truth. A task is "compute these blocks of that run", idempotent and atomic; the
scheduler holds nothing that would be missed.
"""
