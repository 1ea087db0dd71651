import subprocess
import sys


def test_reading_a_recipe_loads_no_heavy_package():
    code = (
        "import sys; from coltrain.recipe import load_recipe, to_yaml; to_yaml(load_recipe('tiny'))\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'PIL') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
