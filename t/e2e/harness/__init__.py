# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests are written with; README.md beside this folder tells which part does what."""

from .akashd import Akashd, adopt_orphans, http_config, tcp_config
from .backend import Gate, ScriptedBackend
from .client import Client
from .dns import NameServer
from .backs import BACKS
from .fronts import FRONTS, Authority, server_context
from .load import Load
from .peers import Nginx, curl
from .site import PLAIN_WAYS, WAYS, Site, Way
from .traffic import CounterWatch, Echo, Farm, Streams
from .wire import PATIENCE, Malformed, Reset, Silence, at_pace, free_port, until

__all__ = [
    "Akashd", "Authority", "BACKS", "Client", "CounterWatch", "Echo", "FRONTS", "Farm", "Gate", "Load", "Malformed",
    "NameServer", "Nginx", "PATIENCE", "PLAIN_WAYS", "Reset", "ScriptedBackend", "Silence", "Site", "Streams",
    "adopt_orphans", "at_pace", "curl", "free_port", "http_config", "server_context", "tcp_config", "until", "WAYS", "Way",
]
