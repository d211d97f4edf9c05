from .clock import fixed_clock as fixed_clock
from .local_api import LocalApi as LocalApi
from .local_api import Reply as Reply
from .local_api import Request as Request
from .pipeline import LocalPipeline as LocalPipeline
from .sample_responses import Task as Task
from .sample_responses import sample_response as sample_response
from .tables import sample_tables as sample_tables
