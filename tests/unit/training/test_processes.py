"""Several processes learn what one learns: they share each batch, and the loss is that of the whole batch."""

import socket
from pathlib import Path

from safetensors.torch import load_file

from tests.unit.training.by_heart import in_a_process


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_two_processes_equal_one(tmp_path: Path) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}  # as torchrun sets them
    ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    runs = [in_a_process(tmp_path / "one.safetensors", epochs=4)]
    runs += [in_a_process(tmp_path / "two.safetensors", epochs=4, environment=rank) for rank in ranks]
    for process, _ in runs:
        process.join()
    one, two = load_file(str(tmp_path / "one.safetensors")), load_file(str(tmp_path / "two.safetensors"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
