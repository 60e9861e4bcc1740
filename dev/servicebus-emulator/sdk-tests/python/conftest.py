import os
import uuid

import pytest
from azure.servicebus import ServiceBusClient

from emulator import Emulator


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """One for all tests; each has a queue of its own."""
    running = Emulator(os.environ["EMULATOR_BINARY"], tmp_path_factory.mktemp("data"))
    yield running
    running.kill()


@pytest.fixture
def own_emulator(tmp_path):
    """One that the test may kill."""
    running = Emulator(os.environ["EMULATOR_BINARY"], tmp_path)
    yield running
    running.kill()


@pytest.fixture
def make_queue(emulator):
    def make(**settings):
        name = f"q-{uuid.uuid4()}"
        emulator.create_queue(name, **settings)
        return name

    return make


@pytest.fixture
def queue(make_queue):
    return make_queue()


def open_client(emulator, **options):
    # The SDK's own pauses between attempts, 0.8 s and doubling, would be most of the tests' time.
    return ServiceBusClient.from_connection_string(
        emulator.connection_string(**options), retry_backoff_factor=0.1
    )


@pytest.fixture
def client(emulator):
    with open_client(emulator) as client:
        yield client
