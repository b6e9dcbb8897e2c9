"""An augmentation as a user writes one, for ``--import``: it changes nothing."""

from detectron2.data import transforms as T

from retina_plugin.data.augmentations import AUGMENTATIONS


@AUGMENTATIONS.register()
class Identity(T.Augmentation):
    def get_transform(self, image):
        return T.NoOpTransform()
