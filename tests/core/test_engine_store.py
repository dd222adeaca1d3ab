"""The store runs nothing stale, foreign or altered, and two builders of one engine do not collide."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest

from devil.bundle import Bundle, FileRecord, Manifest
from devil.config import PRESETS
from devil.contract import GRAPHS, contract
from devil.engine_key import EngineKey, Host, refusals
from devil.engine_profile import Profile, Range, chosen, named_sizes
from devil.engine_store import EngineStore
from devil.errors import EngineError, OutputError

PROFILES = (
    Profile("prefill", {"S": Range(1, 256, 256), "T": Range(1, 2048, 4096)}),
    Profile("decode", {"S": Range(1, 1, 8), "T": Range(1, 512, 4096)}),
)
HOST = Host("tensorrt", "10.9.0.34", "sm89", "", "NVIDIA L4")


@pytest.fixture
def bundle(tmp_path):
    files = {f"{graph}.onnx": FileRecord(1, graph.encode().hex().ljust(64, "0")) for graph in GRAPHS}
    files["tokenizer.json"] = FileRecord(1, "0" * 64)
    return Bundle(tmp_path / "bundle", Manifest("tiny", "fp16", PRESETS["tiny"], files))


@pytest.fixture
def store(bundle):
    return EngineStore(bundle)


@pytest.fixture
def key(bundle):
    return EngineKey("language", bundle.graph_hash("language"), "tensorrt", "10.9.0.34", ("sm89",), PROFILES)


def build(store, key, content=b"engine"):
    with store.building(key) as scratch:
        scratch.write_bytes(content)
        return store.add(key, scratch, {"seconds": 1.5})


def test_what_was_built_is_found_again(store, key):
    built = build(store, key)
    assert store.find("language", HOST) == built == store.get(key)
    assert built.read() == b"engine"
    assert built.built == {"seconds": 1.5}
    assert built.path.name.startswith("language-tensorrt-10.9.0.34-sm89-")
    assert not [path for path in store.folder.iterdir() if path.suffix == ".building"]


def test_the_store_is_empty_before_anything_was_built(store):
    with pytest.raises(EngineError, match=r"holds none\): devil-build"):
        store.find("language", HOST)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backend": "tensorrt-rtx"}, "for tensorrt-rtx, this is tensorrt"),
        ({"version": "10.8.0.43"}, "built by tensorrt 10.8.0.43, this is 10.9.0.34"),
        ({"capabilities": ("sm86", "sm90")}, "built for sm86, sm90, this GPU is sm89"),
        ({"plugin": "abc"}, "plugin library it was built with, which is absent"),
        ({"device": "NVIDIA L40S"}, "built on NVIDIA L40S, this is NVIDIA L4"),
        ({"hardware": "ampere+", "capabilities": ("sm75",)}, "built for sm75"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_with_the_reason(store, key, change, reason):
    build(store, replace(key, **change))
    lookup = store.lookup("language", HOST)
    assert lookup.engine is None
    assert reason in str(lookup.refused[0])
    with pytest.raises(EngineError, match=reason):
        store.find("language", HOST)


def test_another_exports_engine_is_refused_even_where_it_was_kept(key):
    assert list(refusals(key, "another", HOST)) == ["it was built from another export of the graph"]


@pytest.mark.parametrize(
    ("change", "host"),
    [
        ({"version": "10.3.0", "version_compatible": True}, {}),
        ({"hardware": "ampere+", "capabilities": ("sm80",)}, {}),
        ({"hardware": "same-capability", "device": "NVIDIA L40S"}, {}),
        ({"plugin": "abc"}, {"plugin": "abc"}),
        ({"capabilities": ("sm120", "sm86", "sm89")}, {}),
    ],
)
def test_a_compatible_engine_runs(key, change, host):
    assert not list(refusals(replace(key, **change), key.graph_hash, replace(HOST, **host)))


@pytest.mark.parametrize(("built", "here"), [("11.0.0", "10.9.0.34"), ("10.9.0.35", "10.9.0.34"), ("9.3", "10.0")])
def test_version_compatibility_goes_forward_within_a_major_version(key, built, here):
    wanted = replace(key, version=built, version_compatible=True)
    assert list(refusals(wanted, key.graph_hash, replace(HOST, version=here)))


def test_sizes_beyond_every_profile_are_refused_with_the_flag_that_raises_them(store, key):
    build(store, key)
    assert store.lookup("language", HOST, [{"S": 256, "T": 300}, {"S": 1, "T": 4096}]).engine
    with pytest.raises(EngineError, match="T is 5000 and profile 'prefill' takes at most 4096, which --context"):
        store.find("language", HOST, [{"S": 256, "T": 5000}])


def test_an_altered_engine_is_never_read(store, key):
    built = build(store, key)
    built.path.write_bytes(b"egnine")
    with pytest.raises(EngineError, match="altered"):
        store.find("language", HOST).read()
    built.path.write_bytes(b"longer than it was")
    with pytest.raises(EngineError, match="altered"):
        store.find("language", HOST)
    built.path.unlink()
    with pytest.raises(EngineError, match="missing"):
        store.find("language", HOST)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "key": {"graph": "language"}}'])
def test_a_broken_sidecar_is_a_reason_and_not_a_crash(store, key, text):
    build(store, key).sidecar.write_text(text)
    with pytest.raises(EngineError, match="sidecar"):
        store.find("language", HOST)
    assert store.get(key) is None
    assert build(store, key) == store.find("language", HOST)


def test_a_renamed_engine_is_refused(store, key):
    built = build(store, key)
    for path in (built.path, built.sidecar):
        path.rename(path.with_name(path.name.replace("sm89", "sm90")))
    with pytest.raises(EngineError, match="another engine's"):
        store.find("language", HOST)


def test_the_newest_of_several_is_taken(store, key):
    older, newer = build(store, key), build(store, replace(key, profiles=PROFILES[:1]))
    os.utime(older.path, (1, 1))
    assert store.find("language", HOST) == newer


def test_engines_of_an_older_export_are_removed_when_the_next_one_is_built(bundle, store, key):
    old = build(store, key)
    old.path.with_suffix(".jit").write_bytes(b"kernels that were compiled for it")
    other = build(store, replace(key, graph="grounder", graph_hash=bundle.graph_hash("grounder")))
    files = {**bundle.manifest.files, "language.onnx": FileRecord(1, "f" * 64)}
    again = EngineStore(replace(bundle, manifest=replace(bundle.manifest, files=files)))
    assert not again.lookup("language", HOST).engine
    new = build(again, replace(key, graph_hash=again.bundle.graph_hash("language")))
    assert not list(store.folder.glob(f"{old.key.stem}.*"))
    assert sorted(again.engines(), key=lambda engine: engine.path) == sorted(
        [other, new], key=lambda engine: engine.path
    )


def test_reports_of_the_gate_stand_in_the_sidecar_per_machine(store, key):
    built = build(store, key)
    store.record_gate(built, "NVIDIA L4, driver 570", {"passed": True})
    store.record_gate(built, "NVIDIA L40S, driver 570", {"passed": False})
    gates = store.find("language", HOST).gates
    assert gates == {"NVIDIA L4, driver 570": {"passed": True}, "NVIDIA L40S, driver 570": {"passed": False}}
    assert json.loads(built.sidecar.read_text())["key"]["graph"] == "language"


def test_a_store_that_cannot_be_written_says_so(store, key):
    built = build(store, key)
    lock = store.folder / f".{key.stem}.lock"
    lock.unlink()
    lock.mkdir()  # opening it fails as opening another user's file does, for the super user too
    with pytest.raises(OutputError, match=r"cannot write .*copy the bundle to where you may write"):
        store.record_gate(built, "NVIDIA L4", {"passed": True})
    assert store.find("language", HOST) == built


def _build_slowly(store, key, started, go, built):
    with store.building(key) as scratch:
        if store.get(key) is None:
            started.set()
            go.wait(30)
            scratch.write_bytes(b"engine")
            store.add(key, scratch, {})
            built.put(os.getpid())


def test_of_two_builders_the_second_takes_what_the_first_built(store, key):
    spawn = multiprocessing.get_context("fork")
    started, go, built = spawn.Event(), spawn.Event(), spawn.Queue()
    first, second = (spawn.Process(target=_build_slowly, args=(store, key, started, go, built)) for _ in range(2))
    first.start()
    assert started.wait(30)
    second.start()
    go.set()
    first.join(30)
    second.join(30)
    assert built.get(timeout=5) == first.pid
    assert built.empty()
    assert (first.exitcode, second.exitcode) == (0, 0)


def test_a_killed_builder_blocks_nobody_and_its_leftovers_go(store, key):
    spawn = multiprocessing.get_context("fork")
    started = spawn.Event()

    def half():
        with store.building(key) as scratch:
            scratch.write_bytes(b"half an engine")
            started.set()
            signal.pause()

    process = spawn.Process(target=half)
    process.start()
    assert started.wait(30)
    process.kill()
    process.join(30)
    waited = []
    with store.building(key, lambda: waited.append(True)):
        assert store.get(key) is None
        assert not list(store.folder.glob("*.building")) + list(store.folder.glob(".*.building"))
    assert not waited


def test_a_failed_build_leaves_nothing_that_could_be_run(store, key):
    with pytest.raises(RuntimeError), store.building(key) as scratch:
        scratch.write_bytes(b"half an engine")
        raise RuntimeError
    assert store.engines() == []
    assert not [path for path in store.folder.iterdir() if not path.name.endswith(".lock")]


def test_a_profile_gives_the_shapes_of_every_input():
    spec = contract(PRESETS["tiny"])["backbone"]
    profile = Profile("frames", {"N": Range(1, 4, 8), "H": Range(96, 96, 512), "W": Range(96, 170, 512)})
    assert profile.shapes(spec) == {"frames": ((1, 96, 96, 3), (4, 96, 170, 3), (8, 512, 512, 3))}
    with pytest.raises(EngineError, match="lacks W"):
        replace(profile, ranges={"N": Range.fixed(1), "H": Range.fixed(96)}).shapes(spec)


def test_sizes_are_read_off_shapes_and_choose_the_profile_tuned_for_them():
    spec = contract(PRESETS["tiny"])["language"]
    shapes = {"token_ids": (1, 1), "mask": (1, 1, 1, 700)}
    assert named_sizes(spec, shapes) == {"B": 1, "S": 1, "T": 700}
    assert chosen(PROFILES, {"S": 1, "T": 700}) == 1
    assert chosen(PROFILES, {"S": 200, "T": 700}) == 0
    assert chosen(PROFILES, {"S": 300, "T": 700}) is None


@pytest.mark.parametrize("sizes", [(2, 1, 3), (1, 3, 2), (-1, 0, 0)])
def test_ranges_are_in_order(sizes):
    with pytest.raises(EngineError):
        Range(*sizes)


@pytest.mark.parametrize("change", [{"graph": "decoder"}, {"backend": "onnxruntime"}, {"capabilities": ("89",)}])
def test_a_key_of_nothing_known_is_refused(key, change):
    with pytest.raises(EngineError):
        replace(key, **change)


def test_any_part_of_the_key_changes_the_file(key):
    changed = [
        replace(key, version_compatible=True),
        replace(key, plugin="abc"),
        replace(key, profiles=PROFILES[:1]),
        replace(key, hardware="ampere+"),
        replace(key, graph_hash="other"),
    ]
    assert len({key.stem, *(other.stem for other in changed)}) == 6
    assert EngineKey.of_values(json.loads(json.dumps(key.values()))) == key
