# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_view_fixed', verdict='FAIL', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='a literal size under a flexible one', dynamic={0: {1: (4, 32)}})
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.f = nn.Linear(24, 4)
    def forward(self, x): return self.f(x.reshape(1, 24))
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 3),)
