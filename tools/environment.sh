# shellcheck shell=sh
# Sourced by make: nodes of the demo and of the tests neither see nor disturb the robots of this network.
export ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-$((100 + $$ % 100))}"
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST  # Jazzy and later
case "${ROS_DISTRO:-}" in humble | iron) export ROS_LOCALHOST_ONLY=1 ;; esac
export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
