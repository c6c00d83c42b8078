"""Checkpoints of arrays on several devices, which stand for those of a machine."""

from __future__ import annotations

from typing import Any

EIGHT = {"JAX_NUM_CPU_DEVICES": "8"}


def test_sharded_arrays_go_to_any_number_of_devices(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np, jtree
        from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

        def mesh(number, *shape):
            devices = np.array(jax.devices()[:number]).reshape(shape)
            return Mesh(devices, ("a", "b")[: len(shape)])

        eight = mesh(8, 4, 2)
        numbers = np.arange(64.0, dtype=np.float32).reshape(8, 8)
        model = {
            "both": jax.device_put(numbers, NamedSharding(eight, P("a", "b"))),
            "rows": jax.device_put(numbers, NamedSharding(eight, P("b"))),
            "all": jax.device_put(numbers, NamedSharding(eight, P())),
            "uneven": jax.device_put(numbers[:4, :3], NamedSharding(eight, P("a"))),
            "eighths": jax.device_put(
                numbers.astype(jnp.float8_e4m3fn), NamedSharding(eight, P("a"))
            ),
            "count": jnp.zeros((), jnp.int32),
        }
        host = jax.tree.map(np.asarray, model)
        jtree.save("x", model)
        jtree.save("packed", model, packed=True)

        def put(sharding, abstract):
            zeros = jax.tree.map(lambda x: jax.device_put(jnp.zeros_like(x), sharding), host)
            if abstract:
                zeros = jax.tree.map(
                    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), zeros
                )
            return zeros

        shardings = [
            NamedSharding(eight, P()),
            NamedSharding(mesh(4, 4), P()),
            NamedSharding(mesh(2, 1, 2), P()),
            jax.sharding.SingleDeviceSharding(jax.devices()[5]),
        ]
        for path in ("x", "packed"):
            assert not jtree.verify(path)
            for sharding in shardings:
                for abstract in (False, True):
                    loaded = jtree.load(path, put(sharding, abstract))
                    for name, x in loaded.items():
                        assert x.sharding == sharding, (name, x.sharding)
                        assert (np.asarray(x) == host[name]).all(), name
            loaded = jtree.load(path)
            assert all((loaded[name] == host[name]).all() for name in host)

        other = {
            "both": NamedSharding(mesh(8, 2, 4), P("b", "a")),
            "rows": NamedSharding(mesh(4, 4), P(None, "a")),
            "eighths": NamedSharding(mesh(8, 8), P("a")),
        }
        loaded = jtree.load("x", where=list(other), sharding=lambda path, _: other[path])
        for name, x in loaded.items():
            assert x.sharding == other[name]
            assert (np.asarray(x) == host[name]).all()
            assert x.addressable_shards[0].data.size < x.size
        try:
            jtree.load("x", where=["both", "count"], sharding=other["both"])
        except jtree.ArgumentError as error:
            print(str(error)[:47])
        """,
        **EIGHT,
    )
    assert out == "sharding: count: int32[] cannot have NamedShard\n"


def test_no_device_holds_all_of_a_sharded_array(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np, jtree
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

        sharding = NamedSharding(Mesh(np.array(jax.devices()), ("a",)), P("a"))
        x = jax.jit(lambda: jnp.arange(4096.0).reshape(512, 8), out_shardings=sharding)()
        jtree.save("x", {"x": x})
        live = {id(a) for a in jax.live_arrays()}
        loaded = jtree.load("x", {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)})
        new = [a for a in jax.live_arrays() if id(a) not in live]
        print({s.data.shape for a in new for s in a.addressable_shards})
        print(loaded["x"].is_fully_replicated, bool((loaded["x"] == x).all()))
        """,
        **EIGHT,
    )
    assert out == "{(64, 8)}\nFalse True\n"


def test_damage_in_one_part_is_noticed_on_any_number_of_devices(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np, jtree
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from orbax.checkpoint import v1 as ocp

        eight = NamedSharding(Mesh(np.array(jax.devices()), ("a",)), P("a"))
        two = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("a",)), P(None, "a"))
        x = jax.device_put(np.arange(64.0, dtype=np.float32).reshape(8, 8), eight)
        jtree.save("x", {"x": x, "y": x})
        import os
        metadata = ocp.metadata(os.path.abspath("x")).custom_metadata
        ocp.save(os.path.abspath("y"), {"x": x.at[5, 3].add(1), "y": x}, custom_metadata=metadata)
        for sharding in (eight, two, None):
            try:
                jtree.load("y", sharding=sharding)
            except jtree.ChecksumError as error:
                print("checksum mismatch in x" in str(error))
        print(list(jtree.verify("y")))
        """,
        **EIGHT,
    )
    assert out == "True\nTrue\nTrue\n['x']\n"
