"""What a camera would see from elsewhere; all else is in config/pipelines/view_synthesis_pipeline.yaml."""

from perception.nodes.launch_support import pipeline_launch


def generate_launch_description():
    return pipeline_launch("view_synthesis_pipeline")
