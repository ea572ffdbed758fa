"""Options of loading a data set: the arguments of :func:`at_jax.data.load`."""

from typing import NamedTuple

__all__ = ["LoadOptions"]


class LoadOptions(NamedTuple):
    """Arguments of :func:`at_jax.data.load`, which describes them."""

    name: str = ""
    data_dir: str = ""
    image_size: int = 0
    memory_limit_mb: int = 4096
    skip_corrupt: bool = False
    resize: int = 0
    random_crop: bool = False
    test_fraction: float = 0.2
    split_seed: int = 0
    crop: str = ""

    @property
    def streams_train(self) -> bool:
        """Whether each training image is decoded again whenever it is taken, in another crop."""
        return self.random_crop and self.image_size > 0

    @property
    def scaled(self) -> bool:
        """Whether a JPEG is decoded at the scale that its crop needs."""
        # A box is a part of the whole image.
        return not self.crop and (self.streams_train or self.resize > 0)

    @property
    def decodes_bytes(self) -> bool:
        """Whether images of TFDS are decoded here: TFDS decodes gray images of a color set as gray."""
        return bool(self.crop) or self.scaled
