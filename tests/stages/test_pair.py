from stages.pair import EditPair, anchor_and_edit_prompts, as_pair, inverse_captions, inverse_instruction
from tests.stages.tiny_tasks import tiny_task

FORWARD, REVERSE = tiny_task("remove"), tiny_task("add", direction="reverse")


def test_a_forward_task_publishes_the_anchor_as_input():
    assert as_pair(FORWARD, "anchor", "edit", "with a car", "empty") == EditPair(
        input="anchor", target="edit", input_caption="with a car", output_caption="empty"
    )


def test_a_reverse_task_publishes_the_anchor_as_target():
    assert as_pair(REVERSE, "anchor", "edit", "empty", "with a car") == EditPair(
        input="edit", target="anchor", input_caption="empty", output_caption="with a car"
    )


def test_every_picture_keeps_the_caption_it_was_drawn_from():
    for task in (FORWARD, REVERSE):
        row = {"caption": "before", "output_caption": "after", "surroundings": ""}
        drawn_from = dict(zip(("anchor", "edit"), anchor_and_edit_prompts(task, row), strict=True))
        pair = as_pair(task, "anchor", "edit", "before", "after")
        assert drawn_from == {pair.input: pair.input_caption, pair.target: pair.output_caption}


def test_the_picture_without_the_object_is_drawn_from_its_surroundings():
    fields = {"original_object": "in_input", "edited_object": "not_in_output", "caption": "changed"}
    fields["surroundings"] = "required"
    row = {"caption": "a red car and a ball", "output_caption": "a ball", "surroundings": "a meadow"}
    removing = tiny_task("remove", fields=fields)
    assert anchor_and_edit_prompts(removing, row) == ("a red car and a ball", "a meadow")
    adding = tiny_task("add", fields=fields, direction="reverse")
    row = {"caption": "a ball", "output_caption": "a red car and a ball", "surroundings": "a meadow"}
    assert anchor_and_edit_prompts(adding, row) == ("a red car and a ball", "a meadow")


def test_an_inverse_is_worded_by_the_task_s_template_and_braces_in_phrases_are_data():
    row = {"caption": "c", "original_object": "a {caption} car", "edited_object": "a blue car"}
    task = tiny_task(inverse={"index": 3, "instruction": "turn {the_edited_object} into {original_object}"})
    assert inverse_instruction(task, row) == "turn the blue car into a {caption} car"
    assert inverse_instruction(task, {**row, "original_object": None}) is None
    assert inverse_instruction(tiny_task(), row) is None


def test_the_way_back_from_a_sketch_names_the_picture_once():
    sketch = tiny_task(
        "sketch",
        inverse={"index": 3, "instruction": "turn it into {a_picture}", "caption": "a sketch of {shown}"},
    )
    row = {"caption": "A photo of a red car.", "output_caption": "A photo of a red car."}
    assert inverse_instruction(sketch, row) == "turn it into a photo of a red car"
    assert inverse_captions(sketch, row) == ("a sketch of a red car", "A photo of a red car.")
    assert inverse_instruction(sketch, {"caption": " "}) is None


def test_the_captions_backwards_are_those_forwards_swapped():
    row = {"caption": "before", "output_caption": "after"}
    task = tiny_task(inverse={"index": 3, "instruction": "add {original_object}"})
    assert inverse_captions(task, row) == ("after", "before")
    assert inverse_captions(tiny_task(), row) is None
