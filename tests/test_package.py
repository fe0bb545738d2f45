"""Test the wheel: it holds only the library, and ranks without the packages of the pipeline."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT

from tunerank.ranker import Ranker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"
    ),
]
PIPELINE = ("dvc", "FlagEmbedding", "pandas", "bm25s", "jieba", "scipy", "openpyxl")
"""Packages that no code can import.

tunerank itself cannot import OTHERS either. Those are needed by typer and huggingface_hub.
"""
OTHERS = ("pydantic", "yaml")
HIDE = f"""
import sys

class Hidden:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        top, frame = name.partition(".")[0], sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        by_tunerank = frame and frame.f_globals.get("__name__", "").startswith("tunerank")
        if top in {PIPELINE} or (by_tunerank and top in {OTHERS}):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
"""
PASSAGES = ["红色的车停在门口。", "蓝色的船在海上。", "保修三年。"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(
        "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", folder, ROOT,
    )  # fmt: skip
    (path,) = folder.glob("tunerank-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> dict[str, str]:
    """Return the environment of a process with the wheel and without the pipeline's packages."""
    installed, hook = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("hook")
    pip("install", "--no-deps", "--no-index", "--target", installed, wheel)
    (hook / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    return ENVIRONMENT | {"PYTHONPATH": f"{hook}{os.pathsep}{installed}"}


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)


def run(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_wheel_holds_only_the_library_and_its_licences(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    code = {name for name in names if name.startswith("tunerank/")}
    source = ROOT / "src/tunerank"
    tracked = {
        f"tunerank/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".html")
    }
    assert code == tracked and len(code) > 60
    others = {name.split("/", 1)[1] for name in names if name not in code}
    assert others == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt",
        "licenses/LICENSE", "licenses/models/LICENSE",
    }  # fmt: skip


def test_the_hook_hides_the_packages(environment, tmp_path):
    done = run(environment, tmp_path, "-c", "import yaml, pydantic, numpy; import pandas")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: No module named 'pandas'"
    )
    done = run(environment, tmp_path, "-c", "import tunerank.params.base")
    assert done.stderr.splitlines()[-1] in (
        "ModuleNotFoundError: No module named 'yaml'",
        "ModuleNotFoundError: No module named 'pydantic'",
    )


def test_it_ranks_from_python_without_the_pipeline(environment, tmp_path, tiny_model):
    code = (
        "import json, sys, tunerank; from tunerank import Ranker, Passage\n"
        "model, *passages = sys.argv[1:]\n"
        "passages = [Passage('', text) for text in passages]\n"
        "ranked = Ranker(model, 'fp32').rank('车是什么颜色？', passages)\n"
        "order, scores = [r.index for r in ranked], [r.score for r in ranked]\n"
        "print(json.dumps([tunerank.__file__, order, scores]))"
    )
    done = run(environment, tmp_path, "-c", code, str(tiny_model), *PASSAGES)
    assert done.returncode == 0, done.stderr
    file, order, scores = json.loads(done.stdout)
    assert Path(file).is_relative_to(environment["PYTHONPATH"].split(os.pathsep)[1])
    expected = Ranker(tiny_model, "fp32").rank("车是什么颜色？", PASSAGES)
    assert order == [ranked.index for ranked in expected]
    assert scores == pytest.approx([ranked.score for ranked in expected], abs=1e-5)


def test_it_ranks_from_the_shell_without_the_pipeline(environment, tmp_path, tiny_model):
    (tmp_path / "passages.txt").write_text("\n".join(PASSAGES), encoding="utf-8")
    arguments = (
        "-m",
        "tunerank",
        "rank",
        str(tiny_model),
        "车是什么颜色？",
        "passages.txt",
        "--json",
    )
    done = run(environment, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    ranked = json.loads(done.stdout)["ranked"]
    assert sorted(row["passage"] for row in ranked) == sorted(PASSAGES)
    assert [row["rank"] for row in ranked] == [1, 2, 3]


@pytest.mark.parametrize("name", ["passages.csv", "passages.xlsx"])
def test_a_table_asks_for_the_pipeline_in_one_line(environment, tmp_path, tiny_model, name):
    (tmp_path / name).write_text("doc\n红色的车\n", encoding="utf-8")
    done = run(environment, tmp_path, "-m", "tunerank", "rank", str(tiny_model), "车", name)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {name}: reading tables needs pandas: pip install 'tunerank[pipeline]', "
        "or give a .txt file\n",
    )


@pytest.mark.parametrize(
    "command, extras",
    [
        (("compare", "main"), "pipeline"),
        (("verify",), "pipeline"),
        (("samples", "my-samples"), "pipeline"),
        (("publish", "--repo", "a/b"), "pipeline,publish"),
    ],
)
def test_other_commands_ask_for_their_packages_in_one_line(environment, tmp_path, command, extras):
    done = run(environment, tmp_path, "-m", "tunerank", *command)
    assert (done.returncode, done.stdout) == (1, "")
    line = rf"error: (pandas|dvc|scipy|yaml) is not installed: pip install 'tunerank\[{extras}\]'\n"
    assert re.fullmatch(line, done.stderr)
