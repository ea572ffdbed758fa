"""Write second_order.npz: gradients of losses that contain input gradients, in float64.

    /tmp/torchenv/bin/python tests/parity/make_second_order.py    (environment: see make_fixture.py)

J is `autograd.grad(create_graph=True)`; the terms are those of section 3.2 of the paper.
"""

import networks
import numpy as np
import torch
from make_fixture import FOLDER, Network, at_loss, distillation, wide_resnet
from torch.nn import functional

TERMS = ("gradient_at", "flip_symmetry", "min_l2")


class Net(Network):
    """Adds biases, and a max pool that records its margin."""

    def conv(self, x, name, stride=1, padding=0):
        x = super().conv(x, name, stride, padding)
        bias = self.weights.get(f"{name}.bias")
        return x if bias is None else x + bias[:, None, None]

    def max_pool(self, x):
        windows = functional.unfold(x.detach(), 3, padding=1, stride=2)  # pads by 0: x is positive
        windows = windows.unflatten(1, (x.shape[1], 9))
        first, second = windows.topk(2, dim=2).values.unbind(2)
        # Ties of zeros come from inactive ReLUs: their gradient is zero whichever of them is chosen.
        self.margin = min(self.margin, (first - second)[first > 0].min().item())
        return functional.max_pool2d(x, 3, 2, 1)


def nin(net, x):
    """NIN; the taps are the last ReLU of each stage."""
    taps = {}
    for stage, (layers, size) in enumerate(((3, 5), (3, 5), (2, 3)), start=1):
        for index in range(layers):
            padding = size // 2 if index == 0 else 0
            x = net.relu(net.conv(x, f"conv{stage}_{index}", padding=padding))
        taps[f"stage{stage}"] = x
        if stage == 1:
            x = net.max_pool(x)
        elif stage == 2:
            x = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=True)
    return net.conv(x, "classifier").mean((2, 3)), taps


def input_gradient(forward, net, images, labels, create_graph=False):
    """J (B, C, H, W), logits and taps. The sum is differentiated: J does not depend on the batch size."""
    images = images.detach().requires_grad_()
    logits, taps = forward(net, images)
    total = functional.cross_entropy(logits, labels, reduction="sum")
    (j,) = torch.autograd.grad(total, images, create_graph=create_graph)
    return j, logits, taps


def half_norm(x, squared):
    return x.pow(2).sum((1, 2, 3)) / 2 if squared else x.pow(2).sum((1, 2, 3)).sqrt() / 2


def losses(forward, student, teacher, images, labels, beta):
    """Name of the loss to its parts, each a weighted mean over the batch."""
    j_t, logits_t, taps_t = input_gradient(forward, teacher, images, labels)
    j, logits, taps = input_gradient(forward, student, images, labels, create_graph=True)
    mirrored = images.flip(3)
    j_flipped, _, _ = input_gradient(forward, student, mirrored, labels, create_graph=True)
    differences = dict(zip(TERMS, (j - j_t, j - j_flipped.flip(3), j), strict=True))
    soft = distillation(logits, logits_t.detach(), labels, 4.0, 0.9).mean()
    hard = functional.cross_entropy(logits, labels)
    attention = sum(at_loss(taps[p], taps_t[p].detach(), "sum", 2, "code").mean() for p in taps)
    # J is the gradient of the cross-entropy, also where the loss is distillation.
    parts = {
        f"{form}/{name}": [first, beta * half_norm(difference, form == "squared").mean()]
        for form, first in (("plain", soft), ("squared", hard))
        for name, difference in differences.items()
    }
    parts["plain/together"] = [*parts["plain/gradient_at"], beta * attention]
    return parts


def study(forward, shapes, gain, seed, beta):
    """Arrays of one network. The student is in training mode, the teacher in evaluation mode."""
    random = np.random.default_rng(seed)
    images = random.standard_normal((2, 12, 12, 3)).astype(np.float32)
    labels = random.integers(0, 10, 2)
    arrays = {"images": images, "labels": labels.astype(np.int32), "beta": np.float64(beta)}
    student = Net(networks.generated(shapes, gain=gain), train=True)
    teacher = Net(networks.generated(shapes, "teacher ", gain))
    leaves = {name: student.weights[name].requires_grad_() for name in networks.trained(shapes)}
    x = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
    for name, parts in losses(forward, student, teacher, x, torch.from_numpy(labels), beta).items():
        gradients = [_gradient(part, leaves) for part in parts]
        whole = {key: sum(gradient[key] for gradient in gradients) for key in leaves}
        norms = np.array([np.linalg.norm(leaf) for leaf in whole.values()])
        shares = [_norm(gradient) / _norm(whole) for gradient in gradients]
        print(
            f"{name:24} shares {np.round(shares, 2)}, smallest leaf {norms.min() / _norm(whole):.0e}"
        )
        # A smaller part would have no effect on the test, a smaller leaf would be mostly rounding.
        assert min(shares) > 0.03 and norms.min() > 1e-3 * _norm(whole)
        arrays[f"{name}/loss"] = np.float64(sum(parts).item())
        arrays[f"{name}/norms"] = norms
        arrays[f"{name}/sketches"] = np.stack(
            [networks.sketch(key, leaf) for key, leaf in whole.items()]
        )
    margin = min(student.margin, teacher.margin)
    # Closer to a kink, float32 rounding could switch it and change J.
    assert margin > 2e-5, f"choose another seed: {margin}"
    return arrays


def _gradient(loss, leaves):
    values = torch.autograd.grad(loss, leaves.values(), retain_graph=True, materialize_grads=True)
    return {name: value.numpy() for name, value in zip(leaves, values, strict=True)}


def _norm(gradient):
    return np.sqrt(sum(np.sum(leaf**2) for leaf in gradient.values()))


# Forward pass, shapes, gain of the weights, seed, and the beta of the terms: none of them dominates.
STUDIES = {
    "wrn_10_1": (wide_resnet, networks.wide_resnet_shapes(10), 1, 18, 10.0),
    "nin_thin": (nin, networks.nin_shapes(10), 2, 84, 30.0),
}

if __name__ == "__main__":
    arrays = {"torch_version": np.array(torch.__version__)}
    for network, options in STUDIES.items():
        print(network)
        arrays |= {f"{network}/{key}": value for key, value in study(*options).items()}
    file = FOLDER / "second_order.npz"
    np.savez_compressed(file, **arrays)
    print(file.name, file.stat().st_size, "bytes")
