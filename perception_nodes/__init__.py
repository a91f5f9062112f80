"""ROS 2 nodes, message conversion, composition and replay."""
