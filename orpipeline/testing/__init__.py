"""Test your own assets offline: made-up responses and tables, a stand-in of the API, and a whole pipeline.

`orpipeline/testing/__init__.pyi` lists the public names. Each is imported when it is first used. None of them needs a
test framework. `orpipeline.testing.plugin` has the pytest fixtures.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
