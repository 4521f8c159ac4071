"""Captions and exports on ``hf://``, through the same functions as on ``s3://``: a stand-in of the Hub."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from pipeline.errors import UserError
from pipeline.inputs.captions import content_hash, read_captions
from pipeline.store.location import list_folder, locate
from pipeline.store.lock import held
from pipeline.store.outputs import new_file, new_folder
from tests.hub_server import TOKEN, hub

REPOSITORY = "me/captions"
PLACE = f"hf://datasets/{REPOSITORY}"


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub(tmp_path / "hub") as held_there:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", held_there.endpoint + template)
        monkeypatch.setattr(constants, "ENDPOINT", held_there.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        locate(PLACE).fs.clear_instance_cache()
        held_there.files[REPOSITORY] = {}
        yield held_there
        locate(PLACE).fs.clear_instance_cache()


def test_captions_of_a_repository_are_those_of_a_disk(server, tmp_path):
    (tmp_path / "csv").mkdir()
    for name in "ba":
        content = gzip.compress(f"caption\n{name}\n".encode())
        (tmp_path / "csv" / f"{name}.csv.gz").write_bytes(content)
        server.put(REPOSITORY, f"csv/{name}.csv.gz", content)
    server.put(REPOSITORY, "csv/README.md", b"notes")
    for path in ("csv", "csv/*.csv.gz", "c*/[ab].csv.gz"):
        there = locate(f"{PLACE}/{path}")
        assert read_captions(there, "caption").to_pylist() == ["a", "b"]
        assert content_hash(there) == content_hash(tmp_path / "csv")
    pq.write_table(pa.table({"prompt": ["one", "two"]}), tmp_path / "x.parquet")
    server.put(REPOSITORY, "data/x.parquet", (tmp_path / "x.parquet").read_bytes())
    there = locate(f"{PLACE}/data/x.parquet")
    assert read_captions(there, "prompt").to_pylist() == ["one", "two"]
    assert content_hash(there) == content_hash(tmp_path / "x.parquet")


@pytest.mark.parametrize("place", [f"{PLACE}/none.csv", "hf://datasets/me/nothing/x.csv", "hf://datasets/me"])
def test_captions_that_are_not_there_are_one_message(server, place):
    with pytest.raises(
        UserError, match=f"{place}.*(there is no file|cannot be reached)|there is no file {place}"
    ):
        read_captions(locate(place), "caption")


def test_a_server_that_refuses_is_one_message(server):
    server.refuse = lambda path: 403
    with pytest.raises(UserError, match=r"x\.csv cannot be read: 403 Forbidden"):
        read_captions(locate(f"{PLACE}/x.csv"), "caption")


def test_an_out_is_written_there_whole_or_not_at_all(server):
    with new_file(locate(f"{PLACE}/sheet.png")) as file:
        file.write(b"picture")
    with new_folder(locate(f"{PLACE}/pairs")) as folder:
        for name in ("data/a.md", "README.md"):
            with folder.file(name) as file:
                file.write(name.encode())
    files = server.files[REPOSITORY]
    assert sorted(files) == ["pairs/README.md", "pairs/data/a.md", "sheet.png"]
    assert files["pairs/data/a.md"][2] == b"data/a.md"
    assert set(list_folder(locate(f"{PLACE}/pairs"))) == {"README.md", "data"}

    def fail() -> None:
        with new_folder(locate(f"{PLACE}/half")) as folder:
            with folder.file("a.md") as file:
                file.write(b"whole")
            with folder.file("b.md") as file:
                file.write(b"half")
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not [name for name in server.files[REPOSITORY] if name.startswith("half")]


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_an_out_that_cannot_be_written_is_known_before_the_work(server, make):
    server.refuse = lambda path: 403 if "/commit/" in path else None
    with (
        pytest.raises(UserError, match=f"--out {PLACE}/x: it cannot be written: 403"),
        make(locate(f"{PLACE}/x")),
    ):
        pytest.fail("the work was begun")
    with (
        pytest.raises(UserError, match="hf://datasets/me/nothing"),
        make(locate("hf://datasets/me/nothing/x")),
    ):
        pytest.fail("the work was begun")


def test_a_run_there_is_refused(server):
    with pytest.raises(UserError, match="no run is written to the Hub"), held(locate(f"{PLACE}/runs/toybox")):
        pytest.fail("the work was begun")
    assert not server.files[REPOSITORY]
