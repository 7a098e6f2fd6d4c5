"""What holds the packages apart: the import arrows, the maps in the packages' docstrings, `__all__`, a light `--help`.

The arrows are read from the syntax tree of every file, so an import inside a function counts as much as one at the top.
"""

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mmcat", "consumer", "training")
KAFKA_CLIENT = "confluent_kafka"
# Files that decide and calculate: whatever talks to the outside has no business in them.
PURE = (
    "consumer/events.py",
    "consumer/batching.py",
    "consumer/offsets.py",
    "consumer/gapless.py",
    "consumer/rank.py",
    "mmcat/paths.py",
)
CLIENTS = {"confluent_kafka", "redis", "aiohttp", "prometheus_client", "httpx", "requests"}
HEAVY = ("torch", "transformers", "numpy", "typer", "rich", "pydantic", "confluent_kafka")


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, at the top or late, `importlib.import_module` with a constant included."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(item.value) for item in node.args[:1] if isinstance(item, ast.Constant))


def tops(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported(path)}


def in_cli(path: Path) -> bool:
    return name(path).startswith("mmcat/cli/")


def test_the_library_knows_neither_the_consumer_nor_training() -> None:
    guilty = {name(path) for path in sources("mmcat") if not in_cli(path) and tops(path) & {"consumer", "training"}}
    assert not guilty


def test_the_consumer_and_training_never_meet() -> None:
    guilty = {name(path) for path in sources("consumer") if "training" in tops(path)}
    guilty |= {name(path) for path in sources("training") if "consumer" in tops(path)}
    assert not guilty


def test_only_the_program_knows_its_own_root() -> None:
    guilty = {
        name(path)
        for path in sources(*PACKAGES)
        if not in_cli(path) and any(module.startswith("mmcat.cli") for module in imported(path))
    }
    assert not guilty


def test_one_file_of_the_consumer_imports_the_kafka_client_and_no_file_of_another_package() -> None:
    users = {name(path) for path in sources(*PACKAGES) if KAFKA_CLIENT in tops(path)}
    assert {path for path in users if not path.startswith("mmcat/cli/")} <= {"consumer/kafka.py"}


@pytest.mark.parametrize("path", PURE)
def test_a_pure_file_imports_no_client(path: str) -> None:
    assert not tops(ROOT / path) & CLIENTS


def test_only_the_two_that_drive_the_pipeline_know_it() -> None:
    """The live service and the replay; every stage knows only what it needs."""
    guilty = {
        name(path)
        for path in sources("consumer")
        if path.name not in ("pipeline.py", "service.py", "replay.py", "__init__.py")
        and "consumer.pipeline" in set(imported(path))
    }
    assert not guilty


def test_nothing_unpickles_or_loads_code() -> None:
    calls = ("torch.load", "pickle.load", "pickle.loads", "joblib.load")
    guilty = {
        (name(path), ast.unparse(node.func))
        for path in sources(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in calls
    }
    assert not guilty


@pytest.mark.parametrize("package", [module_of(p) for p in sources(*PACKAGES) if p.name == "__init__.py"])
def test_the_map_of_a_package_names_every_module(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    words = set(re.findall(r"\w+", text))
    assert not modules - words, f"the docstring of {package} does not name {sorted(modules - words)}"


def exported(tree: ast.Module) -> set[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return {str(item) for item in ast.literal_eval(node.value)}
    return None


def defined(tree: ast.Module) -> set[str]:
    """Names a file brings into being by itself or re-exports by importing them."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.If):
            found |= defined(ast.Module(body=node.body, type_ignores=[]))
    return found


@pytest.mark.parametrize("path", [name(path) for path in sources(*PACKAGES)])
def test_every_exported_name_exists(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = exported(tree)
    if names is None:
        return
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    missing = names - defined(tree)
    assert not missing or lazy, f"{path} exports {sorted(missing)}, which it does not have"


@pytest.mark.parametrize("path", [name(path) for path in sources(*PACKAGES) if path.name == "__init__.py"])
def test_a_package_exports_all_it_brings_in_and_no_more(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    own = path.partition("/")[0]
    brought = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] == own)
        for alias in node.names
    }
    brought |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    public = {word for word in brought if not word.startswith("_")}
    assert public <= (exported(tree) or set())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_public_package_exports_what_it_says(package: str) -> None:
    script = (
        f"import {package}\n"
        f"missing = [n for n in getattr({package}, '__all__', ()) if not hasattr({package}, n)]\n"
        "assert not missing, missing"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=280)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_does_not_import_torch(package: str) -> None:
    script = f"import sys, {package}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=280)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from mmcat.cli import main\n"
        "assert main(['--help']) == 0\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=280, stdout=subprocess.DEVNULL)


def test_help_answers_in_under_three_tenths_of_a_second() -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mmcat.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Seconds of processor, best of ten: what the program needs, not what its neighbours on this machine take. It waits
    # for nothing, so on an idle machine this is what a person waits.
    assert min(once() for _ in range(10)) < 0.3
