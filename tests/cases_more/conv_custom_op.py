# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_custom_op', verdict='FAIL', culprit_op='twice',
 source_url='https://github.com/apple/coremltools/issues/1135',
 expect='an op of the team itself: register it, or write it out')
@torch.library.custom_op("gate_cases::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2
@twice.register_fake
def _(x): return torch.empty_like(x)
class M(nn.Module):
    def forward(self, x): return twice(x) + 1
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4),)
