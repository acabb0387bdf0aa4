"""What mmcv reports about its build in environment listings."""


def get_compiler_version() -> str:
    """Stands where the name of the compiler does."""
    return "none (operators of swin_mm)"


def get_compiling_cuda_version() -> str:
    """Stands where the CUDA version of the build does; the compiled CPU build says this too."""
    return "not available"
