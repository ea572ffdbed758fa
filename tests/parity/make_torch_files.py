"""Write the files torch_files/*: small files of torch.save. Run manually; the suite reads them.

    python3 -m venv /tmp/torchenv && /tmp/torchenv/bin/pip install torch==2.13.0 numpy
    /tmp/torchenv/bin/python tests/parity/make_torch_files.py

Their arrays are functions of their names (networks.py).
"""

from collections import OrderedDict
from pathlib import Path

import networks
import torch

FOLDER = Path(__file__).parent / "torch_files"


def main():
    FOLDER.mkdir(exist_ok=True)
    weights = {k: torch.from_numpy(v) for k, v in networks.generated(networks.FILE_SHAPES).items()}
    counter = {"bn.num_batches_tracked": torch.tensor(7)}
    state_dict = OrderedDict(weights | counter)
    state_dict._metadata = OrderedDict({"": {"version": 1}})
    # Views of one storage, in other orders of memory, and a parameter.
    base = weights["conv.weight"]
    views = {
        "transposed": base.transpose(0, 3), "part": base[1:, :, 2:, ::2], "whole": base,
        "parameter": torch.nn.Parameter(weights["fc.weight"]), "empty": base[:0],
        "scalar": base[0, 0, 0, 0],
    }  # fmt: skip
    trained = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([trained], lr=0.1, momentum=0.9)
    trained.sum().backward()
    optimizer.step()  # fills the momentum
    training = {
        "epoch": 3, "arch": "net", "best": 0.5, "optimizer": optimizer.state_dict(),
        "state_dict": {f"module.{name}": value for name, value in state_dict.items()},
    }  # fmt: skip
    halves = {f"{name}.half": value.half() for name, value in weights.items()}
    halves |= {f"{name}.bfloat16": value.bfloat16() for name, value in weights.items()}
    halves |= {f"{name}.double": value.double() for name, value in weights.items()}
    files = {"plain": state_dict, "views": views, "training": training, "dtypes": halves}
    for name, value in files.items():
        torch.save(value, FOLDER / f"{name}.pth")
        torch.save(value, FOLDER / f"{name}.legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
