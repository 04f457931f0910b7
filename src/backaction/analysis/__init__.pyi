from .analysis import Analysis as Analysis
from .analysis import analyze as analyze
from .technical_noise import costs as costs
from .technical_noise import measured_floor as measured_floor
from .technical_noise import proposals as proposals
from .track_files import Job as Job
from .track_files import Outcome as Outcome
