"""A run from pictures without captions: a server describes renders of held-out scenes; two are broken."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from pipeline.exports import side_of
from pipeline.store import events
from pipeline.store.location import locate
from pipeline.store.plan import origins
from stages.pictures.photograph import fitted, open_photograph
from stages.pictures.png import decode_rgb
from tests.stages.chat_server import ChatServer, Handler, completion, pictures_in
from tests.test_photographs_run import ROOT, SETTINGS, pictures

ROWS = 10
TALK = 2
"""The picture of which the server first says nothing of use."""
MUTE = 3
"""The picture of which it never does."""


class Describer(ChatServer):
    """Knows the caption of each picture that it may be shown."""

    def __init__(self, folder: Path, lines: list[dict]) -> None:
        super().__init__(default=self.describe)
        self.captions = {}
        for number, line in enumerate(lines[: ROWS - 2]):
            shown = fitted(open_photograph((folder / line["image"]).read_bytes()), (128, 128))
            self.captions[shown.tobytes()] = number, line["caption"]
        self.shown: Counter[int] = Counter()

    def describe(self, handler: Handler, times: int) -> None:
        asked = handler.body["messages"][-1]["content"]
        [picture] = pictures_in(asked)
        number, caption = self.captions[picture.tobytes()]
        self.shown[number] += 1
        answer = json.dumps({"caption": caption})
        if number == MUTE or (number == TALK and "At most 30 words" in asked[0]["text"]):
            answer = "Sure! Here is what I see."
        said = {**completion(answer), "usage": {"prompt_tokens": 500, "completion_tokens": 20}}
        handler.reply(json.dumps(said).encode())


class Described:
    """The run and its inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "photographs"
        whole = pictures(folder)
        self.lines = [json.loads(line) for line in whole.read_text().splitlines()]
        given = [
            {"image": line["image"], "caption": line["caption"] * (k == 0)}
            for k, line in enumerate(self.lines)
        ]
        (folder / "given.jsonl").write_text("".join(json.dumps(line) + "\n" for line in given))
        whole.unlink()
        self.server = Describer(folder, self.lines)
        endpoint = {"base_url": self.server.url, "api_key_variable": "TEST_KEY", "retries": 0}
        section = {"model": "toybox-describer", "attempts": 2, "endpoint": endpoint}
        self.settings = [
            *SETTINGS,
            f"runs={folder}",
            f"captions.file={folder / 'given.jsonl'}",
            f"describe={json.dumps(section)}",
        ]

    def command(self, *arguments: str, settings: bool = False) -> str:
        sets = [part for key in self.settings if settings for part in ("--set", key)]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            told = CliRunner().invoke(app, [*arguments, *sets])
        assert told.exit_code == 0, (told.output, told.exception)
        return told.output

    def generate(self) -> None:
        self.command("generate", "manifests/toybox.yaml", "--engine", "local", settings=True)

    def part(self, stage: str) -> pandas.DataFrame:
        return pandas.concat(map(pandas.read_parquet, sorted((self.run / stage).glob("*.parquet"))))

    def published(self) -> pandas.DataFrame:
        return pandas.read_parquet(sorted((self.run / "shards").glob("train-*.parquet")))


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> Iterator[Described]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", "any")
        made = Described(tmp_path_factory.mktemp("described"))
        made.generate()
        yield made
    made.server.shutdown()
    made.server.server_close()


def test_pictures_without_captions_become_pairs_with_written_ones(described):
    plan = pandas.read_parquet(described.run / "plan.parquet").set_index("id")
    made = described.part("describe").set_index("id")
    made = made.assign(picture=plan.loc[made.index].picture).set_index("picture")
    assert len(made) == ROWS
    reasons = dict(made.reason[made.status != "kept"])
    assert reasons == {
        f"{MUTE}.jpg": "answer_not_json",
        f"{ROWS - 2}.jpg": "picture_broken",
        f"{ROWS - 1}.jpg": "picture_missing",
    }
    captions = {line["image"]: line["caption"] for line in described.lines}
    assert all(row.caption == captions[name] for name, row in made.iterrows() if row.status == "kept")
    assert dict(made.caption_origin.value_counts()) == {"describe": 6, "captions": 1}
    assert described.server.shown == {number: 1 + (number in (TALK, MUTE)) for number in range(1, ROWS - 2)}
    assert plan.caption.ne("").sum() == 1, "the plan keeps what was given"
    rows = described.published()
    assert len(rows) >= 3
    for row in rows.itertuples():
        name = plan.loc[row.id].picture
        assert row.input_caption == captions[name]
        assert row.caption_origin == ("captions" if name == "0.jpg" else "describe")
        before = decode_rgb(row.I["bytes"])
        whole = open_photograph((described.folder / name).read_bytes())
        assert (before == fitted(whole, before.shape[:2])).all()


def test_a_described_run_can_be_made_again_and_looked_at(described):
    rows = described.published()
    written = rows.id[rows.caption_origin == "describe"].iloc[0]
    asked = described.server.asked.total()
    assert "equal to the bit" in described.command("regenerate", str(described.run), written)
    run = str(described.run)
    for command in ("validate", "status", "cost", "report", "inspect"):
        described.command(command, run)
    shown = (described.run / "report.html").read_text(encoding="utf-8")
    assert "describe" in shown
    assert all(caption in shown for caption in rows.input_caption)
    told = described.command("check", "manifests/toybox.yaml", settings=True)
    assert "toybox-describer" in told
    spent = events.spent(described.run / "events.jsonl")["describe"]
    assert spent.answer_tokens == 20 * asked
    card = (described.run / "README.md").read_text(encoding="utf-8")
    assert "missing captions, instructions, masks and targets" in card
    assert "`caption_origin`" in card
    assert "toybox-describer@main" in card
    assert len(open_run(described.run).pairs()) == len(rows)


def test_the_side_of_a_picture_without_a_caption_is_its_own(described, tmp_path):
    out = tmp_path / "out"
    groups = origins(locate(str(described.run / "plan.parquet")), 0)
    rows = described.published()

    def expected(share: float) -> dict[str, str]:
        return {row_id: side_of(groups[row_id], share) for row_id in rows.id}

    share = next(
        share for share in np.arange(0.05, 1, 0.05).round(2) if len({*expected(share).values()}) == 2
    )
    export = ("export", str(described.run), "--to", "datasets", "--out", str(out), "--test-share", str(share))
    described.command(*export)
    sides = {
        side: pandas.concat(map(pandas.read_parquet, files))
        for side in ("train", "test")
        if (files := sorted((out / "data").glob(f"{side}-*.parquet")))
    }
    there = {row_id: side for side, frame in sides.items() for row_id in frame.id}
    assert there == expected(share), "pictures without captions are not all of one caption"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "missing captions, instructions, masks and targets" in card


def test_a_part_made_again_pays_for_no_answer_again(described):
    before = {path.name: path.read_bytes() for path in (described.run / "describe").glob("*.parquet")}
    asked = described.server.asked.total()
    for path in (described.run / "describe").glob("*.parquet"):
        path.unlink()
    described.generate()
    after = {path.name: path.read_bytes() for path in (described.run / "describe").glob("*.parquet")}
    assert after == before
    assert described.server.asked.total() == asked
