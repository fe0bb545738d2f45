"""Test `tunerank export`: the folder searches as the run does, wherever it is, or is refused."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, error_of, git, python, tunerank
from hub import Fault
from searched import evaluated, own_results, questions

from tunerank import Ranker, Searcher

SYSTEMS = (
    *("bm25", "dense", "retriever", "reranker", "fused"),
    *("reranker_whole", "fused_whole"),
)
QUERY = "船是什么颜色？"
WITHOUT_DVC = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dvc", "dvc_data", "FlagEmbedding", "jinja2"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Hidden())
import json
from tunerank import Searcher
folder, system, *queries = sys.argv[1:]
found = Searcher(folder).search_many(queries, 8, system)
print(json.dumps([[one.passage for one in of_query] for of_query in found]))
"""


@pytest.fixture(scope="module")
def exported(home, tmp_path_factory) -> Path:
    """Return what was exported of the run; do not change it."""
    folder = tmp_path_factory.mktemp("exported") / "my-search"
    done = tunerank("export", folder, cwd=home)
    assert done.returncode == 0, done.stderr
    return folder


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, symlinks=True))


def refused(folder: Path, *arguments: str | Path) -> str:
    """Return the line with which the command refuses."""
    done = tunerank("export", *arguments, cwd=folder)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ").rstrip("\n")


def message(folder: Path) -> str:
    """Return the line with which `Searcher` refuses a folder, without the folder's name."""
    return error_of(Searcher, folder).replace(str(folder), "FOLDER")


# What is written


def test_the_folder_has_what_searching_needs_with_the_hash_of_each_file(exported, home):
    files = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*")}
    files = {name: path for name, path in files.items() if path.is_file()}
    described = json.loads(files.pop("search.json").read_text(encoding="utf-8"))
    assert set(described["files"]) == set(files)
    for name, path in files.items():
        content = path.read_bytes()
        about = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert described["files"][name] == about
    for name in ("reranker", "retriever"):
        for path in (home / "models" / name).iterdir():
            assert files[f"{name}/{path.name}"].read_bytes() == path.read_bytes()
    assert files["corpus.jsonl"].read_bytes() == (home / "data/prepared/corpus.jsonl").read_bytes()
    assert files["LICENSE"].read_bytes() == (home / "models/LICENSE").read_bytes()
    assert {name for name in files if name.endswith(".npy")} == {
        *(
            f"vectors/{kind}{end}.npy"
            for kind in ("passages", "windows")
            for end in ("", ".digests")
        ),
        *(f"bm25/{name}.csc.index.npy" for name in ("data", "indices", "indptr")),
    }
    assert str(home) not in (exported / "search.json").read_text(encoding="utf-8")


def test_the_description_has_the_run_its_parameters_and_its_row_of_the_table(exported, home):
    described = json.loads((exported / "search.json").read_text(encoding="utf-8"))
    result = json.loads((home / "metrics/eval.json").read_text(encoding="utf-8"))
    params = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    assert described["format"] == 1 and tuple(described["systems"]) == SYSTEMS
    assert described["retrieve"] == params["retrieve"] and described["score"] == params["score"]
    for name in ("fusion_weights", "fusion_weights_whole"):
        assert described[name] == result[name]
    measured = described["measured"]
    assert (measured["split"], measured["questions"]) == ("test", 9)
    for system in SYSTEMS:
        wanted = {name: result["all"][system][name] for name in ("hit@1", "MRR@10")}
        assert measured[system] == wanted
    lock = (home / "dvc.lock").read_bytes()
    assert described["run"]["dvc_lock_md5"] == hashlib.md5(lock).hexdigest()
    assert len(described["run"]["git_commit"]) == 40
    assert described["run"]["uncommitted_changes"] is False


def test_the_command_says_what_it_wrote_and_how_that_was_measured(home, tmp_path):
    done = tunerank("export", tmp_path / "out", cwd=home)
    result = json.loads((home / "metrics/eval.json").read_text(encoding="utf-8"))["all"]["fused"]
    first, last = done.stdout.splitlines()
    assert first.startswith(f"{tmp_path / 'out'}: ") and first.endswith(
        f"fused: hit@1 {result['hit@1']:.3f}, MRR@10 {result['MRR@10']:.3f} on 9 test questions"
    )
    assert last == f'Searcher("{tmp_path / "out"}").search("...")'


def test_it_ranks_as_the_run_did_for_every_question_and_system(exported, home):
    searcher, asked, wanted = Searcher(exported), questions(home), evaluated(home)
    assert searcher.systems == SYSTEMS
    texts = [row["question"] for row in asked]
    together = searcher.rankings(texts)
    for system in SYSTEMS:
        expected = [wanted[system][row["id"]] for row in asked]
        found = [[one.passage for one in searcher.search(text, 8, system)] for text in texts]
        assert found == expected == together[system]
    assert searcher.search(QUERY) == Searcher(home).search(QUERY)


def test_it_needs_neither_dvc_nor_the_repository(exported, home, tmp_path):
    """Moved elsewhere, read-only, and where some packages of the pipeline cannot be imported."""
    folder = copied(exported, tmp_path / "elsewhere")
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    texts = [row["question"] for row in questions(home)]
    done = python("-c", WITHOUT_DVC, str(folder), "fused", *texts, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    wanted = evaluated(home)["fused"]
    assert json.loads(done.stdout) == [wanted[row["id"]] for row in questions(home)]
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_run_of_ones_own_search_is_exported_too(own, tmp_path):
    home = copied(own, tmp_path / "repo")
    assert tunerank("export", tmp_path / "out", cwd=home).returncode == 0
    assert not (tmp_path / "out/bm25").exists()
    searcher, asked, wanted = Searcher(tmp_path / "out"), questions(home), evaluated(home)
    assert searcher.systems[0] == "own" and "fused" in searcher.systems
    for row, listed in zip(asked, own_results(home), strict=True):
        for system in searcher.systems:
            found = searcher.search(row["question"], 8, system, listed)
            assert [one.passage for one in found] == wanted[system][row["id"]]


def test_a_second_export_takes_the_place_of_the_first(exported, home, tmp_path):
    folder = copied(exported, tmp_path / "out")
    (folder / "corpus.jsonl").write_text("damaged", encoding="utf-8")
    assert tunerank("export", folder, cwd=home).returncode == 0
    assert Searcher(folder).search(QUERY) == Searcher(exported).search(QUERY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_weights_of_an_exported_folder_are_known_to_the_ranker(exported):
    wanted = json.loads((exported / "search.json").read_text(encoding="utf-8"))["fusion_weights"]
    for folder in (exported, exported / "reranker", f"{exported}/reranker/"):
        assert Ranker(folder, "fp32").weights == wanted


# What is not exported


def test_somebody_elses_folder_is_not_replaced(home, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine", encoding="utf-8")
    said = "is not as tunerank export writes it; name another folder, or move this one away"
    assert refused(home, tmp_path / "notes") == f"{tmp_path / 'notes'}: mine.txt {said}"
    assert (tmp_path / "notes/mine.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "file").touch()
    assert refused(home, tmp_path / "file") == f"{tmp_path / 'file'}: is a file; name a folder"
    assert said in refused(home, ".") and said in refused(home, "models")


def test_a_file_that_somebody_added_is_not_lost(exported, home, tmp_path):
    folder = copied(exported, tmp_path / "out")
    (folder / "reranker/notes.md").write_text("mine", encoding="utf-8")
    assert refused(home, folder).startswith(
        f"{folder}: reranker/notes.md is not as tunerank export"
    )


def change_params(folder: Path) -> None:
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("bm25_depth: 24", "bm25_depth: 5"), encoding="utf-8")


def change_corpus(folder: Path) -> None:
    rewrite(folder / "data/prepared/corpus.jsonl", b'{"id": "new", "text": "new"}\n')


def change_reranker(folder: Path) -> None:
    rewrite(folder / "models/reranker/config.json", b"\n")


def change_retriever(folder: Path) -> None:
    rewrite(folder / "models/retriever/config.json", b"\n")


def change_evaluation(folder: Path) -> None:
    rewrite(folder / "metrics/eval.json", b"\n")


def change_code(folder: Path) -> None:
    rewrite(folder / "src/tunerank/retrieval/fusion.py", b"\n")


def rewrite(path: Path, more: bytes) -> None:
    """Append to a file that may be a hard link into DVC's cache."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + more)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            change_params,
            "stage retrieve of dvc.lock was run with another retrieve than params.yaml",
        ),
        (change_corpus, "data/prepared is not the one of dvc.lock: dvc checkout data/prepared"),
        (change_reranker, "models/reranker is not the checkpoint of dvc.lock (md5 "),
        (change_retriever, "models/retriever is not the one of dvc.lock: dvc checkout models/re"),
        (change_evaluation, "metrics/eval.json is not the one of dvc.lock; git checkout it, or"),
        (change_code, "was run with another src/tunerank/retrieval"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_of_the_run_is_not_exported(searched, tmp_path, change, said):
    folder = copied(searched, tmp_path / "repo")
    change(folder)
    assert said in refused(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("name", ["models/reranker", "models/retriever", "data/prepared"])
def test_what_was_not_pulled_is_named(searched, tmp_path, name):
    folder = copied(searched, tmp_path / "repo")
    shutil.rmtree(folder / name)
    said = refused(folder, tmp_path / "out")
    assert said.startswith(name) and f"dvc pull {name}" in said


def test_a_folder_without_a_run_is_refused(tmp_path):
    said = "no such file; run from the repository's folder"
    assert refused(tmp_path, "out") == f"params.yaml: {said}"


# What is not opened


@pytest.mark.parametrize(
    "name, said",
    [
        (
            "corpus.jsonl",
            "not the file that was exported; export again, or add passages by Searcher",
        ),
        ("reranker/config.json", "not the file that was exported; export again"),
        ("retriever/tokenizer.json", "not the file that was exported; export again"),
        ("vectors/windows.npy", "not the file that was exported; export again"),
        ("bm25/vocab.index.json", "not the file that was exported; export again"),
    ],
)
def test_a_file_that_changed_or_is_missing_is_refused(exported, tmp_path, name, said):
    folder = copied(exported, tmp_path / "out")
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert message(folder).startswith(f"FOLDER/{name}: {said}")
    (folder / name).unlink()
    assert message(folder) == f"FOLDER/{name}: no such file; export again"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"format": 2}, "format 2, known is 1; export again with this version of tunerank"),
        ({"format": None}, "format None, known is 1; export again with this version of tunerank"),
        ({"retrieve": {}}, "damaged ("),
        ({"score": {"depth": "eight"}}, "damaged ("),
        ({"fusion_weights": {"reranker": 1}}, "damaged ("),
        ({"fusion_weights": None}, "damaged ("),
        ({"files": ["corpus.jsonl"]}, "damaged ("),
        ({"systems": None}, "damaged ("),
    ],
)
def test_a_description_of_another_form_is_refused(exported, tmp_path, change, said):
    folder = copied(exported, tmp_path / "out")
    described = json.loads((folder / "search.json").read_text(encoding="utf-8")) | change
    (folder / "search.json").write_text(json.dumps(described), encoding="utf-8")
    assert message(folder).startswith(f"FOLDER/search.json: {said}")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\0"])
def test_a_description_that_is_no_object_is_refused(exported, tmp_path, text):
    folder = copied(exported, tmp_path / "out")
    (folder / "search.json").write_text(text, encoding="utf-8")
    assert message(folder).startswith("FOLDER/search.json: not ")


# The Hub


SEARCH = """
import sys
from tunerank import Searcher
from tunerank.core.errors import InputError
try:
    searcher = Searcher(sys.argv[1], revision=sys.argv[2] or None, precision="fp32")
    print(*[found.passage for found in searcher.search(sys.argv[3], 8)])
except InputError as error:
    print(error)
"""


def test_a_published_folder_is_searched_at_a_commit_or_a_tag(exported, hub, client, tmp_path):
    (tmp_path / "ask.py").write_text(SEARCH, encoding="utf-8")

    def asked(repo: str, revision: str) -> str:
        done = client.run(tmp_path / "ask.py", repo, revision, QUERY, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        return line

    files = {
        f"search/{path.relative_to(exported).as_posix()}": path.read_bytes()
        for path in exported.rglob("*")
        if path.is_file()
    }
    commit = hub.add("acme/shop", files | {"README.md": b"# shop", "model.bin": b"pickle"})
    hub.repositories["acme/shop"].tags["v1"] = commit
    wanted = " ".join(one.passage for one in Searcher(exported).search(QUERY, 8))
    assert asked("acme/shop", commit) == asked("acme/shop", "v1") == wanted
    bare = hub.add("acme/bare", {"config.json": b"{}"})
    assert asked("acme/bare", bare) == (
        f"acme/bare at {bare}: no search/search.json there, a checkpoint alone cannot search; "
        "tunerank publish --repo acme/bare --search puts it there"
    )
    assert asked("acme/shop", "main") == (
        "acme/shop: 'main' is no tag and no commit of 40 hexadecimal digits; a branch can move and "
        "is not taken"
    )
    assert asked("acme/shop", "").startswith("acme/shop: no such folder; a repository of the Hub")
    assert asked("acme/none", "f" * 40).startswith(f"acme/none at {'f' * 40} was not found; check")
    assert asked("acme/shop", "f" * 40).startswith(f"acme/shop at {'f' * 40} was not found; check")
    hub.clear()  # what was downloaded once is not asked for again
    assert asked("acme/shop", commit) == wanted


# What `tunerank publish --search` puts there

REPO = "ann/shop"


@pytest.fixture
def publish(home, client):
    """Return a function that publishes the run with its search."""

    def run(*options: str, cwd: Path = home) -> subprocess.CompletedProcess:
        arguments = ("publish", "--repo", REPO, *options)
        done = client.run("tunerank", *arguments, cwd=cwd, token="hf_ann")
        assert list((cwd / ".cache").glob("export-*")) == []  # nothing is left behind
        return done

    yield run
    (home / "models/published.jsonl").unlink(missing_ok=True)


def of_search(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.startswith("search/")}


def exported_files(exported: Path) -> dict[str, bytes]:
    """Return the files of an export, the checkpoint's at the top and the others in search/."""
    files = {
        f"search/{path.relative_to(exported).as_posix()}": path for path in exported.rglob("*")
    }
    return {
        name.removeprefix("search/reranker/"): path.read_bytes()
        for name, path in files.items()
        if path.is_file()
    }


def test_one_commit_has_the_export_and_its_checkpoint_once(exported, home, hub, publish):
    done = publish("--search", "--private", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[REPO]
    assert len(repository.commits) == 2  # the Hub itself made the first one
    head = repository.commits[-1]
    assert repository.tags == {"v1": head.oid}
    own = {name: head.files[name] for name in ("README.md", ".gitattributes", "LICENSE")}
    assert head.files == exported_files(exported) | own
    assert len(of_search(head.files)) > 10 and "search/corpus.jsonl" in head.files
    told, noted, *ways = done.stdout.splitlines()
    assert told == (
        f"{REPO} is private: whoever has access to it will be able to read the passages in search/"
    )
    assert noted.startswith(f"{REPO} at {head.oid}, tag v1; noted in models/published.jsonl")
    at = f'"{REPO}", revision="{head.oid}"'
    assert ways[:2] == [
        f"Searcher({at})",
        f'FlagReranker(snapshot_download({at}, ignore_patterns="search/*"))',
    ]


def test_a_public_repository_is_named_as_one_before_anything_is_sent(hub, publish):
    hub.add(REPO, {".gitattributes": b""})
    hub.faults.append(Fault("POST .*/preupload/", status=403, message="no"))
    done = publish("--search")
    assert done.stdout == (
        f"{REPO} is public: everybody will be able to read the passages in search/\n"
    )
    assert done.returncode == 1 and "nothing was published" in done.stderr
    assert len(hub.repositories[REPO].commits) == 1 and hub.large == {}
    hub.repositories[REPO].gated = True
    assert publish("--search").stdout.startswith(
        f"{REPO} is gated: whoever accepts its terms and is let in will be able to read"
    )


def test_without_a_tag_the_card_names_one_of_the_git_commit(home, hub, publish):
    assert publish("--search").returncode == 0
    head = hub.repositories[REPO].commits[-1]
    tag = f"run-{git('rev-parse', 'HEAD', cwd=home)[:10]}"
    assert hub.repositories[REPO].tags == {tag: head.oid}
    assert f'Searcher("{REPO}", revision="{tag}")\n' in head.files["README.md"].decode()
    again = publish("--search")
    assert again.returncode == 1 and again.stderr == (
        f"error: {REPO} has a tag or branch {tag} already; nothing was published, take another "
        "--tag\n"
    )


def test_publishing_again_with_the_search_changes_the_card_alone(hub, publish):
    assert publish("--search", "--tag", "v1").returncode == 0
    assert publish("--search", "--tag", "v2").returncode == 0
    first, second = (hub.repositories[REPO].at(tag).files for tag in ("v1", "v2"))
    assert set(first) == set(second)
    assert {name for name in first if first[name] != second[name]} == {"README.md"}


def test_publishing_again_without_the_search_leaves_nothing_of_it(exported, home, hub, publish):
    assert publish("--search", "--tag", "v1").returncode == 0
    done = publish("--tag", "v2")
    assert done.returncode == 0, done.stderr
    removed = "search/ will be removed; earlier commits keep it, passages included"
    assert done.stdout.splitlines()[0] == removed
    before, now = (hub.repositories[REPO].at(tag).files for tag in ("v1", "v2"))
    assert set(now) == set(before) - set(of_search(before)) and of_search(before)
    assert "The passages are not published here." in now["README.md"].decode()
    assert "Searcher(" not in done.stdout


def test_a_search_that_was_there_is_replaced_by_the_runs(exported, hub, publish):
    """The checkpoint that was uploaded in search/ by hand would be loaded instead of ours."""
    old = {"search/reranker/config.json": b"{}", "search/vectors/old.npy": b"0", "notes.md": b"#"}
    hub.add(REPO, old)
    assert publish("--search", "--tag", "v1").returncode == 0
    files = hub.repositories[REPO].at("v1").files
    assert of_search(files) == of_search(exported_files(exported)) and files["notes.md"] == b"#"


def test_a_dry_run_lists_the_search_and_says_who_reads_it(exported, home, hub, publish):
    done = publish("--search", "--dry-run")
    assert (done.returncode, done.stderr, hub.requests) == (0, "", [])
    listed = {
        name: int(size.replace(",", ""))
        for size, name in re.findall(r"(?m)^ +([\d,]+)  (\S+)$", done.stdout)
    }
    wanted = {name: len(content) for name, content in exported_files(exported).items()}
    top = ("README.md", "LICENSE")
    assert {name: size for name, size in listed.items() if name not in top} == wanted
    assert done.stdout.splitlines()[-1] == (
        f"search/ has the passages: whoever may read {REPO} will be able to read them"
    )
    assert not (home / "models/published.jsonl").exists()
    without = publish("--dry-run").stdout
    assert "search/" not in without and without.count("\n") > 100


def test_a_file_of_the_search_that_did_not_arrive_is_reported(hub, publish):
    hub.add(REPO, {".gitignore": b"search/corpus.jsonl\n"})
    done = publish("--search", "--tag", "v1")
    head = hub.repositories[REPO].commits[-1].oid
    assert done.returncode == 1 and done.stderr == (
        f"error: {REPO} at {head} lacks search/corpus.jsonl (a .gitignore there?); do not use that "
        "commit\n"
    )
    assert hub.repositories[REPO].tags == {}


@pytest.mark.parametrize("name", ["models/retriever", "data/prepared"])
def test_a_search_of_another_run_is_not_published(searched, hub, publish, tmp_path, name):
    folder = copied(searched, tmp_path / "repo")
    shutil.rmtree(folder / name)
    done = publish("--search", cwd=folder)
    assert done.returncode == 1 and done.stdout == "" and hub.requests == []
    assert done.stderr.startswith(f"error: {name}") and f"dvc pull {name}" in done.stderr
