"""The server of a review over HTTP: what it answers, to whom, and what it refuses."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.audit.file_checks import recount
from pipeline.cli import app
from pipeline.errors import UserError
from pipeline.verdicts.pictures import VIEWS
from pipeline.verdicts.server import Review
from pipeline.verdicts.session import SHARED
from stages.pictures.png import decode_rgb, png_size
from tests.pipeline.reviews import Reviewed, ask
from tests.toybox_runs import ROOT


@pytest.fixture(scope="module")
def opened(toybox_run):
    return Reviewed(toybox_run.folder)


@pytest.fixture
def run(opened, tmp_path):
    """The run with no verdict yet."""
    return opened.with_verdicts_in(tmp_path)


@pytest.fixture
def copied(toybox_run, tmp_path):
    """A copy of the run for whole commands."""
    return shutil.copytree(toybox_run.folder, tmp_path / "run")


def given(state: dict, verdict: str = "right", reason: str = "") -> dict:
    item = state["item"]
    return {name: item[name] for name in ("id", "turn", "candidate")} | {"verdict": verdict, "reason": reason}


def test_a_verdict_is_in_the_file_before_the_next_pair_comes(run):
    with run.served() as page:
        first = ask(page.address + "state").json
        second = ask(page.address + "verdict", given(first, "wrong", "outside")).json
        [stored] = run.book.read()
    assert (stored.id, stored.candidate) == (first["item"]["id"], first["item"]["candidate"])
    assert (stored.verdict, stored.reason, stored.who) == ("wrong", "outside", "anna")
    assert stored.stratum.split()[0] == first["item"]["task"]
    assert stored.stratum_rows >= 1
    assert second["item"] != first["item"]
    assert second["progress"]["mine"] == 1


def test_the_page_hides_the_filters_decision_and_scores(run):
    with run.served() as page:
        item = ask(page.address + "state").json["item"]
    assert set(item) == {
        "id", "turn", "candidate", "candidates", "task", "damage", "instruction", "input_caption",
        "output_caption",
    }  # fmt: skip


def test_every_row_is_asked_once_until_none_is_left(run):
    candidates = [(d.row.id, k) for d in run.draw.rows for k in range(len(d.row.scores))]
    seen = []
    with run.served() as page:
        state = ask(page.address + "state").json
        while state["item"]:
            seen.append((state["item"]["id"], state["item"]["candidate"]))
            state = ask(page.address + "verdict", given(state)).json
    assert seen == candidates
    assert state["progress"]["judged"] == state["progress"]["rows"]
    assert state["progress"]["precision"].startswith("1.00")


def test_undo_takes_the_verdict_back_and_shows_its_pair_again(run):
    with run.served() as page:
        first = ask(page.address + "state").json
        ask(page.address + "verdict", given(first))
        back = ask(page.address + "undo", {}).json
        assert back["item"] == first["item"]
        assert run.book.read() == []
        assert ask(page.address + "undo", {}).json["item"] == first["item"], "nothing to take back"


def test_pictures_are_full_size_and_of_the_pair(run):
    with run.served() as page:
        item = ask(page.address + "state").json["item"]
        place = f"{page.address}picture/{item['id']}/{item['turn']}/{item['candidate']}/"
        pictures = {view: ask(f"{place}{view}.png") for view in VIEWS}
        assert ask(f"{place}anything.png").status == 404
        assert ask(f"{page.address}picture/{'0' * 32}/1/0/input.png").status == 404
    assert {answer.headers["Content-Type"] for answer in pictures.values()} == {"image/png"}
    assert {png_size(answer.body) for answer in pictures.values()} == {(64, 64)}
    i, tar, difference = (decode_rgb(pictures[v].body).astype(int) for v in ("input", "target", "difference"))
    assert (difference == abs(i - tar).clip(0, 85) * 3).all()


def test_people_share_every_fifth_row_and_divide_the_others(run):
    order = [d.row.id for d in run.draw.rows]
    for who in ("anna", "bob"):
        session = run.session(who)
        for _ in range(10 if who == "anna" else 100):
            if (item := session.next()) is not None:
                session.give(item, "right", "")
    by_row = Counter(dict.fromkeys(((v.id, v.who) for v in run.book.read()), 1))
    people = Counter(row for row, _ in by_row)
    annas = {row for row, who in by_row if who == "anna"}
    assert {order.index(row) % SHARED for row, count in people.items() if count == 2} <= {0}
    assert set(order) == set(people), "bob judges the rest"
    assert annas & {row for row, count in people.items() if count == 2}
    assert run.session("cem").progress().agreement


def test_another_process_verdicts_are_seen(run):
    anna, bob = run.session("anna"), run.session("bob")
    anna.give(anna.next(), "right", "")
    bob.give(bob.next(), "right", "")
    anna.give(anna.next(), "right", "")
    assert anna.progress().mine == 2
    assert len({v.who for v in run.book.read()}) == 2


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def test_every_answer_has_a_strict_policy_and_nothing_of_another_place(run):
    with run.served() as page:
        answers = [ask(page.address + name) for name in ("", "review.js", "review.css", "state", "no")]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    for answer in answers[:3]:
        text = answer.body.decode()
        assert "http" not in text
        assert "<script>" not in text
        assert "innerHTML" not in text
        assert " style=" not in text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "[::1]", ""])
def test_a_request_for_another_host_is_refused(run, host):
    """A name that an attacker points at 127.0.0.1."""
    with run.served() as page:
        assert ask(page.address + "state", Host=host).status == 403
        assert ask(page.address + "state", Host=f"localhost:{page.server_port}").status == 200


def test_a_page_of_another_origin_can_neither_read_nor_judge(run):
    with run.served() as page:
        first = ask(page.address + "state").json
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{page.server_port}"):
            assert ask(page.address + "verdict", given(first), Origin=origin).status == 403
        assert ask(page.address + "verdict", given(first), Content_Type="text/plain").status == 415
        assert run.book.read() == []
        own = ask(page.address + "verdict", given(first), Origin=page.address.rpartition("/")[0][:-33])
        assert own.status == 200


def test_without_the_token_there_is_nothing(run):
    with run.served() as page:
        root = f"http://127.0.0.1:{page.server_port}/"
        for path in ("", "state", "x/state", page.token, page.token[:-1] + "/", f"{page.token}x/state"):
            assert ask(root + path).status == 404, path
        for name in ("../../review.js", "%2e%2e/review.js", "review.html", "state/", "//state"):
            assert ask(page.address + name).status == 404, name
        assert page.server_address[0] == "127.0.0.1"
    with run.served() as other:
        assert other.token != page.token
        assert len(other.token) >= 32


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        ({"id": "x"}, 404),
        ({"id": "0" * 32, "turn": 1, "candidate": 0, "verdict": "right", "reason": ""}, 404),
        ({"verdict": "good"}, 400),
        ({"candidate": "0"}, 400),
        ({"candidate": 99}, 404),
        ({"reason": "x" * 201}, 400),
        ({"who": "bob"}, 400),
        (b"x" * 5000, 413),
    ],
)
def test_what_is_no_verdict_is_refused_and_the_next_one_taken(run, body, status):
    with run.served() as page:
        first = ask(page.address + "state").json
        whole = body if isinstance(body, bytes) or len(body) > 1 else given(first) | body
        assert ask(page.address + "verdict", whole).status == status
        assert run.book.read() == []
        assert ask(page.address + "verdict", given(first)).status == 200


def test_a_pair_that_cannot_be_read_is_said_so_and_can_be_passed_over(copied):
    run = Reviewed(copied)
    first = run.draw.rows[0].row
    path = copied / "edit" / f"{first.part:05d}.parquet"
    content = bytearray(path.read_bytes())
    content[1000:-8000] = bytes(len(content) - 9000)
    path.write_bytes(content)
    with run.served() as page:
        state = ask(page.address + "state").json
        assert state["item"]["damage"]
        assert "instruction" not in state["item"]
        place = f"{page.address}picture/{first.id}/1/0/input.png"
        assert ask(place).status == 500
        assert "cannot be believed" in ask(place).json["error"]
        assert ask(page.address + "verdict", given(state, "unsure")).status == 200


def test_a_verdict_that_cannot_be_stored_is_said_so_and_asked_again(run, monkeypatch):
    with run.served() as page:
        first = ask(page.address + "state").json
        full = OSError(28, "No space left on device")
        monkeypatch.setattr(
            "pipeline.store.new_file.os.fsync", lambda descriptor: (_ for _ in ()).throw(full)
        )
        told = ask(page.address + "verdict", given(first))
        assert (told.status, "No space left" in told.json["error"]) == (500, True)
        monkeypatch.undo()
        assert ask(page.address + "state").json["item"] == first["item"]


def command(*arguments: object):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return CliRunner().invoke(app, ["review", *map(str, arguments)])


def test_the_command_takes_a_file_and_tells_what_it_says(copied, run, tmp_path):
    lines = [f"{d.row.id},0,right\n" for d in run.draw.rows if len(d.row.scores) == 1]
    (tmp_path / "v.csv").write_text("id,candidate,verdict\n" + "".join(lines))
    told = command(copied, "--from", tmp_path / "v.csv", "--who", "judge")
    assert told.exit_code == 0, told.output
    assert f"{len(lines)} verdicts of" in told.output
    assert "precision of kept" in told.output
    assert {v.who for v in run.with_verdicts_in(copied).book.read()} == {"judge"}
    assert command("--help").exit_code == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (f"{'0' * 32},0,right\n", "the filter of this run has not decided about such a row"),
        ("{row},77,right\n", "there is no candidate 77"),
    ],
)
def test_a_file_about_other_rows_adds_nothing(copied, run, tmp_path, lines, told):
    row = run.draw.rows[0].row.id
    content = "id,candidate,verdict\n{row},0,right\n" + lines
    (tmp_path / "v.csv").write_text(content.replace("{row}", row))
    ended = command(copied, "--from", tmp_path / "v.csv")
    assert ended.exit_code == 2
    assert told in " ".join(ended.output.split())
    assert not (copied / "verdicts.parquet").exists()


def test_wrong_names_runs_and_ports_are_messages(toybox_run, run, tmp_path):
    assert "there is no run" in command(tmp_path / "none").output
    assert "--who" in command(toybox_run.folder, "--who", "x" * 300, "--from", "v.csv").output
    with run.served() as page, pytest.raises(UserError, match="--port"):
        Review(page.session, page.exhibits, page.server_port)


def test_the_command_serves_until_ctrl_c(copied, run):
    code = "from pipeline.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "review", str(copied)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    lines = iter(process.stdout.readline, "")
    address = next(line.strip() for line in lines if line.startswith("http"))
    first = ask(address + "state").json
    assert ask(address + "verdict", given(first)).status == 200
    process.send_signal(signal.SIGINT)
    rest = process.communicate()[0]
    assert process.returncode == 0
    assert "rows judged" in rest
    assert len(run.with_verdicts_in(copied).book.read()) == 1


def test_validate_reads_every_byte_of_the_verdicts(copied, run):
    there = run.with_verdicts_in(copied)
    there.session().give(there.session().next(), "right", "")
    state = open_run(copied).state
    assert not [found for found in recount(state) if not found.fine]
    content = bytearray(there.book.path.read_bytes())
    content[200] ^= 1
    there.book.path.write_bytes(content)
    wrong = [found for found in recount(open_run(copied).state) if not found.fine]
    assert [found.where for found in wrong] == ["verdicts.parquet: its content is not what was committed"]
