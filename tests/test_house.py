"""The house rules: lint, format, types, layers, sizes, and that what the front page shows runs."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src" / "tauflow").rglob("*.py"))

TOOLS = {
    "lint": ["-m", "ruff", "check", "."],
    "format": ["-m", "ruff", "format", "--check", "."],
    "types": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tools_find_nothing(tool):
    command = [sys.executable, *TOOLS[tool]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_files_and_functions_stay_small_and_public_functions_say_what_they_do(path):
    text = path.read_text()
    assert text.count("\n") <= 500
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 60, f"{node.name} has {length} lines of code"
            overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
            if node.col_offset == 0 and not node.name.startswith("_") and not overload:
                assert ast.get_docstring(node), f"{node.name} is public and has no docstring"


def test_nothing_is_pickled():
    for path in SOURCES:
        code = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|dill|cloudpickle|joblib)\b", code, re.M), path
        assert "allow_pickle=True" not in code, path


def test_importing_does_not_change_jax_for_the_whole_process():
    code = (
        "import jax; before = {k: getattr(jax.config, k) for k in ('jax_enable_x64', 'jax_num_cpu_devices', "
        "'jax_numpy_dtype_promotion', 'jax_default_matmul_precision')}\n"
        "import tauflow, tauflow.papers, tauflow.learning, tauflow.study, tauflow.theory, tauflow.plots, tauflow.cli\n"
        "assert before == {k: getattr(jax.config, k) for k in before}, 'changed'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = [(page, block) for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)]


RUN_EACH = """
import json, os, sys, traceback
import equinox, jax, optax, tauflow

for number, block in enumerate(json.load(sys.stdin)):
    os.mkdir(str(number))
    child = os.fork()  # nothing has been computed yet, so that JAX has started no device
    if child == 0:
        os.chdir(str(number))
        try:
            exec(compile(block, "block", "exec"), {"__name__": "__main__"})
        except BaseException:
            with open("error", "w") as file:
                traceback.print_exc(file=file)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        with open(f"{number}/error", "w") as file:
            file.write("the process was killed")
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """What each block that fails says, by number; a block runs in a process of its own that has imported JAX."""
    folder = tmp_path_factory.mktemp("shown")
    blocks = json.dumps([block for _, block in SHOWN])
    command = [sys.executable, "-c", RUN_EACH]
    done = subprocess.run(command, cwd=folder, input=blocks, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(folder.iterdir())) == len(SHOWN)
    return {int(path.parent.name): path.read_text() for path in folder.glob("*/error")}


@pytest.mark.parametrize("i", range(len(SHOWN)), ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(SHOWN)])
def test_what_the_pages_show_runs(i, errors):
    assert i not in errors, errors[i][-3000:]


def test_the_front_page_shows_the_library_from_python_in_under_ten_lines():
    blocks = [block for page, block in SHOWN if page.name == "README.md"]
    assert blocks and sum(bool(line.strip()) for line in blocks[0].splitlines()) < 10


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
