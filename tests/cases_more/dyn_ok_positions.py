# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_ok_positions', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='a slice of a table by a flexible size', dynamic={0: {1: (4, 32)}})
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.p = nn.Parameter(torch.randn(1, 32, 3))
    def forward(self, x): return x + self.p[:, : x.shape[1]]
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 3),)
