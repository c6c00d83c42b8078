"""Small reference layers for examples and tests; for real networks use Flax or Equinox.

Containers:          Chain, Parallel, SkipConnection
With parameters:     Dense, Embedding, Scale, Conv, ConvTranspose
Normalisation:       BatchNorm, LayerNorm, GroupNorm
Sequences:           RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell, MultiHeadAttention
Without parameters:  MaxPool, MeanPool, Dropout, flatten, identity
Training:            forward, trainmode, testmode
Shapes:              outputsize
"""

from .._public import publish
from ._attention import MultiHeadAttention
from ._cells import GRUCell, LSTMCell, RNNCell
from ._chain import Chain, Parallel, SkipConnection
from ._conv import Conv
from ._conv_transpose import ConvTranspose
from ._dense import Dense
from ._dropout import Dropout
from ._embedding import Embedding
from ._layer import identity
from ._layer_norm import GroupNorm, LayerNorm, Scale
from ._mode import forward, testmode, trainmode
from ._norm import BatchNorm
from ._outputsize import outputsize
from ._pool import MaxPool, MeanPool, flatten
from ._recurrent import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm",
    "Chain",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GroupNorm",
    "LSTMCell",
    "LayerNorm",
    "MaxPool",
    "MeanPool",
    "MultiHeadAttention",
    "Parallel",
    "RNNCell",
    "Scale",
    "SkipConnection",
    "flatten",
    "forward",
    "identity",
    "outputsize",
    "testmode",
    "trainmode",
]

publish(globals())
