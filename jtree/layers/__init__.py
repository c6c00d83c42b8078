"""Small layers to show and test jtree with; for real networks use Flax or Equinox.

Layers of layers:        Chain, Parallel, SkipConnection
Layers with parameters:  Dense, Conv, BatchNorm
Without:                 MaxPool, MeanPool, Dropout, flatten, identity
Training:                forward, trainmode, testmode
"""

from ._chain import Chain as Chain
from ._chain import Parallel as Parallel
from ._chain import SkipConnection as SkipConnection
from ._conv import Conv as Conv
from ._conv import MaxPool as MaxPool
from ._conv import MeanPool as MeanPool
from ._conv import flatten as flatten
from ._dense import Dense as Dense
from ._layer import identity as identity
from ._mode import forward as forward
from ._mode import testmode as testmode
from ._mode import trainmode as trainmode
from ._norm import BatchNorm as BatchNorm
from ._norm import Dropout as Dropout
