from .clock import fixed_clock as fixed_clock
from .local_api import LocalApi as LocalApi
from .local_api import Reply as Reply
from .local_api import Request as Request
from .pipeline import LocalPipeline as LocalPipeline
from .sample_answers import Task as Task
from .sample_answers import sample_answer as sample_answer
from .tables import sample_tables as sample_tables
