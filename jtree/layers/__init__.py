"""Small reference layers for examples and tests; for real networks use Flax or Equinox.

Containers:          Chain, Parallel, SkipConnection
With parameters:     Dense, Conv, BatchNorm
Without parameters:  MaxPool, MeanPool, Dropout, flatten, identity
Training:            forward, trainmode, testmode
Shapes:              outputsize
"""

from .._public import publish
from ._chain import Chain, Parallel, SkipConnection
from ._conv import Conv
from ._dense import Dense
from ._dropout import Dropout
from ._layer import identity
from ._mode import forward, testmode, trainmode
from ._norm import BatchNorm
from ._outputsize import outputsize
from ._pool import MaxPool, MeanPool, flatten

__all__ = [
    "BatchNorm",
    "Chain",
    "Conv",
    "Dense",
    "Dropout",
    "MaxPool",
    "MeanPool",
    "Parallel",
    "SkipConnection",
    "flatten",
    "forward",
    "identity",
    "outputsize",
    "testmode",
    "trainmode",
]

publish(globals())
