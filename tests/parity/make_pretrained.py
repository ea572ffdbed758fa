"""Write pretrained.npz: outputs of networks that PyTorch runs. Run manually; the suite reads the file.

    python3 -m venv /tmp/torchenv
    /tmp/torchenv/bin/pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 nested_dict
    /tmp/torchenv/bin/python tests/parity/make_pretrained.py AUTHORS

AUTHORS is a folder with cifar.py and imagenet.py of szagoruyko/attention-transfer at commit 084890a, whose
definitions are executed here. They are Python 2: names that Python 3 lacks are replaced in their text.
Weights are functions of their names (networks.py), and so are the images (of their number of pixels): only
outputs are stored. Activations are stored as inner products with random directions.
"""

import re
import sys
from collections import OrderedDict
from pathlib import Path

import networks
import numpy as np
import timm
import torch
import torchvision
from nested_dict import nested_dict
from torch.nn import functional

FOLDER = Path(__file__).parent


def definition(path, name):
    """A function of the authors' file, with its Python 2 names replaced."""
    text = (path).read_text()
    source = re.search(rf"^def {name}\(.*?(?=^def |\Z)", text, re.M | re.S)[0]
    for old, new in (("iteritems", "items"), ("np.int)", "int)"), (".cuda()", "")):
        source = source.replace(old, new)
    # The parameters are replaced: only their names and shapes matter.
    scope = {
        "np": np, "F": functional, "OrderedDict": OrderedDict, "nested_dict": nested_dict, "re": re,
        "torch": torch, "Variable": lambda tensor, requires_grad=False: tensor,
        "conv_params": lambda into, out, k: torch.zeros(out, into, k, k),
        "linear_params": lambda into, out: {"weight": torch.zeros(out, into), "bias": torch.zeros(out)},
        "bnparams": lambda n: {"weight": torch.zeros(n), "bias": torch.zeros(n)},
        "bnstats": lambda n: {"running_mean": torch.zeros(n), "running_var": torch.zeros(n)},
    }  # fmt: skip
    # It reads the parameters with hickle: here they are passed.
    scope["hkl"] = type("Hickle", (), {"load": staticmethod(lambda given: given)})
    exec(source, scope)
    return scope[name]


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def torchvision_outputs(module, depth, images):
    """Logits and stages of torchvision's or timm's network."""
    module.load_state_dict(
        tensors(networks.generated(networks.resnet_shapes(depth, 1000))), strict=True
    )
    stages, module = [], module.double().eval()
    for stage in (module.layer1, module.layer2, module.layer3, module.layer4):
        stage.register_forward_hook(lambda _, __, value: stages.append(value))
    return module(images), stages


def authors_outputs(make, images):
    """Logits and groups of a definition with parameters and statistics, and the shapes of both."""
    forward, params, stats = make
    shapes = {name: tuple(value.shape) for name, value in {**params, **stats}.items()}
    weights = {k: v.double() for k, v in tensors(networks.generated(shapes)).items()}
    return *forward(images, weights, weights, False), shapes


def folded_outputs(define, depth, images):
    shapes = networks.folded_resnet_shapes(depth, 1000)
    forward, params = define(networks.generated(shapes))
    return forward(images, {name: value.double() for name, value in params.items()})


def summary(name, logits, stages, prefix):
    """What is stored of a network."""
    arrays = {f"{name}/logits": logits.numpy().astype(np.float32)}
    for number, stage in enumerate(stages, start=1):
        value = stage.permute(0, 2, 3, 1).numpy()
        key = f"{name}/{prefix}{number}"
        arrays[f"{key}/sketch"] = networks.sketch(f"{prefix}{number}", value)
        arrays[f"{key}/norm"] = np.linalg.norm(value)
    return arrays


def main(authors):
    arrays = {"torch_version": np.array(torch.__version__)}
    large, small = (torch.from_numpy(networks.images(size)).double() for size in (224, 32))
    large, small = large.permute(0, 3, 1, 2), small.permute(0, 3, 1, 2)
    with torch.no_grad():
        for depth in (18, 34):
            modules = [
                getattr(torchvision.models, f"resnet{depth}")(),
                timm.create_model(f"resnet{depth}"),
            ]
            found = [torchvision_outputs(module, depth, large) for module in modules]
            # The two libraries define the same network.
            assert torch.allclose(found[0][0], found[1][0], rtol=1e-10)
            arrays |= summary(f"resnet_{depth}", *found[0], "stage")
            define = definition(authors / "imagenet.py", "define_teacher")
            arrays |= summary(f"folded_{depth}", *folded_outputs(define, depth, large), "stage")
        define = definition(authors / "imagenet.py", "define_student")
        logits, stages, shapes = authors_outputs(define(18, 1), large)
        assert shapes == networks.student_resnet_shapes(1000)
        arrays |= summary("student_18", logits, stages, "stage")
        define = definition(authors / "cifar.py", "resnet")
        for depth, width in ((16, 1), (10, 2)):
            logits, groups, shapes = authors_outputs(define(depth, width, 10), small)
            assert shapes == networks.reference_shapes(depth, width, 10)
            arrays |= summary(f"wrn_{depth}_{width}", logits, groups, "group")
    np.savez_compressed(FOLDER / "pretrained.npz", **arrays)
    print((FOLDER / "pretrained.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
