"""The emulator as a process of its own, and its admin port."""

import json
import subprocess
import urllib.request

KEY_NAME = "RootManageSharedAccessKey"
KEY = "SAS_KEY_VALUE"


class Emulator:
    """Runs the binary on free ports; on a restart, on the ports it had."""

    def __init__(self, binary, data):
        self._binary = binary
        self._data = data
        self._amqp = "127.0.0.1:0"
        self._admin = "127.0.0.1:0"
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [self._binary, "--listen", self._amqp, "--admin-listen", self._admin, "--data", self._data],
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._process.stdout.readline()
        assert ready, "the emulator ended before it served; its log is above"
        addresses = json.loads(ready)
        self._amqp = addresses["amqp"][0]
        self._admin = addresses["admin"]

    def kill(self):
        """SIGKILL: nothing is flushed and nobody is told."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def connection_string(self, key=KEY):
        return (
            f"Endpoint=sb://{self._amqp};SharedAccessKeyName={KEY_NAME};"
            f"SharedAccessKey={key};UseDevelopmentEmulator=true;"
        )

    def create_queue(self, name, **settings):
        settings = {key.replace("_", "-"): value for key, value in settings.items()}
        return self.admin("PUT", f"/queues/{name}", settings)

    def queue(self, name):
        return self.admin("GET", f"/queues/{name}")

    def set_faults(self, name, **faults):
        return self.admin("PUT", f"/queues/{name}/faults", faults)

    def admin(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://{self._admin}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None
