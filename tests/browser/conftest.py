"""Tests in a browser run with `make test-browser` only."""


def pytest_ignore_collect(collection_path, config):
    return None if any("browser" in argument for argument in config.args) else True
