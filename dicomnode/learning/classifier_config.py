"""The training of a classifier as a MONAI bundle configuration, of which `configs/train.json` may override any key."""

from typing import Any


def configuration(dims: int, *, multilabel: bool) -> dict[str, Any]:
    """dims: 2 or 3. The trainer gives it network, items, parameters, still, weights_of_classes and seed.

    No flips by default: left and right are a finding in some images. `augmentation` of train.json may add them.
    """
    loss = {"_target_": "torch.nn.CrossEntropyLoss", "weight": "$@weights_of_classes.to(@device)"}
    if multilabel:
        loss = {"_target_": "torch.nn.BCEWithLogitsLoss", "pos_weight": "$@weights_of_classes.to(@device)"}
    return {
        "imports": ["$import torch", "$import monai"],
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "epochs": 30,
        "batch_size": 8,
        "learning_rate": 0.002,
        "steps": "$@epochs * len(@train#dataloader) + 2",
        "augmentation": {"_target_": "Compose", "transforms": _augmentation(dims)},
        "initialize": ["$monai.utils.set_determinism(seed=@seed)"],
        "train": _training(loss),
        "run": ["$@train#trainer.run()"],
    }


def _training(loss: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": {"_target_": "Dataset", "data": "@items", "transform": "@augmentation"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_size": "@batch_size",
            "shuffle": True,
            "drop_last": "$len(@items) > @batch_size",  # a batch of one has no statistics
            "num_workers": 0,
        },
        "loss": loss,
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "@parameters",
            "lr": "@learning_rate",
            "weight_decay": 0.01,
        },
        "scheduler": {
            "_target_": "torch.optim.lr_scheduler.OneCycleLR",
            "optimizer": "@train#optimizer",
            "max_lr": "@learning_rate",
            "total_steps": "@steps",
            "pct_start": "$min(0.5, max(0.2, 2 / @steps))",  # the way up takes a step at least
        },
        "handlers": [
            {"_target_": "LrScheduleHandler", "lr_scheduler": "@train#scheduler", "epoch_level": False, "print_lr": False}
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "device": "@device",
            "max_epochs": "@epochs",
            "train_data_loader": "@train#dataloader",
            "network": "$@network.to(@device)",
            "optimizer": "@train#optimizer",
            "loss_function": "@train#loss",
            "inferer": {"_target_": "dicomnode.learning.classifier.HeldInferer", "still": "@still"},
            "train_handlers": "@train#handlers",
        },
    }


def _augmentation(dims: int) -> list[dict[str, Any]]:
    affine = {
        "_target_": "RandAffined",
        "keys": "image",
        "prob": 0.8,
        "rotate_range": [0.15] * (1 if dims == 2 else 3),
        "translate_range": [4] * dims,
        "scale_range": [0.1] * dims,
        "mode": "bilinear",
        "padding_mode": "border",
    }
    return [
        affine,
        {"_target_": "RandScaleIntensityd", "keys": "image", "factors": 0.1, "prob": 0.5},
        {"_target_": "RandShiftIntensityd", "keys": "image", "offsets": 0.05, "prob": 0.5},
        {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.3, "std": 0.02},
    ]
