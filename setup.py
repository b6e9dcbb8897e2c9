"""Package `retina-plugin`: `pip install -e .` gives a working plugin once Detectron2 is there."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Return `__version__` without importing the package, which needs Detectron2."""
    source = (ROOT / "retina_plugin" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('retina_plugin/version.py has no line `__version__ = "..."`')
    return match[1]


def read_long_description() -> str:
    """Return the README, or nothing where a source archive lacks it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


JPEG = ["simplejpeg>=1.8"]  # INPUT.DECODER simplejpeg
BANDS = ["tifffile>=2023.1.23.1"]  # INPUT.FORMAT bands: TIFF that Pillow does not read as it is
TIMM = ["timm>=1.0.3"]  # build_retinanet_timm_fpn_backbone
VIDEO = ["av>=12"]  # videos of retina predict

EXTRAS = {
    # Pictures of the digits demo: handwriting and photographs that these packages ship.
    "demo": ["scikit-learn>=1.3", "scikit-image>=0.22"],
    "jpeg": JPEG,
    "bands": BANDS,
    "timm": TIMM,
    "video": VIDEO,
    "lvis": ["lvis>=0.5.3"],
    "dev": ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.17.6,<0.18", *JPEG, *BANDS, *TIMM, *VIDEO],
}

SERVICES = {"wandb": ["wandb>=0.19"], "mlflow": ["mlflow>=2.10"]}  # LOGGERS; too large for `all`
DOCS = ["mkdocs-material>=9.8.2", "mkdocstrings[python]>=1.0.8"]  # make docs

setup(
    name="retina-plugin",
    version=read_version(),
    description="RetinaNet for Detectron2: a drop-in dense detector whose parts are replaceable",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # configs/ at the root is shipped inside the package, retina_plugin/config/packaged.py finds it
    packages=[
        *find_packages(include=["retina_plugin", "retina_plugin.*"]),
        "retina_plugin.configs",
    ],
    package_dir={"retina_plugin.configs": "configs"},
    package_data={
        "retina_plugin.configs": ["**/*.yaml", "**/*.py", "README.md"],
        "retina_plugin.workbench.report": ["templates/*"],
    },
    python_requires=">=3.10",
    # requirements/oldest.txt has each lower bound, `make test-oldest` tries them
    install_requires=[
        # Detectron2 itself has no release to name here: retina_plugin/detectron2_check.py says
        # how to get it, `make setup` gets it.
        "torch>=2.6",  # before, torch.load(weights_only=True) could be made to run code
        "torchvision>=0.21",
        "click>=8.0.1",
        "jinja2>=3.0",
        # What Detectron2 imports and the wheel in requirements/detectron2.txt would ask for, had it
        # not to be installed without dependencies (it asks for numpy<2 and works with 2).
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.7,<0.1.10",
        "omegaconf>=2.2.1,<2.4",
        "hydra-core>=1.3",
        "pycocotools>=2.0.7",
        "hotcoco>=1.3,<2",  # COCO's evaluation and the report: retina_plugin/evaluation
        "yacs>=0.1.8",
        "tabulate>=0.9",
        "cloudpickle>=2.2",
        "tqdm>=4.60",
        "tensorboard>=2.12",
        "termcolor>=1.1",
        "matplotlib>=3.7",
        "packaging>=22.0",
        "black>=23.1",
        "PyYAML>=6.0.1",
        "Pillow>=10.1",
        "numpy>=1.24",
    ],
    extras_require={
        **EXTRAS,
        **SERVICES,
        "docs": DOCS,
        "all": sorted({requirement for extra in EXTRAS.values() for requirement in extra}),
    },
    py_modules=["retina_cli"],
    entry_points={"console_scripts": ["retina = retina_cli:main"]},
)
