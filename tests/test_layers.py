"""The house stands: imports go down, never up, and heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import envs
import tuning

ROOT = Path(__file__).parent.parent
RAY_ALLOWED = ("trialign_ray/actors/", "trialign_ray/run.py", "trialign_ray/commands/")
MODEL_LIBRARIES_ALLOWED = (
    "trialign_ray/language_model.py",
    "trialign_ray/adapters.py",
    "trialign_ray/engines/",
)


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def importers(folder: str, libraries: tuple[str, ...]) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in sources(folder)
        for module in imported_modules(path)
        if module.split(".")[0] in libraries
    }


def test_envs_knows_neither_torch_nor_the_learner():
    assert importers("envs", ("torch", "transformers", "trialign_ray", "tuning")) == set()


def test_only_the_worlds_themselves_import_ray_in_envs():
    assert importers("envs", ("ray",)) == {"envs/choice_world.py", "envs/world.py"}


def test_the_learner_does_not_know_the_search():
    assert importers("trialign_ray", ("tuning",)) == {
        "trialign_ray/commands/studies.py",
        "trialign_ray/commands/tuning.py",
    }  # the doors


def test_the_search_reaches_the_learner_through_run_and_targets_only():
    allowed = ("trialign_ray.run", "trialign_ray.targets", "trialign_ray.config")
    looks = ("trialign_ray.chart_style", "trialign_ray.html_page")  # of all pages
    for path in sources("tuning"):
        for module in imported_modules(path):
            assert not module.startswith("trialign_ray") or module.startswith((*allowed, *looks)), (
                path
            )


def test_ray_is_imported_in_actors_and_the_recipe_only():
    for name in importers("trialign_ray", ("ray",)):
        assert name.startswith(RAY_ALLOWED), name


def test_transformers_and_peft_stay_in_their_rooms():
    for name in importers("trialign_ray", ("transformers", "peft")):
        assert name.startswith(MODEL_LIBRARIES_ALLOWED), name


def test_ops_are_pure_mathematics():
    forbidden = {"trialign_ray.config", "logging", "os", "json", "ray", "pathlib"}
    for path in sources("trialign_ray/ops"):
        assert not imported_modules(path) & forbidden, path


def test_common_package_names_resolve_to_our_tree():
    assert Path(envs.__file__).is_relative_to(ROOT)
    assert Path(tuning.__file__).is_relative_to(ROOT)


def test_help_imports_nothing_heavy():
    code = (
        "import sys, trialign_ray.cli; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'transformers', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_optional_extra_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"dev", "hub", "judge", "vllm", "lm-eval", "mlflow", "wandb"}
    assert extras == set(project["optional-dependencies"])


def test_the_repository_keeps_files_readable():
    for folder in ("envs", "trialign_ray", "tuning"):
        for path in sources(folder):
            assert len(path.read_text().splitlines()) <= 400, path
