"""Wrong inputs to the command line: one sentence, a remedy, an exit status.

Each row is a command as one types it, in a folder of tables of all kinds, with the exit status and
words of the sentence. `@redis` stands for a Redis that runs, `@taken` for a port that is taken.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shortlist.batch import tune as tuning
from shortlist.batch.cli import main
from shortlist.batch.cli import options as cli_options
from shortlist.recsys.store.release_files import build_manifest

ROOT = Path(__file__).parents[2]
SECONDS = 60

NOWHERE = "REDIS_URL=redis://127.0.0.1:1"
READ = "name a place that can be read and written"
COST = "cost --users 9 --items 9 --requests-per-month 9"

# A table is easier to read than one value per line.
# fmt: off
WRONG = [
    ("evaluate", 2, "no data: give --interactions PATH, or --data data.toml"),
    ("evaluate --interactions nope.csv", 2, "there is no file 'nope.csv'"),
    ("evaluate --interactions nothing", 2, "the directory 'nothing' has no file that ends in"),
    ("evaluate --interactions semicolons.csv", 2, "parted by semicolons"),
    ("evaluate --interactions empty.csv", 2, "'empty.csv' is empty"),
    ("evaluate --interactions header.csv", 2, "'header.csv' has no rows"),
    ("evaluate --interactions latin.csv", 2, "UTF-8"),
    ("evaluate --interactions noise.parquet", 2, "it is no Parquet; give it the ending"),
    ("evaluate --interactions book.xlsx", 2, "book.xlsx"),
    ("evaluate --interactions three.csv --items nope.csv", 2, "items: there is no file"),
    ("evaluate --data nope.toml", 2, "nope.toml"),
    ("evaluate --data data.toml --items three.csv", 2, "leave out --items"),
    ("evaluate --interactions three.csv --report a-file", 2, READ),
    ("evaluate --interactions three.csv --report a-file/below", 2, READ),
    ("evaluate --interactions three.csv --json no-folder/x.json", 2, "'no-folder' cannot be used"),
    ("evaluate --interactions three.csv --json three.csv", 2, "does not end in .json"),
    ("evaluate --interactions three.csv --json nothing", 2, "Is a directory"),
    ("evaluate --interactions three.csv --rejects nothing", 2, READ),
    ("evaluate --interactions three.csv --config nope.toml", 2, "'nope.toml' does not exist"),
    ("evaluate --interactions three.csv --config wrong.toml", 2, "has leaves = 'many'"),
    ("evaluate --interactions three.csv --protocol half", 2, "'half' is not one of"),
    ("evaluate --interactions three.csv --max-reject-share 2", 2, "not in the range 0<=x<=1"),
    ("evaluate --interactions three.csv --max-reject-share nan", 2, "not a finite number"),
    ("evaluate --interactions three.csv --positive-rating inf", 2, "not a finite number"),
    ("EMBEDDING_DIM=x evaluate --interactions three.csv", 2, "EMBEDDING_DIM='x': must be"),
    ("tune --interactions three.csv --minutes nan", 2, "not a finite number"),
    ("tune --interactions three.csv --minutes 0", 2, "not in the range"),
    ("tune --interactions three.csv --work a-file", 2, READ),
    ("tune --interactions three.csv --out no-folder/x.toml", 2, READ),
    ("batch run --interactions three.csv --work a-file", 2, READ),
    ("batch run --interactions three.csv --rules nope.toml", 2, "there is no file 'nope.toml'"),
    (f"{NOWHERE} batch run --interactions three.csv", 75, "`shortlist redis` starts one"),
    ("SHORTLIST_ARTEFACTS=a-file batch run --interactions three.csv", 2, "is a file"),
    ("batch publish --interactions three.csv", 2, "stage publish needs features"),
    ("batch precompute --interactions three.csv", 2, "or `shortlist batch run` for all"),
    ("SHORTLIST_ARTEFACTS=a-file release list", 2, "is a file: name a directory"),
    ("SHORTLIST_ARTEFACTS=nope release list", 2, "or run `shortlist batch run`, which makes it"),
    ("SHORTLIST_ARTEFACTS=s3:// release list", 2, "names no bucket"),
    ("SHORTLIST_ARTEFACTS=nothing release list", 0, "no release yet: `shortlist batch run`"),
    (f"{NOWHERE} release list", 75, "`shortlist redis` starts one on this machine"),
    ("REDIS_URL=http://x release list", 2, "must start with one of redis://"),
    ("release show banana", 2, "there is no release 'banana': the latest are v4, v3, v2"),
    ("release promote banana", 2, "the latest are v4, v3, v2"),
    ("release shadow banana", 2, "the latest are v4, v3, v2"),
    ("release canary banana --percent 5", 2, "the latest are v4, v3, v2"),
    ("release show ../banana", 2, "the latest are v4, v3, v2"),
    ("release canary v1 --percent nan", 2, "not a finite number"),
    ("release canary v1 --percent 101", 2, "not in the range 0<=x<=100"),
    ("release canary v1 --percent 5", 2, "no release serves"),
    ("release rollback", 2, "nothing to roll back to"),
    ("release prune --keep 0", 2, "not in the range x>=1"),
    ("release show", 2, "missing VERSION; see `"),
    ("serve --port 99999", 2, "not in the range 0<=x<=65535"),
    ("serve --port @taken", 2, "choose another, or stop what has it"),
    ("serve --host no.such.host.invalid", 2, "no.such.host.invalid"),
    ("redis --port 99999", 2, "not in the range 1<=x<=65535"),
    ("redis --port @taken", 2, "choose another, or stop what has it"),
    ("redis --directory a-file", 2, READ),
    ("redis --directory ''", 2, "names nothing: give a path"),
    ("local --port @taken", 2, "choose another, or stop what has it"),
    ("local --data ml-7", 2, "'ml-7' is not one of 'ml-100k'"),
    ("demo --directory a-file", 2, READ),
    ("invoke", 2, "missing --user"),
    ("invoke --user 1 --k abc", 2, "'abc' is not a valid whole number"),
    ("invoke --user 1 --k 1000", 2, "1000 is not in the range 1<=x<=100"),
    ("SHORTLIST_GATE=maybe invoke --user 1", 2, "must be one of on, off"),
    ("cost --users 1", 2, "missing --items, --requests-per-month"),
    ("cost --users nan --items 1 --requests-per-month 1", 2, "'nan' is not a valid whole number"),
    (f"{COST} --events-per-user nan", 2, "not a finite number"),
    (f"{COST} --refreshes-a-day 0", 2, "not in the range"),
    (f"{COST} --region mars-1", 2, "take one"),
    (f"cost --users 1{'0' * 400} --items 1 --requests-per-month 1", 2, "not in the range"),
    ("data fetch ml-7", 2, "'ml-7' is not one of 'ml-100k', 'ml-1m'"),
    ("data fetch shop", 2, "missing --out"),
    ("data fetch shop --out a-file", 2, READ),
    ("data fetch synthetic --out world --n-users 0", 2, "not in the range x>=1"),
    ("data check", 2, "no files: name those of the interactions"),
    ("data check nope.csv", 2, "there is no file 'nope.csv'"),
    ("data check three.csv --column user_id", 2, "write it as user_id=CustomerNo"),
    ("data check three.csv --write no-folder/data.toml", 2, READ),
    ("events drain", 2, "missing --out"),
    ("events drain --out ''", 2, "names nothing: give a path"),
    ("events drain --out a-file", 2, READ),
    (f"{NOWHERE} events drain --out drained", 75, "`shortlist redis` starts one"),
    ("online-report --days 0", 2, "0 is not in the range 1<=x<=90"),
    ("skew", 2, "no release has been published: run `shortlist batch run` first"),
    ("skew --release banana", 2, "the latest are v4, v3, v2"),
    ("studio --port 99999", 2, "not in the range 0<=x<=65535"),
    ("studio --port @taken", 2, "choose another, or stop what has it"),
    ("doctor --port 99999", 2, "not in the range"),
    ("evaluat", 2, "no such command 'evaluat'. Did you mean 'evaluate'?"),
    ("releases", 2, "Did you mean 'release'?"),
    ("--nonsense", 2, "no such option"),
]
# fmt: on


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tables of all kinds, in which the test works."""
    monkeypatch.chdir(tmp_path)
    columns, events = "user_id,item_id,timestamp\n", "1,a,1700000000\n1,b,1700000100\n"
    texts = {
        "three.csv": columns + events + "1,c,1700000200\n",
        "semicolons.csv": (columns + events).replace(",", ";"),
        "header.csv": columns,
        "empty.csv": "",
        "a-file": "",
        "data.toml": '[interactions]\npaths = ["three.csv"]\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.csv").write_bytes(f"{columns}Müller,a,1700000000\n".encode("latin-1"))
    for name in ("noise.parquet", "book.xlsx"):
        (tmp_path / name).write_bytes(bytes(range(256)))
    (tmp_path / "wrong.toml").write_text('[ranker]\nleaves = "many"\n')
    (tmp_path / "nothing").mkdir()
    for version in ("v1", "v2", "v3", "v4"):
        release = tmp_path / "artefacts" / version
        release.mkdir(parents=True)
        build_manifest(release, version=version, created_at=1, as_of=1)
    return tmp_path


@pytest.fixture
def taken() -> Iterator[str]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.fixture
def environ(valkey_url: str, namespace: str) -> dict[str, str]:
    """The environment: an empty namespace in a Redis that runs."""
    return {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": namespace}


def parts(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables and the arguments of a command as one types it."""
    words = shlex.split(command)
    variables = [word for word in words[:1] if "=" in word]
    return dict(word.split("=", 1) for word in variables), words[len(variables) :]


@pytest.mark.parametrize(("command", "status", "words"), WRONG, ids=[row[0][:70] for row in WRONG])
@pytest.mark.usefixtures("box")
def test_a_wrong_input(
    environ: dict[str, str], taken: str, command: str, status: int, words: str
) -> None:
    """It is one sentence on standard error, with the value, the rule and what to do."""
    changed, arguments = parts(command.replace("@taken", taken))
    result = CliRunner(env=environ | changed).invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("  ")]  # progress
    assert len(lines) == 1
    assert lines[0].startswith("shortlist: ")
    assert words in lines[0]
    assert "Traceback" not in result.output


def process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "shortlist", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("evaluate --interactions header.csv", 2),
        ("evaluate --interactions nope.csv", 2),
        ("batch run --data nope.toml", 2),
        *(
            (f"{command} --interactions three.csv --config wrong.toml", 2)
            for command in ("evaluate", "tune", f"{NOWHERE} batch run", f"{NOWHERE} batch train")
        ),
        ("batch publish --interactions three.csv", 2),
        (f"{NOWHERE} batch run --interactions three.csv", 75),
        ("release promote banana", 2),
        ("serve --port 99999", 2),
    ],
)
@pytest.mark.usefixtures("box")
def test_refusals_load_nothing_heavy(command: str, status: int) -> None:
    """What is refused within a second imports neither torch nor LightGBM, FAISS or uvicorn."""
    changed, arguments = parts(command)
    heavy = {"torch", "lightgbm", "faiss", "uvicorn", "implicit", "matplotlib"}
    script = (
        "import sys\n"
        "from shortlist.batch.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        f"    print(sorted({heavy!r} & set(sys.modules)))\n"
    )
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")} | changed
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (status, "[]\n"), done.stderr


@pytest.mark.usefixtures("box")
def test_processes_end_alike() -> None:
    """Real processes: a usage error, a refusal, and a misspelt variable before an answer."""
    usage = process("evaluat")
    assert (usage.returncode, usage.stdout) == (2, "")
    missing = process("release", "list", SHORTLIST_ARTEFACTS="nope")
    assert (missing.returncode, missing.stdout) == (2, "")
    told = process(*COST.split(), "--json", SHORTLIST_GATE_MARGN="0.1")
    assert (told.returncode, "dollars" in json.loads(told.stdout)) == (0, True)
    assert told.stderr == (
        "shortlist: SHORTLIST_GATE_MARGN is no setting and changes nothing: "
        "did you mean SHORTLIST_GATE_MARGIN?\n"
    )


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """Calls a command that is interrupted once it reads its tables."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_options, "tables_of", interrupt)
    for module in ("batch", "evaluation"):
        monkeypatch.setattr(f"shortlist.batch.cli.{module}.tables_of", interrupt)
    return CliRunner().invoke(main, [*arguments, "--interactions", "three.csv"])


@pytest.mark.parametrize("command", ["evaluate", "tune", "batch run"])
@pytest.mark.usefixtures("box")
def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It ends the command with the status that a shell gives it."""
    result = interrupted(monkeypatch, *command.split())
    assert (result.exit_code, result.output) == (130, "shortlist: stopped\n")


@pytest.mark.parametrize("module", ["click", "shortlist.recsys.data.check"])
def test_ctrl_c_within_an_import(module: str) -> None:
    """It is one line also while the command line or a command's own modules load."""
    script = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "from shortlist.__main__ import main\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['shortlist', 'data', 'check', 'three.csv']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (130, "shortlist: stopped\n")


@contextmanager
def serving(command: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of a command that serves, once it listens; its two outputs are one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "shortlist", command, "--port", str(port)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        listens = f"redis://localhost:{port}", "running on"
        next(line for line in running.stdout if any(words in line for words in listens))
        yield running


@pytest.mark.parametrize("command", ["redis", "serve"])
def test_many_ctrl_c_are_one_line(command: str, tmp_path: Path) -> None:
    """Impatience shows no traceback, and the status stays 130."""
    with serving(command, tmp_path) as running:
        while running.poll() is None:
            running.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.01)
        said = running.communicate(timeout=SECONDS)[0]
    assert (running.returncode, said) == (130, "shortlist: stopped\n")


def test_optuna_logs_no_traceback(tmp_path: Path, reporter) -> None:
    """Ctrl-C within a trial is the command's to report."""
    import optuna

    tuning._Studies(tmp_path, "x", reporter)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def test_an_embedded_redis_stops(tmp_path: Path) -> None:
    """SIGTERM gives 0, and shows nothing, whatever comes after it."""
    with serving("redis", tmp_path) as running:
        running.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.wait(0.05)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=SECONDS)[0]
    assert (running.returncode, said) == (0, "")
