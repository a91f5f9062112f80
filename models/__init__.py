"""PyTorch definitions of the models, one file a family, and their registry."""

from perception.models.registry import (
    count_macs,
    count_parameters,
    create_model,
    list_models,
    model_config,
    model_options,
)

__all__ = ["count_macs", "count_parameters", "create_model", "list_models", "model_config", "model_options"]
