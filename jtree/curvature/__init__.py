"""Second-order derivatives over all parameters of a model: Hessians and related matrices.

Operators:       hessian, ggn, fisher, jacobian, batched, inverse; hvp for one product
Approximations:  block_diagonal, nystrom
Properties:      diagonal, trace, eigsh, spectrum, layerwise, inertia, norm, cond
Solvers:         solve, newton
Results:         Operator, Hessian, GaussNewton, Batched, Combination, Kernel, SymmetricProduct,
                 Inverse, BlockDiagonal, Nystrom; LinearMap, Jacobian, Product, Sum;
                 Estimate, Eigenpairs, Inertia, LayerCurvature, Layerwise, Spectrum, NewtonState
"""

from .._public import publish
from ._algorithms.blocks import BlockDiagonal, block_diagonal
from ._algorithms.diagonal import diagonal, trace
from ._algorithms.eigen import Eigenpairs, eigsh
from ._algorithms.estimate import Estimate
from ._algorithms.inverse import Inverse, inverse
from ._algorithms.layerwise import LayerCurvature, Layerwise, layerwise
from ._algorithms.newton import NewtonState, newton
from ._algorithms.norms import Inertia, cond, inertia, norm
from ._algorithms.nystrom import Nystrom, nystrom
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
    "BlockDiagonal",
    "Combination",
    "Eigenpairs",
    "Estimate",
    "GaussNewton",
    "Hessian",
    "Inertia",
    "Inverse",
    "Jacobian",
    "Kernel",
    "LayerCurvature",
    "Layerwise",
    "LinearMap",
    "NewtonState",
    "Nystrom",
    "Operator",
    "Product",
    "Spectrum",
    "Sum",
    "SymmetricProduct",
    "batched",
    "block_diagonal",
    "cond",
    "diagonal",
    "eigsh",
    "fisher",
    "ggn",
    "hessian",
    "hvp",
    "inertia",
    "inverse",
    "jacobian",
    "layerwise",
    "newton",
    "norm",
    "nystrom",
    "solve",
    "spectrum",
    "trace",
]

publish(globals())
