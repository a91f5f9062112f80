"""Objects in the images of one camera; nodes and arguments are in config/pipelines/detection_pipeline.yaml."""

from perception.nodes.launch_support import pipeline_launch


def generate_launch_description():
    return pipeline_launch("detection_pipeline")
