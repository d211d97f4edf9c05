"""A code location for `cluster.py`: the pipeline without schedules and sensors, so only a test starts runs."""

from __future__ import annotations

import orpipeline

defs = orpipeline.build_defs(automation=False)
