"""Every key there is, once, with its meaning and unit. The other files here change values, not keys."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The defaults: the recipe of the paper on CIFAR-10."""
    config = ml_collections.ConfigDict()

    # The network that is trained, and how: none, kd, at, f_actt, gradient_at, flip_symmetry, min_l2, or
    # several joined as in at+kd.
    config.student = "wrn_16_1"
    config.method = "at"
    # Of initialisation, data order and augmentation.
    config.seed = 0
    # Of the networks' arithmetic: float32 or bfloat16. Parameters, statistics, losses stay float32.
    config.dtype = "float32"
    # Passes over the training images; images an update (over all devices).
    config.epochs = 200
    config.batch_size = 128
    # Micro-batches that an update is cut into, to fit into memory.
    config.accumulation = 1

    config.teacher = teacher = ml_collections.ConfigDict()
    # A finished run's workdir. Empty: the network below is trained first, under <workdir>/teacher.
    teacher.checkpoint = ""
    teacher.model = "wrn_16_2"
    # Its training: 0 epochs means the student's epochs and drops; 0 examples means all.
    teacher.epochs = 0
    teacher.drop_epochs = ()
    teacher.train_examples = 0

    config.data = data = ml_collections.ConfigDict()
    # digits (bundled), tfds (needs name) or folder (needs data_dir).
    data.source = "digits"
    # The TFDS name, for example cifar10 or imagenette/160px-v2.
    data.name = ""
    # Where the prepared TFDS sets lie (empty: ~/tensorflow_datasets_array_record), or the image folder.
    data.data_dir = ""
    # Height and width in pixels that images are brought to; 0: as they are.
    data.image_size = 0
    # Sets that take more memory than this when decoded are read from disk while training. In MiB.
    data.memory_limit_mb = 4096
    # Labelled images the student is given, the same number of each class; 0: all.
    data.train_examples = 0
    # Training images held out and evaluated on in place of the test set, to choose weights; 0: none.
    data.validation_examples = 0
    # Which images the two choices above take. Not the run's seed: seeds are compared on the same images.
    data.split_seed = 0
    # Of the order of images and of their augmentation; -1: the run's seed. Students that are trained
    # together share one.
    data.order_seed = -1
    # Per channel, in units of 0..255; empty: of the whole training set.
    data.mean = ()
    data.std = ()
    # Augmentation: pixels of reflect padding before the random crop; mirroring.
    data.pad = 4
    data.mirror = True

    config.optimizer = optimizer = ml_collections.ConfigDict()
    # SGD as in the authors' code; weight decay is on every parameter, before momentum.
    optimizer.learning_rate = 0.1
    optimizer.momentum = 0.9
    optimizer.weight_decay = 5e-4
    # At the start of these epochs the rate is multiplied by the factor.
    optimizer.drop_epochs = (60, 120, 160)
    optimizer.drop_factor = 0.2

    config.kd = kd = ml_collections.ConfigDict()
    # Softening of the logits, T > 0; share of the soft targets, 0..1.
    kd.temperature = 4.0
    kd.alpha = 0.9

    config.at = at = ml_collections.ConfigDict()
    # The weight of attention transfer, and its maps: sum, max or channel; the exponent p >= 1; code (the
    # authors' mean square, for which 1000 is meant) or paper (equation 2).
    at.beta = 1000.0
    at.kind = "sum"
    at.p = 2.0
    at.convention = "code"

    config.f_actt = f_actt = ml_collections.ConfigDict()
    # The weight of full-activation transfer.
    f_actt.beta = 0.1

    # Terms on the input gradient J of the cross-entropy, half its l2 norm each (or half the square, for
    # which a weight must be chosen anew): J of student and teacher; the student's J of an image and of
    # its mirror image; the student's J alone. Weights that were tried: results/cifar10_gradient.md.
    config.gradient_at = gradient_at = ml_collections.ConfigDict()
    gradient_at.beta = 1.0
    gradient_at.squared = False
    config.flip_symmetry = flip_symmetry = ml_collections.ConfigDict()
    flip_symmetry.beta = 1.0
    flip_symmetry.squared = False
    config.min_l2 = min_l2 = ml_collections.ConfigDict()
    min_l2.beta = 1.0
    min_l2.squared = False

    config.transfer = transfer = ml_collections.ConfigDict()
    # Where activations are compared, "student<-teacher": ("group3<-group3",). Empty: all, in order.
    transfer.points = ()
    # How the weights beta change over training: constant, linear or cosine to zero, or steps (at the
    # start of these epochs beta is multiplied by the factor).
    transfer.decay = "constant"
    transfer.decay_epochs = ()
    transfer.decay_factor = 0.1

    # How a run is carried out. These may change when it is resumed; devices and steps_per_dispatch then
    # change the order of sums, and the numbers with it in the last digits, at first.
    config.runtime = runtime = ml_collections.ConfigDict()
    # Devices of each process to spread a batch over; 0: as many as divide it.
    runtime.devices = 0
    # Updates in one compiled program, at most 16; 0: 1 on CPU, 10 on GPU and TPU.
    runtime.steps_per_dispatch = 0
    # Epochs between checkpoints (the best and the last epoch are always kept).
    runtime.checkpoint_every = 1
    # Where compiled programs are kept between runs; empty: nowhere.
    runtime.compilation_cache = "~/.cache/at_jax"
    # Write TensorBoard events.
    runtime.tensorboard = True
    # Draw attention.png, curves.png and report.html when the run ends.
    runtime.figures = True
    return config
