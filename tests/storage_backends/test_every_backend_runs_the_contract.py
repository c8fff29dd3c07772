"""Every backend runs the contract, and none overrides a test of it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from storage_backends.registry import schemes
from tests.contracts.storage_contract import StorageContract

FOLDER = Path(__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("test_*_contract.py") if path != Path(__file__))


def subclasses() -> list[type[StorageContract]]:
    modules = [importlib.import_module(f"tests.storage_backends.{name}") for name in MODULES]
    return [
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, StorageContract) and found is not StorageContract
    ]


def contract_tests() -> set[str]:
    return {name for name in vars(StorageContract) if name.startswith("test")}


@pytest.mark.parametrize("suite", subclasses(), ids=lambda suite: suite.__name__)
def test_a_suite_gives_a_destination_and_what_it_cannot_and_overrides_nothing(
    suite: type[StorageContract],
) -> None:
    own = {name for name in vars(suite) if not name.startswith("__")} - {"_abc_impl"}

    assert own <= {"destination", "cannot"}
    assert suite.__name__.startswith("Test"), "or pytest would not collect it"
    assert suite.__mro__[1] is StorageContract


@pytest.mark.parametrize("suite", subclasses(), ids=lambda suite: suite.__name__)
def test_what_a_suite_cannot_is_a_test_of_the_contract_with_a_reason(suite: type[StorageContract]) -> None:
    assert {name.partition("[")[0] for name in suite.cannot} <= contract_tests()
    assert all(suite.cannot.values())


def test_the_contract_marks_nothing_as_skipped() -> None:
    source = inspect.getsource(StorageContract)

    assert "skip" not in source
    assert source.count("xfail") == 1, "only where `cannot` is read"


def test_every_registered_scheme_runs_the_contract() -> None:
    suites = {
        "az": "test_azure_contract",
        "file": "test_filesystem_contract",
        "gs": "test_gcs_contract",
        "memory": "test_memory_contract",
        "s3": "test_s3_contract",
    }

    ours = {
        name for name, entry_point in schemes().items() if entry_point.value.startswith("storage_backends.")
    }

    assert ours == set(suites), (
        "a backend was registered: give it a module that runs the contract, and name it here"
    )
    assert set(suites.values()) == set(MODULES)


def test_the_contract_has_tests() -> None:
    assert len(contract_tests()) >= 50
