"""Second-order work over all parameters of a model: Hessians and their relatives.

Operators:  hessian, ggn, fisher, jacobian, over; hvp for one product
Asked:      diagonal, trace, eigsh, spectrum, inertia, norm, condition
Solved:     solve, newton
"""

from ._diagonal import Estimate as Estimate
from ._diagonal import diagonal as diagonal
from ._diagonal import trace as trace
from ._eigen import Eigenpairs as Eigenpairs
from ._eigen import Inertia as Inertia
from ._eigen import condition as condition
from ._eigen import eigsh as eigsh
from ._eigen import inertia as inertia
from ._eigen import norm as norm
from ._fisher import fisher as fisher
from ._ggn import ggn as ggn
from ._hessian import hessian as hessian
from ._hessian import hvp as hvp
from ._jacobian import Jacobian as Jacobian
from ._jacobian import jacobian as jacobian
from ._newton import NewtonState as NewtonState
from ._newton import newton as newton
from ._operator import Operator as Operator
from ._over import over as over
from ._solve import solve as solve
from ._spectrum import Spectrum as Spectrum
from ._spectrum import spectrum as spectrum
