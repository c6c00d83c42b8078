"""Operators on the devices of a mesh."""

from __future__ import annotations

from collections.abc import Callable


def test_meshes_of_devices(run_python: Callable[..., str]) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from jtree import curvature as C

        close = lambda a, b: np.allclose(np.asarray(a), b, atol=1e-5)

        mesh = jax.make_mesh((8,), ("x",))
        rows = NamedSharding(mesh, P("x", None))
        x = jax.device_put(np.random.default_rng(0).normal(size=(16, 8)).astype("f4"), rows)
        flat = jax.device_put(jnp.ones(8) / 9, NamedSharding(mesh, P("x")))
        loss = lambda v, x: (jnp.tanh(x @ v) ** 2).mean()
        true = jax.hessian(loss)(np.asarray(flat), np.asarray(x))
        op = C.hessian(loss, flat, x)
        v = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("x")))
        print(close(op @ v, true @ np.arange(8.0)), close(op @ np.eye(8, dtype="f4"), true))
        print(close(op.dense(), true))
        matrix = op.dense(sharding=rows)
        print(close(matrix, true), matrix.sharding == rows, len(matrix.addressable_shards))

        explicit = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
        rows, whole = (NamedSharding(explicit, P("x", *more)) for more in ([None], []))
        y, ones = jax.device_put(jnp.arange(4) % 2, whole), jax.device_put(jnp.ones(4), whole)
        apply = lambda v, x: x @ v.reshape(2, 2)
        fisher = C.fisher(apply, ones, jnp.eye(4, 2), y, kind="empirical")
        print(np.isfinite(fisher @ ones).all())
        op = C.hessian(lambda v: (v ** 2).sum(), ones).damped(2.0)
        print(close(op.dense(sharding=rows), 4 * np.eye(4)))
        print(close(C.solve(op, ones, method="cg", preconditioner=ones), np.full(4, 0.25)))
        """,
        JAX_NUM_CPU_DEVICES="8",
        JAX_PLATFORMS="cpu",
    )
    assert out == "True True\nTrue\nTrue True 8\nTrue\nTrue\nTrue\n"


def test_operators_inside_shard_map(run_python: Callable[..., str]) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import AxisType, PartitionSpec as P
        from jtree import curvature as C

        mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
        flat, x = jnp.ones(3) / 9, np.random.default_rng(0).normal(size=(16, 3)).astype("f4")
        y = np.tanh(x.sum(1))
        apply = lambda v, x: jnp.tanh(x @ v)
        mse = lambda out, y: ((out - y) ** 2).mean()
        loss = lambda v, x, y: mse(apply(v, x), y)
        mean = lambda value: jax.lax.pmean(value, "x")
        local = lambda v: jax.lax.pcast(v, "x", to="varying")

        def results(op):
            return op.dense(), op.dense(1), C.diagonal(op), C.trace(op).value, op @ jnp.ones(3)

        def equal(make, expected, reduce=lambda results: results):
            specs = dict(mesh=mesh, in_specs=(P(), P("x"), P("x")), out_specs=P())
            function = lambda *args: reduce(results(make(*args)))
            shards = jax.jit(jax.shard_map(function, **specs))
            pairs = zip(shards(flat, x, y), results(expected), strict=True)
            return all(np.allclose(a, b, atol=1e-5) for a, b in pairs)

        hessian, ggn = C.hessian(loss, flat, x, y), C.ggn(apply, mse, flat, x, y)
        fisher = C.fisher(apply, flat, x, likelihood="gaussian")
        print(equal(lambda v, x, y: C.hessian(lambda *a: mean(loss(*a)), v, x, y), hessian))
        print(equal(lambda v, x, y: C.ggn(apply, lambda *a: mean(mse(*a)), v, x, y), ggn))
        print(equal(lambda v, x, y: C.fisher(apply, v, x, likelihood="gaussian") / 4, fisher))

        # operators of each device's own examples
        print(equal(lambda v, x, y: C.hessian(loss, local(v), x, y), hessian, mean))
        print(equal(lambda v, x, y: C.ggn(apply, mse, local(v), x, y), ggn, mean))
        """,
        JAX_NUM_CPU_DEVICES="4",
        JAX_PLATFORMS="cpu",
    )
    assert out == "True\nTrue\nTrue\nTrue\nTrue\n"
