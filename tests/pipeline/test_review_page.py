"""The page of a review in headless Chromium, with the keyboard alone and in a window of 400 pixels."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.verdicts.pictures import VIEWS
from pipeline.verdicts.verdict import REASONS
from tests.chromium import Chromium
from tests.pipeline.reviews import Reviewed

pytestmark = pytest.mark.full
LOADED = "[...document.images].every(i => !i.getAttribute('src') || i.complete && i.naturalWidth)"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e{{7*7}}"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def opened(toybox_run):
    return Reviewed(toybox_run.folder)


@pytest.fixture
def run(opened, tmp_path):
    return opened.with_verdicts_in(tmp_path)


@pytest.fixture(params=[1200, 400])
def page(request, run, chromium):
    """The open page, wide and narrow."""
    with run.served() as page:
        chromium.resize(request.param, 800)
        chromium.requests.clear()
        chromium.open(page.address)
        chromium.until("document.querySelector('#pair').dataset.row")
        chromium.until(LOADED)
        yield page
        assert [sent for sent in chromium.requests if not sent.startswith(page.address)] == []


def shown(chromium: Chromium) -> str:
    return chromium.value("document.querySelector('#pair').dataset.row")


def text(chromium: Chromium, selector: str) -> str:
    return chromium.value(f"document.querySelector({selector!r}).innerText")


def press_and_wait(chromium: Chromium, key: str) -> None:
    """Press a key that gives a verdict, and wait for another pair."""
    before = shown(chromium)
    chromium.press(key)
    chromium.until(f"document.querySelector('#pair').dataset.row !== {before!r} && !busy")


def test_one_key_gives_a_verdict_with_its_reason_and_another_takes_it_back(run, page, chromium):
    rows = []
    for key in ("r", "w", "u", *"123456"):
        rows.append(shown(chromium))
        press_and_wait(chromium, key)
    stored = run.book.read()
    assert [f"{v.id}/{v.turn}/{v.candidate}" for v in stored] == rows
    told = [("right", ""), ("wrong", ""), ("unsure", ""), *(("wrong", reason) for reason in REASONS)]
    assert [(v.verdict, v.reason) for v in stored] == told
    assert "9 verdicts by you" in text(chromium, "#told")
    press_and_wait(chromium, "Backspace")
    assert shown(chromium) == rows[-1]
    assert len(run.book.read()) == 8
    chromium.press("r")
    chromium.until(f"document.querySelector('#pair').dataset.row !== {rows[-1]!r}")
    assert run.book.read()[-1].verdict == "right"


def test_a_held_key_gives_one_verdict(run, page, chromium):
    press_and_wait(chromium, "r")
    for _ in range(5):
        chromium.press("r", repeat=True)
    chromium.value("fetch('state').then(reply => reply.json())")  # whatever was sent before has arrived
    assert len(run.book.read()) == 1


def test_every_button_can_be_reached_and_pressed_by_keyboard(run, page, chromium):
    reached = set()
    before = shown(chromium)
    for _ in range(40):
        chromium.press("Tab")
        reached.add(chromium.value("document.activeElement.dataset.key"))
        if chromium.value("document.activeElement.dataset.key") == "u":
            break
    assert {"s", "t", "f", "d", "m", "-", "+", "r", "w", "u"} <= reached
    chromium.press("Enter")
    chromium.until(f"document.querySelector('#pair').dataset.row !== {before!r}")
    assert run.book.read()[0].verdict == "unsure"
    assert chromium.value("document.activeElement.dataset.key") == "u", "the focus stays"


def visible(chromium: Chromium) -> list[str]:
    panes = ("input", "target", "difference")
    return [name for name in panes if chromium.value(f"document.getElementById('{name}').clientWidth > 0")]


def test_toggle_flicker_difference_and_mask_show_what_they_say(page, chromium):
    assert visible(chromium) == ["input", "target"]
    chromium.press("t")
    assert visible(chromium) == ["target"]
    chromium.press("t")
    assert visible(chromium) == ["input"]
    chromium.press("d")
    assert visible(chromium) == ["difference"]
    chromium.press("f")
    for name in ("input", "target", "input"):
        chromium.until(f"document.getElementById('{name}').clientWidth > 0")
        assert visible(chromium) == [name]
    chromium.press("s")
    assert visible(chromium) == ["input", "target"]
    chromium.press("m")
    chromium.until(LOADED)
    assert chromium.value("document.getElementById('target').src").endswith("/target-mask.png")
    assert chromium.value("document.querySelector('[data-key=m]').getAttribute('aria-pressed')") == "true"


def test_zoom_enlarges_both_pictures_and_arrows_move_them_together(page, chromium):
    for key, width in (("+", 64), ("+", 128), ("+", 256), ("+", 512), ("+", 512)):
        chromium.press(key)
        assert chromium.value("document.getElementById('input').clientWidth") == width
    assert chromium.value("document.getElementById('target').clientWidth") == 512
    chromium.resize(chromium.value("innerWidth"), 400)
    chromium.press("ArrowDown")
    chromium.until("[...document.querySelectorAll('.pane')].filter(p => p.scrollTop > 0).length === 2")
    tops = chromium.value("[...document.querySelectorAll('.pane')].slice(0, 2).map(p => p.scrollTop)")
    assert tops[0] == tops[1] > 0
    for _ in range(5):
        chromium.press("-")
    assert text(chromium, "#zoom") == "fit"


@pytest.mark.parametrize("size", [(64, 64), (80, 48), (48, 80), (1344, 768)])
def test_a_picture_of_any_proportion_fits_whole_into_its_pane(page, chromium, monkeypatch, size):
    """Pictures of this height and width take the place of the run's."""
    height, width = size
    monkeypatch.setitem(VIEWS, "input", lambda exhibit: np.zeros((height, width, 3), np.uint8))
    chromium.open(page.address)
    chromium.until(f"document.getElementById('input').naturalHeight === {height}")
    chromium.value("new Promise(requestAnimationFrame)")
    pane = "document.getElementById('input').parentElement"
    assert chromium.value(f"{pane}.scrollHeight <= {pane}.clientHeight")
    assert chromium.value(f"{pane}.scrollWidth <= {pane}.clientWidth")
    box = "document.getElementById('input').getBoundingClientRect()"
    shown_width, shown_height = (chromium.value(f"{box}.{side}") for side in ("width", "height"))
    assert shown_width / shown_height == pytest.approx(width / height, rel=0.02)
    assert max(shown_width, shown_height) > 150, "as large as fits"


def test_nothing_is_cut_off_at_the_side_and_the_verdicts_are_always_in_sight(page, chromium):
    press_and_wait(chromium, "r")
    assert chromium.value("document.documentElement.scrollWidth <= innerWidth")
    boxes = "[...document.querySelectorAll('#answers button')].map(b => b.getBoundingClientRect())"
    assert chromium.value(f"{boxes}.every(b => b.bottom <= innerHeight && b.height >= 40 && b.width >= 40)")


def test_texts_of_the_run_are_shown_and_do_nothing(run, page, chromium, monkeypatch):
    read = page.exhibits.read

    def hostile(item):
        return replace(read(item), instruction=HOSTILE, input_caption=HOSTILE, output_caption=HOSTILE)

    monkeypatch.setattr(page.exhibits, "read", hostile)
    press_and_wait(chromium, "r")
    chromium.until(LOADED)
    assert chromium.value("document.getElementById('instruction').textContent") == HOSTILE
    assert chromium.value("document.title") == "review: anna"
    assert chromium.value("document.images.length") == 3
    # What a script could still try, the policy stops.
    assert chromium.value("fetch('https://example.org').then(() => 'fetched', () => 'refused')") == "refused"
    inline = "Object.assign(document.createElement('script'), {textContent: 'document.title = 1'})"
    chromium.value(f"document.body.append({inline})")
    assert chromium.value("document.title") == "review: anna"


def test_the_last_pair_is_followed_by_a_word_and_undo_still_works(run, page, chromium):
    session = page.session
    while (item := session.next()) is not None:
        session.give(item, "right", "")
    last = session.undo()
    chromium.open(page.address)
    chromium.until("document.querySelector('#pair').dataset.row")
    chromium.press("r")
    chromium.until("document.querySelector('#pair').dataset.row === ''")
    assert text(chromium, "#instruction") == "Every row is judged."
    chromium.press("r")
    chromium.press("Backspace")
    chromium.until("document.querySelector('#pair').dataset.row")
    assert shown(chromium) == f"{last.key.id}/{last.key.turn}/{last.key.candidate}"


def test_an_error_is_shown_and_the_pair_stays(run, page, chromium, monkeypatch):
    before = shown(chromium)
    monkeypatch.setattr(page.session, "give", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    chromium.press("r")
    chromium.until("document.querySelector('#problem').textContent")
    assert "No space left" in text(chromium, "#problem")
    assert shown(chromium) == before
    monkeypatch.undo()
    press_and_wait(chromium, "r")
    assert len(run.book.read()) == 1
    assert text(chromium, "#problem") == ""
