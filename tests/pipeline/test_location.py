"""What a manifest or a command may name: a path or a URL that can be written to, without a secret in it."""

import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.manifest.manifest import read_manifest
from pipeline.store.location import is_local, list_folder, locate, stamps
from pipeline.views.run import open_state
from stages import STAGES
from tests.pipeline.runs import ROOT

SECRETS = [
    "s3://AKIAKEY:hunter2@bucket/x.parquet",
    "s3://hunter2@bucket/x.parquet",
    "https://user:hunter2@host/x.csv",
    "ftp://user:hunter2@host/x.csv",
    "https://host/x.csv?X-Amz-Signature=hunter2",
    "https://host/x.csv#hunter2",
    "simplecache::s3://user:hunter2@bucket/x.csv",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_in_a_url_is_refused_and_not_shown(url):
    with pytest.raises(UserError, match="credentials come from the environment") as raised:
        locate(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["captions.file", "runs"])
def test_no_key_of_a_manifest_takes_a_secret(key):
    manifest = ROOT / "manifests" / "toybox.yaml"
    made = read_manifest(manifest, [f"{key}={SECRETS[0]}"], STAGES)
    with pytest.raises(UserError, match="credentials"):
        made.captions.location if key == "captions.file" else made.folder  # noqa: B018


def test_an_address_of_ray_takes_no_secret():
    manifest = ROOT / "manifests" / "toybox.yaml"
    with pytest.raises(UserError, match=r"ray\.address") as raised:
        read_manifest(manifest, ["ray.address=ray://u:hunter2@head:10001"], STAGES)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("text", ["s3:/bucket/x", "s3:bucket/x", "S3:/bucket/x", "https:/host/x", "gs:/b/x"])
def test_a_mistyped_url_is_no_local_path(text):
    with pytest.raises(UserError, match=f"a URL is {text.partition(':')[0].lower()}://"):
        locate(text)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///x",
        "memory://x",
        "simplecache::s3://b/x",
        "a://b",
        "://b",
        "S3://b/x",
        "ftp://127.0.0.1:9/x",
    ],
)
def test_a_url_at_which_nothing_would_stay_is_refused(url):
    with pytest.raises(UserError, match=f"^{url}: "):
        locate(url)


@pytest.mark.parametrize(
    ("url", "package", "how"),
    [
        ("gs://bucket/x", "gcsfs", r"install gcsfs .*; pip install 'editpairs\[gs\]'$"),
        ("s3://bucket/x", "s3fs", r"[Ii]nstall s3fs.*; pip install 'editpairs\[s3\]'$"),
        ("az://bucket/x", "adlfs", r"[Ii]nstall adlfs [^\[]*$"),
    ],
)
def test_a_missing_package_of_a_store_is_one_message(monkeypatch, url, package, how):
    protocol = url.partition(":")[0]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(UserError, match=f"^{protocol}://bucket/x: .*{how}"):
        locate(url)


@pytest.mark.parametrize("text", ["a:b/x", "./s3:x", "/tmp/s3:/x", "runs/2026-01-01T00:00"])
def test_a_local_path_can_hold_a_colon(text):
    assert locate(text) == Path(text)


def test_a_file_url_is_a_local_path():
    assert locate("file:///tmp/a b") == Path("/tmp/a b")
    assert not is_local(locate("s3://pairs/x"))
    assert locate("s3://pairs/a@b/x?.csv").path == "pairs/a@b/x?.csv"


def test_a_tilde_is_the_home_folder_and_an_unknown_user_is_told(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert locate("~/runs/a") == Path("/home/me/runs/a")
    with pytest.raises(UserError, match="there is no user ~nobody-here"):
        locate("~nobody-here/runs")


def test_a_zero_byte_is_told():
    with pytest.raises(UserError, match="zero byte"):
        locate("runs/a\0b")


def test_a_link_in_a_circle_beside_a_folder_is_no_obstacle(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").mkdir()
    assert list_folder(tmp_path) == {"loop": False, "a": True}
    assert stamps(tmp_path).keys() == {"a"}
    with pytest.raises(UserError, match="there is no run at"):
        open_state(tmp_path / "a")
