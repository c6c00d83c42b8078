"""The rows of the table of benchmarks that are about curvature."""

from __future__ import annotations

from collections.abc import Iterator

from .rows import Measured, Row, row

CASES = "curvature_cases"


def _case(name: str) -> str:
    return f"{CASES}:{name}"


@row(30, *(_case(f"dense_{size}") for size in (2, 5, 10)))
def _(m: Measured) -> Iterator[Row]:
    for size in (2, 5, 10):
        case = m[_case(f"dense_{size}")]
        work = f"dense Hessian, {size},000 parameters"
        yield Row(30, work, "jax.hessian", case["ours"] / case["jax"], 0.5 if size == 2 else 0.4)
        if "torch" in case:
            yield Row(30, work, "torch.func.hessian", case["ours"] / case["torch"], 0.4)
        ratio = case["compile"] / case["compile jax"]
        yield Row(30, f"{work}, compile", "jax.hessian", ratio, 2.5)


@row(31, _case("dense_memory"), _case("dense_memory_jax"))
def _(m: Measured) -> Iterator[Row]:
    ours, jax = m[_case("dense_memory")], m[_case("dense_memory_jax")]
    work = "dense Hessian, 10,000 parameters"
    yield Row(31, work, "memory, in matrices, compiling included", ours["first"], 1.3)
    yield Row(31, work, "memory, in matrices, compiled", ours["again"], 1.3)
    yield Row(31, "jax.hessian, the same", "memory, in matrices", jax["jax"], None)


PRODUCTS = {
    "products_quick": "10,000 parameters, 32 examples, two threads",
    "products_small": "10,000 parameters, two threads",
    "products": "300,000 parameters, two threads",
    "products_alone": "300,000 parameters, one thread",
}


@row(32, *map(_case, PRODUCTS))
def _(m: Measured) -> Iterator[Row]:
    for name, what in PRODUCTS.items():
        case, work = m[_case(name)], f"Hessian-vector product, {what}"
        yield Row(32, work, "one gradient", case["one"] / case["gradient"], 2)
        yield Row(32, work, "jax.jvp of jax.grad", case["one"] / case["theirs"], 1)
        each = case["many"] / 32
        yield Row(32, f"{work}, each of 32", "one", each / case["one"], 0.7)
        yield Row(32, f"{work}, each of 32", "jax.jvp of jax.grad", each / case["theirs"], None)


@row(33, _case("gauss_newton"))
def _(m: Measured) -> Iterator[Row]:
    case, against = m[_case("gauss_newton")], "chunked GGN-vector products"
    ratio = case["ggn"] / case["products"]
    yield Row(33, "dense GGN, 10,000 parameters, 10 outputs", against, ratio, 0.8)
    ratio = case["fisher"] / case["products"]
    yield Row(33, "dense empirical Fisher, the same", against, ratio, 0.15)


@row(34, _case("ggn_diagonal"))
def _(m: Measured) -> Iterator[Row]:
    case, work = m[_case("ggn_diagonal")], "exact GGN diagonal, 100,000 parameters, 10 classes"
    yield Row(34, work, "10 gradients per example", case["ours"] / case["gradients"], 3)


@row(35, "curvature_libraries:libraries")
def _(m: Measured) -> Iterator[Row]:
    times = m["curvature_libraries:libraries"]
    for name in times:
        work, _, library = name.partition(" / ")
        if library != "jtree":
            ours = times[f"{work} / jtree"]
            yield Row(35, f"{work}, 10,000 parameters", library, ours / times[name], 1)


@row(36, _case("eigenpairs"))
def _(m: Measured) -> Iterator[Row]:
    case = m[_case("eigenpairs")]
    for which in ("LM", "SA"):
        work = f"6 eigenpairs, 5,000 parameters, {which}"
        yield Row(36, work, "scipy.sparse.linalg.eigsh", case[which] / case[f"{which} scipy"], 1)
