"""Second-order work over all parameters of a model: Hessians and their relatives.

Operators:  hessian, ggn, fisher, jacobian, batched; hvp for one product
Asked:      diagonal, trace, eigsh, spectrum, inertia, norm, cond
Solved:     solve, newton
"""

from ._algorithms.diagonal import Estimate as Estimate
from ._algorithms.diagonal import diagonal as diagonal
from ._algorithms.diagonal import trace as trace
from ._algorithms.eigen import Eigenpairs as Eigenpairs
from ._algorithms.eigen import Inertia as Inertia
from ._algorithms.eigen import cond as cond
from ._algorithms.eigen import eigsh as eigsh
from ._algorithms.eigen import inertia as inertia
from ._algorithms.eigen import norm as norm
from ._algorithms.newton import NewtonState as NewtonState
from ._algorithms.newton import newton as newton
from ._algorithms.solve import solve as solve
from ._algorithms.spectrum import Spectrum as Spectrum
from ._algorithms.spectrum import spectrum as spectrum
from ._operators.base import Operator as Operator
from ._operators.batched import batched as batched
from ._operators.fisher import fisher as fisher
from ._operators.ggn import ggn as ggn
from ._operators.hessian import hessian as hessian
from ._operators.hessian import hvp as hvp
from ._operators.jacobian import Jacobian as Jacobian
from ._operators.jacobian import jacobian as jacobian
