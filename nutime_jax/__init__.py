"""NuTime in JAX: numerically multi-scaled embedding for large-scale time-series pretraining (arXiv 2310.07402)."""

import importlib
import importlib.metadata

_PUBLIC = {
    "Encoder": "nutime_jax.encoder",
    "load_encoder": "nutime_jax.loading",
    "untrained_encoder": "nutime_jax.loading",
    "read_series": "nutime_jax.data.inputs",
    "Columns": "nutime_jax.data.columns",
    "load_config": "nutime_jax.config",
    "NuTimeEncoder": "nutime_jax.models.network",
    "from_torch_state": "nutime_jax.convert.arrays",
    "to_torch_state": "nutime_jax.convert.arrays",
    "export_encoder": "nutime_jax.export",
    "load_exported": "nutime_jax.export",
    "distributed_embed": "nutime_jax.cluster",
    "embed_frame": "nutime_jax.cluster",
    "embed_frames": "nutime_jax.cluster",
    "pretrain": "nutime_jax.training.loop",
    "fine_tune": "nutime_jax.finetuning.loop",
    "TuningSettings": "nutime_jax.config",
    "SeriesClassifier": "nutime_jax.finetuning.base",
    "FineTunedClassifier": "nutime_jax.finetuning.classifier",
    "fit_probe": "nutime_jax.evaluation.protocols.probes",
    "fit_average": "nutime_jax.evaluation.protocols.finetune",
    "AveragedClassifier": "nutime_jax.finetuning.averaged",
    "occlude": "nutime_jax.evaluation.explanations",
    "attention_maps": "nutime_jax.evaluation.explanations",
    "load_classifier": "nutime_jax.finetuning.saved",
    "NuTimeTransformer": "nutime_jax.estimators",
    "NuTimeClassifier": "nutime_jax.estimators",
    "NuTimeClusterer": "nutime_jax.estimators",
    "NuTimeAnomalyDetector": "nutime_jax.estimators",
    "InputError": "nutime_jax.errors",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    """Public names are imported when they are first used: importing the package costs nothing and starts no backend."""
    if name == "__version__":
        try:
            return importlib.metadata.version("nutime_jax")
        except importlib.metadata.PackageNotFoundError:
            return "unknown (not installed)"
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
