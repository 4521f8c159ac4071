"""A dataset card shows names of others as they are, whatever they hold."""

import re

import pyarrow as pa
import yaml
from datasets import Features
from hypothesis import example, given
from hypothesis import strategies as st

from stages.shards.card import (
    code,
    dataset_card,
    features,
    front_matter,
    plain,
    provenance,
    size_category,
    table,
)
from stages.shards.columns import SCHEMA, huggingface_metadata

HOSTILE = "a|b\n| c | ``` `x` [y](http://evil) <img src=x> \x1b \u202e *d* \\"


def cells(line: str) -> int:
    """Of a line of a table: GitHub's Markdown splits at every ``|`` that no backslash is before."""
    return line.replace("\\\\", "").replace("\\|", "").count("|") - 1


@example("", "\\|")
@given(st.text(), st.text(st.sampled_from("a|\\` \n")))
def test_every_line_of_a_table_has_its_cells(first, second):
    lines = table(("a", "b:"), [(plain(first), code(second))]).splitlines()
    assert len(lines) == 3
    assert all(cells(line) == 2 for line in lines)


@given(st.text(st.sampled_from("`|\\ab \n"), max_size=20))
def test_code_ends_where_it_should(text):
    made = code(text)
    fence = made[: len(made) - len(made.lstrip("`"))]
    inner = made[len(fence) : len(made) - len(fence)]
    assert made.endswith(fence)
    assert fence not in [
        run for run in inner.replace("a", " ").replace("b", " ").split() if set(run) == {"`"}
    ]


@example("\x85")
@example("a\u2028b\n\u2029")
@given(st.text())
def test_the_front_matter_gives_back_any_name(name):
    header = front_matter(name, {"train": "train-*.parquet"}, 0, SCHEMA)
    card = dataset_card(header, "# text\n---\nmore")
    found = yaml.safe_load(card.split("---\n")[1])["pretty_name"]
    assert found == re.sub("[\x85\u2028\u2029]", " ", name)


def test_hostile_names_break_nothing():
    summary = {"name": HOSTILE, "seed": 0, "planned": 1, "published": 1, "models": {HOSTILE: HOSTILE}}
    title, _, tasks, models = provenance(summary, {HOSTILE: 3})
    assert len(title.splitlines()) == 1
    for lines in (tasks.splitlines(), models.splitlines()):
        assert len(lines) == 3
        assert all(cells(line) == 2 for line in lines)
    assert "\x1b" not in title + tasks + models
    assert "\\[y\\](http://evil) \\<img" in title


def test_the_features_are_what_datasets_writes():
    schema = pa.schema([*SCHEMA, ("json", pa.struct([("a", pa.int16()), ("b", pa.list_(pa.float32()))]))])
    told = Features.from_arrow_schema(schema.with_metadata(huggingface_metadata(schema)))
    assert features(schema) == told._to_yaml_list()


@given(st.integers(0, 10**14))
def test_a_size_category_holds_the_number_of_rows(rows):
    ends = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
    low, _, high = size_category(rows).rpartition("n")
    bound = {side: int(text.strip("<>")[:-1]) * ends[text.strip("<>")[-1]] for side, text in
             (("low", low), ("high", high)) if text}  # fmt: skip
    if high.startswith(">"):
        assert rows >= bound["high"]
    else:
        assert bound.get("low", 0) <= rows < bound["high"]
