"""NVIDIA's TensorRT for RTX as a check of what TensorRT makes of the graphs: it compiles ahead of time, without a GPU."""
