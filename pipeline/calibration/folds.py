"""Splitting judged rows so that no caption is on both sides."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.errors import UserError
from pipeline.verdicts.estimate import Known

FOLDS = 5
LEAST_CAPTIONS = 2 * FOLDS
"""Least number of captions with a right, and with a wrong, candidate."""
LEAST_ROWS = 10
"""Least number of judged rows of a task that is calibrated."""


def folds(known: Sequence[Known]) -> Iterator[tuple[list[Known], list[Known]]]:
    """Yield (training, held out) for each of ``FOLDS`` folds; each row is held out once.

    Rows of one caption stay together, and rows with a wrong candidate are spread evenly. The split depends on
    nothing but the rows and their order.
    """
    wrong = [False in row.right for row in known]
    captions = [row.row.caption for row in known]
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for inside, outside in split.split(np.zeros(len(known)), wrong, captions):
        yield [known[place] for place in inside], [known[place] for place in outside]


def check_enough(known: Sequence[Known]) -> None:
    """Check that there are right and wrong verdicts to learn from, also in folds of folds.

    Raises:
        UserError: there are too few. The message says which.
    """
    for verdict, name in ((True, "right"), (False, "wrong")):
        captions = {row.row.caption for row in known if verdict in row.right}
        if len(captions) < LEAST_CAPTIONS:
            raise UserError(
                f"calibrate needs candidates judged {name} of at least {LEAST_CAPTIONS} captions, and has "
                f"{len(captions)}: judge more rows with editpairs review"
            )
    if not any(count >= LEAST_ROWS for count in judged_rows(known).values()):
        raise UserError(
            f"calibrate needs candidates judged of at least {LEAST_ROWS} rows of one task, and no task has "
            "as many: judge more rows with editpairs review"
        )


def judged_rows(known: Sequence[Known]) -> Counter[str]:
    """The number of rows with a verdict, by task."""
    return Counter(row.row.task for row in known if any(right is not None for right in row.right))
