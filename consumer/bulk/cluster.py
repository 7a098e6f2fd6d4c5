"""The two stages of a bulk job on Ray Data: CPU actors prepare parts, model actors answer them.

Ray brings what a job over many machines needs: a part whose machine dies is done elsewhere, and no stage runs away from
the next. Without an address it starts on this machine alone, for this job alone, behind a token of its own. The only
file that imports Ray. After prepare.py and answers.py, whose objects it moves; before folder.py, which keeps them.
"""

import logging
import os
import secrets
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from consumer.bulk.answers import Answering, PartAnswerer
from consumer.bulk.job import Part
from consumer.bulk.prepare import PartPreparer, Preparing
from consumer.errors import ConfigError, FatalError
from consumer.settings import PhotoSettings

STORE_BYTES: Final = 2**30
"""Of shared memory for parts on their way, here: a part of 256 photos of 224 px takes 38 MB."""
# Ray reads these when it is imported. It counts nobody's use of it, and asks no server for it.
ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True, slots=True)
class Shape:
    """How wide the job is.

    Args:
        workers: processes that prepare parts, a CPU each; None: as many as the models leave CPUs.
        models: processes that answer.
        threads: CPUs of each model.
        gpus: of each model.
        address: of a Ray cluster; None: this machine.
        cpus: of this machine.
    """

    workers: int | None
    models: int
    threads: int
    gpus: int
    address: str | None
    cpus: int

    def preparing(self, cpus: float) -> int:
        """How many workers there are, given so many CPUs."""
        return self.workers or max(1, int(cpus) - self.models * self.threads)


def work(
    parts: Sequence[Part], preparing: Preparing, answering: Answering, shape: Shape
) -> Generator[tuple[int, bytes], None, None]:
    """Number and answers of each part, as they come; blocks in between.

    Raises:
        ConfigError: Ray is not installed, not to be reached, or too small.
        FatalError: a stage cannot go on; the parts that came are good.
    """
    with _ray(shape) as ray:
        workers = _fitting(shape, ray.cluster_resources())
        preparing = replace(preparing, photo=_share(preparing.photo, workers))
        items = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        done = items.map(
            PartPreparer, fn_constructor_args=(preparing,), concurrency=min(workers, len(parts)), num_cpus=1
        ).map(
            PartAnswerer,
            fn_constructor_args=(answering,),
            concurrency=min(shape.models, len(parts)),
            num_cpus=shape.threads,
            num_gpus=shape.gpus or None,
        )
        try:
            for row in done.iter_rows():
                yield row["number"], row["answers"]
        except ray.exceptions.RayError as error:
            raise _told(error) from error


def _fitting(shape: Shape, there: Mapping[str, float]) -> int:
    """How many workers the cluster has room for; Ray would wait for ever for more."""
    workers, cpus, gpus = shape.preparing(there.get("CPU", 0)), there.get("CPU", 0), there.get("GPU", 0)
    wanted = workers + shape.models * shape.threads
    if wanted > cpus or shape.models * shape.gpus > gpus:
        raise ConfigError(
            f"the job wants {wanted} CPUs and {shape.models * shape.gpus} GPUs, Ray has {cpus:.0f} and {gpus:.0f}: "
            "give it fewer --workers or --models"
        )
    return workers


def _share(photo: PhotoSettings | None, workers: int) -> PhotoSettings | None:
    """Of the connections to one host: all workers together open no more than one service does."""
    return photo and photo.model_copy(update={"per_host": max(1, photo.per_host // workers)})


@contextmanager
def _ray(shape: Shape) -> Iterator[Any]:
    os.environ |= ENVIRONMENT
    with ExitStack() as stack:
        options: dict[str, Any] = {"address": shape.address}
        if shape.address is None:
            # Ray listens beyond this machine whatever one says: so it runs behind a token that nobody else has.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mmcat-", ignore_cleanup_errors=True))
            options |= {
                "num_cpus": shape.preparing(shape.cpus) + shape.models * shape.threads,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": folder,
                "_node_ip_address": "127.0.0.1",
            }
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise ConfigError(f"bulk jobs need Ray: pip install 'mmcat[bulk]' ({error})") from error
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = shape.address or "this machine"
            raise ConfigError(f"Ray does not start at {where}: {' '.join(str(error).split())[:300]}") from error
        stack.callback(ray.shutdown)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray


def _told(error: BaseException) -> FatalError:
    """One sentence: the first error below Ray's that is ours, or the last line of what it says."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError | FatalError):
        cause = cause.__cause__
    lines = [line for line in str(cause or error).splitlines() if line.strip()]
    return FatalError(f"a stage of the job stopped: {lines[-1].strip()[:300] if lines else type(error).__name__}")
