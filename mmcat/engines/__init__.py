"""What runs a bundle on hardware.

base.py       the contract, and the batch that goes in
eager.py      PyTorch as it is, on CPU or CUDA: the reference
compiled.py   eager's computation compiled for CUDA, in a few shapes
graphs.py     parts of a model as ONNX graphs, run by OpenVINO in fp32 or bf16
int8.py       a bundle's encoders in int8, and the real listings that judge them, as a file
quantize.py   makes them
cpu.py        the whole model on such graphs: faster on a CPU
agreement.py  how many of eager's answers an engine keeps, and how much faster
choice.py     which of them runs a bundle, and why
"""
