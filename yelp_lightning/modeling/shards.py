"""Shards: each layer's weights shared out over the devices, by torch's `fully_shard`."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


def share_out(model: nn.Module, mesh: DeviceMesh) -> None:
    """Share out a model's weights over devices, layer by layer.

    Args:
        model: The model, with its weights loaded; changed in place.
        mesh: The devices, in one dimension.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList):  # the encoder's layers
            for layer in module:
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)  # what stands outside of layers
