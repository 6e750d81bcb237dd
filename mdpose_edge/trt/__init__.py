"""How a bundle becomes a TensorRT engine on the device, and where engines are kept.

The module object of TensorRT is called `trt` everywhere, and its objects by one name each (`builder`, `network`,
`config`, `parser`, `runtime`, `engine`, `context`, `inspector`): a test reads the source and holds every name that is
asked of them against the versions that have it. What not every version has is asked for in capabilities.py alone.
"""
