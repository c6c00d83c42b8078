"""Public names: classes and functions name the package that users import them from."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any


def publish(namespace: dict[str, Any]) -> None:
    """Make the classes and functions in `__all__` name this package as their module.

    Help, tracebacks and pickles then show the public name, and do not change when a private module
    is moved or renamed.

    Args:
      namespace: the `globals()` of a package, at the end of its `__init__.py`.
    """
    for name in namespace["__all__"]:
        x = namespace.get(name)
        if isinstance(x, type | FunctionType) and x.__module__.startswith("jtree."):
            if isinstance(x, type):
                keep_source(x)
            x.__module__ = namespace["__name__"]


def keep_source(cls: Any) -> None:
    """Let `inspect.getsource` and IPython find a class whose module or name will be changed.

    They look for a class in the file of its `__module__`, but follow `__wrapped__` first.
    """
    if not isinstance(vars(cls).get("__wrapped__"), _Definition):
        cls.__wrapped__ = _Definition(cls)


class _Definition:
    """The attribute `__wrapped__` of one class, which its instances and subclasses lack.

    It is a class that stands for the first one in the module and under the name of its definition.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        self.entered = False

    def __get__(self, instance: object, owner: type) -> type:
        if instance is not None or owner is not self.cls or self.entered:
            raise AttributeError("__wrapped__")
        attributes: dict[str, Any] = {"__doc__": owner.__doc__}
        if "__firstlineno__" in vars(owner):  # from Python 3.13 on
            attributes["__firstlineno__"] = vars(owner)["__firstlineno__"]
        bases: tuple[type, ...] = ()
        self.entered = True  # the signature is that of the class itself
        try:
            attributes["__signature__"] = inspect.signature(owner)
        except ValueError:  # as of exceptions, whose signature Python does not know
            bases = owner.__bases__
        finally:
            self.entered = False
        return type(owner.__name__, bases, attributes | self.names)
