"""The files around the library agree with each other and with what is there."""

import ast
import os
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DISTRIBUTIONS = {
    "IPython": "ipython",
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "jupyter_client": "jupyter-client",
    "sklearn": "scikit-learn",
}
# Modules that only a maintainer runs; the [dev] extra is there for them.
MAINTAINERS = {"authoring.py", "_sources.py", "_source_rules.py"}


def locked() -> dict[str, list[Requirement]]:
    """The lines of requirements.lock, by package."""
    found = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        found.setdefault(requirement.name, []).append(requirement)
    return found


def pin(name: str) -> str:
    (requirement,) = locked()[name]
    return str(requirement.specifier).removeprefix("==")


def code_of(page: Path) -> str:
    """The code blocks and code spans of a page."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text)])


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ +(.+?)\s*$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


# ── what is installed ────────────────────────────────────────────────────────────────────────────


def test_the_lock_has_nothing_but_exact_versions():
    for name, requirements in locked().items():
        for requirement in requirements:
            assert requirement.url is None, name
            assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), name


def test_the_torch_and_torchvision_of_the_lock_work_together():
    assert metadata.version("torch").split("+")[0] == pin("torch")
    assert metadata.version("torchvision").split("+")[0] == pin("torchvision")
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), iou_threshold=0.5)
    assert kept.tolist() == [1, 2]  # wheels that do not match have no nms


def test_the_lock_has_every_dependency_in_a_version_that_fits():
    named = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, named):
        assert requirement.name in locked()
        for entry in locked()[requirement.name]:
            (version,) = [specifier.version for specifier in entry.specifier]
            assert version in requirement.specifier, requirement


def test_every_package_that_the_library_imports_is_a_dependency():
    declared = {Requirement(text).name for text in PROJECT["dependencies"]}
    for_maintainers = {Requirement(t).name for t in PROJECT["optional-dependencies"]["dev"]}
    for path in (ROOT / "course_lib").rglob("*.py"):
        allowed = declared | (for_maintainers if path.name in MAINTAINERS else set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            for top in {name.split(".")[0] for name in names}:
                if top not in sys.stdlib_module_names | {"course_lib"}:
                    assert DISTRIBUTIONS.get(top, top) in allowed, f"{path.name} imports {top}"


def test_conda_installs_the_lock_and_the_project_and_nothing_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]

    assert [re.split(r"[ <>=]", package)[0] for package in packages] == ["python", "pip"]
    assert pip == {"pip": ["-r requirements.lock", "-e .[dev]"]}
    assert packages[0].removeprefix("python ").startswith(PROJECT["requires-python"])


def test_make_looks_for_a_python_that_the_project_supports():
    (oldest,) = SpecifierSet(PROJECT["requires-python"])

    assert oldest.operator == ">="
    wanted = f"sys.version_info < ({', '.join(oldest.version.split('.'))})"
    assert wanted in (ROOT / "Makefile").read_text()


def test_continuous_integration_calls_make_test_on_supported_pythons():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]

    assert job["steps"][-1] == {"run": "make test"}
    versions = {entry["python"] for entry in job["strategy"]["matrix"]["include"]}
    assert versions <= set(SpecifierSet(PROJECT["requires-python"]).filter(versions))
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_pre_commit_downloads_nothing():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_the_licence_is_there_and_names_the_authors():
    text = (ROOT / "LICENSE").read_text()

    assert text.startswith(f"{PROJECT['license']} License")
    assert PROJECT["authors"][0]["name"] in text


# ── what the pages say ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_of_a_page_exists(page):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake(?: [A-Z]+=\S+)* ([a-z][a-z-]*)", code_of(ROOT / page)))

    assert len(named) >= 3
    assert named <= targets


def test_the_readme_and_the_syllabus_name_the_lessons_that_are_there():
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    syllabus = (ROOT / "docs/syllabus.md").read_text()
    readme = (ROOT / "README.md").read_text()

    assert set(re.findall(r"● (\d\d_\w+)", syllabus)) == there
    assert set(re.findall(r"^\| (\d\d) ", readme, re.MULTILINE)) == {name[:2] for name in there}


def test_the_design_names_every_module_of_the_library():
    design = (ROOT / "docs/design.md").read_text()
    modules = {path.name for path in (ROOT / "course_lib").glob("[!_]*.py")}
    helpers = {path.name for path in (ROOT / "course_lib").glob("_[!_]*.py")}

    assert {name for name in modules | helpers if f"`{name}`" not in design} == set()
