"""Second-order work over all parameters of a model: Hessians and their relatives."""

from ._fisher import fisher as fisher
from ._ggn import ggn as ggn
from ._hessian import hessian as hessian
from ._hessian import hvp as hvp
from ._jacobian import jacobian as jacobian
from ._operator import Operator as Operator
