"""The files that say what version this is agree with the package."""

import re
from importlib.metadata import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = metadata("editpairs")


def test_the_newest_changes_are_those_of_the_package_s_version():
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == PACKAGE["Version"]


def test_the_citation_has_the_version_and_the_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PACKAGE["Version"], PACKAGE["License-Expression"])
