"""These tests need eight devices: they are collected only in the process that tests/contract/test_parallel.py starts."""

from tests.conftest import DEVICES

collect_ignore_glob = [] if DEVICES == 8 else ["test_*.py"]
