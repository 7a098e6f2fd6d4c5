"""What runs a bundle on hardware: base.py (the contract and the batch), then eager.py (PyTorch on CPU or CUDA)."""
