"""Compares the documents with the code, and runs their commands."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click
import pytest
from click.testing import CliRunner

from shortlist.batch import publish
from shortlist.batch.cli import main
from shortlist.infra.tools.docs import pages, with_tables
from shortlist.recsys import settings as settings_module
from tests.exports import write_export
from tests.servers import SMALL, as_process
from tests.smallest import smallest_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
README = ROOT / "README.md"
MAX_README_WORDS = 900
MAX_SENTENCE_WORDS = 35
SHELLS = ("sh", "console")

_FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SOURCE_PATH = re.compile(r"(?:recsys|batch|lambda_handler|infra|tests|docs)/[\w./-]*\w(?:\.\w+|/)")

TOUR_WORDS = {
    '"50"': '"5"',
    "/50/": "/5/",
    '"172"': '"7"',
    '"181"': '"8"',
    '"313"': '"9"',
    "category=Comedy": "category=group-1",
}
"""Ids of MovieLens in the tour, and those of the small world that it is run against."""

TUTORIAL_WORDS = {"000123": "1", "012950": "1", "2024-08-09 10:00:00": "2023-11-14 22:15:01"}
"""Ids and a time of the shop in the tutorial, and those of the small world."""

TRAINING = ("evaluate", "tune")
"""Commands that train, as `batch run` does: the test adds the smallest models' `--config`."""

CONTRACT_KEYS = ("source", "cache_hit", "degraded", "accepted", "duplicates", "code", "existed")
"""Keys of the tour's answers whose values do not depend on the data."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document, with the comment before it."""

    document: str
    mark: str
    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a document."""
    return [
        Block(path.name, match["mark"] or "", match["language"], match["text"])
        for match in _FENCE.finditer(path.read_text())
    ]


ALL_BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", text)


def sentences(text: str) -> Iterator[str]:
    """The sentences of paragraphs, list items and table cells."""
    for paragraph in re.split(r"\n\s*\n|\n(?=[-|#\d])", prose(text)):
        for cell in paragraph.split("|"):
            yield from re.split(r"(?<=[.!?:])\s+", cell)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def command_lines(text: str) -> list[str]:
    """The commands of a shell block, continued lines joined, comments cut off."""
    joined = text.replace("\\\n", " ")
    return [line for raw in joined.splitlines() if (line := raw.partition(" #")[0].strip())]


def shortlist_calls() -> list[tuple[str, str]]:
    """Each call of the command line in a shell block or a code span, with its document."""
    calls = [
        (block.document, line)
        for block in ALL_BLOCKS
        if block.language in SHELLS
        for line in command_lines(block.text)
    ]
    for path in DOCUMENTS:
        spans = _CODE_SPAN.findall(prose(path.read_text()).replace("\n", " "))
        calls += [(path.name, span) for span in spans]
    return [(name, line) for name, line in calls if line.startswith("shortlist ")]


def commands(group: click.Group, path: str) -> list[str]:
    """Every command of the command line, in full."""
    out: list[str] = []
    for name, command in group.commands.items():
        full = f"{path} {name}"
        out += commands(command, full) if isinstance(command, click.Group) else [full]
    return out


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_generated_tables_are_current(page: Path) -> None:
    """`make readme` would change nothing: no figure in the tables is typed by hand."""
    assert with_tables(page.read_text()) == page.read_text()


def test_every_setting_is_documented() -> None:
    """Each variable that the settings read stands in docs/settings.md."""
    source = Path(settings_module.__file__).read_text()
    names = set(re.findall(r'"(SHORTLIST_[A-Z_]+|REDIS_URL|EMBEDDING_DIM|LOSS)"', source))
    text = (ROOT / "docs" / "settings.md").read_text()
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_command_is_documented() -> None:
    """Each command of the command line is called in some document that a person wrote."""
    called = " ".join(line for name, line in shortlist_calls() if name != "commands.md") + " "
    assert {name for name in commands(main, "shortlist") if f"{name} " not in called} == set()


def test_every_call_is_a_command() -> None:
    """Each call of `shortlist` in a document names a command and options that are there."""
    for document, line in shortlist_calls():
        command: click.Command = main
        for word in shlex.split(line.replace("…", ""))[1:]:
            if isinstance(command, click.Group):
                for name in word.split("|"):
                    assert name in command.commands, f"{document}: {line}"
                command = command.commands[word.split("|")[0]]
            elif word.startswith("--"):
                options = {option for param in command.params for option in param.opts}
                assert word.partition("=")[0] in options, f"{document}: {line}"


def test_every_make_recipe_exists() -> None:
    """Each recipe that a document names is in the Makefile."""
    recipes = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named: set[str] = set()
    for block in ALL_BLOCKS:
        named |= set(re.findall(r"^make ([a-z-]+)\b", block.text, re.MULTILINE))
    for path in DOCUMENTS:
        for span in _CODE_SPAN.findall(prose(path.read_text()).replace("\n", " ")):
            if span.startswith("make "):
                named |= {word for word in span.split()[1:] if word.islower()}
    assert named - {name.lower() for name in recipes} == set()


def test_every_module_of_a_call_exists() -> None:
    """Each `python -m shortlist…` in a document can be run."""
    for path in DOCUMENTS:
        for module in re.findall(r"python -m ((?:shortlist|tests)[\w.]*)", path.read_text()):
            assert importlib.util.find_spec(module) is not None, f"{path.name}: {module}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_named_file_exists(path: Path) -> None:
    """Each file of the repository that stands in a code span is there."""
    spans = _CODE_SPAN.findall(prose(path.read_text()))
    named = {match[0] for span in spans if (match := _SOURCE_PATH.fullmatch(span))}
    absent = {name for name in named if not (ROOT / name).exists()}
    assert {name for name in absent if not (ROOT / "tests" / name).exists()} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    """Each link between documents names a file, and a heading of it where it names one."""
    for target in _LINK.findall(prose(path.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = path if not name else (path.parent / name).resolve()
        assert file.exists(), target
        if anchor:
            headings = {slug(title) for title in _HEADING.findall(prose(file.read_text()))}
            assert anchor in headings, target


def test_the_readme_is_short() -> None:
    """At most 900 words, tables and blocks counted, and no sentence above 35."""
    text = README.read_text()
    assert len(text.split()) <= MAX_README_WORDS
    long = [one for one in sentences(text) if len(one.split()) > MAX_SENTENCE_WORDS]
    assert long == []


def test_every_block_is_run_or_explained() -> None:
    """A block names its language; a shell block that no test runs says why."""
    for block in ALL_BLOCKS:
        assert block.language, f"{block.document}: {block.text}"
        if block.language in SHELLS and not re.match(r"(not )?run: \w", block.mark):
            assert block.language == "sh"
            assert {line.split()[0] for line in command_lines(block.text)} == {"shortlist"}


def test_no_block_is_hidden_in_a_list() -> None:
    """An indented block would not be found, and so not be run."""
    hidden = re.compile(r"^[ \t]+```", re.MULTILINE)
    assert [path.name for path in DOCUMENTS if hidden.search(path.read_text())] == []


def test_json_blocks_are_json() -> None:
    """Each example of JSON can be read."""
    for block in ALL_BLOCKS:
        if block.language == "json":
            for line in block.text.splitlines():
                json.loads(line)


def run_shortlist(line: str, environ: dict[str, str], allowed: tuple[int, ...] = (0,)) -> str:
    """Runs a command line in this process; gives what it printed."""
    words = shlex.split(line)[1:]
    if words[0] in TRAINING or words[:2] == ["batch", "run"]:
        words += [] if "--config" in words else ["--config", environ["SHORTLIST_CONFIG"]]
    result = CliRunner().invoke(main, words, env=environ)
    assert result.exit_code in allowed, f"{line}: {result.output}"
    return result.output


def test_the_commands_of_the_documents_run(
    tables: Path, valkey_url: str, namespace: str, tmp_path: Path, monkeypatch
) -> None:
    """All unmarked shell blocks in one directory: the README's end in a served list."""
    for table in tables.glob("*.parquet"):
        (tmp_path / table.name).symlink_to(table)
    write_export(tables, tmp_path)
    monkeypatch.chdir(tmp_path)
    environ = SMALL | {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
        "SHORTLIST_BUNDLE_DIR": str(tmp_path),
        "SHORTLIST_CONFIG": str(smallest_config(tmp_path)),
    }
    order = sorted(DOCUMENTS, key=lambda path: path != README)
    for block in [block for path in order for block in blocks(path)]:
        if block.language != "sh" or block.mark:
            continue
        for line in command_lines(block.text):
            if line == "shortlist redis &":  # the suite's own Valkey stands in for it
                continue
            if line == "shortlist serve":
                serve_and_use(environ)
                continue
            if "--write data.toml" in line:  # that of another document is not overwritten
                Path("data.toml").unlink(missing_ok=True)
            run_shortlist(line, environ)


def serve_and_use(environ: dict[str, str]) -> None:
    """Asks a `shortlist serve` for the list of user 1, and sends it an event."""
    event = {"event_id": "e1", "user_id": "1", "item_id": "1", "timestamp": int(time.time())}
    with as_process(environ) as (_, port):
        api = f"http://127.0.0.1:{port}/v1"
        assert fetched(f"{api}/users/1/recommendations")["source"] == "batch"
        assert fetched(f"{api}/events", {"events": [event]})["accepted"] == 1


def fetched(url: str, body: object = None) -> dict[str, Any]:
    """The JSON that a GET answers, or a POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"content-type": "application/json"})  # noqa: S310 - loopback
    with urlopen(request) as answer:  # noqa: S310 - likewise
        return dict(json.load(answer))


def marked(mark: str) -> list[str]:
    """The commands of the blocks with a mark."""
    chosen = [block for block in ALL_BLOCKS if block.mark == mark]
    assert chosen, mark
    return [line for block in chosen for line in command_lines(block.text)]


def test_the_release_commands_run(published, own, release, reporter) -> None:
    """Each of them, on two releases, one of which serves."""
    settings, _ = own
    publish.publish(*release("20990101T000000Z-docs"), settings, reporter)
    environ = published.environ | {"SHORTLIST_NAMESPACE": settings.namespace}
    for line in marked("run: releases"):
        run_shortlist(line.replace("VERSION", published.version), environ)


def test_the_report_commands_run(published, own) -> None:
    """With nothing sampled yet, of which `shortlist skew` makes a 2."""
    settings, _ = own
    environ = published.environ | {"SHORTLIST_NAMESPACE": settings.namespace}
    for line in marked("run: reports"):
        run_shortlist(line, environ, (0, 2) if line == "shortlist skew" else (0,))


def test_the_tutorial_leads_to_answers(
    tables: Path, valkey_url: str, namespace: str, tmp_path: Path, monkeypatch
) -> None:
    """From a shop's CSV files to the studio, an answer and an event, by the page's own words."""
    write_export(tables, tmp_path)
    monkeypatch.chdir(tmp_path)
    environ = SMALL | {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
        "SHORTLIST_BUNDLE_DIR": str(tmp_path),
        "SHORTLIST_CONFIG": str(smallest_config(tmp_path)),
    }
    *learn, studio = [line for line in marked("run: tutorial") if line != "shortlist redis &"]
    for line in learn:
        if line.startswith("export "):
            environ |= [line.removeprefix("export ").split("=")]
        else:
            run_shortlist(line, environ)
    with as_process(environ, [*shlex.split(studio)[1:], "--no-open"]) as (_, port):
        with urlopen(f"http://127.0.0.1:{port}/") as page:
            assert "<title>" in page.read().decode()
        listed, accepted = [requested(text, port) for text in requests("run: tutorial request")]
    assert (listed["source"], len(listed["recommendations"])) == ("batch", 5)
    assert accepted["accepted"] == 1


def test_the_runbook_runs(published, own, release, reporter, tmp_path, monkeypatch) -> None:
    """Its commands and requests, on two releases, in the page's order."""
    settings, _ = own
    publish.publish(*release("20990101T000000Z-docs"), settings, reporter)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORTLIST_ADMIN_KEY", "an-admin-key-of-this-test")
    environ = published.environ | {
        "SHORTLIST_NAMESPACE": settings.namespace,
        "SHORTLIST_ADMIN_KEY": "an-admin-key-of-this-test",
    }
    # The doctor looks at this machine too; of a few requests there is no skew yet.
    statuses = {"shortlist doctor": (0, 1), "shortlist skew": (0, 2)}
    for line in marked("run: runbook"):
        said = run_shortlist(line, environ, statuses.get(line, (0,)))
    assert re.search(rf"\*.*{published.version}|{published.version}.*\*", said)  # rolled back
    with as_process(environ) as (_, port):
        ready, counters, blocked, deleted = [
            shell(local(text, port)) for text in requests("run: runbook request")
        ]
    assert json.loads(ready)["status"]
    assert "shortlist_degraded_total" in counters
    assert json.loads(blocked)["blocked"] is True
    assert json.loads(deleted)["existed"] is True


def test_keys_rotate_as_the_runbook_says(published) -> None:
    """With both keys each is known, and then the new one alone."""
    old, new = "the-old-key-of-2025", "the-new-key-of-2026"
    known = []
    for line in marked("run: runbook keys"):
        name, _, value = line.removeprefix("export ").partition("=")
        keys = value.strip('"').replace("$OLD_KEY", old).replace("$NEW_KEY", new)
        with as_process(published.environ | {name: keys}) as (_, port):
            asked = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/v1/popular"
            known.append([shell(f"{asked} -H 'X-Api-Key: {key}'") for key in (old, new)])
    assert known == [["200", "200"], ["401", "200"]]


def requests(mark: str) -> list[str]:
    """The requests of the blocks with a mark, each as it stands there."""
    texts = [block.text for block in ALL_BLOCKS if block.mark == mark]
    return [
        text
        for block in texts
        for text in re.split(r"^(?=curl )", block, flags=re.MULTILINE)
        if text
    ]


def local(request: str, port: int) -> str:
    """A request of a document, to a server of this test."""
    for word, other in TUTORIAL_WORDS.items():
        request = request.replace(word, other)
    return request.replace("localhost:8000", f"127.0.0.1:{port}")


def requested(request: str, port: int) -> dict[str, Any]:
    """The JSON that a request of a document is answered."""
    return dict(json.loads(shell(local(request, port))))


def test_the_tour_is_what_is_answered(published, own) -> None:
    """Each request of docs/api.md, on a small world: the same keys, sources and codes."""
    settings, _ = own
    environ = published.environ | {"SHORTLIST_NAMESPACE": settings.namespace}
    with as_process(environ) as (_, port):
        etag = ""
        for command, expected in tour():
            for word, other in TOUR_WORDS.items():
                command = command.replace(word, other)  # noqa: PLW2901 - the same command
            command = re.sub(r'W/"\w+"', etag, command) if etag else command  # noqa: PLW2901
            answer = shell(command.replace("localhost:8000", f"127.0.0.1:{port}"))
            if answer.startswith("etag: "):
                etag = answer.strip().removeprefix("etag: ")
                assert expected.startswith("etag: ")
            elif answer.isdigit():
                assert answer == expected
            else:
                assert_same_shape(answer, expected)


def test_every_route_is_documented(published) -> None:
    """Each path of the OpenAPI document stands in docs/api.md."""
    text = re.sub(r"{\w+}", "{}", (ROOT / "docs" / "api.md").read_text())
    with as_process(published.environ) as (_, port):
        paths = fetched(f"http://127.0.0.1:{port}/openapi.json")["paths"]
    named = {re.sub(r"{\w+}", "{}", path.removeprefix("/v1")) for path in paths}
    assert {path for path in named if path not in text} == set()


def tour() -> list[tuple[str, str]]:
    """The commands of the tour, each with the answer that stands below it."""
    steps = []
    for block in ALL_BLOCKS:
        if block.mark == "run: tour":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                match = re.match(r"(.*?)\n(?=[{\d]|etag)(.*)", part, re.DOTALL)
                assert match is not None, part
                steps.append((match[1], match[2].strip()))
    assert len(steps) > 10
    return steps


def shell(command: str) -> str:
    """What a command of the tour prints."""
    done = subprocess.run(
        ["/bin/bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def assert_same_shape(answer: str, expected: str) -> None:
    """The answer has every key of the documented one, and the same values where they are fixed."""
    key = re.compile(r'"(\w+)":')
    features = expected.partition('"features"')[2].partition("}")[0]
    wanted = set(key.findall(expected)) - set(key.findall(features))
    assert wanted <= set(key.findall(answer)), answer
    for name in CONTRACT_KEYS:
        value = re.compile(rf'"{name}":("[^"]*"|\w+)')
        if value.search(expected):
            assert value.findall(expected) == value.findall(answer), answer
