"""Kernels for processors: what a process keeps of them does not grow with the shapes that it has seen."""

import os
import subprocess
import sys

import pytest
import torch

# Bytes in use, by the allocator's own account, after 100 and after 300 shapes of a linear layer.
CHILD = """
import ctypes, sys

from yelp_lightning.__main__ import main

sys.argv[1:] = ["--version"]
main()

import torch


class Account(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


account = ctypes.CDLL(None).mallinfo2
account.restype = Account
weight = torch.ones(64, 64, dtype=torch.bfloat16)
for rows in range(1, 301):
    torch.nn.functional.linear(torch.ones(rows, 64, dtype=torch.bfloat16), weight)
    if rows in (100, 300):
        print(account().uordblks)
"""


def growth(**variables: str) -> int:
    env = {name: value for name, value in os.environ.items() if "CACHE_CAPACITY" not in name} | variables
    command = [sys.executable, "-c", CHILD]
    said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True).stdout
    first, last = map(int, said.splitlines()[1:])
    return last - first


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc's allocator")
@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no kernels for bf16 on this processor")
def test_kernels_of_past_shapes_are_not_kept() -> None:
    assert growth() < 5e6
    # Who wants them kept says so, by the libraries' own variables.
    assert growth(LRU_CACHE_CAPACITY="1024", ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024") > 50e6
