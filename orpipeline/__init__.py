"""The market-share history that OpenRouter does not keep: Dagster definitions to embed, and what builds on them.

    import orpipeline

    defs = orpipeline.build_defs(orpipeline.Settings(data_dir="/srv/openrouter"))

`orpipeline/__init__.pyi` lists the public names, and docs/stability.md describes how they change. Everything else is
internal. Each name is imported when it is first used, so importing the package is quick.
"""

from importlib.metadata import version as _version

import lazy_loader as _lazy

__getattr__, _lazy_dir, __all__ = _lazy.attach_stub(__name__, __file__)
__all__ += ["__version__"]
__version__ = _version("orpipeline")


def __dir__() -> list[str]:
    return sorted(__all__)
