"""``editpairs publish`` in a process of its own, against a stand-in of the Hub on loopback."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_server import TOKEN, Hub, hub
from tests.toybox_runs import ROOT

REPOSITORY = "me/pairs"


@pytest.fixture
def server(tmp_path):
    with hub(tmp_path) as held:
        yield held


@pytest.fixture
def folder(tmp_path) -> Path:
    """An export of two files and one, as its parts write it."""
    return exported(tmp_path / "pairs", {"train": [3, 2], "test": [1]})


def exported(folder: Path, rows: dict[str, list[int]]) -> Path:
    from stages.shards.card import dataset_card, front_matter

    (folder / "data").mkdir(parents=True)
    schema = pa.schema([("T", pa.string())])
    for side, files in rows.items():
        for number, count in enumerate(files):
            table = pa.table({"T": [os.urandom(8000).hex() for _ in range(count)]}, schema)
            pq.write_table(table, folder / "data" / f"{side}-{number:05d}-of-{len(files):05d}.parquet")
    places = {side: f"data/{side}-*.parquet" for side in rows}
    header = front_matter("pairs", places, sum(map(sum, rows.values())), schema, "cc-by-4.0")
    (folder / "README.md").write_text(dataset_card(header, "# pairs"))
    return folder


def process(server: Hub, folder: Path, *options: str, token: str = TOKEN) -> subprocess.Popen[str]:
    """The command, as a user gives it; its caches lie beside the store."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.endpoint,
        "HF_TOKEN": token,
        "HF_HOME": str(server.store.parent / "home"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pipeline.cli", "publish", str(folder), REPOSITORY, *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def publish(server: Hub, folder: Path, *options: str, token: str = TOKEN) -> tuple[int, str]:
    running = process(server, folder, *options, token=token)
    told = running.communicate(timeout=600)
    return running.returncode, "".join(told)


def content_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and object id of each file, as the Hub computes it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            oid = git if path.suffix == ".md" else hashlib.sha256(content).hexdigest()
            found[path.relative_to(folder).as_posix()] = (len(content), oid)
    return found


def there(server: Hub) -> dict[str, tuple[int, str]]:
    return {name: (size, oid) for name, (oid, size, _) in server.files[REPOSITORY].items()}


def test_an_export_arrives_whole_and_again_sends_nothing(server, folder):
    code, told = publish(server, folder, "--private")
    assert code == 0, told
    assert there(server) == content_of(folder)
    assert server.private == {REPOSITORY: True}
    assert f"published {server.endpoint}/datasets/{REPOSITORY}/commit/" in told
    stored = server.stored()
    assert sum(stored.values()) > 50_000, "the rows' noise"
    code, told = publish(server, folder)
    assert code == 0, told
    assert len(server.commits) == 1
    assert server.stored() == stored


def test_a_refused_commit_is_one_message_and_the_same_command_goes_on_without_sending_again(server, folder):
    server.refuse = lambda path: 403 if "/commit/" in path else None
    code, told = publish(server, folder)
    assert code == 2
    assert told.count("error:") == 1
    assert "403" in told
    assert "the same command goes on" in told
    assert "Traceback" not in told
    stored = server.stored()
    assert stored
    assert not there(server)
    server.refuse = lambda path: None
    code, told = publish(server, folder)
    assert code == 0, told
    assert there(server) == content_of(folder)
    assert server.stored() == stored, "the rows were there already"


def test_an_interrupted_command_goes_on(server, folder):
    begun, over = threading.Event(), threading.Event()

    def hold(path: str) -> int | None:
        if "/commit/" not in path:
            return None
        begun.set()
        over.wait(600)
        return 503

    server.refuse = hold
    running = process(server, folder)
    assert begun.wait(600)
    running.send_signal(signal.SIGINT)
    told = "".join(running.communicate(timeout=600))
    over.set()
    assert running.returncode == 130, told
    assert "the same command goes on from there" in told
    server.refuse = lambda path: None
    assert publish(server, folder)[0] == 0
    assert there(server) == content_of(folder)


def test_a_dry_run_asks_the_server_nothing(server, folder):
    asked: list[str] = []
    server.refuse = asked.append
    code, told = publish(server, folder, "--dry-run")
    assert code == 0, told
    assert asked == []
    assert f"4 files would go to {server.endpoint}/datasets/{REPOSITORY}" in " ".join(told.split())
    lines = [line.split() for line in told.splitlines()]
    assert ["train", "2", "5", "0.1"] in lines
    assert ["test", "1", "1", "0.0"] in lines


def test_a_new_export_takes_the_place_of_an_earlier_one_and_leaves_other_files(server, folder, tmp_path):
    publish(server, folder)
    server.put(REPOSITORY, "notes.md", b"mine")
    server.put(REPOSITORY, ".gitattributes", b"")
    smaller = exported(tmp_path / "smaller", {"train": [2]})
    code, told = publish(server, smaller)
    assert code == 0, told
    assert there(server).keys() == content_of(smaller).keys() | {"notes.md", ".gitattributes"}


def test_files_that_export_did_not_write_stay_here(server, folder):
    (folder / "secret.txt").write_text("password")
    (folder / "data" / "notes.parquet").write_text("")
    code, told = publish(server, folder)
    assert code == 0, told
    assert there(server).keys() == content_of(folder).keys() - {"secret.txt", "data/notes.parquet"}


def test_a_wrong_token_is_one_message(server, folder):
    code, told = publish(server, folder, token="hf_wrong")
    assert code == 2
    assert "401" in told
    assert "hf auth login" in told
    assert "hf_wrong" not in told


def remove_one(folder: Path) -> None:
    (folder / "data" / "train-00001-of-00002.parquet").unlink()


def leave_one(folder: Path) -> None:
    (folder / "data" / "train-00000-of-00003.parquet").write_bytes(b"")


def cut_one(folder: Path) -> None:
    path = folder / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def everything(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("data/train-*.parquet", "'*'"))


def outside(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("data/train-*.parquet", "../train-*.parquet"))


def no_card(folder: Path) -> None:
    (folder / "README.md").unlink()


def other_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# a model\n")


def broken_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\na: [\n---\n")


def a_run(folder: Path) -> None:
    (folder / "manifest.lock.yaml").write_text("")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (remove_one, "not the whole of one export"),
        (leave_one, "not the whole of one export"),
        (cut_one, "train-00001-of-00002.parquet cannot be believed"),
        (everything, "no card of editpairs export"),
        (outside, "no card of editpairs export"),
        (no_card, "has no README.md"),
        (other_card, "names no data files"),
        (broken_card, "cannot be read"),
        (a_run, "is a run: export it first"),
    ],
)
def test_a_folder_that_is_no_whole_export_is_refused_before_anything_is_sent(folder, change, why):
    from pipeline.errors import UserError
    from pipeline.exports.folder import read_export

    change(folder)
    with pytest.raises(UserError, match=why):
        read_export(folder)


def test_a_folder_in_a_store_is_refused():
    from pipeline.errors import UserError
    from pipeline.exports.folder import read_export
    from pipeline.store.location import locate

    with pytest.raises(UserError, match="is a local one"):
        read_export(locate("s3://pairs/x"))


def test_tars_are_counted_by_their_samples(tmp_path):
    from pipeline.errors import UserError
    from pipeline.exports.folder import read_export

    folder = exported(tmp_path / "tars", {"train": [1]})
    card = folder / "README.md"
    card.write_text(card.read_text().replace("data/train-*.parquet", "train-*.tar"))
    path = folder / "train-00000-of-00001.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.input.png", "a.json", "b.json"):
            content = json.dumps({}).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    assert read_export(folder).sides["train"].rows == 2
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match="cannot be read"):
        read_export(folder)


@pytest.mark.parametrize("name", ["pairs", "me/pairs/more", "me/a b", ""])
def test_a_repository_s_name_is_checked(name):
    from pipeline.errors import UserError
    from pipeline.exports.upload import check_repository

    with pytest.raises(UserError):
        check_repository(name)
