"""Class and place of every pixel; nodes and arguments are in config/pipelines/depth_segmentation_pipeline.yaml."""

from perception.nodes.launch_support import pipeline_launch


def generate_launch_description():
    return pipeline_launch("depth_segmentation_pipeline")
