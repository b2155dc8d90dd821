"""What installs the packages of an extra, from a checkout and without one."""

from importlib import metadata

from diffq_exp.common import packages
from diffq_exp.common.packages import CHECKOUT, install_command


def test_from_a_checkout(monkeypatch, tmp_path):
    assert (CHECKOUT / "pyproject.toml").is_file()
    monkeypatch.chdir(CHECKOUT)
    assert install_command("onnx") == "pip install -e '.[onnx]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("onnx") == f"pip install -e '{CHECKOUT}[onnx]'"


def test_of_an_installed_package(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "CHECKOUT", tmp_path)
    requires = [
        "torch>=2.6",
        'onnx>=1.17; extra == "onnx"',
        "onnxruntime >=1.20 ; extra == 'onnx'",
        'timm; extra == "timm"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    assert install_command("onnx") == "pip install 'onnx>=1.17' 'onnxruntime >=1.20'"
