"""Small reference layers for examples and tests; for real networks use Flax or Equinox.

Containers:          Chain, Parallel, SkipConnection
With parameters:     Dense, Embedding, Scale, Conv, ConvTranspose
Normalisation:       BatchNorm, LayerNorm, GroupNorm, InstanceNorm
Sequences:           RNN, LSTM, GRU, GRUv3, Recur, MultiHeadAttention
Cells:               RNNCell, LSTMCell, GRUCell, GRUv3Cell
Pooling:             MaxPool, MeanPool, AdaptiveMaxPool, AdaptiveMeanPool, global_max_pool,
                     global_mean_pool
Without parameters:  Dropout, flatten, flatten_channels_first, identity
Training:            forward, trainmode, testmode
Shapes:              outputsize
"""

from .._public import publish
from ._adaptive_pool import (
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    global_max_pool,
    global_mean_pool,
)
from ._attention import MultiHeadAttention
from ._cells import GRUCell, LSTMCell, RNNCell
from ._chain import Chain, Parallel, SkipConnection
from ._conv import Conv
from ._conv_transpose import ConvTranspose
from ._dense import Dense
from ._dropout import Dropout
from ._embedding import Embedding
from ._gru_v3 import GRUv3, GRUv3Cell
from ._instance_norm import InstanceNorm
from ._layer import identity
from ._layer_norm import GroupNorm, LayerNorm, Scale
from ._mode import forward, testmode, trainmode
from ._norm import BatchNorm
from ._outputsize import outputsize
from ._pool import MaxPool, MeanPool, flatten, flatten_channels_first
from ._recur import Recur
from ._recurrent import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "BatchNorm",
    "Chain",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GRUv3",
    "GRUv3Cell",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "LayerNorm",
    "MaxPool",
    "MeanPool",
    "MultiHeadAttention",
    "Parallel",
    "RNNCell",
    "Recur",
    "Scale",
    "SkipConnection",
    "flatten",
    "flatten_channels_first",
    "forward",
    "global_max_pool",
    "global_mean_pool",
    "identity",
    "outputsize",
    "testmode",
    "trainmode",
]

publish(globals())
