"""Opening: what any file of arrays holds, before any of it is read."""

from __future__ import annotations

import os

from ._checkpoint import Checkpoint, open_checkpoint


def open(path: str | os.PathLike[str], /, *, verify: bool = True) -> Checkpoint:
    """Return what is in a checkpoint or a file of another library, as a mapping to lazy arrays.

    The format is found by content, not by name: Orbax and jtree's own; safetensors and PyTorch, one
    file or shards; msgpack of Flax; npz and npy; Keras and HDF5; Equinox, which has no names. No
    code in a file is ever run.

    Args:
      path: a file or a directory.
      verify: False skips checksums when arrays are read, where the format has them.

    Returns:
      A `Checkpoint`: a mapping from paths to arrays, each of which is read when it is asked for,
      into memory of its own. It can be given to `jtree.loadmodel` and `jtree.diff` as it is.

    Raises:
      CheckpointError: there is nothing, or nothing that can be read; the message says what it is.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     np.savez(f"{directory}/weights", kernel=np.ones((2, 3)))
      ...     found = jtree.open(f"{directory}/weights.npz")
      ...     print(found.format, dict(found), found["kernel"].read().sum())
      npz {'kernel': LazyArray(float64[2, 3])} 6.0
    """
    return open_checkpoint(path, verify=verify)
