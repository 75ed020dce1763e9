"""Arrows go one way: bot.app, bot.cli → handlers, sandbox, storage → the core. Read from the imports.

The picture and the reasons are in docs/architecture.md. Who needs a new arrow changes the rule here,
in the open, and not the code around it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("bot", "handlers", "sandbox", "storage")
EDGES = ("handlers", "sandbox", "storage")
OURS = (*PRODUCT, "tests")

COMPOSERS = frozenset(
    {"bot.app", "bot.app_agents", "bot.app_code", "bot.app_sandboxes", "bot.cli", "bot.__main__"}
)  # the only ones who know every part
SETTINGS = frozenset({"bot.settings", "bot.settings_sandboxes"})
WITH_PLAYGROUND = frozenset({"bot.cli"})  # the demo
VOCABULARY = frozenset({"bot", "bot.ports", "bot.models", "bot.events", "bot.errors", "bot.timeline"})

# What belongs to a vendor, or to a database, is imported in one place.
PLACES: Mapping[str, str | tuple[str, ...]] = {
    "slack_bolt": "handlers/slack/",
    "slack_sdk": "handlers/slack/",
    "github": "handlers/github/",
    "sqlite3": ("storage/", "sandbox/inside/opencode_alone.py"),  # OpenCode keeps its conversations so
    "aiosqlite": "storage/",
    "psycopg": "storage/",
    "procrastinate": "storage/",
    "daytona": "sandbox/daytona",
    "e2b": "sandbox/e2b.py",
    "aiodocker": "sandbox/engine.py",
    "docker": "sandbox/registry_login.py",
}

# Half of another library, which pins it exactly.
HALVES = {
    "pydantic_core": "pydantic",
    "daytona_api_client_async": "daytona",
    "daytona_toolbox_api_client_async": "daytona",
}

LONGEST = {"product": 450, "tests": 800}
LONG_ON_PURPOSE = {
    "bot/models.py": "the vocabulary: read as one list, from top to bottom",
    "bot/ports.py": "what the core asks of the outside: read as one list, from top to bottom",
    "sandbox/inside/forward.py": "copied into boxes, so it is one file of the standard library alone",
    "sandbox/inside/scripted_agent.py": "copied into boxes, so it is one file of the standard library alone",
    "sandbox/inside/supervisor.py": "copied into boxes, so it is one file of the standard library alone",
}

# Directories of whoever wrote a file; spelled so that this file does not contain them.
FOREIGN_PATHS = re.compile(rb"(?<![\w.~-])/(?:work|root)/|/(?:tmp/bash_jobs|opt/pypi)\b")


@dataclass(frozen=True, slots=True)
class Import:
    importer: str
    target: str  # a module, as far as the statement says: of ours always a whole module's name
    where: str
    at_load: bool  # runs when the importer is loaded: not in a function, not for the type checker

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.where} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    return tuple(one for name, path in modules().items() for one in _imports_of(name, path))


def _imports_of(name: str, path: Path) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(), str(path)), True)]
    while waiting:
        node, at_load = waiting.pop()
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            wholes = (f"{source}.{alias.name}" for alias in node.names)
            targets = [whole if whole in modules() else source for whole in wholes]
        for target in dict.fromkeys(targets):
            yield Import(name, target, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", at_load)
        inner = at_load and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += [(child, False) for child in node.body]
            waiting += [(child, inner) for child in node.orelse]
        else:
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def is_core(module: str) -> bool:
    return within(module, "bot") and module not in COMPOSERS


def none_of(wrong: Iterator[Import]) -> None:
    lines = sorted(map(str, wrong))
    if lines:
        pytest.fail("\n".join(lines))


def test_the_core_imports_neither_handlers_nor_sandbox_nor_storage() -> None:
    none_of(one for one in imports() if is_core(one.importer) and within(one.target, *EDGES))


def test_no_agent_knows_another() -> None:
    def agent(module: str) -> str:
        return next((package for package in agents if within(module, package)), "")

    agents = {f"bot.agents.{path.name}" for path in (ROOT / "bot" / "agents").iterdir() if path.is_dir()}
    none_of(
        one for one in imports() if agent(one.importer) and agent(one.target) not in ("", agent(one.importer))
    )


def test_the_core_needs_no_vendor_no_http_and_no_sql() -> None:
    """Standard library alone; the settings are pydantic's."""
    none_of(
        one
        for one in imports()
        if is_core(one.importer)
        and one.importer not in SETTINGS
        and one.top not in sys.stdlib_module_names
        and one.top not in PRODUCT
    )


def test_only_the_composition_roots_read_the_settings() -> None:
    none_of(
        one
        for one in imports()
        if one.target in SETTINGS
        and one.importer not in COMPOSERS | SETTINGS
        and not within(one.importer, "tests")
    )


def test_nobody_imports_the_composition_roots() -> None:
    none_of(
        one
        for one in imports()
        if one.target in COMPOSERS and one.importer not in COMPOSERS and not within(one.importer, "tests")
    )


def test_sandbox_and_storage_know_only_the_vocabulary() -> None:
    none_of(
        one
        for one in imports()
        if within(one.importer, "sandbox", "storage")
        and within(one.target, "bot")
        and one.target not in VOCABULARY
    )


def test_handlers_sandbox_and_storage_do_not_import_each_other() -> None:
    none_of(
        one
        for one in imports()
        for edge in EDGES
        if within(one.importer, edge) and within(one.target, *EDGES) and not within(one.target, edge)
    )


def test_programs_inside_a_box_stand_alone() -> None:
    none_of(
        one
        for one in imports()
        if within(one.importer, "sandbox.inside") and one.top not in sys.stdlib_module_names
    )


def test_programs_inside_a_box_are_written_for_python_3_9() -> None:
    for name, path in modules().items():
        if within(name, "sandbox.inside"):
            ast.parse(path.read_text(), str(path), feature_version=(3, 9))


def test_the_playground_knows_nothing_of_the_core() -> None:
    none_of(
        one
        for one in imports()
        if within(one.importer, "handlers.playground")
        and within(one.target, *PRODUCT)
        and not within(one.target, "handlers.playground")
    )


def test_only_the_demo_and_the_tests_import_the_playground() -> None:
    none_of(
        one
        for one in imports()
        if within(one.target, "handlers.playground")
        and not within(one.importer, "handlers.playground", "tests", *WITH_PLAYGROUND)
    )


@pytest.mark.parametrize("vendor", PLACES)
def test_a_vendors_library_is_imported_in_one_place(vendor: str) -> None:
    none_of(
        one
        for one in imports()
        if one.top == vendor
        and not within(one.importer, "tests")
        and not one.where.startswith(PLACES[vendor])
    )


def test_the_product_does_not_import_its_tests() -> None:
    none_of(one for one in imports() if within(one.target, "tests") and not within(one.importer, "tests"))


def test_no_module_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for one in imports():
        if one.at_load and one.target in graph and one.target != one.importer:
            graph[one.importer].add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_what_is_imported_is_declared() -> None:
    """A library that came along with another one may leave with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = list(project["project"]["dependencies"])
    for extra in project["project"].get("optional-dependencies", {}).values():
        declared += extra
    for_tests = [line for line in project["dependency-groups"]["dev"] if isinstance(line, str)]
    known = packages_distributions()

    def missing(one: Import, lines: list[str]) -> bool:
        names = {_canonical(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}
        return names.isdisjoint(
            _canonical(name) for name in known.get(HALVES.get(one.top, one.top), [one.top])
        )

    none_of(
        one
        for one in imports()
        if one.top not in sys.stdlib_module_names
        and one.top not in OURS
        and missing(one, [*declared, *for_tests] if within(one.importer, "tests") else declared)
    )


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_a_long_file_has_a_reason() -> None:
    long = {}
    for name, path in modules().items():
        lines = len(path.read_text().splitlines())
        if lines > LONGEST["tests" if within(name, "tests") else "product"]:
            long[str(path.relative_to(ROOT))] = lines
    assert not {path: lines for path, lines in long.items() if path not in LONG_ON_PURPOSE}
    assert LONG_ON_PURPOSE.keys() <= long.keys(), "a reason for a file that is not long any more"


def test_no_file_carries_paths_of_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the files that belong to it")
    wrong = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and (found := FOREIGN_PATHS.search(path.read_bytes())):
            wrong[name] = found.group().decode()
    assert not wrong
