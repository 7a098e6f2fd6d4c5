"""Each peer's packages, in a folder of its own under `MMCAT_HOME`: what they pin is not what the service runs on.

The folder stands first on the program's path, the environment's packages (torch, tokenizers …) behind it. Made once for
each list of requirements, by uv, which `make install` puts into the environment.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from mmcat.cli.bundles import home
from mmcat.cli.processes import ServerError

REQUIREMENTS: Final = {
    "quixstreams": ("quixstreams==3.28.1", "urllib3>=2.2"),
    "faststream": ("faststream[confluent]==0.7.8", "aiohttp>=3.11"),
    "arroyo": ("sentry-arroyo==2.48.0", "urllib3>=2.2"),
    "bytewax": ("bytewax[kafka]==0.21.1", "urllib3>=2.2"),
}
"""Of each peer, the newest that was seen to run here."""


def folder(peer: str) -> Path:
    """Where a peer's packages are; installs them if need be, which blocks for seconds to a minute.

    Raises:
        ServerError: they cannot be had.
    """
    wanted = REQUIREMENTS[peer]
    digest = hashlib.sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()[:12]
    made = home() / "peers" / f"{peer}-{digest}"
    if made.is_dir():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as beside:
        target = Path(beside) / "packages"
        install = (sys.executable, "-m", "uv", "pip", "install", "--compile-bytecode", "--python", sys.executable)
        done = subprocess.run((*install, "--target", str(target), *wanted), capture_output=True, text=True)
        if done.returncode:
            raise ServerError(f"the packages of {peer} ({', '.join(wanted)}) cannot be installed:\n{done.stderr}")
        shutil.move(target, made)
    return made
