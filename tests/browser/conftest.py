"""Tests in a browser run when they are asked for (`make test-browser`), not with all others."""


def pytest_ignore_collect(collection_path, config):
    return None if any("browser" in asked for asked in config.args) else True
