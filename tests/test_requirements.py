"""Exact versions: the files of requirements/, and the scripts that write and check them."""

import importlib.util
import json
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
CONSTRAINTS = sorted(FOLDER.glob("constraints-*.txt"))


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit, freeze = load("audit"), load("freeze")


def required(name):
    """Names in a file of requirements, as PyPI normalizes them, with their bounds."""
    lines = (line.partition("#")[0].strip() for line in (FOLDER / name).read_text().splitlines())
    pairs = (re.match(r"([\w.-]+)(?:\[.*\])?(.*)", line).groups() for line in lines if line)
    return {re.sub(r"[-_.]+", "-", package).lower(): bounds for package, bounds in pairs}


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_there_are_constraints_for_every_python_that_is_declared():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    declared = re.findall(r"Python :: (3\.\d+)'", str(classifiers))
    assert [path.name for path in CONSTRAINTS] == [f"constraints-{v}.txt" for v in declared]
    assert "requirements/constraints-$(PYTHON_VERSION).txt" in (ROOT / "Makefile").read_text()
    assert "graft requirements\n" in (ROOT / "MANIFEST.in").read_text()


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_pin_every_requirement_within_its_bounds(path):
    pinned = dict(audit.pins([path]))
    text = path.read_text()
    assert "@" not in text and "://" not in text and "--" not in text
    names = ["core", "train", "tensorboard", "figures", "pretrained", "export", "gcs", "test",
             "docs"]  # fmt: skip
    for package, bounds in {
        k: v for name in names for k, v in required(f"{name}.txt").items()
    }.items():
        for operator, bound in re.findall(r"(>=|<)([\d.]+)", bounds):
            version = numbers(pinned[package])
            assert version >= numbers(bound) if operator == ">=" else version < numbers(bound), (
                package
            )


def test_packages_whose_private_parts_are_used_have_an_upper_bound():
    bounds = required("core.txt") | required("train.txt")
    for package in ("jax", "flax", "orbax-checkpoint", "ml-collections", "absl-py"):
        assert "<" in bounds[package], package


def test_freeze_writes_pins_and_refuses_anything_else():
    text = freeze.constraints("a==1.0\nb_c==2.0.post1\n", "3.13", "requirements/x.txt")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "a==1.0",
        "b_c==2.0.post1",
    ]
    for line in ("a @ file:///somewhere/a.whl", "-e git+x#egg=a", "a>=1", ""):
        with pytest.raises(ValueError, match="expected lines of name==version"):
            freeze.constraints(f"{line}\n", "3.13", "x")


class Database:
    """Stands in for the database: advisories by name, and whether it knows the old one."""

    def __init__(self, advisories=(), known=True, answer=None):
        self.advisories, self.known, self.answer = dict(advisories), known, answer
        self.asked = []

    def __call__(self, request):
        request = json.loads(json.dumps(request))
        names = [query["package"]["name"] for query in request["queries"]]
        assert {query["package"]["ecosystem"] for query in request["queries"]} == {"PyPI"}
        self.asked += [
            (name, q["version"]) for name, q in zip(names, request["queries"], strict=True)
        ]
        if self.answer is not None:
            return self.answer
        known = {"jinja2": ["PYSEC-2014-8"]} if self.known else {}
        found = [(known | self.advisories).get(name, []) for name in names]
        return {
            "results": [{"vulns": [{"id": id_} for id_ in ids]} if ids else {} for ids in found]
        }


@pytest.fixture
def pinned(tmp_path):
    path = tmp_path / "constraints-3.13.txt"
    path.write_text("# comment\nPillow==9.0.0\nzope.thing==1.0  # note\n\nnumpy==2.0.0\n")
    return path


def run(capsys, path, database):
    code = audit.main([str(path)], ask=database)
    return code, *capsys.readouterr()


def test_audit_names_versions_with_advisories(pinned, capsys):
    database = Database({"pillow": ["CVE-1", "GHSA-2"]})
    code, out, err = run(capsys, pinned, database)
    assert (code, err) == (1, "")
    assert out.startswith("pillow 9.0.0: CVE-1, GHSA-2\n3 versions checked, 1 with advisories")
    assert database.asked[1:] == [("numpy", "2.0.0"), ("pillow", "9.0.0"), ("zope-thing", "1.0")]


def test_audit_without_advisories_says_how_many_it_checked(pinned, capsys):
    code, out, _ = run(capsys, pinned, Database())
    assert (code, out.split(" (")[0]) == (0, "3 versions checked, 0 with advisories")


def unreachable(request):
    raise audit.NotCheckedError("timed out")


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        (unreachable, "timed out"),
        # Such a database would pass everything.
        (Database(known=False), "knows no advisory of jinja2==2.4.1"),
        (Database(answer={}), "one result for each version"),
        (Database(answer=[]), "one result for each version"),
        (Database(answer={"results": [{}, {}]}), "one result for each version"),
        (Database(answer={"results": [{"vulns": 3}, {}, {}, {}]}), "cannot be read"),
        (Database(answer={"results": [{"vulns": [{}]}, {}, {}, {}]}), "cannot be read"),
        (Database(answer={"results": ["x", {}, {}, {}]}), "cannot be read"),
    ],
)  # fmt: skip
def test_audit_that_checked_nothing_says_so(pinned, capsys, database, reason):
    code, out, err = run(capsys, pinned, database)
    assert (code, out) == (3, "")
    assert err.startswith("NOT CHECKED: no version was compared") and reason in err


@pytest.mark.parametrize("text", ["", "# nothing\n", "a>=1\n", "a==\n", "-r other.txt\n"])
def test_audit_of_a_file_without_exact_versions_checks_nothing(tmp_path, capsys, text):
    path = tmp_path / "constraints.txt"
    path.write_text(text)
    assert run(capsys, path, Database())[0] == 3
    assert run(capsys, tmp_path / "missing.txt", Database())[0] == 3


def test_audit_asks_for_many_versions_in_parts(tmp_path, capsys):
    path = tmp_path / "constraints.txt"
    path.write_text("".join(f"package{n}==1.0\n" for n in range(1200)))
    database = Database({"package1100": ["CVE-3"]})
    code, out, _ = run(capsys, path, database)
    assert code == 1 and out.startswith("package1100 1.0: CVE-3\n1200 versions checked")
    assert len(database.asked) == 1203  # the known one is in each of three parts
