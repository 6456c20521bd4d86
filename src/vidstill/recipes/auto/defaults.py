"""The numbers that the automatic recipe decides by; none is a paper's."""

from typing import Literal

DeviceKind = Literal["cpu", "gpu"]

MAX_PROBED_FILES = 32

# Time
TRAINING_MINUTES: dict[DeviceKind, float] = {"cpu": 15.0, "gpu": 180.0}  # target for the whole training
GMACS_PER_SECOND: dict[DeviceKind, float] = {"cpu": 15.0, "gpu": 30_000.0}  # 10^9 multiply-adds of a core or a GPU
TOTAL_CLIPS = 160_000  # clips shown in the whole training
EPOCH_RANGE = (30, 400)
MIN_EPOCHS = 10  # even if they take more than the target time

# Encoder from scratch; tables by the number of clips are ascending
ENCODER_SIZES: dict[DeviceKind, list[tuple[float, int, int, int]]] = {  # up to n clips: width, depth, heads
    "cpu": [(500, 96, 4, 3), (float("inf"), 192, 6, 3)],
    "gpu": [(1_000, 192, 6, 3), (20_000, 384, 12, 6), (float("inf"), 768, 12, 12)],
}
TUBELETS = {
    32: (4, 8, 8),
    48: (4, 8, 8),
    64: (4, 8, 8),
    112: (4, 16, 16),
    224: (2, 16, 16),
}  # by a clip's side in pixels
IMAGE_TUBELETS = {32: (1, 4, 4), 48: (1, 8, 8), 64: (1, 8, 8), 112: (1, 8, 8), 224: (1, 16, 16)}
MAX_SIDE: dict[DeviceKind, int] = {"cpu": 48, "gpu": 224}  # pixels
MAX_UPSCALE = 1.15  # side of a clip / short side of the video, at most

# Clips
NUM_FRAMES = 16
WHOLE_VIDEO_SECONDS = 3.0  # up to this length, a clip spans the whole video
CLIP_SECONDS = 2.0  # span of a clip in longer videos
WIDE_ASPECT_RATIO = 1.2  # from here on a test takes three spatial crops
MAX_CLASS_RATIO = 3.0  # largest class / smallest class; above, classes are balanced
CLASS_BALANCE = 0.5
MIN_MIXUP_CLIPS_PER_CLASS = 50  # on average

# Optimization
BATCH_SIZES: dict[DeviceKind, list[tuple[float, int]]] = {  # up to n clips: batch
    "cpu": [(200, 16), (float("inf"), 32)],
    "gpu": [(1_000, 32), (10_000, 64), (float("inf"), 128)],
}
PEAK_LR = 5e-4
MIN_DEEP_DEPTH = 12  # blocks from which an encoder counts as deep
LAYER_DECAY = 0.75  # of deep pre-trained encoders
DROP_PATH = 0.1  # of deep encoders
PATIENCE_RATIO = 0.2  # patience / epochs, with a validation set; 10 epochs at least
MIN_STOPPING_CLIPS = 100  # of that set: where one clip is more than a point, chance would end the training

# Starts: short fine-tunings compare random weights with the encoders that come with the package
COMPARISON_SHARE = 0.25  # of the training's multiply-adds: what all of them may take
NUM_FOLDS = 3  # of the training videos, where there is no validation set
NUM_REPEATS = 3  # seeds of a fine-tuning that has a validation set
MIN_VALIDATION_CLIPS = 200  # or as many as there are training videos: of a smaller validation set, folds tell more
COMPARISON_BATCH = 8  # clips in each process: small, for many steps
COMPARED_EPOCHS = (10, 50)  # of a short fine-tuning: the fewest, and the most
MIN_COMPARED_CLIPS = 24  # a smaller training set shows no difference that is larger than chance
MIN_SUBSET_CLIPS = 600  # of all trainings of a start, where the training set is cut for the comparison
MIN_GAIN = 2.0  # points of accuracy by which a start must be better
MIN_GAIN_ERRORS = 1.64  # and standard errors of the difference: one-sided 95 %

# A public checkpoint is proposed with a GPU, for many clips, or where it is trained for MIN_EPOCHS in the target time
MANY_CLIPS = 2_000

# Pre-training on the user's own clips without labels
PRETRAINING_CLIPS = 120_000  # clips shown, the copies of a video counted
PRETRAINING_EPOCHS = (5, 100)  # the fewest and the most
MIN_UNLABELLED_RATIO = 4  # unlabelled / labelled clips from which pre-training may pay
