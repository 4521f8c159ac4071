import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toybox.world.phrases import absent_phrase, present_phrase
from toybox.world.scene import COLORS, KINDS, TEXTURE_NAMES, Thing, sample_scene, vocabulary

seeds = st.integers(0, 2**32 - 1)


def fits(phrase: str, thing: Thing) -> bool:
    """Whether a phrase is true of a thing: everything that it names is so."""
    named = set(phrase.split())
    return all(
        not named & set(values) or value in named
        for values, value in ((KINDS, thing.kind), (COLORS, thing.color), (TEXTURE_NAMES, thing.texture))
    )


@given(seeds, st.integers(0, 2))
def test_absent_phrases_fit_nothing_in_the_scene(seed, things):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, things)
    phrase = absent_phrase(scene, rng)
    assert not any(fits(phrase, thing) for thing in scene.things)
    assert set(phrase.split()) <= set(vocabulary())
    assert phrase.split()[-1] in KINDS


@given(seeds)
def test_present_phrases_fit_their_thing_alone(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, 2)
    phrase = present_phrase(scene.things[0], rng)
    assert fits(phrase, scene.things[0])
    assert not fits(phrase, scene.things[1])
    assert set(phrase.split()) <= set(vocabulary())
