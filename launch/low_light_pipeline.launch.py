"""Bright images of a dark scene, and objects in them; all else is in config/pipelines/low_light_pipeline.yaml."""

from perception.nodes.launch_support import pipeline_launch


def generate_launch_description():
    return pipeline_launch("low_light_pipeline")
