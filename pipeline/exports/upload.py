"""``editpairs publish``: send an export to a dataset repository of the Hugging Face Hub.

huggingface_hub sends it, in one or several commits. What has arrived stays, and a repetition sends only what
is missing. Endpoint and token are that library's own: ``HF_ENDPOINT``, and ``HF_TOKEN`` or ``hf auth login``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import UserError, describe
from pipeline.exports.folder import CARD, ExportFolder


def check_repository(repository: str) -> None:
    """Check a repository's name without asking the Hub.

    Raises:
        UserError: it is not ``owner/name``, or has characters that no name has.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{repository}: {error}") from error
    if "/" not in repository:
        raise UserError(f"{repository}: a repository is named owner/name")


def send(export: ExportFolder, repository: str, private: bool) -> str:
    """Make the repository if there is none, and send card and data files. Returns the last commit's address.

    Data files of an earlier export are removed with the first commit: their rows would be read beside these.

    Raises:
        UserError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _told(repository):
        api.create_repo(repository, repo_type="dataset", private=private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=export.root,
            allow_patterns=[CARD, *export.patterns],
            delete_patterns=export.patterns,
            commit_message="Pairs exported by editpairs",
        )
    return str(commit.commit_url)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Turn an error of huggingface_hub into one message; it, its HTTP client and hf_xet raise many kinds."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{repository} was not published: {' '.join(describe(error).split())} (the token is that of "
            "HF_TOKEN or hf auth login, the server that of HF_ENDPOINT). What has arrived stays, and the "
            "same command goes on."
        ) from error
