"""Write losses.npz and models.npz with PyTorch in float64. Run manually; the suite reads the files.

    python3 -m venv /tmp/torchenv && /tmp/torchenv/bin/pip install torch==2.13.0 numpy
    /tmp/torchenv/bin/python tests/parity/make_fixture.py

Arrays are NHWC in the files and NCHW in this script. The formulas are those of the authors' released code,
per example (the code takes the mean), and of the paper, reimplemented.
"""

import itertools
from pathlib import Path

import networks
import numpy as np
import torch
from torch.nn import functional

FOLDER = Path(__file__).parent
SEED = 20170219
# name: batch, height, width, channels of the student, channels of the teacher
POINTS = {"thin": (2, 4, 4, 3, 5), "equal": (2, 3, 5, 6, 6), "single": (1, 6, 6, 4, 2)}
# name: batch, classes, temperature, alpha
LOGITS = {
    "usual": (5, 10, 4.0, 0.9),
    "cold": (4, 7, 1.0, 0.5),
    "soft": (3, 100, 20.0, 1.0),
    "hard": (4, 10, 4.0, 0.0),
}


def separated(random, batch, height, width, channels):
    """Random activations of both signs, away from zero and without near ties between channels."""
    order = random.random((batch, height, width, channels)).argsort(axis=-1)
    level = 0.2 + (order + 0.3 * random.random(order.shape)) / channels
    # Without a factor per position each map would be nearly constant, and differences would cancel.
    position = random.uniform(0.5, 2.0, (batch, height, width, 1))
    return level * position * random.choice([-1.0, 1.0], order.shape)


def at(x, kind, p):
    """Normalized, flattened attention map of x (B, C, H, W)."""
    if (kind, p) == ("sum", 2):  # the arithmetic of the released code
        return functional.normalize(x.pow(2).mean(1).view(x.size(0), -1))
    powers = x.abs().pow(p)
    pooled = {"sum": lambda: powers.sum(1), "max": lambda: powers.amax(1)}
    pooled["channel"] = lambda: powers.sum((2, 3))
    return functional.normalize(pooled[kind]().flatten(1))


def at_loss(x, y, kind, p, convention):
    difference = at(x, kind, p) - at(y, kind, p)
    if convention == "code":
        return difference.pow(2).mean(dim=1)
    return torch.linalg.vector_norm(difference, dim=1) / 2


def distillation(student, teacher, labels, temperature, alpha):
    # The reduction "batchmean" of one example is the sum over classes.
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.softmax(teacher / temperature, dim=1),
        reduction="none",
    ).sum(1)
    hard = functional.cross_entropy(student, labels, reduction="none")
    return soft * (temperature**2 * alpha) + hard * (1 - alpha)


def value_and_gradient(loss, array):
    """Per-example values and the gradient of their sum, as NumPy."""
    variable = torch.from_numpy(array).requires_grad_()
    value = loss(variable)
    (gradient,) = torch.autograd.grad(value.sum(), variable)
    return value.detach().numpy(), gradient.numpy()


def losses_fixture():
    random = np.random.default_rng(SEED)
    arrays = {}
    for point, (batch, height, width, c_s, c_t) in POINTS.items():
        a_s = separated(random, batch, height, width, c_s)
        a_t = separated(random, batch, height, width, c_t)
        arrays |= {f"{point}/student": a_s, f"{point}/teacher": a_t}
        y = torch.from_numpy(a_t).permute(0, 3, 1, 2)
        kinds = ("sum", "max", "channel") if c_s == c_t else ("sum", "max")
        for kind, p, convention in itertools.product(kinds, (1, 2, 4), ("code", "paper")):
            value, gradient = value_and_gradient(
                lambda x: at_loss(x.permute(0, 3, 1, 2), y, kind, p, convention),  # noqa: B023
                a_s,
            )
            name = f"{point}/{kind}/{p}/{convention}"
            arrays |= {f"{name}/value": value, f"{name}/gradient": gradient}
    for name, (batch, classes, temperature, alpha) in LOGITS.items():
        # Flatter soft labels would cancel in float32, which is not what these cases test.
        scale = max(3, temperature / 2)
        student, teacher = scale * random.standard_normal((2, batch, classes))
        labels = random.integers(0, classes, batch)
        y, target = torch.from_numpy(teacher), torch.from_numpy(labels)
        value, gradient = value_and_gradient(
            lambda x: distillation(x, y, target, temperature, alpha),  # noqa: B023
            student,
        )
        arrays |= {
            f"{name}/student": student,
            f"{name}/teacher": teacher,
            f"{name}/labels": labels,
            f"{name}/temperature": np.float64(temperature),
            f"{name}/alpha": np.float64(alpha),
            f"{name}/distillation/value": value,
            f"{name}/distillation/gradient": gradient,
        }
    return arrays


class Network:
    """Convolution and batch normalization with a dictionary of weights."""

    def __init__(self, weights, train=False):
        self.weights = {
            name: torch.from_numpy(value.astype(np.float64)) for name, value in weights.items()
        }
        self.train = train
        self.margin = np.inf  # the smallest |input| of any ReLU so far

    def conv(self, x, name, stride=1, padding=0):
        return functional.conv2d(x, self.weights[f"{name}.weight"], stride=stride, padding=padding)

    def norm(self, x, name):
        weight, bias, mean, var = (
            self.weights[f"{name}.{kind}"]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        # In training mode this updates mean and var in place, with PyTorch's default momentum of 0.1.
        return functional.batch_norm(x, mean, var, weight, bias, training=self.train)

    def relu(self, x):
        self.margin = min(self.margin, x.detach().abs().min().item())
        return functional.relu(x)

    def head(self, x):
        return x.mean((2, 3)) @ self.weights["fc.weight"].T + self.weights["fc.bias"]


def wide_resnet(net, images):
    """WRN-10-1 of the reference: taps are the sums of each group, before the next norm."""
    x, taps = net.conv(images, "conv0", padding=1), {}
    for group, stride in ((1, 1), (2, 2), (3, 2)):
        block = f"group{group}.block0"
        first = net.relu(net.norm(x, f"{block}.bn0"))
        y = net.conv(first, f"{block}.conv0", stride, padding=1)
        second = net.relu(net.norm(y, f"{block}.bn1"))
        z = net.conv(second, f"{block}.conv1", padding=1)
        changes = f"{block}.convdim.weight" in net.weights
        x = z + (net.conv(first, f"{block}.convdim", stride) if changes else x)
        taps[f"group{group}"] = x
    return net.head(net.relu(net.norm(x, "bn"))), taps


def resnet(net, images, depth):
    """torchvision's forward: the stride of a bottleneck is on its 3x3; taps are the stages."""
    stages, bottleneck = networks.RESNETS[depth]
    x = net.relu(net.norm(net.conv(images, "conv1", 2, 3), "bn1"))
    x, taps = functional.max_pool2d(x, 3, 2, 1), {}
    for stage, blocks in enumerate(stages, start=1):
        for index in range(blocks):
            block, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            kernels = ((1, 1), (3, stride), (1, 1)) if bottleneck else ((3, stride), (3, 1))
            y = x
            for number, (size, step) in enumerate(kernels, start=1):
                y = net.conv(y, f"{block}.conv{number}", step, size // 2)
                y = net.norm(y, f"{block}.bn{number}")
                y = net.relu(y) if number < len(kernels) else y
            if f"{block}.downsample.0.weight" in net.weights:
                x = net.norm(net.conv(x, f"{block}.downsample.0", stride), f"{block}.downsample.1")
            x = net.relu(y + x)
        taps[f"stage{stage}"] = x
    return net.head(x), taps


def to_nhwc(x):
    return x.detach().permute(0, 2, 3, 1).numpy().astype(np.float32)


def models_fixture():
    random = np.random.default_rng(SEED)
    arrays = {}
    images = random.standard_normal((2, 16, 16, 3)).astype(np.float32)
    cotangent = random.standard_normal((2, 10)).astype(np.float32)
    arrays |= {"wrn_10_1/images": images, "wrn_10_1/cotangent": cotangent}
    for mode in ("train", "eval"):
        net = Network(networks.generated(networks.wide_resnet_shapes(10)), mode == "train")
        x = torch.from_numpy(images.astype(np.float64)).requires_grad_()
        logits, taps = wide_resnet(net, x.permute(0, 3, 1, 2))
        (gradient,) = torch.autograd.grad(logits, x, torch.from_numpy(cotangent).double())
        # Closer to a ReLU's kink, float32 rounding could switch the ReLU and change the gradient.
        assert net.margin > 5e-5, f"choose another seed: {net.margin}"
        name = f"wrn_10_1/{mode}"
        arrays |= {f"{name}/{tap}": to_nhwc(value) for tap, value in taps.items()}
        arrays[f"{name}/logits"] = logits.detach().numpy().astype(np.float32)
        arrays[f"{name}/input_gradient"] = gradient.numpy().astype(np.float32)
        if mode == "train":
            # Not the variances: PyTorch's running variance is unbiased, Flax's biased.
            means = {k: v for k, v in net.weights.items() if k.endswith("running_mean")}
            arrays |= {f"{name}/{k}": v.numpy().astype(np.float32) for k, v in means.items()}
    images = random.standard_normal((2, 64, 64, 3)).astype(np.float32)
    arrays["resnet/images"] = images
    for depth in (18, 50):
        net = Network(networks.generated(networks.resnet_shapes(depth, 10)))
        x = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
        logits, taps = resnet(net, x, depth)
        arrays[f"resnet_{depth}/logits"] = logits.numpy().astype(np.float32)
        # The map depends on every channel; the slice of a few channels tests their order.
        for tap, value in taps.items():
            arrays[f"resnet_{depth}/{tap}/map"] = value.pow(2).mean(1).numpy().astype(np.float32)
            arrays[f"resnet_{depth}/{tap}/slice"] = to_nhwc(value)[:1, :, :, :4]
    return arrays


if __name__ == "__main__":
    origin = {"torch_version": np.array(torch.__version__), "seed": np.array(SEED)}
    for file, make in (("losses.npz", losses_fixture), ("models.npz", models_fixture)):
        np.savez_compressed(FOLDER / file, **origin, **make())
        print(file, (FOLDER / file).stat().st_size, "bytes")
