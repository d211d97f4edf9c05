"""The stand-alone code location: `build_defs` with the environment's settings.

It also offers the I/O manager as `io_manager`: assets that you add here need no configuration.
"""

from __future__ import annotations

import dagster as dg

from orpipeline.build import build_defs
from orpipeline.defs.resources import io_manager
from orpipeline.settings import load_settings

_settings = load_settings()
defs = dg.Definitions.merge(
    build_defs(_settings, alerts=_settings.alert_webhook is not None),
    dg.Definitions(resources={"io_manager": io_manager(_settings)}),
)
