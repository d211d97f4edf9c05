"""The stand-alone code location, with the environment's settings."""

from orpipeline.defs.build import stand_alone_defs
from orpipeline.settings import load_settings

defs = stand_alone_defs(load_settings())
