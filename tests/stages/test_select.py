"""Near duplicates against a brute-force search, quotas against their definition, and the stage's rule."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.pictures.perceptual_hash import perceptual_hash
from stages.select.balance import quotas
from stages.select.near_duplicates import MOST_BITS, near_duplicates
from stages.select.stage import Select, SelectConfig
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks({"local": tiny_task(), "color": tiny_task("color")}, known=["style"])


@given(st.integers(0, MOST_BITS), st.integers(0, 10_000), st.integers(1, 60))
def test_near_duplicates_are_those_that_a_search_of_all_pairs_finds(bits, seed, count):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (count, 16), np.uint8)
    for row in range(1, count):  # most are some other row's, a few bits away
        if rng.random() < 0.7:
            flipped = np.unpackbits(hashes[rng.integers(row)])
            flipped[rng.choice(128, rng.integers(0, 2 * bits + 3), replace=False)] ^= 1
            hashes[row] = np.packbits(flipped)
    distance = np.unpackbits(hashes[:, None] ^ hashes[None], axis=2).sum(2)
    expected = [bool((distance[row, :row] <= bits).any()) for row in range(count)]
    assert near_duplicates(hashes, bits).tolist() == expected


COUNTS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 200), min_size=1)
SHARES = st.dictionaries(st.sampled_from("abcde"), st.floats(0.05, 1))


@given(COUNTS, SHARES)
def test_no_task_has_more_than_its_share_and_no_row_could_be_added(counts, shares):
    kept = quotas(counts, shares)
    total = sum(kept.values())
    for task, number in kept.items():
        assert 0 <= number <= counts[task]
        assert number <= shares.get(task, 1) * total + 1e-6
    for task in counts:
        if kept[task] < counts[task]:
            assert kept[task] + 1 > shares[task] * (total + 1) - 1e-6, "one more would break its own share"


def test_quotas_of_an_example():
    assert quotas({"color": 60, "add": 30, "local": 10}, {"color": 0.5}) == {
        "color": 40,
        "add": 30,
        "local": 10,
    }
    assert quotas({"color": 60, "add": 30}, {}) == {"color": 60, "add": 30}


def table(*rows: tuple[str, float, int, int]) -> pa.Table:
    tasks, ranks, anchors, targets = zip(*rows, strict=True)
    return pa.table(
        {
            "id": [f"{number:032x}" for number in range(len(rows))],
            "checked_task": list(tasks),
            "rank": pa.array(ranks, pa.float32()),
            "anchor_hash": pa.array(anchors, pa.int64()),
            "target_hash": pa.array(targets, pa.int64()),
        }
    )


def decided(rows: pa.Table, **config) -> list[str]:
    stage = Select(SelectConfig(**config), TASKS)
    stage.survey(iter([rows.slice(0, 2), rows.slice(2)]))
    return stage(rows)["reason"].to_pylist()


def test_the_first_of_pairs_that_look_alike_stays():
    rows = table(("local", 0.1, 5, 9), ("color", 0.9, 5, 9), ("local", 0.2, 5, -9), ("local", 0.3, 7, 9))
    assert decided(rows, near_duplicate_bits=0) == ["", "near_duplicate", "", ""]
    assert decided(rows, near_duplicate_bits=1) == ["", "near_duplicate", "", "near_duplicate"]
    assert decided(rows, near_duplicate_bits=None) == [""] * 4


def test_rows_of_the_lowest_rank_go_where_a_task_has_too_many():
    rows = table(
        ("local", 0.5, 1, 1), ("local", -np.inf, 2**40, 2), ("local", 0.7, 2**50, 3), ("color", 0.1, -1, -4)
    )
    reasons = decided(rows, balance={"local": 0.5}, near_duplicate_bits=0)
    assert reasons == ["over_quota", "over_quota", "", ""]


def test_equal_ranks_are_ordered_by_id_not_by_place():
    rows = table(*[("local", 0.5, number << 20, number << 40) for number in range(5)], ("color", 0, -1, -1))
    backwards = rows.take(list(range(6))[::-1])
    forth, back = (
        dict(
            zip(
                given["id"].to_pylist(),
                decided(given, balance={"local": 0.6}, near_duplicate_bits=0),
                strict=True,
            )
        )
        for given in (rows, backwards)
    )
    assert forth == back
    assert sum(reason == "over_quota" for reason in forth.values()) == 4


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ({"locl": 0.5}, r"select\.balance\.locl: there is no such task"),
        ({"local": 0.3, "color": 0.3}, "sum to less than 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(balance, message):
    with pytest.raises(ValueError, match=message):
        Select(SelectConfig(balance=balance), TASKS)


def test_a_share_of_a_task_outside_the_mixture_is_not_used():
    rows = table(("local", 0.5, 1, 1), ("local", 0.4, 2**40, 2))
    assert decided(rows, balance={"style": 0.1}, near_duplicate_bits=0) == ["", ""]


def test_pictures_that_look_alike_have_near_hashes():
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (8, 8, 3), np.uint8)
    picture = np.kron(rough, np.ones((16, 16, 1))).astype(np.uint8)
    noisy = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    other = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((16, 16, 1))).astype(np.uint8)

    def distance(a: np.ndarray, b: np.ndarray) -> int:
        return ((perceptual_hash(a) ^ perceptual_hash(b)) & (2**64 - 1)).bit_count()

    assert distance(picture, picture) == 0
    assert distance(picture, noisy) <= 4
    assert distance(picture, noisy[::2, ::2]) <= 8
    assert distance(picture, other) > 16
