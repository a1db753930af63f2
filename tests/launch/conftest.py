"""Kernels to launch from, under both start methods."""

import pytest
from kernels import Kernel, is_helper


@pytest.fixture(scope="module", params=["forkserver", "spawn"])
def start_method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def shared_kernel(start_method):
    kernel = Kernel(COURSE_START_METHOD=start_method)
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(shared_kernel):
    """The module's kernel, which must be without ranks before and after every test."""
    yield shared_kernel
    left = [p for p in shared_kernel.children() if not is_helper(p)]
    for process in left:
        process.kill()
    assert not left


@pytest.fixture
def new_kernel():
    """Make kernels of the test's own."""
    kernels = []

    def make(**env: str) -> Kernel:
        kernels.append(Kernel(**env))
        return kernels[-1]

    yield make
    for kernel in kernels:
        kernel.close()
