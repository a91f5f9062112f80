"""A vision transformer split across devices; nodes and arguments are in config/pipelines/vit_pipeline.yaml."""

from perception.nodes.launch_support import pipeline_launch


def generate_launch_description():
    return pipeline_launch("vit_pipeline")
