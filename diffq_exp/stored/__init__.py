"""The stored form of a tensor and of a network: what quantizers make, and files hold."""
