"""Optional packages: the error that says how to install them."""

from __future__ import annotations

from importlib import import_module

from ._errors import ExtraError

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def check_extra(user: str, extra: str, *packages: str) -> None:
    """Raise an error unless all packages of an extra can be imported.

    Args:
      user: what needs the packages.
      extra: the name of the extra that installs them.
      packages: their names, as they are imported.

    Raises:
      ExtraError: a package is not installed, or fails to import.
    """
    missing = [x for x in packages if not _is_installed(x, user, extra)]
    if missing:
        names = [_DISTRIBUTIONS.get(x, x) for x in missing]
        *first, last = names
        listed = f"{', '.join(first)} and {last}" if first else last
        verb = "are" if first else "is"
        raise ExtraError(
            f"{user} needs {listed}, which {verb} not installed; {_command(extra)}",
            name=missing[0],
        )


def _is_installed(package: str, user: str, extra: str) -> bool:
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            return False
        raise _broken(package, user, extra, error) from error
    except ImportError as error:
        raise _broken(package, user, extra, error) from error
    return True


def _broken(package: str, user: str, extra: str, error: ImportError) -> ExtraError:
    name = _DISTRIBUTIONS.get(package, package)
    return ExtraError(
        f"{user} needs {name}, which cannot be imported: {error}; {_command(extra)}", name=package
    )


def _command(extra: str) -> str:
    return f'run: pip install "jtree[{extra}]"'
