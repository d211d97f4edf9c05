"""The market-share history that OpenRouter does not keep: Dagster definitions to embed, and their parts.

    import orpipeline

    defs = orpipeline.build_defs(orpipeline.Settings(data_dir="/srv/openrouter"))

`orpipeline/__init__.pyi` lists the public names. Each is imported when it is first used, so importing the package is
quick.
"""

from importlib.metadata import version as _version

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = _version("orpipeline")
