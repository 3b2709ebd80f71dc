# The public names. Each is imported when it is first used: see __init__.py.
from .errors import ImponHpoError as ImponHpoError
from .errors import TrialSettingsError as TrialSettingsError
from .sampling.base import BatchSampler as BatchSampler
from .sampling.base import Draw as Draw
from .sampling.loader import IndexedDataset as IndexedDataset
from .sampling.loader import LoaderBatchSampler as LoaderBatchSampler
from .sampling.methods.class_balanced import ClassBalanced as ClassBalanced
from .sampling.methods.impon import Impon as Impon
from .sampling.methods.impon import ImponLow as ImponLow
from .sampling.methods.impon_memory import ImponMemory as ImponMemory
from .sampling.methods.impon_paced import ImponPaced as ImponPaced
from .sampling.methods.impon_trusted import ImponTrusted as ImponTrusted
from .sampling.methods.uniform import Uniform as Uniform
from .sampling.reference import Reference as Reference
from .sampling.rows import Rows as Rows
from .sampling.table import SAMPLERS as SAMPLERS
from .sampling.table import make_sampler as make_sampler
from .storage.connect import ArtifactStore as ArtifactStore
from .storage.connect import artifact_store as artifact_store
from .training.checkpoint import Checkpoint as Checkpoint
from .training.config import TrainingConfig as TrainingConfig
from .training.epoch_result import EpochResult as EpochResult
from .training.image_data import ImageData as ImageData
from .training.reference_folder import References as References
from .training.splits import Splits as Splits
from .training.splits import load_splits as load_splits
from .training.trained_model import TrainedModel as TrainedModel
from .training.trained_model import load_model as load_model
from .training.training_run import train_epochs as train_epochs
from .tuning.artifacts import Checkpoints as Checkpoints
from .tuning.objective import Objective as Objective
from .tuning.report_signal import ReportSignal as ReportSignal
from .tuning.space_syntax import Conditional as Conditional
from .tuning.trackers import MLflowTracker as MLflowTracker
from .tuning.trackers import TensorBoardTracker as TensorBoardTracker
from .tuning.tracking import TrackedTrial as TrackedTrial
from .tuning.tracking import Tracker as Tracker
from .tuning.warm_start import enqueue_best as enqueue_best

__version__: str
__all__: list[str]

# Old names, until version 1.0:
ImponBatchSampler = LoaderBatchSampler
WithRows = IndexedDataset
