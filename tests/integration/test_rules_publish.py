"""Tests business rules that come with a publication."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from shortlist.batch import publish as publication
from shortlist.batch.cli import main
from shortlist.batch.container import ContainerOptions
from shortlist.batch.job import Job, stage_key
from shortlist.batch.operator_notes import keep_operators_changes
from shortlist.batch.publish import publish
from shortlist.batch.rules_file import read_rules
from shortlist.recsys.errors import InvalidInput, ReleaseRefused
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import ReleasePointer

PIN = {"pin": [{"item": "41", "place": 1}]}
BURY = {"bury": [{"item": "41"}]}


@pytest.fixture
def again(own, published, reporter) -> Callable[..., None]:
    """Publishes the release again, with these rules."""
    settings, _ = own

    def made(rules: dict[str, Any] | None) -> None:
        bundle, lists = published.work / "bundle", published.work / "lists"
        publish(bundle, lists, settings, reporter, rules=rules)

    return made


def test_file_replaces_what_was_put(own, again) -> None:
    """A publication with rules replaces all; the same ones again are no change."""
    admin = AdminStore(own[1])
    admin.write_rules(PIN, "an operator", 1, 0)
    again(BURY)
    assert (admin.rules().version, admin.rules().by, admin.rules().plain) == (2, "the batch", BURY)
    again(BURY)
    assert admin.rules().version == 2


def test_no_file_leaves_rules(own, again) -> None:
    """What an operator put between two releases outlives the next one."""
    admin = AdminStore(own[1])
    admin.write_rules(PIN, "an operator", 1, 0)
    again(None)
    assert (admin.rules().by, admin.rules().plain) == ("an operator", PIN)


def test_unfit_rules_stop_a_publication(own, again) -> None:
    """A rule about an attribute that no item has is refused, and nothing changes."""
    with pytest.raises(InvalidInput, match="rule 'boost 1': there is no attribute 'colour'"):
        again({"boost": [{"where": {"colour": "red"}}]})
    assert AdminStore(own[1]).rules().version == 0


def test_vain_rules_are_said(own, again, reporter) -> None:
    """A file that names what no item is or has is taken, and the batch says so."""
    again({"pin": [{"item": "none"}], "bury": [{"category": "nowhere"}]})
    said = reporter.console.file.getvalue()
    assert "rules: rule 'pin 1': the release has no item 'none'" in said
    assert "rules: rule 'bury 1': no item has categories 'nowhere'" in said


def test_a_refused_release_brings_no_rules(own, published, release, reporter, monkeypatch) -> None:
    """Where another release has come to serve meanwhile, that one keeps the rules that it had."""
    settings, store = own
    written = publication._written

    def overtaken(*arguments: Any) -> str:
        version = written(*arguments)
        releases.change(store, lambda _: ReleasePointer("another", published.version))
        return version

    monkeypatch.setattr(publication, "_written", overtaken)
    with pytest.raises(ReleaseRefused):
        publish(*release("v2"), settings, reporter, replaces=published.version, rules=BURY)
    assert AdminStore(store).rules().version == 0


def test_rules_outlive_redis(own, tmp_path: Path) -> None:
    """A Redis that comes back empty has them again from the next batch on."""
    _, store = own
    artefacts = open_artefacts(str(tmp_path / "artefacts"))
    admin = AdminStore(store)
    admin.write_rules(PIN, "an operator", 1, 0)
    keep_operators_changes(store, artefacts)
    kept = admin.rules()
    store.redis.delete(store.keys.rules(), store.keys.release())
    keep_operators_changes(store, artefacts)
    assert admin.rules() == kept


def test_removed_rules_stay_removed(own, tmp_path: Path) -> None:
    """A copy does not bring back rules that an operator has replaced since."""
    _, store = own
    artefacts = open_artefacts(str(tmp_path / "artefacts"))
    admin = AdminStore(store)
    admin.write_rules(PIN, "an operator", 1, 0)
    keep_operators_changes(store, artefacts)
    admin.write_rules({}, "an operator", 2, 1)
    keep_operators_changes(store, artefacts)
    assert admin.rules().plain == {}


def test_changed_rules_publish_again(own, published, tables: Path, tmp_path: Path) -> None:
    """Only the last stage depends on the file, by its content."""
    settings, _ = own
    path = tmp_path / "rules.toml"
    job = Job(str(tables / "interactions.parquet"), None, None, tmp_path, settings, None)
    keys = []
    for text in ("[[bury]]\nitem = 1", "[[bury]]\nitem = 2", "# the same\n[[bury]]\nitem = 2"):
        path.write_text(text)
        with_rules = replace(job, rules=read_rules(str(path)))
        keys.append(stage_key(with_rules, "publish"))
        assert stage_key(with_rules, "precompute") == stage_key(job, "precompute")
    assert keys[0] != keys[1] == keys[2]


def test_bad_file_is_refused_at_once(tables: Path, tmp_path: Path) -> None:
    """A command does not train before it says so."""
    path = tmp_path / "rules.toml"
    path.write_text("[[pin]]\nplace = 1")
    options = ["--interactions", str(tables / "interactions.parquet"), "--rules", str(path)]
    result = CliRunner().invoke(main, ["batch", "run", *options, "--work", str(tmp_path / "work")])
    assert result.exit_code != 0
    assert "pin 1: item is missing" in result.output
    assert not (tmp_path / "work").exists()


def test_file_may_lie_in_s3(bucket: str) -> None:
    """The container has no files of its own."""
    boto3.client("s3").put_object(Bucket=bucket, Key="rules.toml", Body=b"[[bury]]\nitem = 1")
    assert read_rules(f"s3://{bucket}/rules.toml") == {"bury": [{"item": 1}]}


def test_container_takes_a_file() -> None:
    """SHORTLIST_RULES names it."""
    environ = {"SHORTLIST_INTERACTIONS": "i.parquet", "SHORTLIST_RULES": "rules.toml"}
    assert ContainerOptions.from_env(environ).rules == "rules.toml"
    environ.pop("SHORTLIST_RULES")
    assert ContainerOptions.from_env(environ).rules is None
