"""Second-order work over all parameters of a model: Hessians and their relatives.

Operators:  hessian, ggn, fisher, jacobian, batched; hvp for one product
Asked:      diagonal, trace, eigsh, spectrum, inertia, norm, cond
Solved:     solve, newton
"""

from .._public import publish
from ._algorithms.diagonal import Estimate, diagonal, trace
from ._algorithms.eigen import Eigenpairs, Inertia, cond, eigsh, inertia, norm
from ._algorithms.newton import NewtonState, newton
from ._algorithms.solve import solve
from ._algorithms.spectrum import Spectrum, spectrum
from ._operators.base import Operator
from ._operators.batched import batched
from ._operators.fisher import fisher
from ._operators.ggn import ggn
from ._operators.hessian import hessian, hvp
from ._operators.jacobian import Jacobian, jacobian

__all__ = [
    "Eigenpairs",
    "Estimate",
    "Inertia",
    "Jacobian",
    "NewtonState",
    "Operator",
    "Spectrum",
    "batched",
    "cond",
    "diagonal",
    "eigsh",
    "fisher",
    "ggn",
    "hessian",
    "hvp",
    "inertia",
    "jacobian",
    "newton",
    "norm",
    "solve",
    "spectrum",
    "trace",
]

publish(globals())
