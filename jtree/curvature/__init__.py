"""Second-order derivatives over all parameters of a model: Hessians and related matrices.

Operators:   hessian, ggn, fisher, jacobian, batched; hvp for one product
Properties:  diagonal, trace, eigsh, spectrum, inertia, norm, cond
Solvers:     solve, newton
Results:     Operator, Hessian, GaussNewton, Batched, Combination, Kernel, SymmetricProduct;
             LinearMap, Jacobian, Product, Sum;
             Estimate, Eigenpairs, Inertia, Spectrum, NewtonState
"""

from .._public import publish
from ._algorithms.diagonal import diagonal, trace
from ._algorithms.eigen import Eigenpairs, eigsh
from ._algorithms.estimate import Estimate
from ._algorithms.newton import NewtonState, newton
from ._algorithms.norms import Inertia, cond, inertia, norm
from ._algorithms.solve import solve
from ._algorithms.spectrum import Spectrum, spectrum
from ._operators.base import Operator
from ._operators.batched import Batched, batched
from ._operators.combination import Combination, Sum
from ._operators.fisher import fisher
from ._operators.ggn import GaussNewton, ggn
from ._operators.hessian import Hessian, hessian, hvp
from ._operators.jacobian import Jacobian, Kernel, jacobian
from ._operators.linear_map import LinearMap
from ._operators.product import Product, SymmetricProduct

__all__ = [
    "Batched",
    "Combination",
    "Eigenpairs",
    "Estimate",
    "GaussNewton",
    "Hessian",
    "Inertia",
    "Jacobian",
    "Kernel",
    "LinearMap",
    "NewtonState",
    "Operator",
    "Product",
    "Spectrum",
    "Sum",
    "SymmetricProduct",
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
