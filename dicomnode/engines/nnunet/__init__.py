"""nnU-Net v2 model folders, run by nnU-Net's own preprocessing, windows and export (the optional extra `nnunet`).

Enters: a folder as training leaves it (`plans.json`, `dataset.json`, `fold_0/checkpoint_final.pth`) with a `pipeline.toml`, and
volumes. Leaves: label maps on the source grid. Promises: checkpoints are read with `weights_only`; plans name nothing but
networks of dynamic_network_architectures, layers of torch.nn and nnU-Net's own resampling: no other name is ever looked up.
"""

from dicomnode.engines.nnunet.folder import draft_nnunet, is_nnunet, nnunet_findings

__all__ = ["draft_nnunet", "is_nnunet", "nnunet_findings"]
