"""A table of the run's models: what their licences say about training on outputs."""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel

from pipeline.exports.card import licence_of
from pipeline.shown import DataTable, plain_table
from stages.base import StageConfig, Weights
from stages.models.licences import BY_LICENCE, Terms, terms_of
from stages.models.weight_files import folder_of

UNKNOWN = "unknown"


def licence_table(configs: Iterable[StageConfig]) -> DataTable:
    """The licence of every model, and what it says about outputs; from a table of well-known names, or from
    the card in the model's folder."""
    table = plain_table("model", "licence", "about training on outputs", text=3)
    models = {model.model: model for config in configs for model in weights_in(config)}
    for name, model in sorted(models.items()):
        terms = _terms(model)
        table.add_row(name, terms.licence, terms.outputs)
    return table


def _terms(model: Weights) -> Terms:
    if model.path is None and (known := terms_of(model.model)):
        return known
    folder = folder_of(model)
    stated = "not stated" if folder is None else licence_of(str(folder))
    return Terms(UNKNOWN if stated == "not stated" else stated, BY_LICENCE.get(stated.lower(), UNKNOWN))


def weights_in(section: BaseModel) -> Iterator[Weights]:
    """Every section that names a model, servers' models included."""
    if isinstance(section, Weights):
        yield section
    for _, value in section:
        if isinstance(value, BaseModel):
            yield from weights_in(value)
