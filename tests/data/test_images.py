"""Image sets and the user's arrays: correct content, and an error with a remedy if not readable."""

import contextlib
import gzip
import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jthermo as jt
from jthermo.data import cifar10_files, fashion_mnist_files, image_files, tfds
from jthermo.errors import InputError, MissingData
from tests import deep_oracles

DEBIAN = image_files.SYSTEM["fashion_mnist"]
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="apt-get install dataset-fashion-mnist"
)
RECORD = jt.Record(
    steps=(0, 2), observables=(jt.loss(), jt.loss("test"), jt.accuracy("test")), probe_size=8
)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No environment variable, no system folder and no network, unless a test sets them."""
    monkeypatch.delenv(image_files.ENVIRONMENT, raising=False)
    monkeypatch.setitem(image_files.SYSTEM, "fashion_mnist", tmp_path / "absent")
    monkeypatch.setenv("HOME", str(tmp_path))

    def unreachable(*_):
        raise OSError("no network in tests")

    monkeypatch.setattr(tfds.socket, "create_connection", unreachable)


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def fashion(tmp_path):
    """Four small files in the format of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "fashion"
    folder.mkdir()
    for name, n in zip(fashion_mnist_files.FILES, (40, 40, 12, 12), strict=True):
        shape = (n, 28, 28) if "images" in name else (n,)
        write_idx(
            folder / name, rng.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8)
        )
    return folder


def cifar_bodies(kind, sizes=(7,) * 5 + (4,)):
    """The six batches in the published format, and their arrays."""
    rng = np.random.default_rng(1)
    bodies, arrays = {}, {}
    for name, n in zip(cifar10_files.BATCHES, sizes, strict=True):
        data, labels = rng.integers(0, 256, (n, 3072)).astype(np.uint8), rng.integers(0, 10, n)
        arrays[name] = data.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1), labels
        if kind == "bin":
            bodies[f"{name}.bin"] = np.column_stack([labels.astype(np.uint8), data]).tobytes()
        else:
            batch = {
                b"batch_label": name.encode(),
                b"labels": labels.tolist(),
                b"data": data,
                b"filenames": [b"a"] * n,
            }
            bodies[name] = pickle.dumps(batch, protocol=2)
    return bodies, arrays


def write_cifar(folder, kind, packed):
    bodies, arrays = cifar_bodies(kind)
    inside = f"cifar-10-batches-{kind}"
    if packed:
        with tarfile.open(
            folder / f"cifar-10-{'binary' if kind == 'bin' else 'python'}.tar.gz", "w:gz"
        ) as archive:
            for name, body in {**bodies, "readme.html": b"hello"}.items():
                member = tarfile.TarInfo(f"{inside}/{name}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
    else:
        (folder / inside).mkdir()
        for name, body in bodies.items():
            (folder / inside / name).write_bytes(body)
    return arrays


@needs_debian
def test_the_published_fashion_mnist_has_its_known_content_and_constants():
    splits = image_files.load("fashion_mnist", str(DEBIAN), None, pytest.fail)
    assert {k: v.shape for k, v in splits.items()} == {
        "x": (60_000, 28, 28, 1),
        "y": (60_000,),
        "x_test": (10_000, 28, 28, 1),
        "y_test": (10_000,),
    }
    assert splits["y"][:5].tolist() == [9, 0, 0, 3, 0]
    assert np.bincount(splits["y"]).tolist() == [6000] * 10
    data = jt.data.FashionMNIST(data_dir=DEBIAN)
    standardised = np.asarray(data.standardised(splits["x"][:20_000]), float)
    assert abs(standardised.mean()) < 0.01
    assert abs(standardised.std() - 1) < 0.01


@needs_debian
def test_one_wrong_byte_of_the_published_files_is_rejected(tmp_path):
    for name in fashion_mnist_files.FILES:
        body = bytearray(gzip.decompress((DEBIAN / f"{name}.gz").read_bytes()))
        body[-1] = body[-1] ^ 1
        (tmp_path / name).write_bytes(body)
    with pytest.raises(InputError, match=r"not the published .* verify=False"):
        image_files.load("fashion_mnist", str(tmp_path), None, pytest.fail)
    assert len(image_files.load("fashion_mnist", str(tmp_path), False, pytest.fail)["x"]) == 60_000


@needs_debian
def test_tensorflow_datasets_builds_from_local_files_in_the_published_order(tmp_path):
    """Its builder, record files and reader on the first published examples, without TensorFlow."""
    code = f"""
import sys; from pathlib import Path; import numpy as np
from jthermo.data import fashion_mnist_files as idx, tfds
from tests.data.test_images import write_idx
small = Path({str(tmp_path)!r}) / "small"; small.mkdir()
for name, n in zip(idx.FILES, (150, 150, 30, 30)):
    write_idx(small / name, idx.read_idx(Path({str(DEBIAN)!r}) / (name + ".gz"))[0][:n])
splits = tfds.load("fashion_mnist", small, small / "cache")
expected = idx.read_fashion_mnist(small, False)
assert all((splits[k] == expected[k]).all() and len(splits[k]) for k in expected)
assert list((small / "cache").rglob("*array_record*")) and "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["bin", "py"])
def test_every_published_layout_of_cifar10_gives_the_same_arrays(tmp_path, kind, packed):
    arrays, notes = write_cifar(tmp_path, kind, packed), []
    splits = image_files.load("cifar10", str(tmp_path), None, notes.append)
    np.testing.assert_array_equal(
        splits["x"], np.concatenate([arrays[n][0] for n in cifar10_files.BATCHES[:5]])
    )
    np.testing.assert_array_equal(
        splits["y"], np.concatenate([arrays[n][1] for n in cifar10_files.BATCHES[:5]])
    )
    np.testing.assert_array_equal(splits["x_test"], arrays["test_batch"][0])
    assert len(notes) == 1
    assert "can't be verified as the published" in notes[0]
    with pytest.raises(InputError, match="verify=False"):
        image_files.load("cifar10", str(tmp_path), True, pytest.fail)


def damage_fashion(folder, how):
    train = folder / fashion_mnist_files.FILES[0]
    body = train.read_bytes()
    if how == "truncated":
        train.write_bytes(body[:-100])
    elif how == "truncated gzip":
        train.unlink()
        (folder / f"{train.name}.gz").write_bytes(gzip.compress(body)[:-50])
    elif how == "magic":
        train.write_bytes(b"\x89PNG" + body[4:])
    elif how == "rank":
        write_idx(train, np.zeros(40, np.uint8))
    elif how == "missing":
        (folder / fashion_mnist_files.FILES[3]).unlink()
    elif how == "label":
        write_idx(folder / fashion_mnist_files.FILES[1], np.full(40, 11, np.uint8))
    else:
        write_idx(folder / fashion_mnist_files.FILES[1], np.zeros(39, np.uint8))


FASHION_DAMAGE = {
    "truncated": "bytes of data, but its header announces 40×28×28",
    "truncated gzip": "truncated or damaged",
    "magic": "starts with 89504e47",
    "rank": "has the shape 40, but train-images-idx3-ubyte has n×28×28",
    "missing": "has no t10k-labels",
    "label": "label 11, but Fashion-MNIST has 0 to 9",
    "count": "40 images for 39 labels",
}


@pytest.mark.parametrize("how", FASHION_DAMAGE)
def test_errors_of_damaged_idx_files_name_the_file_and_the_damage(fashion, how):
    image_files.load("fashion_mnist", str(fashion), False, pytest.fail)
    damage_fashion(fashion, how)
    with pytest.raises(InputError, match=FASHION_DAMAGE[how]) as caught:
        image_files.load("fashion_mnist", str(fashion), False, pytest.fail)
    assert str(fashion) in str(caught.value.value)


class Evil:
    """An object whose pickle runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("exit 7",)


def damage_cifar(folder, how):
    binary, python = folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"
    if how == "missing batch":
        write_cifar(folder, "bin", False)
        (binary / "data_batch_3.bin").unlink()
    elif how == "truncated batch":
        write_cifar(folder, "bin", False)
        (binary / "test_batch.bin").write_bytes((binary / "test_batch.bin").read_bytes()[:-1])
    elif how == "label":
        write_cifar(folder, "bin", False)
        (binary / "data_batch_1.bin").write_bytes(
            b"\x0a" + (binary / "data_batch_1.bin").read_bytes()[1:]
        )
    elif how == "truncated archive":
        write_cifar(folder, "bin", True)
        packed = folder / "cifar-10-binary.tar.gz"
        packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    else:
        write_cifar(folder, "py", False)
        content = {
            "shape": {b"labels": [1], b"data": np.zeros((2, 3072), np.uint8)},
            "code": Evil(),
        }
        (python / "data_batch_2").write_bytes(pickle.dumps(content[how]))


CIFAR_DAMAGE = {
    "missing batch": "has no data_batch_3.bin",
    "truncated batch": "isn't a multiple of 3073",
    "label": "label 10, but CIFAR-10 has 0 to 9",
    "truncated archive": "truncated or damaged",
    "shape": r"shape \(2, 3072\) instead of uint8 \(1, 3072\)",
    "code": "refers to posix.system",
}


@pytest.mark.parametrize("how", CIFAR_DAMAGE)
def test_errors_of_damaged_cifar_files_name_the_damage(tmp_path, how):
    damage_cifar(tmp_path, how)
    with pytest.raises(InputError, match=CIFAR_DAMAGE[how]):
        image_files.load("cifar10", str(tmp_path), None, lambda _: None)


@contextlib.contextmanager
def as_nobody():
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to change its user")
def test_an_unreadable_folder_is_named(fashion, monkeypatch):
    fashion.chmod(0o700)
    for parent in list(fashion.parents)[:3]:
        parent.chmod(0o755)
    monkeypatch.setenv(image_files.ENVIRONMENT, str(fashion))
    with (
        as_nobody(),
        pytest.raises(InputError, match="can't be read; change its permissions") as caught,
    ):
        image_files.load("fashion_mnist", None, None, pytest.fail)
    assert caught.value.field == image_files.ENVIRONMENT


@pytest.mark.parametrize("data", [jt.data.FashionMNIST(), jt.data.CIFAR10()])
def test_without_files_and_network_it_fails_at_once_and_names_three_ways_to_get_them(
    data, tmp_path, monkeypatch
):
    sweep = jt.Sweep(
        model=jt.models.MLP(int(np.prod(data.shape)), hidden=(4,), outputs=10),
        data=data, learning_rate=0.1, num_steps=2, record=RECORD,
    )  # fmt: skip
    out = tmp_path / "o"
    # the error comes before anything is planned, compiled or written
    monkeypatch.setattr("jthermo.execution.runner.cohorts", None)
    with pytest.raises(MissingData) as caught:
        jt.run(sweep, out, progress=False)
    assert not out.exists()
    text = str(caught.value)
    assert all(f"({i})" in text for i in (1, 2, 3))
    assert image_files.ENVIRONMENT in text
    assert "can't be reached" in text
    # a plan without measurement needs no data
    assert jt.plan(sweep, measure=False).num_runs == 1


def test_the_folders_are_searched_in_order(fashion, monkeypatch, tmp_path):
    assert image_files.find("fashion_mnist", str(fashion)) == fashion
    assert image_files.find("fashion_mnist", str(tmp_path / "fashion")) == fashion
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="none of its files"):
        image_files.find("fashion_mnist", str(empty))
    with pytest.raises(InputError, match="isn't a folder"):
        image_files.find("fashion_mnist", str(tmp_path / "absent"))
    monkeypatch.setitem(image_files.SYSTEM, "fashion_mnist", fashion)
    # it contains no such files, so the system's folder is next
    monkeypatch.setenv(image_files.ENVIRONMENT, str(empty))
    assert image_files.find("fashion_mnist", None) == fashion
    nested = empty / "FashionMNIST" / "raw"
    nested.mkdir(parents=True)
    (nested / fashion_mnist_files.FILES[0]).touch()
    assert image_files.find("fashion_mnist", None) == nested


def small(fashion, **changes):
    return jt.data.FashionMNIST(data_dir=fashion, verify=False, **changes)


def test_labels_are_real_or_drawn_once_or_redrawn_at_each_use(fashion):
    splits = image_files.load("fashion_mnist", str(fashion), False, pytest.fail)
    index, dataset = np.array([3, 7, 3]), jax.random.key(1)
    arrays = {k: jax.numpy.asarray(v) for k, v in splits.items()}

    def labels(kind, fresh, **more):
        return np.asarray(
            small(fashion, labels=kind).rows(arrays, index, dataset, jax.random.key(fresh), **more)[
                1
            ]
        )

    np.testing.assert_array_equal(labels("real", 0), splits["y"][index])
    np.testing.assert_array_equal(labels("real", 0, test=True), splits["y_test"][index])
    assert (labels("random", 0) == labels("random", 5)).all()
    assert labels("random", 0)[0] == labels("random", 0)[2]
    drawn = np.stack([labels("redrawn", i) for i in range(400)])
    assert (drawn[:, 0] != drawn[:, 2]).any()
    # a fair draw fails with this probability
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=10)).pvalue > 1e-4
    random = np.asarray(
        small(fashion, labels="random").rows(arrays, np.arange(40), dataset, jax.random.key(0))[1]
    )
    assert (random != splits["y"]).any()
    with pytest.raises(InputError, match="10 classes"):
        small(fashion, num_classes=2)


def test_batches_and_probes_are_rows_of_their_splits(fashion):
    data = small(fashion)
    splits = image_files.load("fashion_mnist", str(fashion), False, pytest.fail)
    arrays = {k: jax.numpy.asarray(v) for k, v in splits.items()}

    def rows(test, samples=None):
        x, _ = small(fashion, num_samples=samples).probe(
            arrays, jax.random.key(3), jax.random.key(4), 300, test=test
        )
        pixels = np.rint((np.asarray(x, float) * 0.3530 + 0.2860) * 255).astype(int)
        table = {
            row.tobytes(): i for i, row in enumerate(splits["x_test" if test else "x"].astype(int))
        }
        return {table[row.tobytes()] for row in pixels}

    assert rows(False) == set(range(40))
    assert rows(True) == set(range(12))
    assert rows(False, samples=5) == set(range(5))
    assert data.size(arrays) == 40
    with pytest.raises(InputError, match="there are only 40"):
        small(fashion, num_samples=41).size(arrays)


def flat(model, params, probe):
    """Every parameter, flat."""
    return jax.numpy.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def image_sweep(fashion, **changes):
    fields = {
        "model": jt.models.CNN(channels=((2,),), hidden=()),
        "data": small(fashion),
        "learning_rate": (0.1, 0.2),
        "batch_size": 3,
        "seed": range(3),
        "num_steps": 5,
        "record": jt.Record(
            steps=(0, 5),
            observables=(flat, jt.loss(), jt.loss("test"), jt.accuracy("test")),
            probe_size=8,
        ),
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.mark.parametrize(("sampling", "width"), [("replacement", 1), ("epochs", 2)])
def test_a_cnn_on_images_gives_the_same_bits_alone_in_pieces_and_on_any_placement(
    fashion, sampling, width, monkeypatch
):
    from jthermo.execution import placement, train_cohort

    sweep = image_sweep(
        fashion, data=small(fashion, sampling=sampling), lane_width=None if width == 1 else width
    )
    ds = jt.run(sweep, progress=False)
    # the rule chooses 1 for a CNN
    assert ds.attrs["lane_width"] == width
    assert np.isfinite(ds.test_loss.values).all()
    with monkeypatch.context() as patch:
        patch.setattr(placement, "devices", lambda: tuple(jax.devices()[:1]))
        patch.setattr(
            train_cohort._Pace,
            "until",
            lambda self, now, target: np.minimum(target, now + 2).astype(np.int32),
        )
        np.testing.assert_array_equal(jt.run(sweep, progress=False).flat.values, ds.flat.values)
    if sampling == "epochs":
        # the other checks don't depend on the sampling
        return
    alone = jt.run(sweep.replace(learning_rate=0.2, seed=1), progress=False)
    here = (ds.learning_rate.values == 0.2) & (ds.seed.values == 1)
    np.testing.assert_array_equal(ds.flat.values[here], alone.flat.values)
    np.testing.assert_array_equal(
        jt.run(sweep, placement="pmap", progress=False).flat.values, ds.flat.values
    )
    other = jt.run(sweep.replace(**{"data.labels": "random"}), progress=False)
    assert (other.flat.values[:, 1] != ds.flat.values[:, 1]).any()


def test_accuracy_and_loss_of_both_splits_equal_loops_over_the_examples(fashion):
    sweep = image_sweep(
        fashion, learning_rate=0.2, seed=1, num_steps=2,
        record=jt.Record(
            steps=(2,), probe_size=8,
            observables=(
                flat, jt.accuracy(), jt.accuracy("test"), jt.loss(), jt.loss("test"), probe_of,
                labels_of,
            ),
        ),
    )  # fmt: skip
    row = jt.run(sweep, progress=False).isel(run=0, record=0)
    model, params, at = sweep.model, {}, 0
    for layer, parts in sorted(model.shapes.items()):
        for part, like in sorted(parts.items()):
            params.setdefault(layer, {})[part] = row.flat.values[at : at + like.size].reshape(
                like.shape
            )
            at += like.size
    for i, split in enumerate(("", "test_")):
        right, surprise = 0, 0.0
        for x, y in zip(row.probe_of.values[i], row.labels_of.values[i].astype(int), strict=True):
            f, _, _ = deep_oracles.forward(params, x, ((2,),))
            right += max(range(10), key=lambda c: f[c]) == y
            surprise += np.log(np.exp(f).sum()) - f[y]
        assert float(row[f"{split}accuracy"]) == right / 8
        assert float(row[f"{split}loss"]) == pytest.approx(surprise / 8, rel=1e-5)


def probe_of(model, params, probe):
    """The examples of both splits."""
    return jax.numpy.stack([probe.x, probe.test[0]])


def labels_of(model, params, probe):
    """Their labels."""
    return jax.numpy.stack([probe.y, probe.test[1]])


def test_a_cnn_on_images_interrupted_at_the_command_line_resumes_to_the_same_bits(
    fashion, tmp_path, monkeypatch, capsys
):
    """SIGTERM during training gives exit code 75; `jthermo resume` keeps the lane width."""
    from jthermo.cli import verbs
    from jthermo.execution import placement, train_cohort

    monkeypatch.setattr(
        train_cohort._Pace,
        "until",
        lambda self, now, target: np.minimum(target, now + 2).astype(np.int32),
    )
    out, calls = tmp_path / "o", []
    whole = jt.run(image_sweep(fashion), progress=False)
    file = tmp_path / "small_cnn.py"
    file.write_text(
        f"import jthermo as jt\nSWEEP = jt.Sweep.from_json({plain(fashion).to_json()!r})\n"
    )
    programs = placement.programs

    def armed(*args):
        compiled = programs(*args)

        def advance(*args):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return compiled.advance(*args)

        return compiled._replace(advance=advance)

    monkeypatch.setattr(placement, "programs", armed)
    with pytest.raises(SystemExit) as stopped:
        verbs.main(["run", str(file), "--out", str(out), "--quiet"])
    monkeypatch.setattr(placement, "programs", programs)
    assert stopped.value.code == 75
    assert "SIGTERM at step 4: saved" in capsys.readouterr().err
    assert len(calls) == 2
    verbs.main(["resume", str(out), "--quiet"])
    ds = jt.open_results(out)
    for name in ("loss", "test_loss", "test_accuracy"):
        np.testing.assert_array_equal(ds[name].values, whole[name].values)
    parameters = jax.tree.leaves(jt.open_params(out, 0))
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(p) for p in parameters]), whole.flat.values[0, -1]
    )


def plain(fashion):
    """The image sweep with built-in observables only, so that a file can define it."""
    sweep = image_sweep(fashion)
    return sweep.replace(
        record=jt.Record(steps=(0, 5), observables=sweep.record.observables[1:], probe_size=8)
    )


def test_the_place_of_the_files_is_not_part_of_the_identity(fashion, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    fashion.rename(elsewhere)
    a, b = image_sweep(fashion), image_sweep(elsewhere)
    assert a.id == b.id
    assert [c.stream for c in a.configs] == [c.stream for c in b.configs]
    assert jt.Sweep.from_json(b.to_json()).data.data_dir == str(elsewhere)
    assert image_sweep(elsewhere, data=small(elsewhere, labels="random")).id != b.id
    np.testing.assert_array_equal(
        jt.run(b, progress=False).loss.values,
        jt.run(jt.Sweep.from_json(b.to_json()), progress=False).loss.values,
    )


def test_examples_are_held_once_per_device_and_not_in_the_program(fashion):
    from jthermo.execution import cohorts, placement

    sweep = image_sweep(fashion, batch_size=(2, 3))
    place = placement.Placement("sharding", placement.devices())
    bound = [placement.programs(c.program, place).advance for c in cohorts.cohorts(sweep)]
    assert bound[0].held["x"] is bound[1].held["x"]
    assert len(bound[0].held["x"].addressable_shards) == len(place.devices)
    assert bound[0].held["x"].dtype == np.uint8


@pytest.mark.parametrize("engine", ["xla", "fused"])
def test_a_larger_set_needs_no_more_working_memory_and_the_state_is_updated_in_place(engine):
    from jthermo.engines import choice
    from jthermo.execution import cohorts, placement

    if engine == "fused" and (reason := choice.refusal()):
        pytest.skip(reason)

    place, working = placement.Placement("sharding", placement.devices()), []
    for n in (100, 20_000):
        x, y = np.zeros((n, 20), np.float32), np.arange(n) % 2
        sweep = jt.Sweep(
            model=jt.models.TwoLayer(inputs=20, hidden=5),
            data=jt.data.Arrays(x, y),
            learning_rate=0.1,
            seed=range(16),
            num_steps=1,
            record=jt.Record(steps=(1,), observables=jt.loss()),
            lane_width=8,
        )
        with placement.pinned():
            (cohort,) = cohorts.cohorts(sweep, engine=engine)
            lanes, _, _ = cohort.deal(len(place.devices))
            runs = place.put(jax.tree.map(lambda a, lanes=lanes: a[lanes], cohort.runs))
            state = placement.initializer(cohort.model, cohort.program.optimizer, place)(runs)
            step = np.zeros(len(lanes), np.int32)
            clock = [step, step] + [np.full((len(lanes), 2), -1, np.int32)] * (engine == "fused")
            advance = placement.programs(cohort.program, place).advance.compiled(
                runs, state, *place.tell(*clock)
            )
        used = advance.jitted.memory_analysis()
        working.append(used.temp_size_in_bytes)
        # the data set is an argument of the program, once
        assert used.argument_size_in_bytes > x.nbytes
        assert used.argument_size_in_bytes < 1.5 * x.nbytes + 20_000
        assert used.alias_size_in_bytes == cohort.state_bytes / len(place.devices)
    assert working[0] == working[1] < x.nbytes / 10


def test_a_users_arrays_are_a_source_in_memory_and_as_npz(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.normal(size=(30, 4)),
        "y": rng.integers(0, 3, 30),
        "x_test": rng.normal(size=(6, 4)),
        "y_test": rng.integers(0, 3, 6),
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    memory, file = jt.data.Arrays(**arrays), jt.data.Arrays(str(tmp_path / "mine.npz"))
    assert memory == file
    assert memory != jt.data.Arrays(**{**arrays, "y": np.roll(arrays["y"], 1)})
    assert memory != jt.data.Arrays(**arrays, labels="random")

    def sweep(data):
        return jt.Sweep(
            model=jt.models.MLP(4, hidden=(5,), outputs=3),
            data=data,
            learning_rate=0.5,
            batch_size=5,
            seed=range(2),
            num_steps=200,
            record=jt.Record(steps=(0, 200), observables=RECORD.observables, probe_size=64),
        )

    a, b = jt.run(sweep(memory), progress=False), jt.run(sweep(file), progress=False)
    np.testing.assert_array_equal(a.loss.values, b.loss.values)
    assert (a.loss.values[:, 1] < a.loss.values[:, 0]).all()
    assert (
        jt.Sweep.from_json(sweep(file).to_json())
        == sweep(file)
        == jt.Sweep.from_json(sweep(memory).to_json())
    )
    np.savez(tmp_path / "mine.npz", **{**arrays, "y": np.roll(arrays["y"], 1)})
    with pytest.raises(InputError, match=r"SHA-256 .* instead of"):
        jt.Sweep.from_json(sweep(file).to_json())


class Line(nn.Module):
    """f(x) = W x + b."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x)


def weights(model, params, probe):
    """W and b in one row."""
    return jnp.concatenate([params["Dense_0"]["kernel"].ravel(), params["Dense_0"]["bias"]])


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_on_real_targets_equals_a_direct_loop(outputs):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, outputs))
    # each batch is the whole set
    data = jt.data.Arrays(x, y, x[:4], y[:4], sampling="epochs")
    if outputs == 1:
        assert data == jt.data.Arrays(x, y[:, 0], x[:4], y[:4, 0], sampling="epochs")
    sweep = jt.Sweep(
        model=Line(outputs),
        data=data,
        learning_rate=0.3,
        batch_size=12,
        seed=range(2),
        num_steps=20,
        record=jt.Record(steps=(0, 20), observables=(weights, jt.loss(), jt.loss("test"))),
    )
    assert jt.Sweep.from_json(sweep.to_json()) == sweep
    ds = jt.run(sweep, progress=False)
    for start, end in ds.weights.values:
        w, b = (
            start[: 3 * outputs].reshape(3, outputs).astype(float),
            start[3 * outputs :].astype(float),
        )
        for _ in range(20):
            residual = x @ w + b - y
            w, b = w - 0.3 * x.T @ residual / 12, b - 0.3 * residual.mean(0)
        np.testing.assert_allclose(end, [*w.ravel(), *b], rtol=1e-4, atol=1e-5)
    other = jt.run(
        sweep.replace(data=jt.data.Arrays(x, -y, x, y, sampling="epochs")), progress=False
    )
    assert np.abs(other.weights.values[:, 1] - ds.weights.values[:, 1]).max() > 0.1


def test_loss_and_targets_have_to_agree():
    x, y = np.eye(4), np.array([0.2, 1.5, 0.1, 2.0])
    fields = {
        "model": Line(1),
        "data": jt.data.Arrays(x, y),
        "learning_rate": 0.1,
        "num_steps": 1,
        "record": jt.Record(steps=(1,), observables=jt.loss()),
    }
    for changes, text in (
        ({"loss": "bce"}, "the labels are real-valued targets; use 'squared'"),
        ({"model": Line(2)}, "the data have num_targets = 1"),
        (
            {"noise": "label_averaged"},
            "averages class labels, but the data have real-valued targets",
        ),
        (
            {"record": jt.Record(steps=(1,), observables=jt.accuracy())},
            "are real numbers, not classes",
        ),
    ):
        with pytest.raises(InputError, match=text):
            jt.Sweep(**{**fields, **changes})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x": np.ones((3, 2))}, r"data\.y = None: is missing"),
        ({"x": np.ones(3), "y": np.zeros(3)}, r"of shape \(n, d\)"),
        ({"x": np.ones((3, 2)), "y": np.zeros(2)}, "3 integer class labels"),
        ({"x": np.ones((3, 2)), "y": np.array(["a", "b", "c"])}, "or real-valued targets of shape"),
        ({"x": np.ones((3, 2)), "y": np.array([0.0, 2.0, 1.0])}, "of whole numbers is ambiguous"),
        ({"x": np.ones((3, 2)), "y": np.array([0.5, np.nan, 1])}, "contains NaN"),
        (
            {"x": np.ones((3, 2)), "y": np.array([0.5, 0.1, 1]), "labels": "random"},
            "applies only to class labels",
        ),
        (
            {"x": np.ones((3, 2)), "y": np.array([0.5, 0.1, 1]), "num_classes": 2},
            "applies only to class labels",
        ),
        (
            {
                "x": np.ones((3, 2)),
                "y": np.array([0.5, 0.1, 1]),
                "x_test": np.ones((2, 2)),
                "y_test": [0, 1],
            },
            "must be like y",
        ),
        ({"x": np.full((3, 2), np.nan), "y": np.zeros(3, int)}, "contains NaN"),
        ({"x": np.ones((3, 2)), "y": np.array([0, -1, 1])}, "isn't a class label"),
        ({"x": np.ones((3, 2)), "y": np.zeros(3, int), "num_samples": 4}, "there are only 3"),
        ({"x": "absent.npz"}, "there is no such file"),
        ({"x": __file__}, "isn't an .npz file"),
    ],
)
def test_invalid_arrays_are_rejected(arguments, text):
    with pytest.raises(InputError, match=text):
        jt.data.Arrays(**arguments)


def test_synthetic_sweeps_import_no_tensorflow_datasets_and_the_package_imports_little():
    code = """
import sys, jthermo as jt
assert "jax" not in sys.modules
sweep = jt.Sweep(model=jt.models.MLP(3, hidden=(2,)), data=jt.data.Gaussian(dim=3),
                 learning_rate=.1, num_steps=1,
                 record=jt.Record(steps=(0, 1), observables=jt.loss()))
jt.run(sweep, progress=False)
assert "tensorflow_datasets" not in sys.modules and "PIL" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_exits_with_code_2_and_the_message(fashion, tmp_path):
    (fashion / fashion_mnist_files.FILES[2]).unlink()
    file = tmp_path / "images.py"
    file.write_text(
        "import jthermo as jt\n"
        "SWEEP = jt.Sweep(model=jt.models.MLP(784, hidden=(4,), outputs=10),\n"
        "    data=jt.data.FashionMNIST(verify=False), learning_rate=0.1, num_steps=2,\n"
        "    record=jt.Record(steps=(0, 2), observables=jt.loss(), probe_size=4))\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from jthermo.cli import main; main()"),
            *("run", str(file), "--out", str(tmp_path / "o")),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, image_files.ENVIRONMENT: str(fashion)},
        cwd=Path(jt.__file__).parents[1],
    )
    assert done.returncode == 2
    assert "has no t10k-images" in done.stderr
    assert "Traceback" not in done.stderr
