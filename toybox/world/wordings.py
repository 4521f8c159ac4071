"""The wording of instructions in the drawn world: templates by task and verb."""

from collections.abc import Mapping

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "local": {
        "replace": ("replace {the} with {new}",),
        "swap": ("swap {the} for {new}",),
        "turn": ("turn {the} into {new}",),
        "change": ("change {the} into {new}",),
        "transform": ("transform {the} into {new}",),
        "exchange": ("exchange {the} for {new}",),
    },
    "remove": {
        verb: (f"{verb} {{the}}", f"{verb} {{the}} from the picture")
        for verb in ("remove", "delete", "erase", "eliminate")
    }
    | {verb: (f"{verb} {{the}}",) for verb in ("take out", "take away", "get rid of", "leave out")},
    "add": {
        verb: (f"{verb} {{new}} {{where}}",) for verb in ("add", "insert", "include", "place", "put", "set")
    },
    "texture": {
        "make": ("make {the} {texture}",),
        "give": ("give {the} a {texture} surface",),
        "cover": ("cover {the} with {cover}",),
        "coat": ("coat {the} with {cover}",),
        "turn": ("turn {the} into {new}",),
        "change": ("change the texture of {the} to {texture}",),
    },
    "background": {
        "change": ("change the background to {place}",),
        "replace": ("replace the background with {place}",),
        "swap": ("swap the background for {place}",),
        "move": ("move {the} to {place}",),
        "put": ("put {the} {in_place}",),
        "set": ("set the scene {in_place}",),
    },
    "global": {
        "make": ("make it {time}",),
        "turn": ("turn the {other_time} into {time}",),
        "change": ("change the time to {time}",),
        "transform": ("transform the picture into a {time} scene",),
        "set": ("set the scene {at_time}",),
        "show": ("show the scene {at_time}",),
    },
    "detect": {
        verb: (f"{verb} {{the}}",)
        for verb in ("detect", "find", "locate", "spot", "identify", "draw a box around", "put a box around")
    },
    "segment": {
        verb: (f"{verb} {{the}}",)
        for verb in ("segment", "mask", "highlight", "shade", "mark the pixels of", "create a mask of")
    },
    "adjust": {
        **{verb: (f"{verb} the picture {{how}}",) for verb in ("brighten", "darken", "blur", "sharpen")},
        **{
            verb: (f"{verb} {{how}}",)
            for verb in (
                "increase the contrast",
                "reduce the contrast",
                "increase the saturation",
                "reduce the saturation",
                "shift the hue",
            )
        },
    },
    "sketch": {
        "turn": ("turn the picture into a sketch",),
        "make": ("make a sketch of the picture",),
        "convert": ("convert the picture to a sketch",),
        "redraw": ("redraw the picture as a sketch",),
    },
    "color": {
        "make": ("make {the} {color}",),
        "paint": ("paint {the} {color}",),
        "recolor": ("recolor {the} in {color}",),
        "change": ("change the color of {the} to {color}",),
        "turn": ("turn {the} {color}",),
        "color": ("color {the} {color}",),
    },
}
"""Words in braces, such as {the} and {new}, are slots. Some slots have several phrases that fit."""


def wordings(task: str, verb: str, words: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Every instruction that begins with ``verb``, with each phrase that fits its slots."""
    texts = list(TEMPLATES[task][verb])
    for name, phrases in words.items():
        slot = f"{{{name}}}"
        texts = [
            text.replace(slot, phrase)
            for text in texts
            for phrase in (phrases if slot in text else phrases[:1])
        ]
    return [text.strip() for text in texts]
